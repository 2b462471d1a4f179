"""Full queues that make room for what comes in together: the outputs of a hand-off, messages for several queues, an entry that is moved."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import (
    ContentDisallowedError,
    MessageTooLargeError,
    OutputsNeverFitError,
    QueueFullError,
)
from switchboard.handoff.moving import send_back
from switchboard.handoff.publish_many import Publication
from switchboard.store.disk import Disk
from switchboard.testing import MemorySpool

CONFIGURATION = """
[switchboard]
spool = spool
durability = lazy
[queue.*]
consumed_externally = yes
[queue.in]
[queue.out]
max_messages = 4
overflow = {overflow}
[queue.narrow]
max_messages = 2
overflow = {overflow}
[queue.few]
max_messages = 2
[queue.strings]
accept = text
[queue.small]
max_body = 100
[queue.tight]
max_bytes = 500
overflow = {overflow}
"""


@pytest.fixture(params=['drop-oldest', 'dead-letter'])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / 'switchboard.cfg'
    path.write_text(CONFIGURATION.format(overflow=request.param))
    return path


@pytest.fixture(params=[Spool, MemorySpool])
def spool(request: pytest.FixtureRequest, config: Path) -> Any:
    return request.param.from_config(config)


@pytest.fixture
def disk_spool(config: Path) -> Spool:
    return Spool.from_config(config)


def fill(queue: Any, messages: str) -> list[str]:
    return [queue.enqueue(msg) for msg in messages]


def begin(spool: Any, msg: Any = 'input') -> Any:
    spool['in'].enqueue(msg)
    return spool.transaction(spool['in'], spool['in'].take().filebase)


def contents(queue: Any) -> list[Any]:
    queue.has_ready()
    return [queue.dequeue(filebase)[0] for filebase in queue.files]


class TestOutputs:
    def test_the_oldest_go_at_the_commit_and_not_before(self, spool: Any) -> None:
        kept = fill(spool['out'], '0123')
        transaction = begin(spool)
        for msg in 'abc':
            transaction.emit(spool['out'], msg, {})
        assert spool['out'].files == kept
        transaction.commit()
        assert contents(spool['out']) == ['3', 'a', 'b', 'c']

    def test_of_a_message_that_fails_afterwards_nothing_goes(self, spool: Any) -> None:
        kept = fill(spool['out'], '0123')
        transaction = begin(spool)
        transaction.emit(spool['out'], 'a', {})
        transaction.discard()
        assert spool['out'].files == kept

    def test_more_than_the_queue_ever_holds_is_that_messages_failure(self, spool: Any) -> None:
        kept = fill(spool['out'], '0123')
        transaction = begin(spool)
        for msg in 'abcd':
            transaction.emit(spool['out'], msg, {})
        with pytest.raises(OutputsNeverFitError, match='max_messages is 4'):
            transaction.emit(spool['out'], 'e', {})
        transaction.discard()
        assert spool['out'].files == kept

    def test_more_bytes_than_the_queue_ever_holds_too(self, spool: Any) -> None:
        kept = fill(spool['tight'], '01')
        transaction = begin(spool)
        transaction.emit(spool['tight'], 'a' * 200, {})
        with pytest.raises(OutputsNeverFitError, match='max_bytes is 500'):
            transaction.emit(spool['tight'], 'b' * 200, {})
        transaction.discard()
        assert spool['tight'].files == kept

    def test_where_one_queue_has_no_room_none_of_the_others_makes_any(self, spool: Any) -> None:
        kept, at_work = fill(spool['out'], '0123'), fill(spool['narrow'], '01')
        for _ in at_work:
            assert spool['narrow'].take() is not None
        transaction = begin(spool)

        def hand_over() -> None:
            for queue in ('out', 'narrow'):
                transaction.emit(spool[queue], 'a', {})
            transaction.commit()

        with pytest.raises(QueueFullError):
            hand_over()
        assert spool['out'].files == kept

    def test_where_one_queue_cannot_make_enough_none_of_the_others_makes_any(self, spool: Any) -> None:
        kept = fill(spool['out'], '0123')
        waits = spool['narrow'].enqueue('0'), spool['narrow'].enqueue('later', delay=60)
        transaction = begin(spool)
        for queue in ('out', 'narrow', 'narrow'):
            transaction.emit(spool[queue], 'a', {})
        with pytest.raises(QueueFullError, match='narrow'):
            transaction.commit()
        assert spool['out'].files == kept
        assert sorted(spool['narrow'].get_files()) == sorted(waits)

    def test_each_of_many_that_are_committed_together_stands_for_itself(self, spool: Any) -> None:
        fill(spool['out'], '0')
        spool['out'].enqueue('later', delay=60)
        transactions = [begin(spool, msg) for msg in 'ab']
        for transaction, number in zip(transactions, (4, 2), strict=True):
            for each in range(number):
                transaction.emit(spool['out'], f'{transaction.filebase}{each}', {})
        failed = spool.commit_all(transactions)
        assert [*failed] == transactions[:1]
        assert len(spool['out'].files) == 3

    def test_a_forwarded_input_pushes_out_at_the_commit_too(self, spool: Any) -> None:
        kept = fill(spool['out'], '0123')
        transaction = begin(spool)
        transaction.forward(spool['out'])
        assert spool['out'].files == kept
        transaction.commit()
        assert sorted(contents(spool['out'])) == ['1', '2', '3', 'input']

    def test_a_forwarded_input_that_becomes_a_copy_needs_room_once(self, spool: Any) -> None:
        fill(spool['narrow'], '01')
        transaction = begin(spool)
        transaction.forward(spool['narrow'])
        transaction.emit(spool['narrow'], 'a', {})
        transaction.commit()
        assert sorted(contents(spool['narrow'])) == ['a', 'input']

    def test_a_forwarded_input_that_becomes_a_copy_needs_room_once_where_queues_refuse_too(
        self, spool: Any
    ) -> None:
        spool['few'].enqueue('0')
        transaction = begin(spool)
        transaction.forward(spool['few'])
        transaction.emit(spool['in'], 'a', {})
        transaction.commit()
        assert sorted(contents(spool['few'])) == ['0', 'input']

    def test_room_that_was_not_filled_is_there_for_the_next(self, disk_spool: Spool) -> None:
        spool, queue = disk_spool, disk_spool['few']
        for end in ('discard', 'discard after a forward'):
            transaction = begin(spool)
            for _ in range(2) if end == 'discard' else ():
                transaction.emit(queue, 'a', {})
            if end != 'discard':
                transaction.forward(queue)
            transaction.discard()
        filebases = queue.enqueue_many('ab')
        # The objects of messages that are in by now, or were thrown away, count no more, though somebody keeps them.
        assert queue.files == filebases

    def test_what_cannot_be_written_pushes_nothing_out(self, config: Path) -> None:
        class Full(Disk):
            is_full = False

            def pwrite(self, fd: int, content: Any, offset: int) -> int:
                if self.is_full:
                    raise OSError(errno.ENOSPC, 'No space left on device')
                return Disk.pwrite(fd, content, offset)

        disk = Full()
        spool = Spool.from_config(config, disk=disk)
        kept = fill(spool['out'], '0123')
        disk.is_full = True
        with pytest.raises(QueueFullError, match='No space'):
            spool['out'].enqueue('a')
        assert spool['out'].files == kept


class TestMessagesForSeveralQueues:
    def test_they_push_out_in_all_or_in_none(self, disk_spool: Spool) -> None:
        spool = disk_spool
        kept = fill(spool['out'], '0123')
        spool['few'].enqueue_many('01')
        outcomes = spool.publish_many(
            [Publication('a', {}, ('out', 'few')), Publication('b', {}, ('out', 'in'))]
        )
        assert isinstance(outcomes[0], QueueFullError)
        assert isinstance(outcomes[1], dict)
        assert spool['out'].files == [*kept[1:], outcomes[1]['out']]

    def test_each_of_many_for_one_queue_stands_for_itself(self, disk_spool: Spool) -> None:
        spool = disk_spool
        spool['narrow'].enqueue('later', delay=60)
        fill(spool['narrow'], '0')
        outcomes = spool.publish_many([Publication(msg, {}, ('narrow',)) for msg in 'ab'])
        assert isinstance(outcomes[0], dict)
        assert isinstance(outcomes[1], QueueFullError)
        assert spool['narrow'].files == [outcomes[0]['narrow']]

    def test_a_key_that_was_seen_pushes_nothing_out(self, disk_spool: Spool) -> None:
        queue = disk_spool['out']
        first = queue.enqueue('first', dedupe_key='k')
        kept = [first, *fill(queue, '123')]
        assert queue.enqueue('again', dedupe_key='k') == first
        assert queue.files == kept


class TestMovedEntries:
    @pytest.mark.parametrize(
        ('to', 'error'),
        [
            ('small', MessageTooLargeError),
            ('tight', MessageTooLargeError),
            ('strings', ContentDisallowedError),
        ],
    )
    def test_one_that_a_queue_could_never_hold_stays(self, disk_spool: Spool, to: str, error: type) -> None:
        spool = disk_spool
        filebase = spool['in'].enqueue(b'x' * 1000)
        with pytest.raises(error):
            send_back(spool['in'], filebase, spool[to])
        assert spool['in'].files == [filebase]
        transaction = spool.transaction(spool['in'], spool['in'].take().filebase)
        with pytest.raises(error):
            transaction.forward(spool[to])
        with pytest.raises(error):
            transaction.forward(spool['out'], spool[to])
        transaction.discard()


def test_a_reserve_on_the_disk_is_not_made_by_pushing_out(tmp_path: Path) -> None:
    class Nearly(Disk):
        free_bytes = 10**9

        def statvfs(self, path: Any) -> Any:
            class Status:
                f_bavail = self.free_bytes // 4096
                f_frsize = 4096

            return Status

    disk = Nearly()
    queue = Spool(tmp_path, 'lazy', disk=disk).queue(
        'in', max_messages=100, min_free_space_bytes=10**8, overflow='drop-oldest'
    )
    kept = fill(queue, '0123')
    disk.free_bytes = 10**7
    with pytest.raises(QueueFullError, match='min_free_space'):
        queue.enqueue('a')
    assert queue.files == kept
