"""A spool: its queues, what they share, and one message in several of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import (
    ContentDisallowedError,
    NoRouteError,
    QueueFullError,
    UnknownExchangeError,
    UnknownQueueError,
    UnserializableError,
)
from switchboard.testing import FakeClock

CONFIGURATION = """
[switchboard]
spool = {spool}
exchange_file = exchange.cfg

[queue.in]
max_attempts = 3

[queue.lists.*]
durability = lazy

[queue.lists.a]
[queue.small]
max_messages = 1
[queue.failed]
[queue.picky]
accept = bytes
max_attempts = 1
dead_letter = failed
max_recoveries = 1
"""
EXCHANGES = """
[exchange.mail]
type = topic
bindings =
    lists.#   -> in, lists.a
    one.*     -> in
    small     -> in, small
    picky     -> in, picky

[exchange.reports]
type = headers
bindings =
    any: priority=high -> in
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / 'etc' / 'switchboard.cfg'
    path.parent.mkdir()
    path.write_text(CONFIGURATION.format(spool=tmp_path / 'spool'))
    (tmp_path / 'etc' / 'exchange.cfg').write_text(EXCHANGES)
    return path


@pytest.fixture
def free(tmp_path: Path) -> Any:
    """A spool that knows no configuration."""
    return Spool(tmp_path / 'spool', 'lazy')


@pytest.fixture
def declared(configuration: Path) -> Any:
    """A spool that a configuration describes."""
    return Spool.from_config(configuration)


def messages(spool: Any, name: str) -> list[Any]:
    return [spool[name].dequeue(filebase)[0] for filebase in spool[name].files]


class TestQueues:
    def test_without_a_configuration_they_are_made_as_they_are_named(self, free: Any) -> None:
        assert free.queue_names() == ['bad']
        assert free['in'] is free['in']
        assert free['in'].name == 'in'
        assert free.queue_names() == ['bad', 'in']
        assert 'in' in free
        assert 'out' not in free

    @pytest.mark.parametrize('name', ['', '.spare', '../x', 'a/b'])
    def test_a_name_that_a_queue_cannot_have_is_refused(self, free: Any, name: str) -> None:
        with pytest.raises(UnknownQueueError):
            free[name]

    def test_a_slice_is_an_object_of_its_own(self, free: Any) -> None:
        filebases = [free['in'].enqueue(number) for number in range(20)]
        shares = [free.queue('in', index, 3).files for index in range(3)]
        assert sorted(name for share in shares for name in share) == filebases

    def test_with_one_only_those_are_there_that_it_declares(self, declared: Any) -> None:
        assert declared['lists.a'].options.durability == 'lazy'
        assert declared['in'].options.max_attempts == 3
        with pytest.raises(UnknownQueueError, match='declares'):
            declared['other']
        assert 'in' in declared.queue_names()
        assert declared['bad'].name == 'bad'


class TestPublishing:
    def test_the_default_exchange_delivers_to_the_queue_of_that_name(self, free: Any) -> None:
        filebases = free.publish('x', {'a': 1}, routing_key='in', b=2)
        assert list(filebases) == ['in']
        assert free['in'].dequeue(filebases['in']) == (
            'x',
            {'a': 1, 'b': 2, 'version': 3, '_parsemsg': False},
        )

    def test_each_queue_gets_one_copy_with_the_way_it_came(self, declared: Any) -> None:
        filebases = declared.publish('x', exchange='mail', routing_key='lists.a.post')
        assert sorted(filebases) == ['in', 'lists.a']
        for name, filebase in filebases.items():
            msg, msgdata = declared[name].dequeue(filebase)
            assert msg == 'x'
            assert (msgdata['exchange'], msgdata['routing_key']) == ('mail', 'lists.a.post')

    def test_a_priority_in_words_can_be_routed_by(self, declared: Any) -> None:
        filebases = declared.publish('x', exchange='reports', priority='high')
        assert declared['in'].dequeue(filebases['in'])[1]['priority'] == 'high'

    def test_the_mapping_is_not_changed(self, declared: Any) -> None:
        metadata = {'delay': 1, 'n': [1]}
        declared.publish('x', metadata, exchange='mail', routing_key='lists.a.post')
        assert metadata == {'delay': 1, 'n': [1]}

    def test_what_nobody_wants_is_an_error_and_stored_nowhere(self, declared: Any) -> None:
        with pytest.raises(NoRouteError) as caught:
            declared.publish('x', exchange='mail', routing_key='nowhere')
        assert (caught.value.exchange, caught.value.routing_key) == ('mail', 'nowhere')
        with pytest.raises(UnknownExchangeError):
            declared.publish('x', exchange='post', routing_key='a')
        with pytest.raises(UnknownQueueError):
            declared.publish('x', routing_key='other')

    @pytest.mark.parametrize(
        ('msg', 'key', 'error'),
        [
            ('x', 'small', QueueFullError),
            ('x', 'picky', ContentDisallowedError),
            (object(), 'lists.a', UnserializableError),
        ],
    )
    def test_it_is_stored_in_all_of_its_queues_or_in_none(
        self, declared: Any, msg: Any, key: str, error: type[Exception]
    ) -> None:
        declared['small'].enqueue('full by now')
        with pytest.raises(error):
            declared.publish(msg, exchange='mail', routing_key=key)
        assert messages(declared, 'in') == []

    def test_a_delay_counts_in_each_queue(self, configuration: Path) -> None:
        clock = FakeClock()
        spool = Spool.from_config(configuration, clock=clock)
        spool.publish('x', exchange='mail', routing_key='lists.a', delay=60)
        assert (messages(spool, 'in'), messages(spool, 'lists.a')) == ([], [])
        clock.advance(61)
        assert (messages(spool, 'in'), messages(spool, 'lists.a')) == (['x'], ['x'])


class TestDeadLetters:
    def test_what_a_queue_cannot_keep_goes_to_the_queue_it_names(self, declared: Any) -> None:
        filebase = declared['picky'].enqueue(b'x')
        declared['picky'].finish(filebase, preserve=True, reason='no')
        (letter,) = declared['failed'].files
        record = declared['failed'].history(letter)[-1]
        assert (record['event'], record['queue'], record['reason']) == ('dead-lettered', 'picky', 'no')
        assert declared['bad'].get_files('.psv') == []

    def test_so_does_what_was_recovered_too_often(self, declared: Any) -> None:
        filebase = declared['picky'].enqueue(b'x')
        declared['picky'].dequeue(filebase)
        assert declared['picky'].recover() == []
        assert messages(declared, 'failed') == [b'x']


class TestOnDisk:
    def test_its_directories_are_for_owner_and_group(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'var' / 'spool')
        spool['in'].enqueue('x')
        names = ['.run', '.spare', '.stage', 'in']
        assert sorted(os.listdir(spool.directory)) == names
        for name in names:
            assert stat.S_IMODE(os.stat(spool.path(name)).st_mode) == 0o770

    def test_queues_share_their_spares(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 'lazy')
        for name in ('a', 'b', 'c'):
            filebase = spool[name].enqueue('x')
            spool[name].finish(filebase)
        assert spool.pool.count() == 1

    def test_two_objects_for_one_directory_see_the_same(self, tmp_path: Path) -> None:
        filebase = Spool(tmp_path)['in'].enqueue('x')
        assert Spool(tmp_path)['in'].dequeue(filebase)[0] == 'x'
        Spool(tmp_path)['in'].finish(filebase)

    def test_the_configuration_names_the_directory(self, configuration: Path, tmp_path: Path) -> None:
        spool = Spool.from_config(str(configuration))
        assert spool.directory == str(tmp_path / 'spool')
        assert str(tmp_path / 'spool') in repr(spool)
