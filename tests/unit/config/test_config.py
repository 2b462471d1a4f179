from __future__ import annotations

import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from switchboard.config.config import Config
from switchboard.config.keys import MASTER_KEYS, QUEUE_KEYS, RUNNER_KEYS, SWITCHBOARD_KEYS
from switchboard.options import MasterOptions, QueueOptions, RestartOptions, RetryPolicy, RunnerOptions
from tests.helpers.configurations import load

ETC = Path(__file__).parents[3] / 'etc'
COMMENTED = re.compile(r'^# (?=[a-z_]+ = )', re.MULTILINE)


def test_the_sample_configuration_is_read_without_an_error() -> None:
    config = Config.load(ETC / 'switchboard.cfg')
    assert config.warnings == ()
    assert config.spool == ETC.parent / 'var' / 'spool'
    assert config.sources == (ETC / 'switchboard.cfg', ETC / 'exchange.cfg')
    assert config.runners['route'].settings == {'exchange': 'mail'}
    assert config.queue_names()[0] == 'in'
    assert config.queue_names()[-1] == 'bad'
    assert set(config.exchanges.route('mail', 'lists.a.post')) <= set(config.queue_names())


def test_the_sample_shows_each_key_and_its_true_default(tmp_path: Path) -> None:
    (tmp_path / 'exchange.cfg').write_text((ETC / 'exchange.cfg').read_text())
    text = (ETC / 'switchboard.cfg').read_text()
    (tmp_path / 'plain.cfg').write_text(text)
    (tmp_path / 'shown.cfg').write_text(COMMENTED.sub('', text))
    plain, shown = Config.load(tmp_path / 'plain.cfg'), Config.load(tmp_path / 'shown.cfg')
    assert shown.digest != plain.digest
    assert not plain.changes(shown)
    # Not by inheritance only: each key is really there.
    sections = re.split(r'^\[(.+)\]', COMMENTED.sub('', text), flags=re.MULTILINE)
    keys = {
        name: set(re.findall(r'^([a-z_]+) = ', body, re.MULTILINE))
        for name, body in zip(sections[1::2], sections[2::2], strict=True)
    }
    assert keys['switchboard'] == set(SWITCHBOARD_KEYS)
    assert keys['master'] == set(MASTER_KEYS)
    assert keys['runner.route'] == {*RUNNER_KEYS, 'exchange'}
    assert keys['queue.*'] == set(QUEUE_KEYS)


def test_each_option_has_a_key() -> None:
    def names(options: type[Any]) -> set[str]:
        return set(options._fields)

    restart = {'retry', 'max_restarts', 'window_s', 'stable_s'}
    assert {key.field for key in QUEUE_KEYS.values()} == names(QueueOptions)
    assert {key.field for key in RUNNER_KEYS.values()} == (names(RunnerOptions) | restart) - {
        'name',
        'settings',
        'restart',
    }
    assert {key.field for key in MASTER_KEYS.values()} == (names(MasterOptions) | restart) - {'restart'}


def test_the_smallest_configuration_has_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, '')
    assert config.spool == tmp_path / 's'
    assert config.master == MasterOptions()
    assert config.runners == {}
    assert config.queue_names() == ('bad',)
    assert config.queue_options('bad') == QueueOptions()
    assert config.exchanges.exchanges == {}
    assert (config.sources, config.warnings) == ((config.path,), ())


def test_names_of_files_start_at_the_configuration_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'etc').mkdir()
    (tmp_path / 'etc' / 'x.cfg').write_text('[exchange.e]\ntype = fanout\nalternate = bad\n')
    (tmp_path / 'etc' / 'switchboard.cfg').write_text(
        '[switchboard]\nspool = ../var\nexchange_file = x.cfg\n'
        '[master]\nlog_file = /log\npid_file = p.pid\npython_path = lib, /opt/lib\n'
    )
    monkeypatch.chdir(tmp_path)
    config = Config.load('etc/switchboard.cfg')
    assert config.path == tmp_path / 'etc' / 'switchboard.cfg'
    assert config.spool == tmp_path / 'var'
    assert 'e' in config.exchanges
    assert (config.master.log_file, config.master.pid_file) == (Path('/log'), tmp_path / 'etc' / 'p.pid')
    assert config.master.python_path == (str(tmp_path / 'etc' / 'lib'), '/opt/lib')


def test_the_master_has_its_options(tmp_path: Path) -> None:
    master = load(
        tmp_path,
        '[master]\nlog_level = Debug\nlog_format = json\numask = 027\npreload = email.message, json\nready_timeout = 1m\n'
        'start_timeout = 2m\nscale = a\nrestart = 2s..30s x3 jitter 0%\nmax_restarts = 5\nrestart_window = 5m\nhealthy_after = 10s\n'
        '[runner.a]\nclass = m:C\n',
    ).master
    assert master == MasterOptions(
        log_level='debug',
        log_format='json',
        umask=0o027,
        preload=('email.message', 'json'),
        ready_timeout_s=60,
        start_timeout_s=120,
        scale_runner='a',
        restart=RestartOptions(RetryPolicy(2, 30, 3, 0), 5, 300, 10),
    )


def test_a_runner_has_its_options_and_the_rest_is_for_its_class(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[master]\nrestart = 2s..30s\nmax_restarts = 5\n'
        '[runner.a]\nclass = pkg.mod:Outer.Inner\nqueue = in\ninstances = 3\nbatch_size = 10\npoll_interval = 1s\nrecovery_interval = 2m\n'
        'message_time_limit = 1h\nhang_timeout = 2m\nstop_timeout = 1m\nmax_messages_per_process = 1000\nmax_process_age = 1d\nmax_process_memory = 100M\n'
        'max_restarts = 1\ncommand = sh -c "a \\; b"\nTable =\n  one = 1\n  two = 2\nempty =\n',
    )
    assert config.runners == {
        'a': RunnerOptions(
            name='a',
            class_path='pkg.mod:Outer.Inner',
            queue='in',
            instances=3,
            batch_size=10,
            poll_interval_s=1,
            recovery_interval_s=120,
            message_time_limit_s=3600,
            hang_timeout_s=120,
            stop_timeout_s=60,
            max_messages_per_process=1000,
            max_process_age_s=86400,
            max_process_memory_bytes=100 << 20,
            restart=RestartOptions(RetryPolicy(2, 30), max_restarts=1),
            settings={'command': 'sh -c "a ; b"', 'Table': 'one = 1\ntwo = 2', 'empty': ''},
        )
    }
    assert config.queue_names() == ('in', 'bad')


def test_a_runner_need_not_have_a_queue(tmp_path: Path) -> None:
    config = load(tmp_path, '[runner.a]\nclass = m:C\nqueue =\n')
    assert config.runners['a'].queue == ''
    assert config.queue_names() == ('bad',)


def test_a_queue_has_its_options(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[queue.a]\ndurability = lazy\naccept = mail pickle\npickle_classes = a.b:C, d:E\nserializer = json\nmax_recoveries = 5\n'
        'max_attempts = 7\ngive_up = 1d\nretry = 1s..2s x1 jitter 5%\ndead_letter = b\nmax_messages = 10\nmax_bytes = 1G\n'
        'max_body = 25M\nmin_free = 100M\noverflow = drop-oldest\nrate = 30/m\npriority_step = 2m\nttl = 15m\npriority = 9\norder_key = list\npaused = yes\n'
        'scrub = on\nexternal = true\nmaildir = yes\nplain_files = no\n[queue.b]\nexternal = yes\n',
    )
    assert config.queue_options('a') == QueueOptions(
        durability='lazy',
        accept=('mail', 'pickle'),
        pickle_classes=('a.b:C', 'd:E'),
        max_recoveries=5,
        max_attempts=7,
        max_retry_time_s=86400,
        retry=RetryPolicy(1, 2, 1, 0.05),
        dead_letter='b',
        max_messages=10,
        max_bytes=1 << 30,
        max_body_bytes=25 << 20,
        min_free_space_bytes=100 << 20,
        overflow='drop-oldest',
        ttl_s=900,
        rate=0.5,
        priority_step_s=120,
        priority=9,
        order_key='list',
        paused=True,
        scrub=True,
        consumed_externally=True,
        maildir=True,
        accept_eml_files=False,
    )


def test_the_most_specific_section_wins_key_by_key(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[queue.lists-big]\nttl = 1s\n[queue.*]\nttl = 4s\npriority = 1\nmax_attempts = 4\n'
        '[queue.lists-*]\nttl = 2s\npriority = 2\n[queue.l*]\nttl = 3s\nmax_recoveries = 9\n[runner.r]\nclass = m:C\nqueue = other\n',
    )
    big, small, odd, other = map(config.queue_options, ('lists-big', 'lists-small', 'lot', 'other'))
    assert (big.ttl_s, big.priority, big.max_attempts, big.max_recoveries) == (1, 2, 4, 9)
    assert (small.ttl_s, small.priority) == (2, 2)
    assert (odd.ttl_s, odd.priority, odd.max_recoveries) == (3, 1, 9)
    assert (other.ttl_s, other.max_recoveries) == (4, 3)


def test_among_globs_as_specific_as_each_other_the_last_one_wins(tmp_path: Path) -> None:
    config = load(tmp_path, '[queue.a*]\nttl = 1s\n[queue.*b]\nttl = 2s\n[queue.?b]\npriority = 3\n')
    assert config.queue_options('ab') == QueueOptions(ttl_s=2, priority=3)
    assert config.queue_options('ax').ttl_s == 1


def test_globs_do_not_reach_the_bad_queue(tmp_path: Path) -> None:
    config = load(tmp_path, '[queue.*]\nttl = 1s\n[queue.b?d]\nttl = 2s\n[queue.bad]\nmax_messages = 10\n')
    assert config.queue_options('bad') == QueueOptions(max_messages=10)


def test_the_installation_has_a_durability_for_all_queues_but_bad(tmp_path: Path) -> None:
    config = load(
        tmp_path, '[queue.a]\ndurability = full\n', head='[switchboard]\nspool = s\ndurability = lazy\n'
    )
    assert [config.queue_options(name).durability for name in ('a', 'b', 'bad')] == ['full', 'lazy', 'full']


def test_queues_are_declared_by_their_name_or_by_a_runner(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[queue.b]\nexternal = yes\n[queue.x*]\n[runner.r]\nclass = m:C\nqueue = a\n[runner.s]\nclass = m:C\nqueue = b\n',
    )
    assert config.queue_names() == ('a', 'b', 'bad')


def test_the_digest_is_that_of_the_bytes_of_all_files(tmp_path: Path) -> None:
    exchanges = '[exchange.e]\ntype = fanout\nalternate = bad\n'
    one = load(tmp_path, '', exchanges)
    assert load(tmp_path, '', exchanges).digest == one.digest
    assert load(tmp_path, '; comment\n').digest != one.digest
    assert load(tmp_path, '', exchanges + '\n').digest != one.digest


def test_a_configuration_is_never_changed_and_can_be_pickled(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[queue.a*]\nttl = 1s\n[runner.r]\nclass = m:C\n',
        '[exchange.e]\ntype = fanout\nalternate = bad\n',
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.spool = Path('/')
    copy = pickle.loads(pickle.dumps(config))
    assert not copy.changes(config)
    assert copy.queue_options('abc').ttl_s == 1


def test_the_whole_installation_can_be_drawn(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[runner.r]\nclass = m:C\nqueue = in\nexchange = e\n[queue.dead]\nexternal = yes\n[queue.in]\ndead_letter = dead\n',
        '[exchange.e]\ntype = fanout\nbindings = dead\n',
    )
    assert config.graph().to_text().splitlines() == [
        'exchange e (fanout)',
        '    (all) -> dead',
        'queue in',
        '    (consumes)    -> runner:r',
        '    (dead-letter) -> dead',
        'runner r (m:C)',
        '    (publishes) -> exchange:e',
    ]


def test_ten_thousand_queues_are_loaded_in_reasonable_time(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[queue.*]\nexternal = yes\n'
        + ''.join(f'[queue.q{n}]\npriority = {n % 10}\n' for n in range(10_000)),
    )
    assert len(config.queue_names()) == 10_001
    assert config.queue_options('q9999').priority == 9
