"""Counts of all queues, made in the background: no request walks over a million names.

A thread counts, rests 25 times as long as that took, and counts again; pages show the last counts and when they were made.  Of entries put
aside, files are opened to tell the errors, and of those at most `MAX_OPENED`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from switchboard.operating.grouping import FailureSummary, FailureSummaryCache
from switchboard.operating.health import (
    Alarm,
    Problem,
    elsewhere_alarm,
    runners_without_process,
    spool_problems,
)
from switchboard.operating.queue_counts import AgeRow, CountCache, CountingThread, QueueCounts
from switchboard.operating.queue_info import MAX_OPENED, UNKNOWN, Throughput, count_queue, throughput
from switchboard.operating.spool_view import SpoolView
from switchboard.status.snapshot import read_status_or_none
from switchboard.store.layout import BAD

log = logging.getLogger('switchboard.web')

REST_S = 5.0
# The last hour, a value each 30 seconds.
SLOTS, SLOT_S = 120, 30.0
# Rates are those of about the last minute, and are shown when there is an earlier count to compare with.
RATE_S, RATE_LEAST_S = 60.0, 4.0
# One `stat` an entry is too much for more of them.
MAX_SIZED = 50_000
# Groups that a page shows; all others are one row.
MAX_GROUPS = 100
OTHERS = '(others)'


@dataclass(frozen=True)
class LatestFailure:
    """Of the entries with one error, the one that failed last: what it said, where it came from, and when that was."""

    message: str = ''
    origin: str = ''
    age_s: float = float('inf')


@dataclass(frozen=True)
class Rates:
    """The messages a minute that came into a queue, were done, and failed; None before there was something to compare with."""

    entered: float | None = None
    done: float | None = None
    failed: float | None = None


@dataclass
class BadQueueCounts:
    """The bad queue, by error."""

    by: dict[str, list[AgeRow]] = field(default_factory=dict)
    origins: dict[str, int] = field(default_factory=dict)
    looked_at: int | None = None
    total: int | None = None
    # By way of grouping, the groups whose first entry came within the hour.
    new: dict[str, set[str]] = field(default_factory=dict)
    latest: dict[str, LatestFailure] = field(default_factory=dict)


@dataclass
class SpoolCounts:
    """One count of everything, and when it was made; of time 0, there was none yet."""

    at_ns: int = 0
    queues: dict[str, QueueCounts] = field(default_factory=dict)
    bad: BadQueueCounts = field(default_factory=BadQueueCounts)
    throughput: dict[str, Throughput] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    # Runners that had no process at this count and at the one before: a reload gives a new one its process soon.
    without_process: frozenset[str] = frozenset()
    elsewhere: Alarm | None = None


class BackgroundCounter:
    """Counts, in a thread of its own if it is started.

    :param view: asked each time, because the configuration may be another by then.
    """

    def __init__(self, view: Callable[[], SpoolView]) -> None:
        self._view = view
        thread = CountingThread(self.count, 'desk counts', REST_S, log)
        self.start, self.close, self._is_stopping = thread.start, thread.close, thread.is_stopping
        self.last = SpoolCounts()
        # How often something could not be counted, since the desk was started.
        self.failures = 0
        self.started_ns = time.time_ns()
        self.waiting_history: dict[str, deque[float]] = {}
        self.done_history: dict[str, deque[float]] = {}
        self._slot_s = 0.0
        self._counts = CountCache()
        self._summaries = FailureSummaryCache(BAD, MAX_OPENED)
        # Of the last minute: the time, and of each queue its entries, done, failed and evicted.
        self.recent: deque[tuple[float, dict[str, tuple[int, int, int, int]]]] = deque()
        self._counted: dict[str, int] = {}
        self._missing: frozenset[str] = frozenset()

    def count(self) -> SpoolCounts:
        """Count everything now.

        :raises OSError: there is no spool.
        """
        view = self._view()
        queues: dict[str, QueueCounts] = {}
        try:
            names = view.queue_names()
        except OSError:
            self.failures += 1
            raise
        for name in names:
            if self._is_stopping():
                break
            before = self.last.queues.get(name)
            try:
                sizes = before is None or before.entries <= MAX_SIZED
                queues[name] = count_queue(view, name, sizes=sizes, counts=self._counts)
            except OSError as error:
                self.failures += 1
                trouble = f'it cannot be read: {error.strerror}'
                queues[name] = QueueCounts(name, waiting=UNKNOWN, trouble=trouble)
        bad = BadQueueCounts()
        if BAD in queues and queues[BAD].waiting != UNKNOWN:
            bad = count_bad_queue(self._read_summaries(view), queues[BAD].preserved)
            queues[BAD].origins = bad.origins
        snapshot = read_status_or_none(view.directory)
        done = throughput(view.config, snapshot.records) if snapshot is not None else {}
        counts = SpoolCounts(time.time_ns(), queues, bad, done, self._rates(queues, done))
        if view.config is not None:
            counts.problems = [*spool_problems(view.config)]
            missing = frozenset(runners_without_process(snapshot, view.config) if snapshot else ())
            counts.without_process, self._missing = missing & self._missing, missing
            if snapshot is not None and not snapshot.alive:
                counts.elsewhere = elsewhere_alarm(view.config.path, view.directory)
        self.last = counts
        self._remember(self.last)
        return self.last

    def _read_summaries(self, view: SpoolView) -> list[FailureSummary]:
        try:
            return self._summaries.read(view.folder(BAD), self._is_stopping)
        except OSError:
            return []  # its count says why

    def _rates(self, queues: dict[str, QueueCounts], done: dict[str, Throughput]) -> dict[str, Rates]:
        """:return: how fast messages come and go, by the changes within about a minute."""
        now_s = time.monotonic()
        now = {}
        for name, counts in queues.items():
            if counts.waiting != UNKNOWN:
                worked = done.get(name, Throughput())
                inside = counts.waiting + counts.delayed + counts.held + counts.claimed
                now[name] = (inside, worked.done, worked.failed, counts.evicted)
        while len(self.recent) > 1 and self.recent[1][0] <= now_s - RATE_S:
            self.recent.popleft()
        then_s, then = self.recent[0] if self.recent else (now_s, {})
        self.recent.append((now_s, now))
        if now_s - then_s < RATE_LEAST_S:
            return {}
        minutes = (now_s - then_s) / 60
        found = {}
        for name, (inside, gone, failed, evicted) in now.items():
            if name not in then:
                continue
            before = then[name]
            # A new master counts from 0.
            out, wrong = max(0, gone - before[1]), max(0, failed - before[2])
            entered = max(0, inside - before[0] + out + wrong + max(0, evicted - before[3]))
            found[name] = Rates(entered / minutes, out / minutes, wrong / minutes)
        return found

    def _remember(self, spool_counts: SpoolCounts) -> None:
        now_s = time.monotonic()
        if now_s < self._slot_s:
            return
        self._slot_s = now_s + SLOT_S
        for name, counts in spool_counts.queues.items():
            self.waiting_history.setdefault(name, deque(maxlen=SLOTS)).append(
                max(0, counts.waiting) + counts.preserved
            )
            done = spool_counts.throughput.get(name, Throughput()).done
            before = self._counted.get(name, done)
            # A new master counts from 0.
            self.done_history.setdefault(name, deque(maxlen=SLOTS)).append(max(0, done - before) / SLOT_S)
            self._counted[name] = done
        for name in self.waiting_history.keys() - spool_counts.queues.keys():
            del self.waiting_history[name], self.done_history[name]


def count_bad_queue(failures: Sequence[FailureSummary], total: int) -> BadQueueCounts:
    """:return: the contents of the bad queue by the failures that were read; of more than `MAX_OPENED` entries, those that were met first."""
    found = BadQueueCounts(total=max(total, len(failures)), looked_at=len(failures))
    now_ns = time.time_ns()
    rows: dict[str, dict[str, AgeRow]] = {'error': {}, 'frame': {}}
    oldest: dict[tuple[str, str], float] = {}
    origins: Counter[str] = Counter()
    for failure in failures:
        origins[failure.origin or '?'] += 1
        age_s = failure.age_s(now_ns)
        if age_s < found.latest.get(failure.error, LatestFailure()).age_s and len(found.latest) <= MAX_GROUPS:
            found.latest[failure.error] = LatestFailure(failure.message, failure.origin, age_s)
        for by, rows_by_name in rows.items():
            name = failure.error if by == 'error' else failure.frame
            key = name if name in rows_by_name or len(rows_by_name) < MAX_GROUPS else OTHERS
            row = rows_by_name.get(key)
            if row is None:
                row = rows_by_name[key] = AgeRow(key)
            row.add(age_s)
            oldest[by, key] = max(age_s, oldest.get((by, key), 0.0))
    found.origins = dict(origins)
    for by, rows_by_name in rows.items():
        found.by[by] = sorted(rows_by_name.values(), key=lambda row: (-row.total, row.name))
        found.new[by] = {name for (kind, name), age_s in oldest.items() if kind == by and age_s < 3600}
    return found
