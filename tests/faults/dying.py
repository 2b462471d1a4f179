"""Processes that do an operation and kill themselves at one of its calls.

They are forked from a process that has done nothing but import: to fork one that has run tests takes longer than the operation.

::

    python -m tests.faults.dying

reads lines of an operation's number, the call's, and a directory, and writes for each how the process ended, as ``waitpid`` tells.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from switchboard.testing.faults import FaultyDisk
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.whole_runners import RUNS
from tests.faults.world import World

ALL = [*OPERATIONS, *RUNS]
# The exit statuses of one that lived: it made all of its calls, or there are fewer.
FINISHED, FEWER_CALLS = 0, 3


class Dying:
    """The process that they are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.faults.dying'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def at(self, operation: Operation, directory: Path, number: int) -> int:
        """Do an operation in a directory, and die at its call `number`.

        :return: how it ended, as ``waitpid`` tells.
        """
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        asking.write(f'{ALL.index(operation)} {number} {directory}\n')
        return int(answering.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


def die_at(operation: Operation, directory: Path, number: int) -> int:
    """Do an operation in a child of this process, which kills itself at its call `number`."""
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


def main() -> None:
    for line in sys.stdin:
        index, number, directory = line.rstrip('\n').split(' ', 2)
        print(die_at(ALL[int(index)], Path(directory), int(number)), flush=True)


if __name__ == '__main__':
    main()
