"""What an operation is whose every call is made to fail: what is there before, after and in between.

Each has two halves: ``prepare`` is never struck, ``act`` is.  ``before`` and ``after`` say what an observer finds
after a restart if the operation did not take place, and if it did; nothing else may ever be found, but for what ``between``
lists, which only a kill may leave.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from switchboard.errors import SwitchboardError
from tests.faults.harness.world import State, World, state

# What a full or failing disk says, and what it means for the one who asked.
ERRORS = {name: getattr(errno, name) for name in ('EIO', 'ENOSPC', 'EDQUOT', 'EROFS', 'EMFILE', 'EACCES')}


@dataclass(frozen=True)
class Operation:
    """See the module."""

    name: str
    act: Callable[[World], Any]
    before: State
    after: State
    prepare: Callable[[World], Any] = lambda world: None
    between: Sequence[State] = field(default_factory=tuple)
    # What a power cut alone may leave: of two steps, it may undo the first.
    undone: Sequence[State] = field(default_factory=tuple)
    # What may be raised: opening a spool may say what the operating system says.
    errors: tuple[type[Exception], ...] = (SwitchboardError,)
    # May the same process do it again after an error?
    repeatable: bool = True
    # Is it on the disk when it returns?  The others are one rename, which a power cut may undo, and no more.
    durable: bool = False
    # Does it know a file by its inode, which no copy has?
    knows_inodes: bool = False

    def __str__(self) -> str:
        return self.name

    def after_death(self) -> list[State]:
        """What recovery may find when the process has died in it."""
        return [self.before, self.after, *self.between]

    def after_cut(self, *, promised: bool) -> list[State]:
        """What may be found after a power cut.

        :param promised: it had returned.
        """
        if promised and self.durable:
            return [self.after, *self.undone]
        return [*self.after_death(), *self.undone]


OPERATIONS: list[Operation] = []


def operation(
    name: str, before: str | State = '', after: str | State = '', **keys: Any
) -> Callable[[Callable[[World], Any]], Callable[[World], Any]]:
    """Add an operation; a text says what is in the queue ``in``."""

    def add(act: Callable[[World], Any]) -> Callable[[World], Any]:
        first = state(**{'in': before}) if isinstance(before, str) else before
        last = state(**{'in': after}) if isinstance(after, str) else after
        OPERATIONS.append(Operation(name, act, first, last, **keys))
        return act

    return add


def subsets(bodies: str, queue: str = 'in') -> list[State]:
    """Every choice of these messages."""
    names = bodies.split()
    return [
        state(**{queue: ' '.join(some)}) for n in range(len(names) + 1) for some in combinations(names, n)
    ]
