"""How long each of the processes that ran tests side by side had something to do, and which chains of tests were the longest.

No process should wait for another at the end, and no chain should be longer than what each process has to do: that is seen here, and
mended in ``tests/conftest.py``.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

# So many of the chains are named.
LONGEST = 8


class Busy:
    """Adds up the reports that come from the processes; a plugin of the process that started them."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._busy_s: Counter[str] = Counter()
        self._ended_s: dict[str, float] = {}
        self._chains_s: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        worker = getattr(report, 'worker_id', '')
        if not worker:
            return
        self._busy_s[worker] += report.duration
        self._ended_s[worker] = time.monotonic() - self._began_s
        # What runs in one process has its group behind the last @; what stands alone is no chain.
        _, at, group = report.nodeid.rpartition(']')[2].rpartition('@')
        if at:
            self._chains_s[group] += report.duration

    def lines(self) -> list[str]:
        """:return: a line for each process, and one for the longest chains."""
        workers = [
            f'{worker}: tests took {self._busy_s[worker]:.0f} s, and the last ended after {self._ended_s[worker]:.0f} s'
            for worker in sorted(self._busy_s)
        ]
        chains = ', '.join(
            f'{group} {seconds:.0f} s' for group, seconds in self._chains_s.most_common(LONGEST)
        )
        return [*workers, *([f'longest chains: {chains}'] if chains else [])]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if lines := self.lines():
            terminalreporter.section('side by side')
            for line in lines:
                terminalreporter.line(line)
