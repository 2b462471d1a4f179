from __future__ import annotations

from pathlib import Path

from switchboard.config.config import Changes, Config
from switchboard.config.keys import SWITCHBOARD_KEYS

BASE = """\
[switchboard]
spool = s
[runner.a]
class = m:A
queue = one
[runner.b]
class = m:B
queue = two
instances = 2
[queue.three]
consumed_externally = yes
"""
EXCHANGES = (
    '[exchange.x]\ntype = direct\nbindings =\n  k -> one\n[exchange.y]\ntype = fanout\nbindings = two\n'
)


def compared(directory: Path, text: str, exchanges: str = EXCHANGES) -> Changes:
    """What changes when `BASE` becomes `text`."""
    path = directory / 'switchboard.cfg'
    loaded = []
    for switchboard_cfg, exchange_cfg in ((BASE, EXCHANGES), (text, exchanges)):
        path.write_text(switchboard_cfg)
        (directory / 'exchange.cfg').write_text(exchange_cfg)
        loaded.append(Config.load(path))
    old, new = loaded
    return old.changes(new)


def test_comments_and_lines_that_moved_are_no_change(tmp_path: Path) -> None:
    found = compared(
        tmp_path, '; moved\n\n' + BASE.replace('= 2', '=  2 ; as before'), '\n; moved\n' + EXCHANGES
    )
    assert not found
    assert found == Changes()
    assert str(found) == 'nothing changed'


def test_runners_that_come_and_go_are_named_with_their_queues(tmp_path: Path) -> None:
    text = BASE.replace('[runner.a]', '[runner.c]').replace('queue = one', 'queue = uno')
    found = compared(tmp_path, text, EXCHANGES.replace('one', 'uno'))
    assert found == Changes(added=('c',), removed=('a',), queues=('uno', 'one'), exchanges=('x',))


def test_a_runner_with_other_options_or_settings_has_changed(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE.replace('m:A', 'm:A\nrescan = 1s')) == Changes(changed=('a',))
    assert compared(tmp_path, BASE.replace('m:A', 'm:A\nown = 1')) == Changes(changed=('a',))
    assert compared(tmp_path, BASE.replace('m:B\n', 'm:C\n').replace('= 2', '= 3')) == Changes(changed=('b',))


def test_a_runner_whose_queue_has_other_options_has_changed(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE + '[queue.two]\nttl = 1m\n') == Changes(changed=('b',), queues=('two',))
    assert compared(tmp_path, BASE + '[queue.t*]\nttl = 1m\n') == Changes(
        changed=('b',), queues=('two', 'three')
    )


def test_a_runner_with_more_or_less_instances_is_scaled(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE.replace('= 2', '= 3')) == Changes(scaled=('b',))


def test_a_restart_policy_of_the_master_is_a_change_of_its_runners(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE + '[master]\nmax_restarts = 3\n') == Changes(changed=('a', 'b'))


def test_what_holds_from_the_next_start_only_is_told_apart(tmp_path: Path) -> None:
    found = compared(tmp_path, BASE.replace('= s', '= t') + '[master]\numask = 027\nready_timeout = 1s\n')
    assert found == Changes(master=('spool', 'umask', 'ready_timeout'))
    assert str(found) == 'for the next start: spool, umask, ready_timeout'


def test_each_key_of_the_installation_that_changes_is_told(tmp_path: Path) -> None:
    values = {
        'durability': 'lazy',
        'directory_sync': 'always',
        'message_class': 'email.message:Message',
        'alert_command': '/bin/true',
    }
    assert values.keys() == {key for key in SWITCHBOARD_KEYS if key not in ('spool', 'exchange_file')}
    for key, value in values.items():
        assert compared(tmp_path, BASE.replace('= s', f'= s\n{key} = {value}')), key
    assert (
        str(compared(tmp_path, BASE.replace('= s', '= s\non_event = /bin/true'))) == 'changed alert_command'
    )


def test_exchanges_that_route_otherwise_have_changed(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE, EXCHANGES.replace('k ->', 'l ->')) == Changes(exchanges=('x',))
    assert compared(tmp_path, BASE, '') == Changes(exchanges=('x', 'y'))
