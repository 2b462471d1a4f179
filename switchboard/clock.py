"""The time, as an argument, and the waits that double.

Whatever needs the time is given a clock by its constructor, so that a test turns the hands instead of waiting.
"""

from __future__ import annotations

import os
import time

# What tells one start of the machine, and one count of its clocks, from another.
BOOT_ID, TIME_NAMESPACE = '/proc/sys/kernel/random/boot_id', '/proc/self/ns/time'
BOOTTIME = getattr(time, 'CLOCK_BOOTTIME', None)


class Clock:
    """The machine's own clocks, in nanoseconds."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    def boottime_ns(self) -> int:
        """:return: the time since the machine was started, with the time in which it was suspended."""
        return self.monotonic_ns() + suspended_ns()

    def boot(self) -> str:
        """:return: a word for the count of :meth:`boottime_ns`: two of another start of the machine cannot be compared."""
        try:
            with open(BOOT_ID) as name:
                return f'{name.read(64).strip()}{os.readlink(TIME_NAMESPACE)}'
        except OSError:
            return 'unknown'


def suspended_ns() -> int:
    """:return: for how long the machine was suspended since it was started; 0 where the kernel does not say."""
    if BOOTTIME is None:
        return 0
    return max(0, time.clock_gettime_ns(BOOTTIME) - time.monotonic_ns())


SYSTEM_CLOCK = Clock()


class Backoff:
    """A wait that doubles from the first to the last, until it is reset."""

    def __init__(self, first_s: float, last_s: float) -> None:
        self._first_s = first_s
        self._last_s = last_s
        # The wait that was begun last; 0 for none.
        self.wait_s = 0.0

    def next(self) -> float:
        """:return: how long to wait this time."""
        self.wait_s = min(self._last_s, max(self._first_s, self.wait_s * 2))
        return self.wait_s

    def after(self, times: int) -> float:
        """:return: how long to wait after so many failures in a row; the state here does not change."""
        return min(self._last_s, self._first_s * 2.0 ** min(times - 1, 60))

    def reset(self) -> None:
        """Begin with the first wait again."""
        self.wait_s = 0.0
