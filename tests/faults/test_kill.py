"""A real SIGKILL of a real process at each call of each operation: what recovery finds is before, after, or listed."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from switchboard.testing.faults import FaultyDisk
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.whole_runners import RUNS
from tests.faults.world import World, observe
from tests.helpers.turns import FOURTHS, struck

FINISHED, FEWER_CALLS = 0, 3


def die_at(operation: Operation, directory: Path, number: int) -> int:
    """Let a child process do the operation and kill itself at its call `number`.

    :return: how it ended, as ``waitpid`` tells.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            disk = FaultyDisk(kill='real')
            world = World(directory, disk)
            operation.prepare(world)
            disk.arm(number)
            operation.act(world)
            code = FEWER_CALLS if disk.count < number else FINISHED
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


@pytest.mark.slow
@pytest.mark.parametrize('operation', [*OPERATIONS, *RUNS], ids=str)
@pytest.mark.parametrize('calls', FOURTHS)
@pytest.mark.in_turns('calls', tuple(FOURTHS))
def test_a_process_killed_at_any_call_leaves_what_recovery_repairs(
    calls: str, operation: Operation, scratch: Path
) -> None:
    for number in struck(calls):
        directory = scratch / str(number)
        directory.mkdir()
        status = die_at(operation, directory, number)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == FEWER_CALLS
            assert number > 1
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        found = observe(directory / 'spool')
        assert found in operation.after_death(), number
        shutil.rmtree(directory)
