"""Batches, threads, and what is refused before anything is stored or thrown away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool, Switchboard
from switchboard.errors import MessageTooLargeError, QueueError, QueueFullError
from switchboard.options import QueueOptions
from switchboard.queue.admission import ROOM_TRIES
from switchboard.store.publishing import BATCH_LIMIT

LAZY = QueueOptions(durability='lazy')


def in_thread(function: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    [answer] = answers
    return answer


def contents(queue: Switchboard) -> list[Any]:
    return [taken.msg for taken in iter(queue.take, None)]


class TestBatches:
    def test_what_is_enqueued_into_one_is_seen_when_the_block_ends(self, queue: Switchboard) -> None:
        with queue.batch() as batch:
            filebases = [batch.enqueue(number) for number in range(3)]
            assert queue.get_files() == []
        assert queue.files == filebases
        assert batch.stored == set(filebases)

    def test_what_another_thread_enqueues_meanwhile_is_stored_at_once_and_stays(
        self, queue: Switchboard
    ) -> None:
        def fail() -> None:
            with queue.batch() as batch:
                batch.enqueue('thrown away')
                queue.enqueue('thrown away as well')
                filebase = in_thread(lambda: queue.enqueue('stays'))
                assert queue.files == [filebase]
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert contents(queue) == ['stays']

    def test_two_threads_may_have_one_each(self, queue: Switchboard) -> None:
        def store() -> None:
            with queue.batch():
                queue.enqueue('theirs')

        with queue.batch():
            queue.enqueue('ours')
            in_thread(store)
            assert len(queue.files) == 1
        assert sorted(contents(queue)) == ['ours', 'theirs']

    def test_two_tasks_may_have_one_each(self, queue: Switchboard) -> None:
        async def store(begun: asyncio.Event, go_on: asyncio.Event) -> None:
            with queue.batch():
                queue.enqueue('thrown away')
                begun.set()
                await go_on.wait()
                raise KeyError

        async def both() -> None:
            begun, go_on = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(store(begun, go_on))
            await begun.wait()
            queue.enqueue('stays')
            go_on.set()
            with pytest.raises(KeyError):
                await task

        asyncio.run(both())
        assert contents(queue) == ['stays']

    def test_a_task_that_outlives_the_block_stores_for_itself(self, queue: Switchboard) -> None:
        async def later(over: asyncio.Event) -> None:
            await over.wait()
            queue.enqueue('later')

        async def both() -> None:
            over = asyncio.Event()
            with queue.batch():
                task = asyncio.create_task(later(over))
            over.set()
            await task

        asyncio.run(both())
        assert contents(queue) == ['later']

    def test_batches_of_two_queues_do_not_mix(self, tmp_path: Path, queue: Switchboard) -> None:
        other = Switchboard('other', tmp_path / 'other', options=LAZY)
        with queue.batch():
            with other.batch():
                queue.enqueue(1)
                other.enqueue(2)
            assert (queue.files, len(other.files)) == ([], 1)
        assert (contents(queue), contents(other)) == ([1], [2])

    def test_a_long_one_is_flushed_on_the_way(self, queue: Switchboard) -> None:
        with queue.batch() as batch:
            filebases = [batch.enqueue(number) for number in range(BATCH_LIMIT + 1)]
            assert queue.files == filebases[:BATCH_LIMIT]
            assert batch.stored == set(filebases[:BATCH_LIMIT])
            batch.discard()
        assert len(queue.files) == len(batch.stored) == BATCH_LIMIT

    def test_one_that_is_not_open_takes_nothing(self, queue: Switchboard) -> None:
        batch = queue.batch()
        with pytest.raises(QueueError, match='with'):
            batch.enqueue('x')
        with batch:
            pass
        with pytest.raises(QueueError, match='with'):
            batch.enqueue('x')
        assert queue.files == []


class TestThreads:
    def test_each_of_many_messages_is_taken_by_one_of_many_threads(self, tmp_path: Path) -> None:
        queue = Spool(tmp_path, 'lazy')['in']
        got: list[int] = []

        def produce(first: int) -> None:
            for number in range(first, first + 100):
                queue.enqueue(number)

        def consume() -> None:
            while len(got) < 400:
                taken = queue.take()
                if taken is not None:
                    got.append(taken.msg)
                    queue.finish(taken.claim)

        threads = [threading.Thread(target=produce, args=(first,)) for first in (0, 100, 200, 300)]
        threads += [threading.Thread(target=consume) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == list(range(400))

    def test_producers_in_threads_share_a_limit(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 'lazy')
        queue = spool.queue('in', max_messages=50)
        refused: list[int] = []

        def produce() -> None:
            for number in range(50):
                try:
                    queue.enqueue(number)
                except QueueFullError:
                    refused.append(number)

        threads = [threading.Thread(target=produce) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(queue.files) + len(refused) == 200
        assert 50 <= len(queue.files) <= 54


@pytest.mark.parametrize('overflow', ['drop-oldest', 'dead-letter'])
def test_what_cannot_be_had_among_the_oldest_does_not_refuse_what_comes(
    tmp_path: Path, overflow: Any
) -> None:
    options = QueueOptions(durability='lazy', max_messages=10, overflow=overflow)
    queue = Switchboard('in', tmp_path / 'in', options=options)
    for number in range(ROOM_TRIES + 1):  # no entries, but they have the names of some
        Path(queue.queue_directory, f'{1700000000 + number}.000000000+{number:040x}.pck').mkdir()
    kept = [queue.enqueue(number) for number in range(20)]
    assert [name for name in queue.files if name in kept] == kept[-(10 - ROOM_TRIES - 1) :]


@pytest.mark.parametrize('overflow', ['reject', 'drop-oldest', 'dead-letter'])
class TestWhatCannotFit:
    def queue(self, path: Path, **options: Any) -> Switchboard:
        return Switchboard('in', path / 'in', options=QueueOptions(durability='lazy', **options))

    def test_one_that_is_larger_than_the_queue_is_refused_and_nothing_goes(
        self, tmp_path: Path, overflow: str
    ) -> None:
        queue = self.queue(tmp_path, overflow=overflow, max_bytes=10_000)
        kept = queue.enqueue_many(['x' * 300] * 20)
        with pytest.raises(MessageTooLargeError):
            queue.enqueue('x' * 20_000)
        assert queue.files == kept

    def test_a_queue_for_no_messages_takes_none(self, tmp_path: Path, overflow: str) -> None:
        queue = self.queue(tmp_path, overflow=overflow, max_messages=0)
        with pytest.raises(QueueFullError):
            queue.enqueue('x')

    def test_nothing_goes_where_what_is_at_work_leaves_no_room(self, tmp_path: Path, overflow: str) -> None:
        queue = self.queue(tmp_path, overflow=overflow, max_bytes=10_000)
        queue.enqueue('x' * 8000)
        assert queue.take() is not None
        kept = queue.enqueue('small')
        with pytest.raises(QueueFullError):
            queue.enqueue('x' * 5000)
        assert queue.files == [kept]


def test_equal_messages_are_spread_over_the_slices(tmp_path: Path) -> None:
    everything = Switchboard('in', tmp_path / 'in', options=LAZY)
    everything.enqueue_many(['equal'] * 1000)
    shares = [len(Switchboard('in', tmp_path / 'in', index, 4, options=LAZY).files) for index in range(4)]
    assert sum(shares) == 1000
    assert min(shares) > 150
