"""The pace at which a queue may be worked: a token bucket of one second's depth, for one process.

A queue's rate is shared by its slices: each process may take its part of it.
"""

from __future__ import annotations

from switchboard.clock import Clock
from switchboard.message.naming import NS_PER_S


class Throttle:
    """Counts what one process takes.

    :param rate: messages a second; None for as many as there are.
    """

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._clock = clock
        self._rate = rate
        self._depth = max(1.0, rate) if rate else 0.0
        self._tokens = self._depth
        self._filled_at_ns = clock.monotonic_ns()

    def allows(self) -> bool:
        """May one be taken now?"""
        if self._rate is None:
            return True
        now_ns = self._clock.monotonic_ns()
        self._tokens = min(self._depth, self._tokens + (now_ns - self._filled_at_ns) / NS_PER_S * self._rate)
        self._filled_at_ns = now_ns
        return self._tokens >= 1

    def took(self) -> None:
        """Say that one was taken."""
        self._tokens -= 1

    def wait_s(self) -> float | None:
        """:return: seconds until one may be taken; None if one may."""
        if self._rate is None or self.allows():
            return None
        return (1 - self._tokens) / self._rate
