"""Processes that do an operation and kill themselves at one of its calls."""

from __future__ import annotations

import os
from pathlib import Path

from switchboard.testing.faults import FaultyDisk
from tests.faults.harness.world import World
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.operations.whole_runners import RUNS

ALL = [*OPERATIONS, *RUNS]
# The exit statuses of one that lived: it made all of its calls, or there are fewer.
FINISHED, FEWER_CALLS = 0, 3


def die_at(operation: Operation, directory: Path, number: int) -> int:
    """Do an operation in a child of this process, which kills itself at its call `number`.

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


def die_aside(operation: str, directory: str, number: int) -> int:
    """As `die_at`, for `Aside`."""
    [found] = [each for each in ALL if str(each) == operation]
    return die_at(found, Path(directory), number)
