"""Queues that are declared, deleted and purged from the command line, and what is told of a queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard import Spool
from switchboard.cli.exits import Exit
from switchboard.operating.queue_info import option_words, read_options
from switchboard.options import QueueOptions, RetryPolicy
from tests.helpers.commands import at_work, succeed, switchboard

CONFIG = """
[switchboard]
spool = spool
durability = lazy
[queue.*]
max_attempts = 3
[queue.in]
ttl = 1h30m
max_messages = 5
rate = 30/m
"""


@pytest.fixture
def spool(make_spool: Callable[..., Spool]) -> Spool:
    return make_spool(CONFIG)


@pytest.fixture
def config(spool: Spool) -> Path:
    assert spool.config is not None
    succeed('-C', spool.config.path, 'init')
    return spool.config.path


def queue_of(config: Path, name: str) -> dict[str, object]:
    objects = switchboard('-C', config, 'status', '--json').objects
    [found] = [each for each in objects if each['type'] == 'queue' and each['queue'] == name]
    return found


class TestDeclare:
    def test_the_queue_is_there_for_all_with_its_options(self, config: Path, spool: Spool) -> None:
        said = succeed('-C', config, 'declare', 'night', '-o', 'ttl=12h', '-o', 'retry=1s..5m x3')
        assert said.out == 'night: declared\n'
        options = spool['night'].options
        assert (options.ttl_s, options.retry, options.max_attempts) == (43200.0, RetryPolicy(1, 300, 3), 3)
        succeed('-C', config, 'declare', 'night', '-o', 'ttl=12h', '-o', 'retry=1s..5m x3')  # as it is
        assert succeed('-C', config, 'enqueue', 'night', input=b'x').lines == spool['night'].files

    def test_one_that_is_there_otherwise_is_not_changed(self, config: Path, spool: Spool) -> None:
        succeed('-C', config, 'declare', 'night', '-o', 'ttl=12h')
        ran = switchboard('-C', config, 'declare', 'night', '--expires', '1h')
        assert ran.status == Exit.DATA
        assert 'it is declared with expires_s = None, not 3600.0' in ran.err
        assert spool['night'].options.ttl_s == 43200.0
        assert switchboard('-C', config, 'declare', 'in', '-o', 'ttl=1s').status == Exit.DATA

    def test_mistakes_are_told_as_in_the_configuration(self, config: Path) -> None:
        for words, text in (
            ('tll=3', 'there is no such option; did you mean ttl?'),
            ('ttl=3', 'did you mean 3s?'),
            ('ttl', 'is not KEY=VALUE'),
        ):
            ran = switchboard('-C', config, 'declare', 'night', '-o', words)
            assert ran.status == Exit.USAGE
            assert text in ran.err


class TestDelete:
    def test_what_waits_in_it_goes_with_it_when_somebody_says_yes(self, config: Path, spool: Spool) -> None:
        spool.declare('night').enqueue_many(['a', 'b'])
        spool['night'].enqueue('later', delay=60)
        ran = switchboard('-C', config, 'delete', 'night')
        assert ran.status == Exit.USAGE
        assert 'delete night, with 3 entries (night 3): nobody is there to ask' in ran.err
        assert succeed('-C', config, 'delete', 'night', '--yes').out == 'night: deleted, 3 entries dropped\n'
        assert 'night' not in spool

    def test_only_if_it_is_empty_or_unused(self, config: Path, spool: Spool) -> None:
        spool.declare('night').enqueue('a')
        ran = switchboard('-C', config, 'delete', 'night', '--if-empty')
        assert (ran.status, 'it holds messages' in ran.err) == (Exit.TEMPORARY, True)
        ticket = spool.register_consumer('night')
        ran = switchboard('-C', config, 'delete', 'night', '--if-unused', '--yes')
        assert (ran.status, 'it has 1 consumer' in ran.err) == (Exit.TEMPORARY, True)
        ticket.close()
        succeed('-C', config, 'delete', 'night', '--if-unused', '--yes')

    def test_one_of_the_configuration_is_not_deleted(self, config: Path, spool: Spool) -> None:
        spool['in'].enqueue('x')
        assert switchboard('-C', config, 'delete', 'in', '--yes').status == Exit.DATA
        assert len(spool['in'].files) == 1

    def test_several_with_one_that_is_not_there_is_none(self, config: Path, spool: Spool) -> None:
        spool.declare('night')
        assert switchboard('-C', config, 'delete', 'night', 'nowhere').status == Exit.NO_INPUT
        assert 'night' in spool


class TestPurge:
    def test_what_waits_is_dropped_and_what_is_at_work_stays(self, config: Path, spool: Spool) -> None:
        with at_work(spool, 'in', 'at work') as filebase:
            spool['in'].enqueue('a')
            spool['in'].enqueue('b', delay=60)
            assert switchboard('-C', config, 'purge', 'in').status == Exit.USAGE
            assert succeed('-C', config, 'purge', 'in', '--yes').out == 'in: purged, 2 entries dropped\n'
            assert (spool['in'].get_files(), spool['in'].get_files('.bak')) == ([], [filebase])

    def test_the_bad_queue_is_not_purged_by_mistake(self, config: Path) -> None:
        ran = switchboard('-C', config, 'purge', 'bad', '--yes')
        assert (ran.status, '`switchboard rm --queue bad --all`' in ran.err) == (Exit.USAGE, True)

    def test_a_queue_whose_section_was_removed_can_be_purged(self, config: Path, spool: Spool) -> None:
        spool['in'].enqueue('x')
        config.write_text('[switchboard]\nspool = spool\n[queue.other]\n')
        assert succeed('-C', config, 'purge', 'in', '--yes').out == 'in: purged, 1 entry dropped\n'

    def test_a_purge_tells_of_what_it_could_not_drop(self, config: Path, spool: Spool) -> None:
        spool['in'].enqueue_many('ab')
        # No entry, but it has the name of one.
        Path(spool.directory, 'in', f'1700000000.000000000+{1:040x}.pck').mkdir()
        ran = switchboard('-C', config, 'purge', 'in', '--yes')
        assert ran.status != 0
        assert '2 entries dropped, 1 not' in ran.err
        assert len(spool['in'].get_files()) == 1


class TestShowingAQueue:
    def test_options_are_shown_with_who_set_them_and_how_much_is_used(
        self, config: Path, spool: Spool
    ) -> None:
        spool['in'].enqueue_many('abc')
        spool['in'].enqueue('later', delay=3600)
        ticket = spool.register_consumer('in')
        lines = [' '.join(line.split()) for line in succeed('-C', config, 'show', 'in').lines]
        assert lines[:3] == ['in', f'declared {config}:7', 'consumers 1']
        assert lines[3].startswith('entries 3 waiting, 1 delayed; ')
        assert lines[3].endswith('the next is due in 59m59s')
        assert lines[5:] == [
            'durability lazy [switchboard]',
            'max_attempts 3 [queue.*]',
            'max_messages 5 [queue.in], 4 used',
            'ttl 1h30m [queue.in]',
            'rate 30/m [queue.in]',
        ]
        ticket.close()
        assert 'priority_step' in succeed('-C', config, 'show', 'in', '--full').out

    def test_a_declared_one_says_when_it_goes(self, config: Path, spool: Spool) -> None:
        spool.declare('reply', auto_delete=True, expires_s=90.0, options={'max_bytes': 10 << 20})
        out = succeed('-C', config, 'show', 'reply').out
        assert 'by a program, auto-delete, expires 1m30s after its last use' in out
        assert 'max_bytes     10M   declared, 0 bytes used' in out
        (shown,) = succeed('-C', config, 'show', 'reply', '--json').objects
        assert (shown['options']['max_bytes'], shown['set']['max_bytes']) == (10 << 20, 'declared')

    def test_status_shows_what_queues_have_of_their_own(self, config: Path, spool: Spool) -> None:
        spool.declare('reply', auto_delete=True)
        lines = [' '.join(line.split()) for line in switchboard('-C', config, 'status').lines]
        assert 'in 0 max_attempts 3, max_messages 5, ttl 1h30m, rate 30/m' in lines
        assert 'reply 0 by a program, auto-delete, max_attempts 3' in lines
        assert queue_of(config, 'in')['options'] == {
            'max_attempts': '3',
            'max_messages': '5',
            'ttl': '1h30m',
            'rate': '30/m',
        }
        assert queue_of(config, 'bad')['options'] == {}


def options() -> st.SearchStrategy[QueueOptions]:
    seconds = st.one_of(st.integers(1, 10**7).map(float), st.sampled_from([0.25, 1.5, 0.001]))
    sizes = st.one_of(st.integers(1, 10**12), st.sampled_from([1 << 10, 10 << 20, 3 << 30]))
    return st.builds(
        QueueOptions,
        durability=st.sampled_from(['full', 'lazy']),
        accept=st.sampled_from([('mail',), ('json', 'text')]),
        max_attempts=st.integers(1, 99),
        max_retry_time_s=st.none() | seconds,
        retry=st.builds(
            RetryPolicy, st.just(5.0), st.just(3600.0), st.sampled_from([1.0, 2.5]), st.just(0.1)
        ),
        dead_letter=st.sampled_from(['bad', 'exchange:dead']),
        max_messages=st.none() | st.integers(1, 10**9),
        max_bytes=st.none() | sizes,
        min_free_space_bytes=sizes,
        ttl_s=st.none() | seconds,
        rate=st.none() | st.sampled_from([0.5, 10.0, 1000 / 3600, 2.25]),
        order_key=st.none() | st.just('list'),
        strict_order=st.booleans(),
    )


@given(options())
def test_options_in_words_are_read_back_as_they_were(options: QueueOptions) -> None:
    words = option_words(options, QueueOptions())
    values = read_options(words)
    rate = values.pop('rate', None)
    if rate is not None:
        assert rate == pytest.approx(options.rate)
    for field, value in values.items():
        assert value == getattr(options, field)
    default = QueueOptions()
    for field in set(QueueOptions._fields) - set(values) - {'rate'}:
        assert getattr(options, field) == getattr(default, field)
