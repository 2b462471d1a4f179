"""The power goes at any point of a recorded run: what was promised with ``durability = full`` is there, whole, and once.

What a cut may leave is decided by the model in ``switchboard.testing.ledger``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.testing.power import Moment, PowerLossDisk
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.world import State, World, observe_after_cut

BEGUN, DONE = 'begun', 'done'


def record(operation: Operation, directory: Path, disk: PowerLossDisk) -> World:
    """Do an operation on a disk that remembers; what was prepared for it is on the disk."""
    world = World(directory, disk)
    operation.prepare(world)
    disk.adopt(directory)
    disk.settle()
    disk.note(BEGUN)
    operation.act(world)
    disk.note(DONE)
    return world


def cuts(
    moments: Iterator[Moment], source: Path, scratch: Path, variants: int
) -> Iterator[tuple[Moment, State]]:
    """What is found after a power cut at each moment since the operation began."""
    for moment in moments:
        if BEGUN not in moment.notes:
            continue
        for variant in range(variants):
            moment.restore(source, scratch, variant)
            found, damaged = observe_after_cut(scratch / 'spool')
            shutil.rmtree(scratch)
            assert damaged == 0, (moment.number, variant)
            yield moment, found


@pytest.mark.parametrize('operation', OPERATIONS, ids=str)
@pytest.mark.parametrize('variants', [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_power_cut_leaves_all_of_an_operation_or_nothing(
    operation: Operation, variants: int, tmp_path: Path
) -> None:
    disk = PowerLossDisk(seed=1)
    directory = tmp_path / 'run'
    directory.mkdir()
    record(operation, directory, disk)
    for moment, found in cuts(disk.moments(), directory, tmp_path / 'after', variants):
        promised = operation.durable and DONE in moment.notes
        allowed = [operation.after] if promised else [operation.before, operation.after, *operation.between]
        assert found in allowed, moment.number
