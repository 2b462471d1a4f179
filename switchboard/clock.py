"""The time, as an argument.

Whatever needs the time is given a clock by its constructor, so that a test turns the hands instead of waiting.
"""

from __future__ import annotations

import time


class Clock:
    """The machine's own clocks, in nanoseconds."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


SYSTEM_CLOCK = Clock()
