"""The replacement of a runner's process that has handled enough, or has grown old or large enough.

Libraries leak.  The limits differ by up to a tenth between processes, so that siblings that were started
together do not end together.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from switchboard.clock import Clock
from switchboard.message.naming import NS_PER_S
from switchboard.options import RunnerOptions

# Between two looks at the process's own memory.
MEMORY_LOOK_NS = 5 * NS_PER_S


class Lifetime:
    """The work of one process so far, beside its limits.

    :param memory_bytes: how much memory it holds; a test says another number.
    """

    def __init__(
        self, options: RunnerOptions, clock: Clock, memory_bytes: Callable[[], int] | None = None
    ) -> None:
        limit, age_s = options.max_messages_per_process, options.max_process_age_s
        spread = random.uniform(0.9, 1.1) if limit or age_s else 1.0
        self.messages = 0
        self._clock = clock
        self._memory_bytes = memory_bytes or resident_bytes
        self._max_messages = limit and max(1, round(limit * spread))
        self._max_memory_bytes = options.max_process_memory_bytes
        self._ends_ns = age_s and clock.monotonic_ns() + int(age_s * spread * NS_PER_S)
        self._next_look_ns = 0

    def is_over(self) -> bool:
        """Has a new process to take over?"""
        if self._max_messages and self.messages >= self._max_messages:
            return True
        if not self._ends_ns and not self._max_memory_bytes:
            return False
        now_ns = self._clock.monotonic_ns()
        if self._ends_ns and now_ns >= self._ends_ns:
            return True
        if self._max_memory_bytes and now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + MEMORY_LOOK_NS
            return self._memory_bytes() >= self._max_memory_bytes
        return False


def resident_bytes() -> int:
    """:return: how much memory this process holds."""
    import psutil  # here, because few runners have a limit

    return int(psutil.Process().memory_info().rss)
