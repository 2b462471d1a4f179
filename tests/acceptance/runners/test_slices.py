"""Many processes on one slice, recovery all the time, and death at any moment: every message exactly once.

Nothing here goes by a clock.  Workers tell of each message over a pipe, and it is their progress that decides when
one of them is killed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from switchboard import Runner, Spool
from switchboard.options import RunnerOptions
from switchboard.testing import Signal
from tests.helpers.processes import Child

WORKERS = 3
BATCH_SIZES = (1, 16)

# Whoever is killed at random may be killed three times with the same message in his hands: that is not its fault.
CONFIGURATION = """
[switchboard]
spool = {spool}
durability = lazy

[queue.in]
max_recoveries = 1000
[queue.out]
"""


class Mover(Runner):
    """Sends each message on, tells of it, and ends when nothing is left, nor in the hands of the others."""

    progress: int

    def dispose(self, msg: Any, msgdata: Any) -> None:
        self.emit('out', msg, worker=os.getpid())
        os.write(self.progress, b'.')

    def periodic(self) -> None:
        queue = self.spool['in']
        if not queue.get_files() and not queue.get_files('.bak'):
            self.stop()


class Scene:
    """A queue full of messages, and those who work on it."""

    def __init__(self, path: Path, stack: ExitStack, *, batch_size: int) -> None:
        self.configuration = path / 'switchboard.cfg'
        self.configuration.write_text(CONFIGURATION.format(spool=path / 'spool'))
        self.spool = self.open()
        self.batch_size = batch_size
        self.stack = stack
        self.over = Signal()
        self.told, self.progress = os.pipe()
        stack.callback(os.close, self.told)
        stack.callback(os.close, self.progress)
        self.rounds = 0

    def open(self) -> Spool:
        return Spool.from_config(self.configuration)

    def fill(self, count: int) -> None:
        self.spool['in'].enqueue_many(range(count))

    def start_worker(self) -> Child:
        def work() -> int:
            options = RunnerOptions(
                name='mover', class_path='', queue='in', batch_size=self.batch_size, poll_interval_s=0.05
            )
            mover = Mover(self.open(), options)
            mover.progress = self.progress
            return mover.run()

        return self.stack.enter_context(Child(work))

    def start_recoverer(self) -> Child:
        def recover_all_the_time() -> int:
            spool = self.open()
            rounds = 0
            while not self.over.is_set():
                spool.recover()
                spool['in'].recover(include_own=False)
                rounds += 1
            return rounds

        return self.stack.enter_context(Child(recover_all_the_time))

    def wait_for(self, messages: int) -> int:
        """Wait until so many more messages were handled.

        :return: how many were.
        """
        seen = 0
        while seen < messages:
            seen += len(os.read(self.told, messages - seen))
        return seen

    def check(self, count: int) -> Counter[int]:
        """Make sure that every message is there once, and nothing else.

        :return: how many each worker has handled.
        """
        self.spool.recover()
        arrived: Counter[int] = Counter()
        workers: Counter[int] = Counter()
        for filebase in self.spool['out'].files:
            msg, msgdata = self.spool['out'].dequeue(filebase)
            arrived[msg] += 1
            workers[msgdata['worker']] += 1
            self.spool['out'].finish(filebase)
        assert arrived == Counter(range(count))
        assert self.spool['bad'].get_files('.psv') == []
        assert self.spool['in'].get_files() == self.spool['in'].get_files('.bak') == []
        assert os.listdir(self.spool.path('.stage')) == []
        return workers


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


@pytest.mark.slow
@pytest.mark.parametrize('batch_size', BATCH_SIZES)
@pytest.mark.in_turns('batch_size', BATCH_SIZES)
def test_three_workers_on_one_slice_and_a_fourth_process_that_recovers_all_the_time(
    tmp_path: Path, stack: ExitStack, batch_size: int
) -> None:
    count = 4000
    scene = Scene(tmp_path, stack, batch_size=batch_size)
    scene.fill(count)
    recoverer = scene.start_recoverer()
    workers = [scene.start_worker() for _ in range(WORKERS)]
    assert scene.wait_for(count) == count
    assert [worker.join() for worker in workers] == [0] * WORKERS
    scene.over.set()
    assert recoverer.join() > 10
    handled = scene.check(count)
    assert len(handled) == WORKERS  # or it was no test of sharing


@pytest.mark.slow
@pytest.mark.parametrize('batch_size', BATCH_SIZES)
@pytest.mark.in_turns('batch_size', BATCH_SIZES)
def test_workers_that_are_killed_at_any_moment(tmp_path: Path, stack: ExitStack, batch_size: int) -> None:
    count, kills = 3000, 30
    rng = random.Random(batch_size)
    scene = Scene(tmp_path, stack, batch_size=batch_size)
    scene.fill(count)
    recoverer = scene.start_recoverer()
    workers = [scene.start_worker() for _ in range(WORKERS)]
    for _ in range(kills):
        scene.wait_for(rng.randrange(1, 2 * (count // 2) // kills))
        workers.pop(rng.randrange(WORKERS)).kill()
        workers.append(scene.start_worker())
    # From here on nobody dies, and the pipe is emptied as it fills.
    stack.enter_context(Child(lambda: drain(scene.told)))
    assert [worker.join() for worker in workers] == [0] * WORKERS
    scene.over.set()
    assert recoverer.join() > 10
    assert len(scene.check(count)) > WORKERS


def drain(pipe: int) -> None:
    """Read for ever; it is killed in the end."""
    while os.read(pipe, 65536):
        pass


def test_the_slice_count_changes_while_messages_are_worked_on(tmp_path: Path, stack: ExitStack) -> None:
    scene = Scene(tmp_path, stack, batch_size=1)
    scene.fill(600)

    def work(index: int, slices: int) -> list[int]:
        queue = scene.open().queue('in', index, slices)
        seen = []
        while (taken := queue.take()) is not None:
            seen.append(taken.msg)
            queue.finish(taken.filebase)
        return seen

    shares = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    children = [stack.enter_context(Child(lambda share=share: work(*share))) for share in shares]
    assert sorted(number for child in children for number in child.join()) == list(range(600))
