"""The runner's loop: how it stops, sleeps and wakes, and what it does when the disk is in trouble."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from switchboard.errors import DurabilityError, PermanentFailure, TemporaryFailure
from switchboard.options import QueueOptions
from switchboard.testing import Signal
from tests.processes import Child
from tests.unit.runs import Recorder, RecordingSlot, make_runner, make_spool, preserved


@pytest.fixture(params=['directory', 'memory'])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spool(kind: str, tmp_path: Path) -> Any:
    return make_spool(kind, tmp_path)


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

        runner = make_runner(spool, cls=Sleeper, rescan_s=3600.0)
        thread = threading.Thread(target=runner.run)
        thread.start()
        asleep.wait_or_timeout()
        runner.stop()
        thread.join(30)
        assert not thread.is_alive()

    @pytest.mark.parametrize('error', [SystemExit(3), KeyboardInterrupt()])
    def test_a_process_that_is_told_to_end_gives_its_messages_back(
        self, spool: Any, error: BaseException
    ) -> None:
        filebases = spool['in'].enqueue_many(range(6))

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.emit('out', msg)
            if msg == 2:
                raise error

        with pytest.raises(type(error)):
            make_runner(spool, dispose, batch_size=4).run()
        assert spool['in'].files == filebases[2:]
        assert len(spool['out'].files) == 2
        assert spool['in'].history(filebases[2]) == []


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
            spool, dispose, cls=Sleeper, rescan_s=3600.0, recovery_s=3600.0, hang_timeout_s=9999.0
        )
        thread = threading.Thread(target=runner.run)
        thread.start()
        asleep.wait_or_timeout()
        spool['in'].enqueue('x')
        handled.wait_or_timeout()
        thread.join(30)

    def test_the_board_hears_of_each_beat_and_message(self, spool: Any) -> None:
        spool['in'].enqueue_many(['good', 'bad'])
        slot = RecordingSlot()

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            if msg == 'bad':
                raise PermanentFailure('no')

        make_runner(spool, dispose, slot=slot).run(until_empty=True)
        assert [call for call in slot.calls if call != 'beat'] == [
            *('begin', 'done', 'begin', 'error PermanentFailure: no', 'failed'),
        ]
        assert slot.calls[0] == 'beat'


class FailingBoard:
    """A queue whose calls fail when a test says so; everything else is the real one's."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self.failing: dict[str, Exception] = {}
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.called.append(name)
        if name in self.failing:
            error = self.failing[name]

            def fail(*_args: Any, **_keys: Any) -> Any:
                raise error

            return fail
        return getattr(self._board, name)


class TestTroubleWithTheDisk:
    @pytest.fixture
    def runner(self, spool: Any) -> Any:
        runner = make_runner(spool, hang_timeout_s=9999.0)
        runner.board = FailingBoard(runner.board)
        return runner

    def test_a_queue_that_cannot_be_read_is_waited_for_and_longer_each_time(
        self, runner: Any, spool: Any
    ) -> None:
        spool['in'].enqueue('x')
        runner.board.failing['take'] = DurabilityError('bad sector', step='list')
        waits = []

        class Wakeup:
            watches = True

            def wait(self, timeout_s: float) -> None:
                waits.append(timeout_s)
                if len(waits) == 9:
                    runner.board.failing.clear()

            def arm(self) -> None:
                runner.stop()

            def wake(self) -> None:
                pass

            disarm = wake

        runner._wakeup = Wakeup()
        runner.run()
        assert waits[:9] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        assert [msg for msg, _ in runner.seen] == ['x']

    def test_an_error_of_the_system_is_no_end_either(self, runner: Any) -> None:
        runner.board.failing['take'] = OSError('odd')
        assert runner.run(until_empty=True) == 0
        assert runner.board.called.count('take') == 1

    def test_a_full_queue_downstream_leaves_the_message_where_it_is(self, kind: str, tmp_path: Path) -> None:
        spool = make_spool(kind, tmp_path, options=QueueOptions(max_messages=1))
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
        self, runner: Any, spool: Any
    ) -> None:
        filebase = spool['in'].enqueue('x')
        runner.then = lambda *_: (_ for _ in ()).throw(TemporaryFailure(retry_after_s=0))
        runner.board.failing['release'] = DurabilityError('io', step='release')
        runner.run(once=True)
        assert spool['in'].get_files('.bak') == [filebase]
        runner.board.failing.clear()
        runner._next_recovery_ns = 0
        runner._recover()
        assert spool['in'].get_files() == [filebase]

    def test_what_is_not_ours_any_more_does_not_stop_recovery_for_ever(self, runner: Any, spool: Any) -> None:
        filebase = spool['in'].enqueue('x')
        runner._stuck.append(filebase)
        for _ in range(2):
            runner._next_recovery_ns = 0
            runner._recover()
        assert runner.board.called.count('recover') == 2
        assert runner._stuck == []

    def test_a_recovery_that_fails_is_no_end(self, runner: Any, spool: Any) -> None:
        spool['in'].enqueue('x')
        runner.board.failing['recover'] = DurabilityError('io', step='list')
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

    def test_what_was_recovered_is_taken_alone_so_that_it_kills_nobody_else(self, spool: Any) -> None:
        filebases = spool['in'].enqueue_many(range(6))
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

    def test_a_poison_in_a_batch_takes_nobody_to_bad_with_it(self, tmp_path: Path) -> None:
        spool = make_spool('directory', tmp_path)
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
