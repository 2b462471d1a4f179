"""The power goes at any point of a recorded run: what was promised with ``durability = full`` is there, whole, and once.

What a cut may leave is decided by the model in ``switchboard.testing.ledger``.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.testing.power import Moment, PowerLossDisk
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.pipeline import Line, messages, wrong
from tests.faults.world import State, World, observe_after_cut

OPERATION_BEGUN, OPERATION_DONE = 'operation begun', 'operation done'


def record(operation: Operation, directory: Path, disk: PowerLossDisk) -> None:
    """Do an operation on a disk that remembers; what was prepared for it is on the disk."""
    world = World(directory, disk)
    operation.prepare(world)
    disk.adopt(directory)
    disk.settle()
    disk.note(OPERATION_BEGUN)
    operation.act(world)
    disk.note(OPERATION_DONE)


def cut(moment: Moment, source: Path, scratch: Path, variant: int) -> tuple[State, int]:
    """Take the power away, and come up again."""
    moment.restore(source, scratch, variant)
    found = observe_after_cut(scratch / 'spool')
    shutil.rmtree(scratch)
    return found


@pytest.mark.parametrize('operation', OPERATIONS, ids=str)
@pytest.mark.parametrize('variants', [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_power_cut_leaves_all_of_an_operation_or_nothing(
    operation: Operation, variants: int, tmp_path: Path
) -> None:
    disk = PowerLossDisk(seed=1)
    directory = tmp_path / 'run'
    directory.mkdir()
    record(operation, directory, disk)
    for moment in disk.moments():
        if OPERATION_BEGUN not in moment.notes:
            continue
        promised = operation.durable and OPERATION_DONE in moment.notes
        allowed = [operation.after] if promised else [operation.before, operation.after, *operation.between]
        for variant in range(variants):
            found, damaged = cut(moment, directory, tmp_path / 'after', variant)
            assert damaged == 0, (moment.number, variant)
            assert found in allowed, (moment.number, variant)


def pipeline_cuts(directory: Path, disk: PowerLossDisk, seed: int, steps: int, share: float) -> Iterator[list[str]]:
    """Record a run of the pipeline and cut it at a share of its moments.

    :return: what is wrong after each cut.
    """
    source = directory / 'run'
    source.mkdir()
    line = Line(source / 'spool', disk, seed)
    line.run(steps)
    rng = random.Random(seed)
    for moment in disk.moments():
        if rng.random() < share:
            found, damaged = cut(moment, source, directory / 'after', rng.randrange(1000))
            yield wrong(moment.notes, messages(found)) + (['damaged'] if damaged else [])
