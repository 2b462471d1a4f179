"""The runner's loop: how it stops, sleeps and wakes, and what it does when the disk is in trouble."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from switchboard.errors import PermanentFailure
from switchboard.testing import Signal
from tests.unit.runs import Recorder, RecordingSlot, make_runner, make_spool


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
