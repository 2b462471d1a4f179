"""What users get for their own tests, where the conformance suite does not look."""

from __future__ import annotations

from typing import Any

import pytest

import switchboard.testing
from switchboard.errors import QueueFullError
from switchboard.interfaces import ISpool, ISwitchboard
from switchboard.options import QueueOptions
from switchboard.testing import FakeClock, MemorySpool, MemorySwitchboard, run_until_empty
from switchboard.testing.running import MAX_ROUNDS
from tests.helpers.runs import make_runner


def test_all_that_the_package_promises_is_there() -> None:
    for name in switchboard.testing.__all__:
        assert getattr(switchboard.testing, name)
    assert {'MemorySwitchboard', 'MemorySpool', 'FakeClock', 'run_until_empty', 'Signal'} <= {
        *switchboard.testing.__all__
    }


class TestRunUntilEmpty:
    def test_time_passes_until_all_is_done(self) -> None:
        clock = FakeClock()
        spool = MemorySpool(clock=clock)
        for delay in (0, 60, 3600):
            spool['in'].enqueue(delay, delay=delay)
        started_ns = clock.monotonic_ns()
        runner = make_runner(spool)
        assert run_until_empty(runner) == 0
        assert [msg for msg, _ in runner.seen] == [0, 60, 3600]
        assert clock.monotonic_ns() - started_ns >= 3600 * 10**9

    def test_by_the_machines_clock_it_does_not_wait(self) -> None:
        spool = MemorySpool()
        spool['in'].enqueue('now')
        spool['in'].enqueue('later', delay=3600)
        runner = make_runner(spool)
        assert run_until_empty(runner) == 0
        assert [msg for msg, _ in runner.seen] == ['now']

    def test_what_somebody_else_holds_is_not_waited_for(self) -> None:
        spool = MemorySpool(clock=FakeClock())
        filebase = spool['in'].enqueue('x')
        spool['in'].dequeue(filebase)
        assert run_until_empty(make_runner(spool)) == 0
        assert spool['in'].get_files('.bak') == [filebase]

    def test_a_message_that_is_kept_for_ever_is_an_error(self) -> None:
        spool = MemorySpool(clock=FakeClock())
        spool['in'].enqueue('x')
        runner = make_runner(spool, lambda *_: True)
        with pytest.raises(AssertionError, match='still not empty'):
            run_until_empty(runner)
        assert len(runner.seen) == MAX_ROUNDS


class TestMemory:
    def test_the_classes_say_what_they_are(self) -> None:
        assert ISwitchboard.providedBy(MemorySwitchboard('in'))
        assert ISpool.providedBy(MemorySpool())

    def test_two_objects_share_entries_if_they_share_a_store(self) -> None:
        one, other = MemorySwitchboard('in'), MemorySwitchboard('in')
        one.enqueue('x')
        assert other.files == []
        assert len(MemorySwitchboard('in', store=one.store).files) == 1

    def test_recover_makes_ready_what_was_given_up(self) -> None:
        one = MemorySwitchboard('in')
        filebase = one.enqueue('x')
        one.dequeue(filebase)
        assert MemorySwitchboard('in', None, 1, True, store=one.store).files == [filebase]

    def test_bytes_are_limited_as_those_of_files(self) -> None:
        queue = MemorySwitchboard('in', options=QueueOptions(max_bytes=2000))
        queue.enqueue(b'x' * 1000)
        with pytest.raises(QueueFullError, match='max_bytes'):
            queue.enqueue(b'x' * 1000)

    @pytest.mark.parametrize(('overflow', 'preserved'), [('drop-oldest', []), ('dead-letter', ['a'])])
    def test_a_full_queue_can_make_room(self, overflow: Any, preserved: list[str]) -> None:
        queue = MemorySwitchboard('in', options=QueueOptions(max_messages=1, overflow=overflow))
        queue.enqueue('a')
        queue.enqueue('b')
        assert [queue.dequeue(filebase)[0] for filebase in queue.files] == ['b']
        assert [stored.read().body.decode() for stored in queue.bad_store.entries.values()] == preserved

    def test_a_paused_queue_gives_nothing_and_a_slow_one_not_more_than_it_may(self) -> None:
        paused = MemorySwitchboard('in', options=QueueOptions(paused=True))
        paused.enqueue('x')
        assert (paused.take(), paused.ready(), paused.wait_s()) == (None, False, None)
        clock = FakeClock()
        slow = MemorySwitchboard('in', options=QueueOptions(rate=2), clock=clock)
        slow.enqueue_many(range(5))
        assert [one and one.msg for one in (slow.take(), slow.take(), slow.take())] == [0, 1, None]
        assert slow.wait_s() == pytest.approx(0.5)
        clock.advance(0.5)
        assert slow.take() is not None

    def test_a_message_whose_time_is_over_is_not_given_out(self) -> None:
        clock = FakeClock()
        queue = MemorySwitchboard('in', options=QueueOptions(ttl_s=60), clock=clock)
        filebase = queue.enqueue('x')
        clock.advance(61)
        assert queue.take() is None
        assert list(queue.bad_store.entries) == [filebase]

    def test_what_is_taken_out_is_another_object_each_time(self) -> None:
        queue = MemorySwitchboard('in')
        msg = {'a': [1]}
        filebase = queue.enqueue(msg)
        msg['a'].append(2)
        queue.dequeue(filebase)[0]['a'].append(3)
        queue.release(filebase)
        assert queue.dequeue(filebase)[0] == {'a': [1]}
