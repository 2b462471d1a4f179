"""An exporter: queues counted in the background, the numbers rendered when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from switchboard.metrics.collector import render
from switchboard.metrics.counting import BUDGET_S, Counting
from switchboard.operating.spool_view import SpoolView


class Exporter:
    """See the module.

    :param view: asked at each count, because the configuration may be another by then.
    :param budget_s: how long one count may take.
    """

    def __init__(self, view: Callable[[], SpoolView], budget_s: float = BUDGET_S) -> None:
        self._view = view
        self._last = view()
        self.counting = Counting(self._look, budget_s)

    def _look(self) -> SpoolView:
        self._last = self._view()
        return self._last

    def render(self, accept: str = '') -> tuple[bytes, str]:
        """:return: the text, and its ``Content-Type``."""
        counting, view = self.counting, self._last
        return render(view.directory, counting.last, view.config, errors=counting.failures, accept=accept)


def exporter_of(spool: Any, budget_s: float = BUDGET_S) -> Exporter:
    """:return: an exporter of an open spool, by the configuration that is in force there."""
    return Exporter(lambda: SpoolView(Path(spool.directory), getattr(spool, 'config', None)), budget_s)
