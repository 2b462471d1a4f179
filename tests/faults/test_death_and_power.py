"""Two misfortunes, one after the other: a sync fails, or a process dies and another recovers, and then the power goes.

So what is done about the first must wait for the disk as well, before it goes on.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from switchboard.clock import Clock
from switchboard.message.naming import CLAIMED
from switchboard.spool.spool import Spool
from switchboard.testing.faults import FaultyDisk, Killed
from switchboard.testing.power import PowerLossDisk
from tests.faults.harness.world import World, remove, the_same_again
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.test_power_loss import FSYNC_SCOPES, OPERATION_BEGUN, OPERATION_DONE, Outcome, Seen, cuts
from tests.plugins.turns import CALLS, failing_calls

DIED = 'died'
# What may be left at each moment, and which calls fail: one of the four on each day.
VARIANTS = {'0 to 2': range(3), '3 to 5': range(3, 6)}
QUARTERS = {f'{calls}, {each}': (variants, calls) for calls in CALLS for each, variants in VARIANTS.items()}


def after_failed_syncs(
    operation: Operation, scratch: Path, fsync_scope: int, variants: Iterable[int], calls: str = ''
) -> Iterator[Outcome]:
    """Each sync of an operation fails once; the power goes at any time from its beginning to its end."""
    directory, start_s = scratch / 'run', time.time()
    seen: Seen = {}
    for number in failing_calls(calls):
        power = PowerLossDisk(seed=number, fsync_scope=fsync_scope)
        disk = FaultyDisk(error=errno.EIO, calls=('fsync', 'fdatasync'), disk=power)
        with the_same_again(start_s) as clock:
            world = prepared(operation, directory, disk, power, clock)
            power.note(OPERATION_BEGUN)
            disk.arm(number)
            returned = True
            try:
                operation.act(world)
            except operation.errors:
                returned = False
        disk.end_process()
        if not disk.failed_call:
            return
        power.note(OPERATION_DONE)
        for outcome in cuts(operation, directory, power, variants, returned=returned, seen=seen):
            yield outcome._replace(failed_call=number)
        remove(directory)


def after_recoveries(
    operation: Operation, scratch: Path, fsync_scope: int, variants: Iterable[int], calls: str = ''
) -> Iterator[Outcome]:
    """A process dies at each call of an operation; the power goes at any time while another recovers, and after.

    At a call before which nothing has changed, on the disk or in what of it is durable, a death leaves what it leaves at the call before.

    :param calls: which of the others.
    """
    directory, start_s = scratch / 'run', time.time()
    seen: Seen = {}
    with the_same_again(start_s) as clock:
        power = PowerLossDisk(fsync_scope=fsync_scope)
        counting = ChangesDisk(power)
        world = prepared(operation, directory, counting, power, clock)
        counting.arm(0)
        operation.act(world)
    counting.end_process()
    remove(directory)
    first, step = CALLS.get(calls, (1, 1))
    assert counting.numbers
    for number in counting.numbers[first - 1 :: step]:
        power = PowerLossDisk(seed=number, fsync_scope=fsync_scope)
        disk = FaultyDisk(kill='simulated', disk=power)
        with the_same_again(start_s) as clock:
            world = prepared(operation, directory, disk, power, clock)
            disk.arm(number)
            with contextlib.suppress(Killed):
                operation.act(world)
            disk.end_process()
            if not disk.failed_call:
                return
            power.note(DIED)
            recover(world.path, power, clock)
        for outcome in cuts(operation, directory, power, variants, since=DIED, returned=False, seen=seen):
            yield outcome._replace(failed_call=number)
        remove(directory)


class ChangesDisk(FaultyDisk):
    """Notes the calls before which something has changed.

    :ivar numbers: of these; the first call is one of them.
    """

    def __init__(self, power: PowerLossDisk) -> None:
        super().__init__(disk=power)
        self.power = power
        self.numbers: list[int] = []
        self._changes = 0

    def arm(self, fail_at: int) -> None:
        super().arm(fail_at)
        self.numbers, self._changes = [], -1

    def _call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], keys: Any) -> Any:
        if name in self.calls and self._changes != len(self.power.events):
            self.numbers.append(self.count + 1)
            self._changes = len(self.power.events)
        return super()._call(name, function, arguments, keys)


def prepared(
    operation: Operation, directory: Path, disk: FaultyDisk, power: PowerLossDisk, clock: Clock
) -> World:
    directory.mkdir()
    world = World(directory, disk, clock)
    operation.prepare(world)
    power.assume_durable(directory)
    power.sync_all()
    return world


def recover(path: Path, disk: PowerLossDisk, clock: Clock) -> None:
    spool = Spool(path, disk=disk, clock=clock)
    spool.recover()
    for queue in {file.parent.name for file in path.glob(f'[!.]*/*{CLAIMED}')}:
        spool[queue].recover_backup_files()
    spool.pool.close()


@pytest.mark.slow
@pytest.mark.parametrize('operation', OPERATIONS, ids=str)
@pytest.mark.parametrize('quarter', QUARTERS)
@pytest.mark.in_turns('quarter', tuple(QUARTERS))
@FSYNC_SCOPES
@pytest.mark.in_turns
def test_a_sync_that_fails_and_then_a_power_cut_lose_nothing(
    fsync_scope: int, quarter: str, operation: Operation, scratch: Path
) -> None:
    for outcome in after_failed_syncs(operation, scratch, fsync_scope, *QUARTERS[quarter]):
        assert outcome.found in outcome.allowed, outcome


@pytest.mark.slow
@pytest.mark.parametrize('operation', OPERATIONS, ids=str)
@pytest.mark.parametrize('quarter', QUARTERS)
@pytest.mark.in_turns('quarter', tuple(QUARTERS))
@FSYNC_SCOPES
@pytest.mark.in_turns
def test_what_a_recovery_has_finished_is_not_undone_by_halves(
    fsync_scope: int, quarter: str, operation: Operation, scratch: Path
) -> None:
    for outcome in after_recoveries(operation, scratch, fsync_scope, *QUARTERS[quarter]):
        assert outcome.found in outcome.allowed, outcome
