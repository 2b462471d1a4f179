"""The time, as an argument, the waits that double, and time limits.

Whatever needs the time is given a clock by its constructor, so that a test turns the hands instead of waiting.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable

# What tells one start of the machine, and one count of its clocks, from another.
BOOT_ID, TIME_NAMESPACE = '/proc/sys/kernel/random/boot_id', '/proc/self/ns/time'
BOOTTIME = getattr(time, 'CLOCK_BOOTTIME', None)


class Clock:
    """The machine's own clocks, in nanoseconds."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    def boottime_ns(self) -> int:
        """:return: the time since the machine was started, with the time in which it was suspended."""
        suspended_ns = 0
        if BOOTTIME is not None:
            suspended_ns = time.clock_gettime_ns(BOOTTIME) - time.monotonic_ns()
        return self.monotonic_ns() + max(0, suspended_ns)

    def boot_id(self) -> str:
        """:return: a word for the count of :meth:`boottime_ns`: two of another start of the machine cannot be compared."""
        try:
            with open(BOOT_ID) as name:
                return f'{name.read(64).strip()}{os.readlink(TIME_NAMESPACE)}'
        except OSError:
            return 'unknown'


SYSTEM_CLOCK = Clock()


# Between two looks whether a time limit is over, and how late a look may be for the time before it to count.
LOOK_S, LATE_S = 1.0, 1.0


class TimeLimit:
    """A time limit that does not count the time in which this process itself was stopped, or frozen with its machine.

    A look is due after `wait_s`.  One that comes much later says that the process was frozen, and counts as one second: so work that keeps
    the process from looking ends as well, if later.

    :param seconds: None is without an end.
    """

    def __init__(self, seconds: float | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._remaining_s = float('inf') if seconds is None else seconds
        self._looked_s = monotonic()

    def remaining_s(self) -> float:
        """Look: count the time since the last look.

        :return: how much is left; 0 if it is over.
        """
        now_s = self._monotonic()
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        self._remaining_s = max(
            0.0, self._remaining_s - (passed_s if passed_s <= LOOK_S + LATE_S else LOOK_S)
        )
        return self._remaining_s

    def wait_s(self) -> float:
        """:return: how long to wait until the next look."""
        return min(self._remaining_s, LOOK_S)


# What a full or failing disk is given before the next try: the first wait, and the last.
TROUBLE_WAIT_S = (0.5, 30.0)


class Backoff:
    """A wait that doubles from the first to the last, until it is reset; by default, as for a disk in trouble."""

    def __init__(self, first_s: float = TROUBLE_WAIT_S[0], last_s: float = TROUBLE_WAIT_S[1]) -> None:
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
