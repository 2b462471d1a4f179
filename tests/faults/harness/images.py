"""What the dead leave in a spool, as a value: it can be compared, and written again elsewhere.

What recovery makes of a spool whose process is dead depends on nothing but what the files say, on their names and modes: locks and memory are
gone.  So what has been left twice is recovered once; and a process leaves the same at each of its calls until one of them changes something, so
one run shows what would be left by a death at any of them.  Times are left out, as in the model of a power cut.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.testing.faults import FaultyDisk, Killed
from tests.faults.harness.world import State, World, observe, remove
from tests.faults.operations.operation import Operation

# By path, those above first: the mode, and what a file says.
Image = dict[str, tuple[int, bytes | None]]


def image(path: Path) -> Image:
    """:return: what a directory holds; nothing if it is not there."""
    try:
        found: Image = {'': (os.stat(path).st_mode, None)}
    except FileNotFoundError:
        return {}
    _look(str(path), '', found)
    return found


def _look(top: str, below: str, found: Image) -> None:
    with os.scandir(top + below) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        where = f'{below}/{name}'
        mode = os.lstat(top + where).st_mode
        if stat.S_ISDIR(mode):
            found[where] = mode, None
            _look(top, where, found)
        else:
            with open(top + where, 'rb', buffering=0) as file:
                found[where] = mode, file.read()


def restore(left: Image, path: Path) -> None:
    """Write it again."""
    for where, (mode, content) in left.items():
        if content is None:
            os.mkdir(f'{path}{where}')
        else:
            Path(f'{path}{where}').write_bytes(content)
        os.chmod(f'{path}{where}', stat.S_IMODE(mode))


class Recovery:
    """A restart after a death, and what is there then; once for all that have left the same."""

    def __init__(self) -> None:
        self._seen: dict[frozenset[object], State] = {}

    def __call__(self, path: Path) -> State:
        """:raises Observed: see `observe`."""
        left = frozenset(image(path).items())
        if left not in self._seen:
            self._seen[left] = observe(path)
        return self._seen[left]


class MortalDisk(FaultyDisk):
    """Remembers what would be left by a death at each call.

    :ivar left: what, the number of the first call that leaves it, and the name of the call before it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.left: list[tuple[Image, int, str]] | None = None

    def arm(self, fail_at: int) -> None:
        super().arm(fail_at)
        self.left = []

    def _call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], keys: Any) -> Any:
        if self.left is not None and name in self.calls:
            left = image(self.path)
            if not self.left or self.left[-1][0] != left:
                self.left.append((left, self.count + 1, ' '.join(self.trace[-1:])))
        return super()._call(name, function, arguments, keys)


def recorded(operation: Operation, directory: Path, clock: Clock = SYSTEM_CLOCK) -> MortalDisk:
    """Do an operation, and end its process."""
    disk = MortalDisk(directory / 'spool')
    _act(operation, directory, disk, 0, clock)
    return disk


def died(operation: Operation, directory: Path, number: int, clock: Clock = SYSTEM_CLOCK) -> FaultyDisk:
    """Let a process die at one call of an operation."""
    disk = FaultyDisk(kill='simulated')
    with suppress(Killed):
        _act(operation, directory, disk, number, clock)
    return disk


def _act(operation: Operation, directory: Path, disk: FaultyDisk, number: int, clock: Clock) -> None:
    directory.mkdir()
    world = World(directory, disk, clock)
    operation.prepare(world)
    disk.arm(number)
    try:
        operation.act(world)
    finally:
        disk.end_process()


def deaths(operation: Operation, scratch: Path) -> Iterator[tuple[State, int, str]]:
    """Let a process die at each call of an operation, and another recover.

    :return: what is there then; and see `MortalDisk`.
    """
    if operation.knows_inodes:
        yield from _deaths_one_by_one(operation, scratch / 'died')
        return
    disk, recovery, after = recorded(operation, scratch / 'run'), Recovery(), scratch / 'after'
    assert disk.left, 'an operation that calls nothing proves nothing'
    assert recovery(disk.path) == operation.after
    for left, number, last in disk.left:
        restore(left, after)
        yield recovery(after), number, last
        if after.exists():
            remove(after)


def _deaths_one_by_one(operation: Operation, directory: Path) -> Iterator[tuple[State, int, str]]:
    last = ''
    for number in count(1):
        last, failed_call = died(operation, directory, number).failed_call, last
        found = observe(directory / 'spool')
        remove(directory)
        if not last:
            assert found == operation.after
            assert number > 1, 'an operation that calls nothing proves nothing'
            return
        yield found, number, failed_call
