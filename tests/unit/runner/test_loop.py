"""The runner's loop: how it stops, sleeps and wakes, and what it does when the disk is in trouble."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import (
    DestinationDown,
    DurabilityError,
    LockTimeoutError,
    PermanentFailure,
    QueueFullError,
    RunnerError,
    TemporaryFailure,
)
from switchboard.handoff.moving import claim_ready_or_preserved, move
from switchboard.message.naming import digest_of
from switchboard.options import QueueOptions, RetryPolicy, RunnerOptions
from switchboard.runner.loop import Loop
from switchboard.runner.settling import TRIES_ALONE_PER_S, Settler
from switchboard.runners.command import LeftRunningError
from switchboard.status.scoreboard import NullSlot
from switchboard.testing import FakeClock, Signal, run_until_empty
from tests.helpers.processes import Child
from tests.helpers.runs import Recorder, RecordingSlot, make_runner, preserved


def make_loop(spool: Any) -> Loop:
    """:return: the loop of a runner that has many messages at work at once."""
    options, queue, clock = RunnerOptions(name='r', class_path='', queue='in'), spool['in'], spool.clock
    settler = Settler(
        spool, queue, options, NullSlot(), clock, on_error=lambda *_: None, is_stopping=lambda: False
    )
    return Loop(spool, queue, options, clock, settler, takes_many=True)


class TestStopping:
    @pytest.mark.parametrize('batch_size', [1, 3, 100])
    def test_a_stop_finishes_the_message_at_work_and_leaves_the_others_untouched(
        self, spool: Any, batch_size: int
    ) -> None:
        filebases = spool['in'].enqueue_many(range(10))

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.emit('out', msg)
            if msg == 4:
                runner.stop()

        assert make_runner(spool, dispose, batch_size=batch_size).run() == 0
        assert spool['in'].files == filebases[5:]
        assert spool['in'].get_files('.bak') == []
        assert len(spool['out'].files) == 5
        assert [spool['in'].history(filebase) for filebase in filebases[5:]] == [[]] * 5

    def test_a_stop_ends_the_sleep(self, spool: Any) -> None:
        asleep = Signal()

        class Sleeper(Recorder):
            def snooze(self, filecnt: int) -> None:
                asleep.set()

        runner = make_runner(spool, cls=Sleeper, poll_interval_s=3600.0)
        thread = threading.Thread(target=runner.run)
        thread.start()
        asleep.wait_or_timeout()
        runner.stop()
        thread.join(30)
        assert not thread.is_alive()

    @pytest.mark.parametrize('error', [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
    def test_a_process_that_is_being_stopped_gives_its_messages_back(
        self, spool: Any, error: type[BaseException]
    ) -> None:
        filebases = spool['in'].enqueue_many(range(6))

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.emit('out', msg)
            if msg == 2:
                runner.stop()
                raise error

        with pytest.raises(error):
            make_runner(spool, dispose, batch_size=4).run()
        assert spool['in'].files == filebases[2:]
        assert len(spool['out'].files) == 2
        assert spool['in'].history(filebases[2]) == []

    def test_ctrl_c_in_a_program_of_ones_own_finishes_the_message_at_work(self, spool: Any) -> None:
        spool['in'].enqueue_many(range(3))

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            runner.emit('out', msg)

        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            make_runner(spool, dispose).run()
        assert (len(spool['in'].files), len(spool['out'].files)) == (2, 1)
        assert signal.getsignal(signal.SIGINT) is before

    @pytest.mark.parametrize('hook', ['setup', 'periodic', 'snooze', 'cleanup'])
    def test_a_hook_does_not_end_the_process_as_if_all_were_well(self, spool: Any, hook: str) -> None:
        def leave(self: Any, *_args: Any) -> None:
            raise SystemExit(0)

        cls = type('Leaves', (Recorder,), {hook: leave})
        with pytest.raises(RunnerError, match=f'{hook} raised SystemExit: 0'):
            make_runner(spool, cls=cls).run(until_empty=hook != 'snooze')


class TestWakingUp:
    def test_a_message_wakes_an_idle_runner_without_waiting_for_a_timer(self, spool: Any) -> None:
        asleep, handled = Signal(), Signal()

        class Sleeper(Recorder):
            def snooze(self, filecnt: int) -> None:
                asleep.set()

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            handled.set()
            runner.stop()

        runner = make_runner(
            spool,
            dispose,
            cls=Sleeper,
            poll_interval_s=3600.0,
            recovery_interval_s=3600.0,
            hang_timeout_s=9999.0,
        )
        thread = threading.Thread(target=runner.run)
        thread.start()
        asleep.wait_or_timeout()
        spool['in'].enqueue('x')
        handled.wait_or_timeout()
        thread.join(30)

    def test_the_queue_hears_of_each_beat_and_message(self, spool: Any) -> None:
        spool['in'].enqueue_many(['good', 'bad'])
        slot = RecordingSlot()

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            if msg == 'bad':
                raise PermanentFailure('no')

        make_runner(spool, dispose, slot=slot).run(until_empty=True)
        assert [call for call in slot.calls if call != 'heartbeat'] == [
            *('begin', 'done', 'begin', 'error PermanentFailure: no', 'failed'),
        ]
        assert slot.calls[0] == 'heartbeat'


class FailingQueue:
    """A queue whose calls fail when a test says so; everything else is the real one's."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.failing: dict[str, Exception] = {}
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.called.append(name)
        if name in self.failing:
            error = self.failing[name]

            def fail(*_args: Any, **_keys: Any) -> Any:
                raise error

            return fail
        return getattr(self._queue, name)


class Waits:
    """A wakeup that writes down how long is waited, and has that time pass."""

    is_watching = True

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.waits: list[float] = []
        self.then: Callable[[], object] = int

    def wait(self, timeout_s: float) -> None:
        self.waits.append(round(timeout_s, 3))
        self.clock.advance(timeout_s)
        self.then()

    def arm(self) -> None:
        pass

    disarm = wake = arm


class TestTroubleWithTheDisk:
    @pytest.fixture
    def waits(self, clock: FakeClock) -> Waits:
        return Waits(clock)

    @pytest.fixture
    def runner(self, spool: Any, waits: Waits) -> Any:
        failing = FailingQueue(spool.queue('in'))
        failing.make_wakeup = lambda: waits
        spool.queue = lambda *_slice: failing
        return make_runner(spool, hang_timeout_s=9999.0, poll_interval_s=9999.0, recovery_interval_s=60.0)

    def test_one_that_cannot_be_read_before_the_sleep_ends_nobody(self, runner: Any, waits: Waits) -> None:
        runner.queue.failing['has_ready'] = DurabilityError('too many open files', step='list')
        runner._loop.sleep()
        assert waits.waits == [0.5]  # that of the trouble

    def test_a_queue_that_cannot_be_read_is_waited_for_and_longer_each_time(
        self, runner: Any, spool: Any, waits: Waits
    ) -> None:
        spool['in'].enqueue('x')
        runner.queue.failing['take'] = DurabilityError('bad sector', step='list')
        wakeup = waits

        def then() -> None:
            if len(wakeup.waits) == 9:
                runner.queue.failing.clear()
            if len(wakeup.waits) == 10:
                runner.stop()

        wakeup.then = then
        runner.run()
        assert wakeup.waits[:9] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        assert [msg for msg, _ in runner.seen] == ['x']

    def test_an_error_of_the_system_is_no_end_either(self, runner: Any) -> None:
        runner.queue.failing['take'] = OSError('odd')
        assert runner.run(until_empty=True) == 0
        assert runner.queue.called.count('take') == 1

    def test_a_full_queue_downstream_leaves_the_message_where_it_is(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', options=QueueOptions(max_messages=1))
        filebase = spool['in'].enqueue('x')
        spool['out'].enqueue('fills it')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.emit('out', msg)

        runner = make_runner(spool, dispose)
        runner.run(until_empty=True)
        assert spool['in'].files == [filebase]
        assert spool['in'].history(filebase) == []
        assert len(runner.seen) == 1

    def test_what_could_not_be_released_is_tried_again_with_the_next_recovery(
        self, runner: Any, spool: Any, clock: FakeClock
    ) -> None:
        filebase = spool['in'].enqueue('x')
        runner.then = lambda *_: (_ for _ in ()).throw(TemporaryFailure(retry_after_s=600))
        runner.queue.failing['release'] = DurabilityError('io', step='release')
        runner.run(once=True)
        assert spool['in'].get_files('.bak') == [filebase]
        runner.queue.failing.clear()
        clock.advance(60)
        runner.run(once=True)
        assert spool['in'].get_files('.bak') == []
        [released] = spool['in'].get_files()
        assert digest_of(released) == digest_of(filebase)
        assert [record['event'] for record in spool['in'].history(released)] == ['deferred']
        assert len(runner.seen) == 1  # it waits as long as was asked for
        clock.advance(600)
        runner.run(once=True)
        assert len(runner.seen) == 2

    def test_what_is_not_ours_any_more_does_not_stop_recovery_for_ever(
        self, runner: Any, spool: Any, clock: FakeClock
    ) -> None:
        spool['in'].enqueue('x')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.queue.finish(runner.filebase)  # as if another process had done it by now
            raise TemporaryFailure(retry_after_s=600)

        runner.then = dispose
        runner.run(once=True)
        runner.then = None
        clock.advance(60)
        runner.run(once=True)
        assert runner.queue.called.count('recover') == 2
        assert spool['in'].get_files() == spool['bad'].get_files('.psv') == []

    def test_a_recovery_that_fails_is_no_end(self, runner: Any, spool: Any) -> None:
        spool['in'].enqueue('x')
        runner.queue.failing['recover'] = DurabilityError('io', step='list')
        assert runner.run(until_empty=True) == 0
        assert len(runner.seen) == 1


class TestBatches:
    def test_one_flush_ends_many(self, spool: Any) -> None:
        spool['in'].enqueue_many(range(10))
        sizes = []
        commit_all = spool.commit_all

        def count(transactions: Any) -> Any:
            sizes.append(len(transactions))
            return commit_all(transactions)

        spool.commit_all = count
        make_runner(spool, batch_size=4).run(until_empty=True)
        assert sizes == [4, 4, 2]

    def test_what_has_one_life_left_is_taken_alone_so_that_it_kills_nobody_else(self, spool: Any) -> None:
        filebases = spool['in'].enqueue_many(range(6))
        for _ in range(2):
            for filebase in (filebases[0], filebases[3]):
                spool['in'].dequeue(filebase)
            spool['in'].recover_backup_files()
        held = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            held.append((msg, len(spool['in'].get_files('.bak'))))

        make_runner(spool, dispose, batch_size=10).run(until_empty=True)
        assert [msg for msg, _ in held] == [0, 1, 2, 3, 4, 5]
        assert dict(held)[0] == dict(held)[3] == 1
        assert spool['in'].get_files() == []

    def test_what_has_one_life_left_waits_for_the_end_of_a_pause_like_all_others(self, spool: Any) -> None:
        filebases = spool['in'].enqueue_many(range(3))
        for _ in range(2):
            spool['in'].dequeue(filebases[1])
            spool['in'].recover_backup_files()
        seen = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            seen.append(msg)
            if msg == 0:
                spool.pause('in')

        runner = make_runner(spool, dispose, batch_size=10)
        runner.run(until_empty=True)
        assert seen == [0]
        spool.resume('in')
        runner.run(until_empty=True)
        assert seen == [0, 1, 2]

    def test_what_has_one_life_left_and_expires_before_its_turn_holds_nobody_back(
        self, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock)
        filebases = [spool['in'].enqueue(number, ttl=60 if number == 1 else 3600) for number in range(3)]
        for _ in range(2):
            spool['in'].dequeue(filebases[1])
            spool['in'].recover_backup_files()

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            if msg == 0:
                clock.advance(61)

        slot = RecordingSlot()
        runner = make_runner(spool, dispose, batch_size=10, slot=slot)
        runner.run(until_empty=True)
        assert [msg for msg, _ in runner.seen] == [0, 2]
        assert not [call for call in slot.calls if call.startswith('error')]
        assert list(preserved(spool)) == [filebases[1]]

    @pytest.mark.parametrize('is_at_work', [False, True], ids=['waits', 'at work elsewhere'])
    def test_what_has_one_life_left_comes_behind_an_earlier_one_of_its_key(
        self, tmp_path: Path, is_at_work: bool
    ) -> None:
        clock, strict = FakeClock(), QueueOptions(strict_order=True)
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock, options=strict)
        earlier = spool['from'].enqueue('earlier', order_key='k')
        spool['in'].enqueue('another', order_key='other')
        deadly = spool['in'].enqueue('deadly', order_key='k')
        for _ in range(2):
            spool['in'].dequeue(deadly)
            spool['in'].recover_backup_files()
        loop = make_loop(spool)
        another = loop.take(0)
        assert another.msg == 'another'
        assert loop.take(1) is None  # it is put off
        move(claim_ready_or_preserved(spool['from'], earlier), spool['from'], spool['in'])
        spool['in'].finish(another.claim)
        if is_at_work:
            elsewhere = Spool(tmp_path / 'spool', 'lazy', clock=clock, options=strict)['in']
            taken = elsewhere.take()
            assert loop.take(0) is None
        else:
            elsewhere, taken = spool['in'], loop.take(0)
        assert taken.msg == 'earlier'
        elsewhere.finish(taken.claim)
        clock.advance(2)  # longer than it is left to the one that was before it
        assert loop.take(0).msg == 'deadly'

    def test_a_poison_in_a_batch_takes_nobody_to_bad_with_it(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebases = spool['in'].enqueue_many(range(8))

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            if msg == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            runner.emit('out', msg)

        for _ in range(8):
            with Child(lambda: make_runner(spool, dispose, batch_size=8).run(until_empty=True)) as child:
                child.wait()
        assert list(preserved(spool)) == [filebases[5]]
        done = sorted(spool['out'].dequeue(filebase)[0] for filebase in spool['out'].files)
        assert done == [0, 1, 2, 3, 4, 6, 7]


class TestTroubleOfOneMessage:
    """What one message's trouble is does not hold back the others, and what can never be is its failure."""

    def test_a_message_whose_target_is_full_lets_the_others_have_their_turn(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock, options=QueueOptions(max_messages=20))
        spool['full'].enqueue_many(range(20))
        spool['in'].enqueue('first', to='full')
        for number in range(8):
            spool['in'].enqueue(number, to='out')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.emit(msgdata['to'], msg)

        runner = make_runner(spool, dispose, poll_interval_s=3600)
        for _ in range(4):
            clock.advance(2)
            runner.run(until_empty=True)
        assert len(spool['out'].files) == 8
        (waiting,) = spool['in'].get_files()
        assert spool['in'].history(waiting) == []

    @pytest.mark.parametrize('batch_size', [1, 10])
    def test_however_many_wait_for_a_full_target_the_others_have_their_turn(
        self, tmp_path: Path, clock: FakeClock, batch_size: int
    ) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock, options=QueueOptions(max_messages=200))
        spool['full'].enqueue_many(range(200))
        for number in range(100):
            spool['in'].enqueue(number, to='full')
        spool['in'].enqueue('good', to='out')
        tries: list[Any] = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            tries.append(msg)
            runner.emit(msgdata['to'], msg)

        runner = make_runner(spool, dispose, poll_interval_s=3600, batch_size=batch_size)
        for _ in range(30):
            runner._pass()
            clock.advance(1)
        assert [spool['out'].take().msg] == ['good']
        before, minutes = len(tries), 5
        for _ in range(60 * minutes):
            runner._pass()
            clock.advance(1)
        assert len(tries) - before <= 60 * minutes * TRIES_ALONE_PER_S
        # What comes later does not wait for them either.
        spool['in'].enqueue('late', to='out')
        runner._pass()
        assert [spool['out'].take().msg] == ['late']

    def test_however_many_the_disk_has_no_room_for_the_others_have_their_turn(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock)
        spool['in'].enqueue_many(range(50))
        spool['in'].enqueue('small')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            if msg != 'small':
                raise QueueFullError('no space left', is_disk_full=True)
            runner.emit('out', msg)

        runner = make_runner(spool, dispose, poll_interval_s=3600)
        for _ in range(1800):
            runner._pass()
            clock.advance(1)
        assert [spool['out'].take().msg] == ['small']

    def test_a_lock_that_another_process_keeps_is_no_failure_of_the_message(self, spool: Any) -> None:
        filebase = spool['in'].enqueue('x')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            raise LockTimeoutError('the count of out: locked by another process')

        make_runner(spool, dispose).run(once=True)
        assert spool['in'].files == [filebase]
        assert spool['in'].history(filebase) == []

    def test_the_trouble_of_all_makes_the_runner_wait_and_keeps_their_order(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock)
        spool['in'].enqueue_many(range(30))
        tries: list[int] = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            tries.append(msg)
            if clock.monotonic_ns() < until_ns:
                raise DurabilityError('io', step='write')
            runner.emit('out', msg)

        until_ns = clock.monotonic_ns() + 100_000_000_000
        runner = make_runner(spool, dispose)
        while spool['in'].get_files():
            runner._pass()
            clock.advance(1)
        assert len(tries) < 150
        assert [spool['out'].take().msg for _ in range(30)] == list(range(30))

    def test_a_destination_that_is_down_is_down_for_all(self, spool: Any) -> None:
        spool['in'].enqueue_many(range(3))

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            raise DestinationDown('away')

        runner = make_runner(spool, dispose)
        for _ in range(5):
            runner.run(until_empty=True)
        assert len(runner.seen) == 5

    def test_what_one_message_waits_for_does_not_hold_the_others_back(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock)
        filebases = spool['in'].enqueue_many(range(20))

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            if msg < 12:
                raise LeftRunningError('waits for a process', [])
            runner.emit('out', msg)

        runner = make_runner(spool, dispose, poll_interval_s=3600)
        for _ in range(20):
            runner._pass()
            clock.advance(1)
        assert [taken.msg for taken in iter(spool['out'].take, None)] == list(range(12, 20))
        assert spool['in'].get_files() == filebases[:12]

    def test_more_outputs_than_a_target_ever_holds_fail_their_message(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', options=QueueOptions(max_messages=2))
        spool['in'].enqueue('x')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            for number in range(3):
                runner.emit('out', number)

        make_runner(spool, dispose).run(until_empty=True)
        (reason,) = preserved(spool).values()
        assert 'one message has 3 outputs or more, and max_messages is 2' in reason
        assert spool['out'].files == []

    @pytest.mark.parametrize('sizes', [[2_000], [600, 600]])
    def test_more_bytes_than_a_target_ever_holds_fail_their_message(
        self, tmp_path: Path, sizes: list[int]
    ) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', options=QueueOptions(max_bytes=1_000))
        spool['in'].enqueue('x')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            for size in sizes:
                runner.emit('out', 'x' * size)

        make_runner(spool, dispose).run(until_empty=True)
        (reason,) = preserved(spool).values()
        assert 'max_bytes' in reason
        assert '1000' in reason

    def test_more_outputs_than_a_process_may_open_files_fail_their_message(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        spool['in'].enqueue_many(['many', 'one'])

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            # More than it may open at all: where fewer would do, it waits for others to be closed.
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            for number in range(limit if msg == 'many' else 1):
                runner.emit('out', number)

        def work() -> None:
            # Less than half of them are open before.
            most = 2 * len(os.listdir('/proc/self/fd')) + 200
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            make_runner(spool, dispose).run(until_empty=True)

        with Child(work) as child:
            child.wait()
        (reason,) = preserved(spool).values()
        assert 'outputs' in reason
        assert 'files' in reason
        assert len(spool['out'].files) == 1


class TestKeeping:
    def test_a_message_that_is_kept_again_and_again_is_looked_at_less_and_less(self, tmp_path: Path) -> None:
        clock, slot = FakeClock(), RecordingSlot()
        spool = Spool(
            tmp_path / 'spool', 'lazy', clock=clock, options=QueueOptions(retry=RetryPolicy(cap_s=20))
        )
        spool['in'].enqueue('x')
        times: list[float] = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> bool:
            times.append(clock.monotonic_ns() / 1e9)
            return len(times) < 8

        run_until_empty(make_runner(spool, dispose, slot=slot))
        waits = [round(after - before) for before, after in itertools.pairwise(times)]
        assert waits == [1, 2, 4, 8, 16, 20, 20]
        assert any('was kept 3 times, and is looked at again in 4 s' in call for call in slot.calls)

    def test_the_metadata_it_changes_each_time_make_a_history_of_some_records_a_day(
        self, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock)
        spool['in'].enqueue('x', tries=0)
        ends_ns = clock.monotonic_ns() + 86_400 * 10**9

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> bool:
            msgdata['tries'] += 1
            return clock.monotonic_ns() < ends_ns

        runner = make_runner(spool, dispose)
        run_until_empty(runner)
        assert 24 <= runner.seen[-1][1]['tries'] < 48
