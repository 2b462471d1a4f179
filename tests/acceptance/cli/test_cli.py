"""The operator's program with a real master: start, status, stop and what is between them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from switchboard import Spool
from switchboard.status.alive import master_alive
from switchboard.status.scoreboard import ProcessState
from tests.acceptance.cli.terminal import PROGRAM, environment, program
from tests.acceptance.installation import Installation, ends, kill
from tests.helpers.commands import switchboard
from tests.helpers.waiting import PATIENCE_S

# They are, or leave behind, a process that lives on.  All others ask it something and end, which they can do in this process as well.
STAYS = {'run', 'start', '--master'}


def cli(site: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    if STAYS.intersection(words):
        return program('-C', site.config, *words)
    ran = switchboard('-C', site.config, *words)
    return subprocess.CompletedProcess(words, ran.status, ran.out, ran.err)


def status(site: Installation) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """:return: the exit status, the master, and the runners."""
    ran = cli(site, 'status', '--json')
    master, *others = map(json.loads, ran.stdout.splitlines())
    return ran.returncode, master, [each for each in others if each['type'] == 'runner']


def test_start_returns_when_the_runners_are_ready_and_stop_when_they_are_gone(site: Installation) -> None:
    site.configure({'in': {'instances': 2}, 'out': {}})
    started = cli(site, 'start')
    assert started.returncode == 0, started.stderr
    code, master, runners = status(site)
    assert (code, master['state']) == (0, 'RUNNING')
    assert f'master {master["pid"]}, 3 runners ready' in started.stdout
    assert [(each['runner'], each['slice'], each['state']) for each in runners] == [
        *(('in', 1, 'RUNNING'), ('in', 2, 'RUNNING')),
        ('out', 1, 'RUNNING'),
    ]
    assert cli(site, 'stop').stdout.startswith('stopped in ')
    assert not master_alive(site.spool_directory)
    assert all(ends(each['pid']) for each in runners)
    assert status(site)[0] == 69


def test_a_second_start_says_that_one_runs_already_and_which(site: Installation) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    again = cli(site, 'start')
    assert again.returncode == 75
    assert f'already running (pid {status(site)[1]["pid"]})' in again.stderr
    assert len(again.stderr.splitlines()) == 1


def test_a_runner_that_cannot_start_is_named_with_the_reason_and_the_others_run(site: Installation) -> None:
    site.configure({'in': {}, 'broken': {'class': 'jobs:Nowhere'}})
    started = cli(site, 'start')
    assert started.returncode == 1
    assert '1 runner ready' in started.stdout
    assert 'broken 1/1 is FATAL: ' in started.stderr
    assert "has no attribute 'Nowhere'" in started.stderr
    assert started.stderr.splitlines()[-1].endswith(f'mend that, then `switchboard -C {site.config} reload`')
    ran = cli(site, 'status')
    assert ran.returncode == 1
    assert 'broken 1/1: FATAL: [runner.broken] class: cannot import jobs:Nowhere' in ran.stdout
    assert ran.stdout.splitlines()[-1] == f'mend that, then `switchboard -C {site.config} reload`'


def test_a_start_that_takes_long_says_so_and_goes_on(site: Installation) -> None:
    site.configure({'slow': {'class': 'jobs:SlowStart'}}, ready_timeout='200ms')
    started = cli(site, 'start')
    assert started.returncode == 75
    assert 'not all runners are ready' in started.stderr
    site.told.wait_for('starting')
    assert status(site)[2][0]['state'] == 'STARTING'
    site.open_gate()
    assert cli(site, 'stop').returncode == 0


def test_stop_waits_for_the_message_at_work_and_says_which_it_is(site: Installation) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    site.put('in', 'wait')
    site.told.wait_for('begin')
    code, _, (runner,) = status(site)
    assert code == 0
    assert runner['current_s'] >= 0
    beginning = runner['current'].partition('+')[0]
    stopped = cli(site, 'stop', '--timeout', '300ms')
    assert stopped.returncode == 75
    assert f'1 runner left: in 1/1 at {beginning} for ' in stopped.stderr
    site.open_gate()
    assert cli(site, 'stop').returncode == 0
    assert site.count('in') == 0


def test_a_stop_waits_for_the_end_of_the_process_and_not_only_of_its_work(site: Installation) -> None:
    (site.home / 'lingers.py').write_text('import atexit, time\natexit.register(time.sleep, 0.5)\n')
    site.configure({'in': {}}, preload='lingers')
    master = site.start()
    assert cli(site, 'stop').returncode == 0
    assert master.poll() == 0


def test_a_stop_where_nothing_runs_is_no_failure(site: Installation) -> None:
    site.configure({'in': {}})
    assert cli(site, 'init').returncode == 0
    ran = cli(site, 'stop')
    assert (ran.returncode, ran.stderr) == (0, 'switchboard: no master is running: nothing to stop\n')


@pytest.mark.slow
def test_status_of_a_killed_master_tells_what_it_left_and_a_new_start_needs_no_force(
    site: Installation,
) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    _, master, (runner,) = status(site)
    kill(master['pid'])
    assert ends(master['pid'])
    assert ends(runner['pid'])
    ran = cli(site, 'status')
    assert ran.returncode == 69
    assert f'master: NOT RUNNING; it died (pid {master["pid"]})' in ran.stdout
    assert 'in 1/1' in ran.stdout
    assert cli(site, 'start').returncode == 0
    assert status(site)[1]['pid'] != master['pid']


def test_status_says_when_there_never_was_a_master(site: Installation) -> None:
    site.configure({'in': {}})
    cli(site, 'init')
    ran = cli(site, 'status')
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (
        69,
        'master: not running; none was ever started here',
    )
    site.configure({})
    assert cli(site, 'status').returncode == 0, 'nobody needs a master where no runner is'


def test_status_keeps_the_last_error_safe_to_read(site: Installation) -> None:
    (site.home / 'nasty.py').write_text(
        'from switchboard import Runner\n'
        'class Nasty(Runner):\n'
        '    def dispose(self, msg, msgdata):\n'
        "        raise ValueError('\\x1b[31m oh\\nno')\n"
    )
    site.configure({'in': {'class': 'nasty:Nasty'}})
    site.put('in', 'x')
    assert cli(site, 'run', 'in', '--until-empty').returncode == 0
    ran = cli(site, 'ls')
    assert ran.stdout.splitlines()[1].endswith('ValueError: \\x1b[31m oh no')


def test_reload_tells_what_changed(site: Installation) -> None:
    site.configure({'in': {}, 'old': {}})
    cli(site, 'start')
    site.configure({'in': {'instances': 2}, 'new': {}})
    ran = cli(site, 'reload')
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[:6] == [
        *(
            'will end old: its section is gone',
            'will start new: its section is new',
            'will scale in: instances = 2',
        ),
        *('added runners new', 'removed runners old', 'scaled runners in'),
    ]
    assert [each['runner'] for each in status(site)[2]] == ['in', 'in', 'new']
    assert cli(site, 'reload').stdout.splitlines()[0] == 'nothing changed'


def test_a_reload_with_mistakes_shows_all_of_them_and_changes_nothing(site: Installation) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    pids = site.pids()
    site.config.write_text(site.config.read_text() + 'poll_interval = 5\n[queue.in]\ncolor = red\n')
    lines = len(site.config.read_text().splitlines())
    ran = cli(site, 'reload')
    assert ran.returncode == 78
    assert [line.split()[1] for line in ran.stderr.splitlines()] == [
        *(f'{site.config}:{lines - 2}', f'{site.config}:{lines}')
    ]
    assert site.pids() == pids
    assert re.search('reload: failed .* ago, the old configuration is in force: ', cli(site, 'status').stdout)
    assert cli(site, 'stop').returncode == 0, (
        'a broken configuration must not keep the master from being stopped'
    )


def test_a_reload_that_comes_while_the_master_stops_is_no_mistake_of_the_configuration(
    site: Installation,
) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    site.put('in', 'wait')
    site.told.wait_for('begin in .* wait')
    assert cli(site, 'stop', '--no-wait').returncode == 0
    ran = cli(site, 'reload')
    assert (ran.returncode, ran.stderr) == (69, 'switchboard: the master is stopping\n')
    site.open_gate()
    site.told.wait_for('end in .* wait')
    assert cli(site, 'stop').returncode == 0


@pytest.mark.slow
def test_restart_replaces_runners_and_not_the_master(site: Installation) -> None:
    site.configure({'in': {'instances': 2}, 'out': {}})
    cli(site, 'start')
    before, master = site.pids(), status(site)[1]['pid']
    assert cli(site, 'restart', 'in').stdout.startswith('restarted in in ')
    after = site.pids()
    assert [title for title in before if before[title] != after[title]] == ['in 1/2', 'in 2/2']
    assert cli(site, 'restart').returncode == 0
    assert not set(before.values()) & set(site.pids().values())
    assert status(site)[1]['pid'] == master
    unknown = cli(site, 'restart', 'inn')
    assert (unknown.returncode, 'did you mean in?' in unknown.stderr) == (66, True)
    assert 'there is no such runner; there are in' in cli(site, 'restart', 'zzz').stderr


@pytest.mark.slow
def test_one_slice_is_restarted_by_the_name_that_status_shows(site: Installation) -> None:
    site.configure({'in': {'instances': 2}})
    cli(site, 'start')
    before = site.pids()
    assert cli(site, 'restart', 'in 2/2').stdout.startswith('restarted in 2/2 in ')
    after = site.pids()
    assert [title for title in before if before[title] != after[title]] == ['in 2/2']
    beyond = cli(site, 'restart', 'in 3/3')
    assert (beyond.returncode, 'there is no slice 3' in beyond.stderr) == (69, True)


@pytest.mark.slow
def test_a_runner_without_a_process_is_still_told_of(site: Installation) -> None:
    site.configure({'in': {}, 'out': {}})
    cli(site, 'start')
    assert cli(site, 'scale', 'out=0').returncode == 0
    told = f'out: has no process; `switchboard -C {site.config} scale out=1`'
    assert told in cli(site, 'status').stdout
    assert told in cli(site, 'top').stdout
    for verb in ('status', 'top'):
        objects = map(json.loads, cli(site, verb, '--json').stdout.splitlines())
        (of_out,) = [each for each in objects if each.get('runner') == 'out']
        assert (of_out['state'], of_out['slices'], of_out['slice']) == ('NONE', 0, None)


@pytest.mark.slow
def test_a_runner_that_the_master_has_not_read_of_is_told_of_with_what_starts_it(site: Installation) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    site.configure({'in': {}, 'out': {}})
    told = f'out: has no process; `switchboard -C {site.config} reload` starts it'
    assert told in cli(site, 'status').stdout
    assert cli(site, 'reload').returncode == 0
    assert 'out: has no process' not in cli(site, 'status').stdout


@pytest.mark.slow
def test_a_master_whose_spool_is_no_longer_the_one_of_the_configuration_is_told_of(
    site: Installation,
) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    pid = status(site)[1]['pid']
    site.config.write_text(site.config.read_text().replace('/spool\n', '/other\n'))
    told = f'master {pid} of this configuration is at work on {site.spool_directory}'
    for verb in ('reload', 'status', 'ls', 'stop'):
        ran = cli(site, verb)
        assert (ran.returncode, told in ran.stderr) == (66, True), verb
    cli(site, 'init')
    for verb, wanted in (('reload', 69), ('status', 69), ('stop', 0), ('start', 0)):
        ran = cli(site, verb)
        assert (ran.returncode, told in ran.stderr) == (wanted, True), verb
    assert cli(site, 'stop').returncode == 0
    assert program('-s', site.spool_directory, 'stop').returncode == 0
    assert told not in cli(site, 'status').stderr


@pytest.mark.slow
def test_what_takes_a_while_need_not_be_waited_for(site: Installation) -> None:
    site.configure({'in': {}})
    started = json.loads(cli(site, 'start', '--no-wait', '--json').stdout)
    assert started['act'] == 'start'
    assert cli(site, 'restart', '--timeout', '60s').returncode == 0
    for verb in ('restart', 'reload', 'stop'):
        ran = cli(site, verb, '--no-wait', '--json')
        assert (ran.returncode, json.loads(ran.stdout)['act']) == (0, verb)
    assert cli(site, 'stop').returncode == 0


@pytest.mark.slow
def test_the_master_can_be_restarted_too(site: Installation) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    before = status(site)[1]['pid']
    site.config.write_text(site.config.read_text() + 'nonsense\n')
    assert cli(site, 'restart', '--master').returncode == 78
    assert status(site)[1]['pid'] == before, 'nothing is stopped for a configuration that cannot be started'
    site.configure({'in': {}})
    assert cli(site, 'restart', '--master').returncode == 0
    assert status(site)[1]['pid'] != before


def test_a_master_in_the_foreground_is_not_replaced_by_one_in_the_background(site: Installation) -> None:
    site.configure({'in': {}})
    master = site.start()
    ran = cli(site, 'restart', '--master')
    assert (ran.returncode, master.poll()) == (69, None)
    assert f'the master (pid {master.pid}) runs in the foreground' in ran.stderr
    assert 'systemctl restart' in ran.stderr
    master.send_signal(signal.SIGSTOP)
    try:
        ran = cli(site, 'restart', '--master')
    finally:
        master.send_signal(signal.SIGCONT)
    assert (ran.returncode, master.poll()) == (75, None)
    assert 'does not answer' in ran.stderr
    assert site.ask('status')['ok']


def test_what_needs_a_master_says_how_to_get_one(site: Installation) -> None:
    site.configure({'in': {}})
    cli(site, 'init')
    for verb in ('reload', 'restart', 'reopen'):
        ran = cli(site, verb)
        assert (
            ran.returncode,
            f'`switchboard -C {site.config} start`' in ran.stderr,
            len(ran.stderr.splitlines()),
        ) == (
            69,
            True,
            1,
        )


def test_reopen_starts_a_new_log(site: Installation) -> None:
    site.configure({'in': {}})
    cli(site, 'start')
    log = site.run / 'master.log'
    log.rename(site.run / 'master.log.1')
    assert cli(site, 'reopen').returncode == 0
    assert log.exists()


def test_one_runner_runs_without_a_master(site: Installation) -> None:
    site.configure({'in': {}})
    site.put('in', 'one', 'two')
    ran = cli(site, 'run', 'in', '--until-empty')
    assert ran.returncode == 0, ran.stderr
    assert site.count('in') == 0
    assert cli(site, 'run', 'nowhere', '--once').returncode == 66


def test_a_start_in_the_foreground_ends_with_the_master(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    assert {each.state for each in site.records()} == {ProcessState.RUNNING}
    assert cli(site, 'stop').returncode == 0
    assert site.masters[-1].wait(PATIENCE_S) == 0


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize('has_written', [True, False])
def test_an_editor_that_loses_its_terminal_keeps_what_was_written_and_nothing_else(
    site: Installation, number: signal.Signals, *, has_written: bool
) -> None:
    site.configure({'in': {}})
    cli(site, 'init')
    site.put('in', 'as it was')
    editor, places = site.home / 'editor', site.home / 'places'
    places.mkdir()
    writes = 'echo more >> "$1"' if has_written else ':'
    editor.write_text(f'#!/bin/sh\n{writes}\necho begun > {site.home}/told\nexec sleep 600\n')
    editor.chmod(0o755)
    entry = Spool.from_config(site.config)['in'].files[0]
    program = subprocess.Popen(
        [*PROGRAM, '-C', str(site.config), 'edit', entry],
        env=environment(VISUAL=str(editor), TMPDIR=str(places)),
        stderr=subprocess.PIPE,
        text=True,
    )
    site.told.wait_for('begun')
    program.send_signal(number)
    said = program.communicate(timeout=PATIENCE_S)[1]
    assert program.returncode == 128 + number
    if has_written:
        [kept] = places.iterdir()
        assert f'ended by {number.name}; the text that you wrote is kept in {kept}' in said
        assert (kept / 'message.txt').read_text().endswith('more\n')
    else:
        assert (list(places.iterdir()), said) == ([], '')
    # Nobody holds it any more.
    assert Spool.from_config(site.config)['in'].take() is not None
