"""The time, as an argument, and the waits that double.

Whatever needs the time is given a clock by its constructor, so that a test turns the hands instead of waiting.
"""

from __future__ import annotations

import time


class Clock:
    """The machine's own clocks, in nanoseconds."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


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
