"""Two misfortunes, one after the other: a sync fails, or a process dies and another recovers, and then the power goes.

So what is done about the first must wait for the disk as well, before it goes on.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from switchboard.message.naming import CLAIMED
from switchboard.spool.spool import Spool
from switchboard.testing.faults import FaultyDisk, Killed
from switchboard.testing.power import PowerLossDisk
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.test_power_loss import OPERATION_BEGUN, OPERATION_DONE, ORDERS, Outcome, cuts
from tests.faults.world import World

DIED = 'died'
# What may be left at each moment: these numbers on one day, those on the next.
VARIANTS = {'0 to 2': range(3), '3 to 5': range(3, 6)}
IN_HALVES = pytest.mark.in_turns('variants', tuple(VARIANTS))


def after_failed_syncs(
    operation: Operation, scratch: Path, order: int, variants: Iterable[int]
) -> Iterator[Outcome]:
    """Each sync of an operation fails once; the power goes at any time from its beginning to its end."""
    for number in itertools.count(1):
        directory = scratch / str(number)
        directory.mkdir()
        power = PowerLossDisk(seed=number, order=order)
        disk = FaultyDisk(error=errno.EIO, calls=('fsync', 'fdatasync'), disk=power)
        world = prepared(operation, directory, disk, power)
        power.note(OPERATION_BEGUN)
        disk.arm(number)
        returned = True
        try:
            operation.act(world)
        except operation.errors:
            returned = False
        disk.bury()
        if not disk.struck:
            return
        power.note(OPERATION_DONE)
        for outcome in cuts(operation, directory, power, variants, returned=returned):
            yield outcome._replace(struck=number)
        shutil.rmtree(directory)


def after_recoveries(
    operation: Operation, scratch: Path, order: int, variants: Iterable[int]
) -> Iterator[Outcome]:
    """A process dies at each call of an operation; the power goes at any time while another recovers, and after."""
    for number in itertools.count(1):
        directory = scratch / str(number)
        directory.mkdir()
        power = PowerLossDisk(seed=number, order=order)
        disk = FaultyDisk(kill='simulated', disk=power)
        world = prepared(operation, directory, disk, power)
        disk.arm(number)
        with contextlib.suppress(Killed):
            operation.act(world)
        disk.bury()
        if not disk.struck:
            return
        power.note(DIED)
        recover(world.path, power)
        for outcome in cuts(operation, directory, power, variants, since=DIED, returned=False):
            yield outcome._replace(struck=number)
        shutil.rmtree(directory)


def prepared(operation: Operation, directory: Path, disk: FaultyDisk, power: PowerLossDisk) -> World:
    world = World(directory, disk)
    operation.prepare(world)
    power.adopt(directory)
    power.settle()
    return world


def recover(path: Path, disk: PowerLossDisk) -> None:
    spool = Spool(path, disk=disk)
    spool.recover()
    for queue in {file.parent.name for file in path.glob(f'[!.]*/*{CLAIMED}')}:
        spool[queue].recover_backup_files()
    spool.spares.close()


@pytest.mark.slow
@pytest.mark.parametrize('operation', OPERATIONS, ids=str)
@pytest.mark.parametrize('variants', VARIANTS)
@IN_HALVES
@ORDERS
@pytest.mark.in_turns
def test_a_sync_that_fails_and_then_a_power_cut_lose_nothing(
    order: int, variants: str, operation: Operation, scratch: Path
) -> None:
    for outcome in after_failed_syncs(operation, scratch, order, VARIANTS[variants]):
        assert outcome.found in outcome.allowed, outcome


@pytest.mark.slow
@pytest.mark.parametrize('operation', OPERATIONS, ids=str)
@pytest.mark.parametrize('variants', VARIANTS)
@IN_HALVES
@ORDERS
@pytest.mark.in_turns
def test_what_a_recovery_has_finished_is_not_undone_by_halves(
    order: int, variants: str, operation: Operation, scratch: Path
) -> None:
    for outcome in after_recoveries(operation, scratch, order, VARIANTS[variants]):
        assert outcome.found in outcome.allowed, outcome
