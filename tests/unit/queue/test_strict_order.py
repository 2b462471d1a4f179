"""Order by key: one key, one slice, in order; and strict order, across failures, processes and messages at work."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from switchboard import Runner, Spool, Switchboard
from switchboard.message.naming import NS_PER_S
from switchboard.operating.holding import hold, release
from switchboard.options import QueueOptions, RetryPolicy, RunnerOptions
from switchboard.queue.ready_queue import requested_wait
from switchboard.store.disk import Disk
from switchboard.store.kernel import WITH_ALL_NAMES, WITH_NAME
from switchboard.testing import FakeClock
from tests.helpers.processes import Child
from tests.helpers.waiting import eventually

STRICT = QueueOptions(
    durability='lazy', strict_order=True, max_attempts=3, retry=RetryPolicy(10.0, 10.0, jitter=0)
)


@pytest.fixture
def queue(tmp_path: Path, clock: FakeClock) -> Switchboard:
    return Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock)


def fill(queue: Switchboard, *messages: str) -> list[str]:
    """Messages like ``a1``: key and number."""
    return [queue.enqueue(msg, order_key=msg[0]) for msg in messages]


def taken(queue: Switchboard) -> list[str]:
    found = []
    while (one := queue.take()) is not None:
        found.append(one.msg)
    return found


def test_one_key_stays_in_one_slice(tmp_path, clock):
    everything = Switchboard('in', tmp_path / 'in', clock=clock)
    fill(everything, *(f'{key}{number}' for number in range(5) for key in 'abcdefgh'))
    for count in (2, 3, 5):
        seen = {}
        for index in range(count):
            part = Switchboard('in', tmp_path / 'in', index, count, clock=clock)
            for filebase in part.files:
                key = part.peek(filebase).body[:1]
                assert seen.setdefault(key, index) == index
        assert len(seen) == 8


def test_while_one_is_at_work_the_others_of_its_key_wait_and_other_keys_do_not(queue):
    fill(queue, 'a1', 'a2', 'b1', 'b2')
    assert taken(queue) == ['a1', 'b1']


def test_the_next_may_be_taken_when_the_first_is_finished(queue, clock):
    first, _ = fill(queue, 'a1', 'a2')
    assert taken(queue) == ['a1']
    queue.finish(first)
    clock.advance(1)
    assert taken(queue) == ['a2']


def test_one_that_waits_for_its_retry_holds_its_key_back_and_keeps_its_place(queue, clock):
    first, _, _ = fill(queue, 'a1', 'a2', 'b1')
    assert queue.take().msg == 'a1'
    assert queue.release(first, delay_s=60, record={'event': 'failed'}) == first
    clock.advance(30)
    assert taken(queue) == ['b1']
    clock.advance(31)
    assert taken(queue) == ['a1']


def test_another_process_is_held_back_as_well(queue, clock, tmp_path):
    first, _ = fill(queue, 'a1', 'a2')
    queue.take()
    other = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock)
    assert taken(other) == []
    queue.release(first, delay_s=60)
    clock.advance(1)
    assert taken(other) == []
    clock.advance(60)
    assert taken(other) == ['a1']


def test_the_wait_that_another_process_asked_for_last_is_kept(queue, clock, tmp_path):
    first, _ = fill(queue, 'a1', 'a2')
    other = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock)
    queue.take()
    queue.release(first, delay_s=10)
    clock.advance(11)
    assert other.take().msg == 'a1'
    other.release(first, delay_s=60)
    clock.advance(30)
    assert taken(queue) == []
    clock.advance(31)
    assert taken(queue) == ['a1']


def test_one_that_was_preserved_lets_the_next_pass(queue, clock):
    first, _ = fill(queue, 'a1', 'a2')
    queue.take()
    queue.finish(first, preserve=True)
    clock.advance(1)
    assert taken(queue) == ['a2']


def test_a_delayed_entry_holds_back_only_what_came_after_it(queue, clock):
    fill(queue, 'a1')
    queue.enqueue('a9', order_key='a', delay=100)
    assert taken(queue) == ['a1']


def test_a_high_priority_passes_other_keys_and_not_its_own(queue):
    fill(queue, 'a1')
    queue.enqueue('a2', order_key='a', priority=9)
    queue.enqueue('b1', order_key='b', priority=5)
    assert taken(queue) == ['b1', 'a1']


def test_while_one_is_at_work_not_even_the_highest_priority_of_its_key_is_taken(queue, clock):
    (first,) = fill(queue, 'a1')
    assert taken(queue) == ['a1']
    queue.enqueue('a2', order_key='a', priority=9)
    clock.advance(1)
    assert taken(queue) == []
    queue.finish(first)
    clock.advance(1)
    assert taken(queue) == ['a2']


def test_one_that_is_claimed_while_its_queue_is_read_is_not_overlooked(tmp_path, clock):
    class Claims(Disk):
        """Lets another process claim an entry after the first of the directory's readings."""

        def scandir(self, path):
            found = list(os.scandir(path))
            if armed:
                other.dequeue(armed.pop())
            return contextlib.nullcontext(iter(found))

    armed = []
    other = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock)
    first, second = fill(other, 'a1', 'a2')
    queue = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock, disk=Claims())
    armed.append(first)
    assert queue.take() is None
    assert second in other.files


def test_one_that_has_expired_lets_the_next_pass(queue, clock):
    queue.enqueue('a1', order_key='a', ttl=5)
    fill(queue, 'a2')
    clock.advance(6)
    assert taken(queue) == ['a2']


def test_one_that_expires_while_it_waits_for_its_retry_lets_the_next_pass(queue, clock):
    first = queue.enqueue('a1', order_key='a', ttl=5)
    fill(queue, 'a2')
    queue.take()
    queue.release(first, delay_s=60, record={'event': 'failed'})
    clock.advance(6)
    assert taken(queue) == []  # it is looked at when its wait is over
    clock.advance(60)
    assert taken(queue) == ['a2']


def test_a_delayed_one_waits_for_what_came_while_it_was_delayed(queue, clock, tmp_path):
    other = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock)
    fill(queue, 'a1')
    queue.enqueue('a9', order_key='a', delay=20)
    [first] = [one.filebase for one in iter(queue.take, None)]
    queue.finish(first)
    clock.advance(10)
    fill(queue, 'a2')
    clock.advance(11)
    assert other.take().msg == 'a2'
    assert taken(queue) == []


class Fails(Runner):
    """Notes what it gets; fails at what it is told to, the first time."""

    def __init__(self, *args, **keys) -> None:
        super().__init__(*args, **keys)
        self.got = []

    def dispose(self, msg, msgdata):
        self.got.append(msg)
        if msg == 'a1' and self.got.count('a1') == 1:
            raise ValueError('not yet')


def test_a_runner_works_each_key_in_order_across_a_failure(tmp_path, clock):
    spool = Spool(tmp_path, clock=clock, options=STRICT)
    runner = Fails(spool, RunnerOptions('r', '', queue='in', batch_size=4), clock=clock)
    fill(spool['in'], 'a1', 'b1', 'a2', 'b2', 'a3')
    for _ in range(8):
        runner.run(until_empty=True)
        clock.advance(11)
    assert [msg for msg in runner.got if msg[0] == 'b'] == ['b1', 'b2']
    assert [msg for msg in runner.got if msg[0] == 'a'] == ['a1', 'a1', 'a2', 'a3']


def test_without_strict_order_one_that_waits_lets_the_others_pass(tmp_path, clock):
    queue = Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'), clock=clock)
    first, _ = fill(queue, 'a1', 'a2')
    queue.take()
    queue.release(first, delay_s=60)
    assert taken(queue) == ['a2']


def test_a_history_says_until_when_an_entry_waits():
    assert requested_wait([{'event': 'failed', 'not_before': 12.0}], 10 * 10**9) == (12.0, 2.0)
    assert requested_wait([{'event': 'failed', 'not_before': 12.0}], 13 * 10**9) == (12.0, 0.0)
    assert requested_wait([{'event': 'failed', 'not_before': 12.0}, {'event': 'retried'}], 0) == (0.0, 0.0)
    assert requested_wait([], 0) == (0.0, 0.0)


def test_one_that_its_producer_still_holds_is_not_passed_by_others_of_its_key(tmp_path, clock):
    queue = Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'), clock=clock)
    first, _, _ = fill(queue, 'a1', 'a2', 'b1')
    with (tmp_path / 'in' / f'{first}.pck').open('rb') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert taken(queue) == ['b1']
        clock.advance(1)
        assert taken(queue) == []
    fill(queue, 'a3')
    clock.advance(1)
    assert taken(queue) == ['a1', 'a2', 'a3']


class TickingClock(FakeClock):
    """Goes on by ``tick_s`` whenever somebody looks how late it is."""

    tick_s = 0.0005

    def monotonic_ns(self) -> int:
        """See `Clock`."""
        self.advance(self.tick_s)
        return super().monotonic_ns()


def test_other_keys_are_held_back_when_the_last_contended_entry_has_gone(queue, clock, tmp_path):
    first, other, _, _ = fill(queue, 'a1', 'b1', 'a2', 'b2')
    elsewhere = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock)
    elsewhere.dequeue(other)
    with (tmp_path / 'in' / f'{first}.pck').open('rb') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert taken(queue) == []
    elsewhere.dequeue(first)
    clock.advance(2)
    assert taken(queue) == []


def test_what_waited_for_one_that_its_producer_held_is_not_passed_by_what_comes_later(tmp_path):
    clock = TickingClock()
    queue = Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'), clock=clock)
    first, _, _ = fill(queue, 'a1', 'a2', 'a3')
    with (tmp_path / 'in' / f'{first}.pck').open('rb') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert taken(queue) == []
    fill(queue, 'a4')
    clock.tick_s = 0.0001
    found: list[str] = []
    while len(found) < 4:
        found += taken(queue)
    assert found == ['a1', 'a2', 'a3', 'a4']


def test_one_that_somebody_else_has_taken_holds_nobody_back(tmp_path, clock):
    queue = Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'), clock=clock)
    first, _ = fill(queue, 'a1', 'a2')
    queue.has_ready()
    Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy')).dequeue(first)
    assert taken(queue) == ['a2']


class TestWaiting:
    """How often a queue of strict order looks, and after whom an entry waits."""

    def wakes(self, queue: Switchboard, clock: FakeClock, seconds: float) -> int:
        """Count how often a runner would wake that sleeps as long as it is told to."""
        until_ns, wakes = clock.monotonic_ns() + int(seconds * NS_PER_S), 0
        while clock.monotonic_ns() < until_ns:
            assert taken(queue) == []
            assert not queue.has_ready()
            wait_s = queue.wait_s()
            assert wait_s is not None
            clock.advance(wait_s + 0.0001)
            wakes += 1
        return wakes

    def test_an_entry_behind_one_that_waits_for_its_retry_is_not_looked_at_before(self, queue, clock):
        first, *_ = fill(queue, 'a1', 'a2', 'a3')
        queue.take()
        queue.release(first, delay_s=3600, record={'event': 'failed'})
        assert self.wakes(queue, clock, 3599) < 5
        assert taken(queue) == ['a1']

    def test_one_behind_an_entry_at_work_is_looked_at_once_a_second(self, queue, clock):
        fill(queue, 'a1', 'a2')
        queue.take()
        assert self.wakes(queue, clock, 100) < 115

    def test_one_that_is_contended_for_long_is_looked_at_once_a_second(self, tmp_path, clock):
        queue = Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'), clock=clock)
        [first] = fill(queue, 'a1')
        with (tmp_path / 'in' / f'{first}.pck').open('rb') as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            assert self.wakes(queue, clock, 100) < 115

    def test_one_behind_an_entry_at_work_is_to_be_had_as_soon_as_that_is_done(self, queue, clock):
        first, _ = fill(queue, 'a1', 'a2')
        queue.take()
        self.wakes(queue, clock, 20)
        queue.finish(first)
        assert taken(queue) == ['a2']


def test_one_that_an_operator_lets_go_waits_for_a_later_one_that_is_at_work(queue, clock, tmp_path):
    first, second = fill(queue, 'a1', 'a2')
    away = tmp_path / 'away'
    (tmp_path / 'in' / f'{first}.pck').rename(away)
    assert taken(queue) == ['a2']
    away.rename(tmp_path / 'in' / f'{first}.pck')
    clock.advance(2)
    assert taken(queue) == []
    other = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock)
    assert taken(other) == []
    queue.finish(second)
    clock.advance(2)
    assert taken(other) == ['a1']


class MissingDisk(Disk):
    """Has a listing miss names, as on Btrfs a file is missed that is renamed meanwhile."""

    fsync_scope = staticmethod(lambda fd: WITH_NAME)

    def __init__(self) -> None:
        self.missed: set[str] = set()
        self.meanwhile: list[Callable[[], object]] = []
        self.listed = 0

    def scandir(self, path):
        while self.meanwhile:
            self.meanwhile.pop()()
        self.listed += 1
        return contextlib.nullcontext(
            entry for entry in list(os.scandir(path)) if entry.name[:-4] not in self.missed
        )

    def rename(self, source, target, **keys):
        os.rename(source, target, **keys)
        if target.endswith('.bak'):
            self.missed.clear()  # the readings that come now are of an instant in which nobody renames


def strict_queue(path: Path, disk: Disk | None = None) -> Switchboard:
    return Spool(path, 'lazy', disk=disk).queue('in', strict_order=True)


class TestReadingThatMisses:
    """No reading is to be believed that an entry is not there."""

    @pytest.fixture
    def other(self, tmp_path: Path) -> Switchboard:
        """Another process's."""
        return strict_queue(tmp_path)

    def looking(self, tmp_path: Path) -> tuple[MissingDisk, Switchboard]:
        """A process that has looked before."""
        disk = MissingDisk()
        queue = strict_queue(tmp_path, disk)
        queue.enqueue('z1', order_key='z')
        queue.finish(queue.take().filebase)
        return disk, queue

    def assert_in_order(self, queue: Switchboard, *messages: str) -> None:
        found: list[str] = []

        def is_all() -> bool:
            while (one := queue.take()) is not None:
                found.append(one.msg)
                queue.finish(one.filebase)
            return len(found) == len(messages)

        eventually(is_all, 'all messages are taken')
        assert found == [*messages]

    def test_one_that_is_given_back_meanwhile_is_not_passed(self, tmp_path, other):
        disk, queue = self.looking(tmp_path)
        first, _ = fill(other, 'a1', 'a2')
        assert other.take().msg == 'a1'
        disk.missed.add(first)
        disk.meanwhile.append(lambda: other.release(first))
        self.assert_in_order(queue, 'a1', 'a2')

    def test_one_that_is_recovered_meanwhile_is_not_passed(self, tmp_path, other):
        disk, queue = self.looking(tmp_path)
        first, _ = fill(other, 'a1', 'a2')
        assert Child(lambda: strict_queue(tmp_path).take().msg).join() == 'a1'  # and dies with it
        disk.missed.add(first)
        disk.meanwhile.append(lambda: other.recover(include_own=False))
        self.assert_in_order(queue, 'a1', 'a2')

    def test_a_retry_that_is_waited_for_is_not_passed(self, tmp_path, other):
        disk, queue = self.looking(tmp_path)
        first, _ = fill(other, 'a1', 'a2')
        other.take()
        other.release(first, delay_s=3600)
        disk.missed.add(first)
        assert queue.take() is None
        assert not disk.missed

    def test_one_that_an_operator_lets_go_meanwhile_is_not_passed(self, tmp_path, other):
        disk, queue = self.looking(tmp_path)
        first, _ = fill(other, 'a1', 'a2')
        held = hold(other, first)
        disk.missed.add(first)
        disk.meanwhile.append(lambda: release(other, held))
        self.assert_in_order(queue, 'a1', 'a2')

    def test_one_of_which_a_later_one_is_just_taken_is_recovered_the_next_time(self, tmp_path, other):
        first, second = fill(other, 'a1', 'a2')
        assert Child(lambda: strict_queue(tmp_path).take().msg).join() == 'a1'  # and dies with it
        order = other.consumer._order
        fd = order.lock(second)
        assert other.recover(include_own=False) == []
        os.close(fd)
        assert other.recover(include_own=False) == [first]

    def test_a_name_that_is_missed_is_looked_for_twice_where_names_can_be_missed(self, tmp_path, other):
        fill(other, 'a1')
        disk, queue = self.looking(tmp_path)
        listed = disk.listed
        queue.has_ready()
        assert disk.listed == listed + 2
        disk.fsync_scope = lambda fd: WITH_ALL_NAMES
        queue = strict_queue(tmp_path, disk)
        listed = disk.listed
        queue.has_ready()
        assert disk.listed == listed + 1

    def test_of_many_keys_that_wait_for_their_retries_the_directory_is_not_read_for_each(
        self, tmp_path, other
    ):
        for number in range(100):
            other.enqueue(number, order_key=str(number))
        while (one := other.take()) is not None:
            other.release(one.filebase, delay_s=3600)
        disks = [CountingDisk(), CountingDisk()]
        queues = [strict_queue(tmp_path, disk) for disk in disks]
        for queue in queues:
            assert queue.take() is None
        assert all(disk.listed < 30 for disk in disks)


class CountingDisk(Disk):
    """Counts the listings of the queue: the stage, in which there is next to nothing, is listed for each message."""

    listed = 0

    def scandir(self, path):
        self.listed += not os.readlink(f'/proc/self/fd/{path}').endswith('/.stage')
        return os.scandir(path)


def test_after_a_clock_was_set_back_the_directory_is_not_read_for_each_message(tmp_path, clock):
    fill(
        Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock),
        *(f'{key}1' for key in map(chr, range(97, 123))),
    )
    clock.set_back(3600)
    disk = CountingDisk()
    queue = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock, disk=disk)
    assert len(taken(queue)) == 26
    assert disk.listed < 10


def test_the_wait_for_a_retry_is_kept_when_the_clock_is_set_back(queue, clock, tmp_path):
    first, _ = fill(queue, 'a1', 'a2')
    queue.take()
    queue.release(first, delay_s=60, record={'event': 'failed'})
    clock.set_back(3600)
    other = Switchboard('in', tmp_path / 'in', options=STRICT, clock=clock)
    for each in (queue, other):
        assert taken(each) == []
    clock.advance(61)
    assert taken(other) == ['a1']
