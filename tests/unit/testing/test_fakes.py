"""What users get for their own tests, where the conformance suite does not look."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import switchboard.testing
from switchboard.errors import QueueFullError, UnknownQueueError
from switchboard.interfaces import ISpool, ISwitchboard
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

    def test_they_keep_what_fails_beside_them(self) -> None:
        queue = MemorySwitchboard('in')
        filebase = queue.enqueue('x')
        queue.finish(filebase, preserve=True)
        assert MemorySwitchboard('bad', store=queue.store).get_files('.psv') == [filebase]

    def test_nothing_stays_when_the_last_object_has_gone(self) -> None:
        one = MemorySwitchboard('in')
        directory = Path(one.store.directory)
        other = MemorySwitchboard('in', store=one.store)
        one.enqueue('x')
        del one
        assert len(other.files) == 1
        spool = MemorySpool()
        assert Path(spool.directory).is_dir()
        directories = [directory, Path(spool.directory)]
        del other, spool
        gc.collect()
        assert [each for each in directories if each.exists()] == []

    def test_a_child_that_ends_removes_nothing(self) -> None:
        queue = MemorySwitchboard('in')
        queue.enqueue('x')
        program = 'import os, sys; from switchboard.testing import MemorySwitchboard; q = MemorySwitchboard("in"); q.enqueue("x")\n'
        program += 'pid = os.fork()\nif not pid: sys.exit()\nos.waitpid(pid, 0); assert len(q.files) == 1; print(q.store.directory)'
        directory = subprocess.run(
            [sys.executable, '-c', program], check=True, capture_output=True, text=True
        ).stdout
        assert not Path(directory.strip()).exists()

    def test_a_configurations_spool_and_brokers_are_not_touched(self, tmp_path: Path) -> None:
        path = tmp_path / 'switchboard.cfg'
        path.write_text(
            '[switchboard]\nspool = spool\n[queue.*]\nurl = amqp://127.0.0.1:1\n[queue.in]\nmax_messages = 1\n'
        )
        spool = MemorySpool.from_config(path)
        assert (spool['in'].is_remote, spool['in'].options.max_messages) == (False, 1)
        spool['in'].enqueue('x')
        with pytest.raises(QueueFullError):
            spool['in'].enqueue('y')
        with pytest.raises(UnknownQueueError):
            spool['other']
        assert os.listdir(tmp_path) == ['switchboard.cfg']
