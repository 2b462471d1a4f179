"""A clock whose hands a test turns.

It starts near the present, because the kernel dates files by its own clock and a queue compares the two.
"""

from __future__ import annotations

import os
import threading
import time

from switchboard.clock import Clock
from switchboard.message.naming import NS_PER_S


class FakeClock(Clock):
    """Stands still until it is turned.

    :param start_s: seconds since the epoch; now by default.
    """

    def __init__(self, start_s: float | None = None) -> None:
        self._lock = threading.Lock()
        self._time_ns = time.time_ns() if start_s is None else int(start_s * NS_PER_S)
        self._monotonic_ns = NS_PER_S
        self._boot_id = os.urandom(8).hex()

    def time_ns(self) -> int:
        """See `Clock`."""
        return self._time_ns

    def monotonic_ns(self) -> int:
        """See `Clock`."""
        return self._monotonic_ns

    def boottime_ns(self) -> int:
        """See `Clock`."""
        return self._monotonic_ns

    def boot_id(self) -> str:
        """See `Clock`."""
        return self._boot_id

    def reboot(self, off_s: float = 0.0) -> None:
        """Start the machine again, after it was off for a time."""
        with self._lock:
            self._time_ns += round(off_s * NS_PER_S)
            self._monotonic_ns = NS_PER_S
            self._boot_id = os.urandom(8).hex()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError('time does not pass backwards: use set_back()')
        with self._lock:
            self._time_ns += round(seconds * NS_PER_S)
            self._monotonic_ns += round(seconds * NS_PER_S)

    def set_back(self, seconds: float) -> None:
        """Set the time of day back, as an administrator or a bad time server does; the monotonic clock goes on."""
        with self._lock:
            self._time_ns -= round(seconds * NS_PER_S)

    def set_forward(self, seconds: float) -> None:
        """Set the time of day forward; the monotonic clock goes on."""
        self.set_back(-seconds)
