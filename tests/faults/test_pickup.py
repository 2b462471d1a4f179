"""A dropped file becomes an entry exactly once, whichever call the process dies at, and whichever call fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from switchboard.config.config import Config
from switchboard.message.naming import CLAIMED, PRESERVED, READY
from switchboard.spool.spool import Spool
from switchboard.store.disk import Disk
from switchboard.testing.faults import FaultyDisk, Killed
from switchboard.testing.power import PowerLossDisk
from tests.faults.harness.world import remove
from tests.plugins.turns import CALLS, failing_calls

pytestmark = pytest.mark.slow

MAIL = b'Subject: %d\n\nbody\n'
# One operation makes fewer calls than that.
MAX_CALLS = 1000
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)


def open_spool(home: Path, disk: Disk) -> Spool:
    config = home / 'switchboard.cfg'
    if not config.exists():
        config.write_text('[switchboard]\nspool = spool\n[queue.in]\nmaildir = yes\nmax_body = 1K\n')
    return Spool.from_config(Config.load(config), disk=disk)


def drop(home: Path, *, files: int = 2) -> None:
    """Some mails by both ways, and what cannot be taken."""
    open_spool(home, Disk())['in']
    queue = home / 'spool' / 'in'
    for number in range(files):
        (queue / 'new' / f'170000000{number}.M1P1.host:2,S').write_bytes(MAIL % number)
        (queue / f'{number}.eml').write_bytes(MAIL % (number + files))
    (queue / 'large.eml').write_bytes(b'Subject: large\n\n' + b'x' * 2000)


def found(home: Path) -> tuple[list[bytes], list[str], list[str]]:
    """Restart, recover, take everything.

    :return: the bodies of all messages, sorted, what went to bad, and what is left of the stage.
    """
    spool = open_spool(home, Disk())
    spool.recover()
    queue = spool['in']
    queue.recover_backup_files()
    bodies = []
    while (taken := queue.take()) is not None:
        bodies.append(bytes(taken.msg))
        queue.finish(taken.filebase)
    return sorted(bodies), spool['bad'].get_files(PRESERVED), os.listdir(home / 'spool' / '.stage')


def worlds(tmp_path: Path, calls: str, **fault: Any) -> Iterator[tuple[Path, FaultyDisk]]:
    """Strike the first, third, ... call of taking everything in, or the second, fourth, ..., until a run meets no fault."""
    for number in failing_calls(calls):
        assert number < MAX_CALLS
        home = tmp_path / str(number)
        home.mkdir()
        drop(home)
        disk = FaultyDisk(**fault)
        spool = open_spool(home, disk)
        queue = spool['in']
        pickup = queue.pickup
        assert pickup is not None
        queue.producer.admission.check_open()
        disk.arm(number)
        names = ['0.eml', '1.eml', 'large.eml']
        try:
            for _ in range(2):  # the second round meets what the first one left
                pickup.collect(names)
        except Killed:
            pass
        disk.end_process()
        yield home, disk
        remove(home)
        if not disk.failed_call:
            return


EVERYTHING = sorted(MAIL % number for number in range(4))


def half_of_the_calls(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of half of the calls: one half each day."""
    mark = pytest.mark.in_turns('calls', tuple(CALLS))
    return cast('Callable[..., None]', mark(pytest.mark.parametrize('calls', CALLS)(test)))


@half_of_the_calls
def test_a_process_that_dies_at_any_call_neither_loses_nor_doubles_a_dropped_mail(
    calls: str, scratch: Path
) -> None:
    deaths = 0
    for home, disk in worlds(scratch, calls, kill='simulated'):
        deaths += 1
        bodies, bad, staged = found(home)
        assert bodies == EVERYTHING, f'died at call {disk.fail_at} ({disk.failed_call})'
        assert len(bad) == 1, f'died at call {disk.fail_at} ({disk.failed_call})'
        assert staged == []
    assert deaths > 25


@pytest.mark.parametrize('error', ERRORS)
@pytest.mark.in_turns('error', ERRORS)
@half_of_the_calls
def test_any_call_may_fail_once(calls: str, error: int, scratch: Path) -> None:
    for home, disk in worlds(scratch, calls, error=error):
        bodies, bad, staged = found(home)
        assert bodies == EVERYTHING, f'call {disk.fail_at} ({disk.failed_call})'
        assert len(bad) == 1, f'call {disk.fail_at} ({disk.failed_call})'
        assert staged == []


@half_of_the_calls
def test_a_disk_that_stays_full_leaves_the_files_where_they_are(calls: str, scratch: Path) -> None:
    for home, disk in worlds(scratch, calls, error=errno.ENOSPC, persistent=True):
        names = [path.name for path in (home / 'spool' / 'in').iterdir()]
        entries = [name for name in names if name.endswith((READY, CLAIMED))]
        bodies, bad, _ = found(home)
        assert bodies == EVERYTHING, f'call {disk.fail_at} ({disk.failed_call}): {entries}'
        assert len(bad) == 1


def test_a_power_cut_neither_loses_nor_doubles_a_dropped_mail(scratch: Path) -> None:
    home = scratch / 'home'
    home.mkdir()
    drop(home, files=1)
    disk = PowerLossDisk(seed=11)
    disk.assume_durable(home)
    disk.sync_all()
    first = len(disk.events)
    spool = open_spool(home, disk)
    pickup = spool['in'].pickup
    assert pickup is not None
    pickup.collect(['0.eml', 'large.eml'])
    cuts = 0
    for point in disk.crash_points():
        if point.number < first:
            continue
        for variant in range(3):
            cuts += 1
            after = scratch / f'after-{point.number}-{variant}'
            point.restore(home, after)
            bodies, _, staged = found(after)
            assert bodies == [MAIL % 0, MAIL % 1], f'cut after change {point.number} ({point.last_change})'
            assert staged == []
            remove(after)
    assert cuts > 30
