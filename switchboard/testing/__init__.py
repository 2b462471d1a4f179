"""Fakes, faulty disks and clocks for tests of programs that use a queue; the tests of this project are the first users.

`MemorySpool` and `MemorySwitchboard` are real ones, whose directory is in memory and goes with them: so a `Runner` is tested
without a place for its files.  `FakeClock` is turned by hand, `Signal` is waited for instead of sleeping, and
:func:`run_until_empty` works a queue off, waits for retries included, in no time.

`FaultyDisk` fails the n-th system call and `PowerLossDisk` forgets bytes that were not synced: a queue takes its disk as an
argument, so nothing is ever patched.

In reading order: clock, signals, running, faults, power with its power_model (a model of what a disk may forget), memory (queues there).
It imports runner, spool and below.  No room imports it.
"""

from __future__ import annotations

from switchboard.testing.clock import FakeClock
from switchboard.testing.faults import FaultyDisk
from switchboard.testing.memory import MemorySpool, MemorySwitchboard
from switchboard.testing.power import PowerLossDisk
from switchboard.testing.running import run_until_empty
from switchboard.testing.signals import Signal

__all__ = [
    'FakeClock',
    'FaultyDisk',
    'MemorySpool',
    'MemorySwitchboard',
    'PowerLossDisk',
    'Signal',
    'run_until_empty',
]
