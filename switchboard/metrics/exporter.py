"""An exporter: queues counted in the background, the numbers rendered when somebody asks.  No scrape walks over a directory.

A thread counts, rests 25 times as long as that took, and counts again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from switchboard.metrics.collector import render
from switchboard.metrics.counting import COUNT_TIMEOUT_S, Count, count_all, log
from switchboard.operating.grouping import FailureSummaryCache
from switchboard.operating.queue_counts import CountCache, CountingThread
from switchboard.operating.queue_info import MAX_OPENED
from switchboard.operating.spool_view import SpoolView
from switchboard.store.layout import BAD

# The shortest rest.
REST_S = 15.0


class Exporter:
    """See the module.

    :param view: asked at each count, because the configuration may be another by then.
    :param count_timeout_s: how long one count may take.
    """

    def __init__(self, view: Callable[[], SpoolView], count_timeout_s: float = COUNT_TIMEOUT_S) -> None:
        self._ask_view = view
        self._view = view()
        self._count_timeout_s = count_timeout_s
        thread = CountingThread(self.count, 'counting', REST_S, log)
        self.start, self.close, self._is_stopping = thread.start, thread.close, thread.is_stopping
        self.last = Count()
        # How often something could not be counted or read: it never falls, whichever count a scrape has in hand.
        self._failures = 0
        self._counts, self._summaries = CountCache(), FailureSummaryCache(BAD, MAX_OPENED)
        # Set after each count.
        self.counted = threading.Event()

    def count(self) -> None:
        """Count now.

        :raises OSError: there is no spool.
        """
        try:
            self._view = self._ask_view()
            self.last = count_all(
                self._view,
                self._count_timeout_s,
                counts=self._counts,
                summaries=self._summaries,
                is_stopping=self._is_stopping,
            )
            self._failures += self.last.failures
        except Exception:
            self._failures += 1
            raise
        finally:
            self.counted.set()

    def render(self, accept: str = '') -> tuple[bytes, str]:
        """:return: the text, and its ``Content-Type``."""
        view, failures = self._view, self._failures
        count = replace(self.last, failures=failures)
        rendered = render(view.directory, count, view.config, accept=accept)
        self._failures += count.failures - failures
        return rendered


def exporter_of(spool: Any, count_timeout_s: float = COUNT_TIMEOUT_S) -> Exporter:
    """:return: an exporter of an open spool, by the configuration that is in force there."""
    return Exporter(lambda: SpoolView(Path(spool.directory), getattr(spool, 'config', None)), count_timeout_s)
