"""What is there after a cut and a recovery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from switchboard import Spool
from switchboard.store.layout import STAGE
from tests.faults.harness.world import State, observe_after_cut, read_state
from tests.helpers.processes import in_child
from tests.power.work import enqueue_with_key


class Remains(NamedTuple):
    """What is there, names that are left in the stage, and the messages after the producers' next try."""

    found: State
    staged: list[str]
    again: State


def what_is_there(path: Path, retried: Sequence[int] = ()) -> Remains:
    """Recover what a cut has left, and look: in a process of its own, so that nothing is open any more when the file system is to be unmounted.

    :param retried: numbers whose producers try again, with the number as key.
    """
    remains: Remains = in_child(lambda: _recover_and_look(path, retried))
    return remains


def _recover_and_look(path: Path, retried: Sequence[int]) -> Remains:
    found = observe_after_cut(path)[0]
    staged = [file.name for file in path.glob(f'{STAGE}/*:*')]
    spool = Spool(path)
    for number in retried:
        enqueue_with_key(spool, f'{number}:again')
    return Remains(found, staged, read_state(path))
