"""The time by which something may be deleted: what the wall clock says, once it has said so for a while.

A wall clock can be wrong for a moment: a time server that errs, a machine that boots in 1970, a hand that slips.  A message deleted on its word
meanwhile is gone for good.  So all code that deletes, expires or gives up by the time of day asks here, and gets the earlier of two times:

- the wall clock's;
- what the wall clock ought to say, by the boot clock, which nobody can turn: the time at the last look, and the seconds that have
  passed since.

While they agree, that is the wall clock's time.  A clock that was set back deletes too little, which mends itself, so it is believed at once.
A clock that was set forward is believed when it has stayed so for :data:`SETTLES_S`: until then it is held against what it ought
to say, and when it comes back nothing has happened.

The last look stands in ``.run/clock``, so a process that is born after the leap knows of it; every opener of a spool looks, and the
janitor in each round.  Across a restart of the machine
the boot clock begins anew; then the clock ought to say what it said when somebody last looked, and the time since the start.  How long
the machine was off nobody knows, and so a message that has expired in that time waits as long as after a leap.

There is nothing to lock: the file is replaced whole, each process that looks sees the same leap, and of two that write at the same time either
may win.  One that cannot be read or written leaves each process with what it has seen itself.

Rejected: a second look at each thing that is to go (each kind would need a place to remember the first one), asking the kernel whether the
clock is synchronized (machines without a time server never are, and would delete nothing).
"""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from switchboard.clock import Clock
from switchboard.events import log_event
from switchboard.message.naming import NS_PER_S
from switchboard.store.folder import Folder
from switchboard.store.layout import CLOCK

log = logging.getLogger('switchboard.queue')

# For how long a clock that was set forward must have stayed so.
SETTLES_S = 300.0
# By how much the clocks may differ and count as going together: some seconds, and what a time server takes out by and by.
SLACK_NS, SLACK_SHARE = 5 * NS_PER_S, 1000
# How old a noted look may become; only a restart of the machine makes a difference.
NOTED_EVERY_NS = 3600 * NS_PER_S
_MAX_NOTE_BYTES = 1024
# What a clock can say in 64 bits.  A larger number in the note would be no time.
_MAX_NS = (1 << 63) - 1


class _ClockReading(NamedTuple):
    """The readings of both clocks, in nanoseconds."""

    boot_ns: int
    wall_ns: int


class ExpiryClock:
    """The earlier of the wall clock's time and what it ought to be.  Threads may share it.

    :param run: the spool's directory ``.run``; None: only this object remembers.
    """

    def __init__(self, clock: Clock, run: Folder | None = None) -> None:
        self._clock = clock
        self._run = run
        self._lock = threading.Lock()
        self._boot_id = ''
        # When the clock was last accepted, and since when it has been ahead.
        self._accepted: _ClockReading | None = None
        self._ahead: _ClockReading | None = None
        if run is None:
            self._accepted = self._look()

    def _look(self) -> _ClockReading:
        return _ClockReading(self._clock.boottime_ns(), self._clock.time_ns())

    def time_ns(self) -> int:
        """:return: nanoseconds since the epoch."""
        with self._lock:
            reading = self._look()
            if (
                self._accepted is None
                or self._ahead is not None
                or not _advanced_equally(self._accepted, reading)
            ):
                self._load(reading)  # another process may know better
            assert self._accepted is not None
            ought_ns = self._accepted.wall_ns + reading.boot_ns - self._accepted.boot_ns
            if reading.wall_ns <= ought_ns or _advanced_equally(self._accepted, reading):
                is_news = self._ahead is not None or not _advanced_equally(self._accepted, reading)
                if is_news or reading.boot_ns - self._accepted.boot_ns > NOTED_EVERY_NS:
                    self._accept(reading)
                return reading.wall_ns
            if self._ahead is None or not _advanced_equally(self._ahead, reading):
                self._ahead = reading
                self._save()
                ahead_s = round((reading.wall_ns - ought_ns) / NS_PER_S)
                log_event(log, logging.WARNING, None, 'clock set forward', by_s=ahead_s, settles_s=SETTLES_S)
            elif reading.boot_ns - self._ahead.boot_ns >= SETTLES_S * NS_PER_S:
                self._accept(reading)
                return reading.wall_ns
            return ought_ns

    def _accept(self, reading: _ClockReading) -> None:
        self._accepted, self._ahead = reading, None
        self._save()

    def _load(self, reading: _ClockReading) -> None:
        if self._run is None:
            return
        self._boot_id = self._boot_id or self._clock.boot_id()
        words: list[bytes] = []
        try:
            words = (self._run.read(CLOCK, _MAX_NOTE_BYTES) or b'').split()
            boot_id, numbers = words[0].decode(), [int(word) for word in words[1:5]]
            if max(map(abs, numbers)) > _MAX_NS:
                raise ValueError('no reading of a clock')
            accepted, ahead = _ClockReading(*numbers[:2]), _ClockReading(*numbers[2:4])
        except (OSError, ValueError, IndexError, TypeError):
            if self._accepted is None:
                self._accept(reading)
            return
        if boot_id == self._boot_id:
            self._accepted, self._ahead = accepted, ahead if ahead.wall_ns else None
        else:
            self._accepted, self._ahead = _ClockReading(0, accepted.wall_ns), None

    def _save(self) -> None:
        if self._run is None or self._accepted is None:
            return
        ahead = self._ahead or _ClockReading(0, 0)
        self._boot_id = self._boot_id or self._clock.boot_id()
        note = ' '.join((self._boot_id, *map(str, (*self._accepted, *ahead)))).encode()
        try:
            self._run.replace(CLOCK, note, sync=False)
        except OSError as error:
            log_event(log, logging.DEBUG, None, 'not noted', note=CLOCK, error=error)


def _advanced_equally(one: _ClockReading, other: _ClockReading) -> bool:
    passed_ns = other.boot_ns - one.boot_ns
    return abs(other.wall_ns - one.wall_ns - passed_ns) <= SLACK_NS + abs(passed_ns) // SLACK_SHARE
