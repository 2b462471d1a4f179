"""The queues, counted within a time.

Each queue has its share of the time that is left; a queue that is not counted
by then is marked so.  Of the bad queue, files are opened to know the errors, and of those not more than `MAX_OPENED`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from switchboard.events import log_event
from switchboard.message.naming import NS_PER_S
from switchboard.operating.grouping import NONE, FailureSummaryCache
from switchboard.operating.queue_counts import CountCache, QueueCounts
from switchboard.operating.queue_info import MAX_OPENED, count_queue
from switchboard.operating.spool_view import SpoolView
from switchboard.store.layout import BAD

log = logging.getLogger('switchboard.web')

# How long one count of everything may take.
COUNT_TIMEOUT_S = 10.0
# The share of that time for reading the errors of the bad queue.
ERRORS_SHARE = 0.3
NO_ERROR = 'none'


@dataclass(slots=True)
class Count:
    """All queues at one moment.

    :param at_ns: when; 0 for never.
    :param errors: how many entries of the bad queue have which error class.
    :param failures: how often something could not be counted or read.
    """

    at_ns: int = 0
    queues: Mapping[str, QueueCounts] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    failures: int = 0


def count_all(
    view: SpoolView,
    count_timeout_s: float = COUNT_TIMEOUT_S,
    *,
    counts: CountCache | None = None,
    summaries: FailureSummaryCache | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Count:
    """Count all queues that lie in the spool; those on brokers have exporters of their own.

    :param counts: the counts of before, for callers who count again and again, as are `summaries`.
    """
    at_ns, began_ns = time.time_ns(), time.monotonic_ns()
    queues: dict[str, QueueCounts] = {}
    failures = 0
    names = [name for name in view.queue_names() if not view.is_remote(name)]
    ends_ns = began_ns + int(count_timeout_s * (1 - ERRORS_SHARE) * NS_PER_S)
    for place, name in enumerate(names):
        if is_stopping():
            break
        now_ns = time.monotonic_ns()
        until_ns = now_ns + max(0, ends_ns - now_ns) // (len(names) - place)
        try:
            queues[name] = count_queue(view, name, until_ns=until_ns, counts=counts)
        except OSError as error:
            failures += 1
            log_event(log, logging.WARNING, None, 'not counted', queue=name, error=error)
    until_ns = began_ns + int(count_timeout_s * NS_PER_S)
    errors = errors_of(
        view, summaries or FailureSummaryCache(BAD, MAX_OPENED), until_ns, is_stopping=is_stopping
    )
    return Count(at_ns, queues, errors, failures)


def errors_of(
    view: SpoolView, summaries: FailureSummaryCache, until_ns: int, *, is_stopping: Callable[[], bool]
) -> dict[str, int]:
    """:return: how many entries of the bad queue have which class of error; those that there was no time for are left out."""
    try:
        found = summaries.read(view.folder(BAD), lambda: is_stopping() or time.monotonic_ns() >= until_ns)
    except OSError:
        return {}  # the failed count is reported already
    return dict(Counter(NO_ERROR if failure.error == NONE else failure.error for failure in found))
