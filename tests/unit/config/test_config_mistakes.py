from __future__ import annotations

from pathlib import Path

import pytest

from switchboard.config.config import Config
from switchboard.errors import ConfigErrors
from tests.helpers.configurations import errors, load, warnings


@pytest.mark.parametrize(
    ('text', 'error'),
    [
        ('[queues.x]\n', '3 [queues.x]: is no section of this file; did you mean [queue.x]?'),
        ('[runer.callapi]\n', '3 [runer.callapi]: is no section of this file; did you mean [runner.callapi]?'),
        ('[Runner.callapi]\n', '3 [Runner.callapi]: is no section of this file; did you mean [runner.callapi]?'),
        ('[runner callapi]\n', '3 [runner callapi]: is no section of this file; did you mean [runner.callapi]?'),
        ('[RUNNERS:callapi]\n', '3 [RUNNERS:callapi]: is no section of this file; did you mean [runner.callapi]?'),
        ('[log]\n', '3 [log]: is no section of this file; there are [switchboard], [master], [runner.NAME] and [queue.NAME]'),
        ('[exchange.x]\n', '3 [exchange.x]: is no section of this file; exchanges are declared in the exchange file'),
        ('[runner]\n', '3 [runner]: is no section of this file; did you mean [runner.NAME]?'),
        ('[master.x]\n', '3 [master.x]: is no section of this file; did you mean [master]?'),
        ('[master]\nlog_levl = info\n', '4 [master] log_levl: is not known in this section; did you mean log_level?'),
        ('[master]\nSpool = x\n', '4 [master] Spool: is not known in this section'),
        ('[master]\nLOG_LEVEL = info\n', '4 [master] LOG_LEVEL: is not known in this section; did you mean log_level?'),
        ('[master]\nscale_runner = b\n[runner.a]\nclass = m:C\n', "4 [master] scale_runner: there is no runner 'b'"),
        ('[master]\npreload = a-b\n', "4 [master] preload: 'a-b' names no module"),
        ('[queue.a]\nttl = 15\n', "4 [queue.a] ttl: '15' is not a duration; write it like 250ms, 5s, 15m, 1h30m or 2d; did you mean 15s?"),
        ('[queue.a]\nttl = 0\n', '4 [queue.a] ttl: must be longer than nothing'),
        ('[queue.a]\nttl = 5m\n  max_bytes = 1M\n', "4 [queue.a] ttl: goes on in line 5 with 'max_bytes = 1M'; is that line indented by mistake?"),
        ('[queue.a]\npriority = 10\n', '4 [queue.a] priority: 10 is out of range: it must be from 0 to 9'),
        ('[queue.a]\norder_key =\n', '4 [queue.a] order_key: has no value'),
        ('[queue.a]\ndead_letter = bda\n', "4 [queue.a] dead_letter: there is no queue 'bda'; did you mean bad?"),
        ('[queue.a]\ndead_letter = exchange:x\n', "4 [queue.a] dead_letter: there is no exchange 'x'"),
        ('[queue.a]\ndead_letter = a\n', '4 [queue.a] dead_letter: queue a would be its own dead letter queue; give it another, e.g. in [queue.a]'),
        ('[queue.*]\ndead_letter = d\n[queue.d]\n[queue.e]\n', '4 [queue.*] dead_letter: queue d would be its own dead letter queue; give it another, e.g. in [queue.d]'),
        ('[queue.*]\ndead_letter = x\n[queue.d]\n[queue.e]\n', "4 [queue.*] dead_letter: there is no queue 'x'"),
        ('[queue.a]\naccept = mail, jason\n', "4 [queue.a] accept: no such kind: 'jason'; there are mail, bytes, text, json, msgpack, yaml, pickle and mailman"),
        ('[queue.a]\npickle_classes = a.b.C\n', "4 [queue.a] pickle_classes: 'a.b.C' names no class; write package.module:Class"),
        ('[queue.a]\nserializer = yaml\n', "4 [queue.a] serializer: values are to be written as 'yaml', which `accept` does not name"),
        ('[runner.a]\n', '3 [runner.a]: has no `class =`: write package.module:Class'),
        ('[runner.a]\nclass = shop.py:Pack\n', "4 [runner.a] class: 'shop.py:Pack' is the name of a file; write shop:Pack"),
        ('[runner.a]\nclass = a.b.C\n', "4 [runner.a] class: 'a.b.C' names no class; write package.module:Class"),
        ('[runner.a]\nclass = m:C\ninstances = 5000\n', '5 [runner.a] instances: 5000 is out of range: it must be from 0 to 256'),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_section_and_key(tmp_path: Path, text: str, error: str) -> None:
    assert errors(tmp_path, text) == [error]


@pytest.mark.parametrize(
    'section', ['queue.', 'queue.a/b', 'queue..a', 'queue.[ab]', 'runner.', 'runner.a b', 'runner.*']
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, section: str) -> None:
    (error,) = errors(tmp_path, f'[{section}]\nclass = m:C\n')
    assert error.startswith(f'3 [{section}]: ')
    assert f'cannot be a {section.partition(".")[0]} name' in error


def test_a_runner_cannot_work_on_a_queue_that_cannot_be(tmp_path: Path) -> None:
    (error,) = errors(tmp_path, '[runner.a]\nclass = m:C\nqueue = a/b\n')
    assert error.startswith("5 [runner.a] queue: 'a/b' cannot be a queue name")


def test_the_spool_must_be_named(tmp_path: Path) -> None:
    assert errors(tmp_path, '', head='[switchboard]\n') == [
        '1 [switchboard]: has no `spool =`: the directory that holds the queues'
    ]
    assert errors(tmp_path, '', head='') == [' has no [switchboard] section']


def test_a_misspelled_name_is_one_mistake_and_not_a_missing_one_too(tmp_path: Path) -> None:
    for head, error in (
        (
            '[swichboard]\nspool = s\n',
            '1 [swichboard]: is no section of this file; did you mean [switchboard]?',
        ),
        (
            '[switchboard]\nspol = s\n',
            '2 [switchboard] spol: is not known in this section; did you mean spool?',
        ),
    ):
        assert errors(tmp_path, '', head=head) == [error]


def test_an_exchange_is_not_declared_here_however_it_is_spelled(tmp_path: Path) -> None:
    for kind in ('exchange', 'exchnage'):
        (error,) = errors(tmp_path, f'[{kind}.y]\ntype = topic\n')
        assert error.endswith('exchanges are declared in the exchange file')


def test_all_mistakes_of_both_files_are_told_at_once(tmp_path: Path) -> None:
    found = errors(
        tmp_path,
        '[queue.a]\nttl = x\npriority = x\n[nonsense]\n[runner.r]\nclass = m:C\nqueue = b\ninstances = x\n',
        '[exchange.e]\ntype = topic\nbindings =\n  a -> a\n  b -> bb\n  c* -> b\n',
    )
    places = [error.split(':')[0].split()[0] if error[0].isdigit() else error.split()[0] for error in found]
    assert places == ['4', '5', '6', '10', 'exchange.cfg:5', 'exchange.cfg:6']


def test_a_file_that_is_missing_is_an_error_where_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r'none\.cfg: cannot be read: No such file'):
        Config.load(tmp_path / 'none.cfg')
    with pytest.raises(ConfigErrors, match=r'x\.cfg: cannot be read: No such file'):
        load(tmp_path, '', head='[switchboard]\nspool = s\nexchange_file = x.cfg\n')


def test_queues_that_nobody_consumes_are_told(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[queue.a]\n[queue.b]\nexternal = yes\n[queue.c]\n[queue.bad]\n[runner.r]\nclass = m:C\nqueue = c\n[queue.d]\n[queue.d*]\nexternal = yes\n',
    )
    assert warnings(config) == [
        '3 [queue.a]: nobody consumes this queue; if a program or a person does, say `consumed_externally = yes`'
    ]


def test_a_mistake_elsewhere_makes_no_exchange_unknown(tmp_path: Path) -> None:
    text = '[runner.r]\nclass = m:C\nqueue = a\nexchange = x\n'
    exchanges = '[exchange.x]\ntype = fanout\nbindings =\n    -> a\n'
    (tmp_path / 'exchange.cfg').write_text(exchanges)
    assert warnings(load(tmp_path, text)) == []
    with pytest.raises(ConfigErrors) as raised:
        load(tmp_path, text + '[queue.a]\n[queue.a]\n')
    assert [str(each) for each in raised.value.warnings] == []


def test_a_queue_whose_only_runner_is_not_started_is_told(tmp_path: Path) -> None:
    config = load(tmp_path, '[queue.a]\n[runner.r]\nclass = m:C\nqueue = a\ninstances = 0\n')
    assert warnings(config) == ['3 [queue.a]: nobody consumes this queue: runner r has instances = 0']
    lone = '[runner.r]\nclass = m:C\nqueue = a\ninstances = 0\n'
    assert warnings(load(tmp_path, lone)) == ['6 [runner.r] instances: nobody consumes the queue a']
    assert warnings(load(tmp_path, f'{lone}[queue.*]\nexternal = yes\n')) == []
    both = warnings(load(tmp_path, f'{lone}[runner.s]\nclass = m:C\nqueue = a\n'))
    assert both == [
        '9 [runner.s] queue: is also the queue of runner r: each message goes to one of them only'
    ]


def test_a_queue_in_which_messages_wait_for_their_time_needs_no_consumer(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[queue.wait]\nttl = 10s\ndead_letter = out\n[queue.out]\nexternal = yes\n[runner.r]\nclass = m:C\n',
    )
    assert warnings(config) == []


def test_what_is_to_happen_at_a_limit_that_is_not_set_is_told(tmp_path: Path) -> None:
    config = load(
        tmp_path, '[queue.*]\nexternal = yes\noverflow = drop-oldest\n[queue.a]\n[queue.b]\nmax_bytes = 1M\n'
    )
    assert warnings(config) == [
        '5 [queue.*] overflow: has no effect: neither max_messages nor max_bytes is set'
    ]


def test_sections_without_effect_are_told(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[queue.a]\npriority = 1\nexternal = yes\n[queue.a*]\npriority = 2\n[queue.x*]\npriority = 3\n[queue.y*]\n',
    )
    assert warnings(config) == [
        '6 [queue.a*]: has no effect: more specific sections say all of it',
        '8 [queue.x*]: has no effect: no declared queue is called so',
    ]


def test_runners_that_look_odd_are_told(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[runner.a]\nclass = m:C\nqueue = q\ninstanzes = 2\nexchange = e\n[runner.b]\nclass = m:C\nqueue = q\nexchange =\n',
    )
    assert warnings(config) == [
        "6 [runner.a] instanzes: goes to the runner's own class; if that does not know it: did you mean instances?",
        "7 [runner.a] exchange: there is no exchange 'e'",
        '10 [runner.b] queue: is also the queue of runner a: each message goes to one of them only',
    ]


def test_a_queues_key_in_a_runners_section_is_told(tmp_path: Path) -> None:
    config = load(tmp_path, '[runner.a]\nclass = m:C\nqueue = q\nmax_attempts = 2\nurl = amqp://b//\n')
    reason = (
        "goes to the runner's own class; if that does not know it: it is a queue's, write it below [queue.q]"
    )
    assert warnings(config) == [f'6 [runner.a] max_attempts: {reason}']


@pytest.mark.parametrize(
    ('value', 'reason'),
    [
        ('~/log', '`~` is no home directory here: write the path out'),
        ('log # here', '`#` is a part of the value here: a comment begins with ` ; `'),
        ('$HOME/log', '`$HOME` is no variable here: write its value out'),
        ('${HOME}/log', '`${HOME}` is no variable here: write its value out'),
        ('$1/log', None),
        ('"log', 'a quotation mark is not closed'),
        ("'log", 'a quotation mark is not closed'),
        ('"log"', 'the quotation marks are a part of the value: write it without'),
        ('logs/a#b', None),
        ("it's", None),
    ],
)
def test_what_means_something_elsewhere_is_told(tmp_path: Path, value: str, reason: str | None) -> None:
    config = load(tmp_path, f'[master]\nlog_file = {value}\n')
    assert warnings(config) == ([f'4 [master] log_file: {reason}'] if reason else [])


def test_what_is_strange_is_told_beside_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / 'switchboard.cfg'
    path.write_text('[switchboard]\nspool = ~/spool\n[nonsense]\n')
    with pytest.raises(ConfigErrors) as caught:
        Config.load(path)
    assert [each.key for each in caught.value.warnings] == ['spool']
    assert len(caught.value.errors) == 1
