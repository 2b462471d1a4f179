"""From the scoreboard and a count of the queues to samples, made anew for each scrape, and to the text that Prometheus reads.

The library's own way for many processes (a file for each that ever lived) was rejected: the scoreboard has one page a slice already, and what the
dead have counted is carried on there.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector as LibraryCollector

from switchboard import __version__
from switchboard.errors import ScoreboardError
from switchboard.message.naming import NS_PER_S
from switchboard.metrics.counting import Count
from switchboard.metrics.families import FAMILIES, PREFIX
from switchboard.operating.queue_info import UNKNOWN
from switchboard.operating.spool_view import read_flags
from switchboard.operating.summary import STATES
from switchboard.operating.text import escape_terminal
from switchboard.status.alive import master_alive, master_directory
from switchboard.status.measurements import (
    BOUNDS_S,
    ERROR_NAME,
    MAX_ERRORS,
    OTHER,
    Histogram,
    Measurements,
    sum_of,
)
from switchboard.status.record import MasterRecord, ProcessState, SliceRecord
from switchboard.status.scoreboard import OUTCOMES, VERSION, Scoreboard
from switchboard.store.layout import DRAINING, PAUSED, SCOREBOARD

if TYPE_CHECKING:
    from switchboard.config.config import Config

_KINDS = {'gauge': GaugeMetricFamily, 'counter': CounterMetricFamily, 'histogram': HistogramMetricFamily}


def _writable(labels: Iterable[str]) -> list[str]:
    # A path need not be text, and the format is UTF-8.
    return [escape_terminal(label) for label in labels]


class Samples:
    """Metrics by name, in the order in which they are first given a sample.

    :param created_s: since when counters of runners count.
    """

    def __init__(self) -> None:
        self._found: dict[str, Metric] = {}
        self.created_s: float | None = None

    def _metric(self, name: str) -> Any:
        if name not in self._found:
            family = FAMILIES[name]
            self._found[name] = _KINDS[family.type](PREFIX + name, family.help, labels=family.labels)
        return self._found[name]

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Give one value."""
        self._metric(name).add_metric(_writable(labels), value)

    def counter(self, name: str, value: float, *labels: str) -> None:
        """Give one count."""
        self._metric(name).add_metric(_writable(labels), value, created=self.created_s)

    def histogram(self, name: str, value: Histogram, *labels: str) -> None:
        """Give one histogram."""
        bounds = [*(str(bound) for bound in BOUNDS_S), '+Inf']
        buckets = list(zip(bounds, itertools.accumulate(value.counts), strict=True))
        self._metric(name).add_metric(_writable(labels), buckets, value.sum_ns / NS_PER_S)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._found.values())


class Collector(LibraryCollector):
    """See the module.

    :param directory: the spool.
    :param count: the last count of its queues.
    :param config: tells which runners there are to be, and what they work on.
    """

    def __init__(self, directory: Path, count: Count, config: Config | None = None) -> None:
        self._directory = directory
        self._count = count
        self._config = config

    def collect(self) -> Iterable[Metric]:
        """:return: all metrics."""
        began_s = time.perf_counter()
        samples = Samples()
        self._collect_queues(samples, time.time_ns())
        for name, number in most_frequent(self._count.errors).items():
            samples.gauge('bad_entries', number, name)
        try:
            self._collect_scoreboard(samples)
        except (ScoreboardError, OSError):
            self._count.failures += 1
        self._collect_disk(samples)
        samples.gauge('build_info', 1, __version__, platform.python_version(), str(VERSION))
        samples.gauge('exporter_census_timestamp_seconds', self._count.at_ns / NS_PER_S)
        samples.created_s = None
        samples.counter('exporter_errors', self._count.failures)
        samples.gauge('exporter_scrape_seconds', time.perf_counter() - began_s)
        return samples

    def _collect_queues(self, samples: Samples, now_ns: int) -> None:
        for queue, counts in self._count.queues.items():
            if counts.waiting == UNKNOWN:
                continue
            for state in STATES:
                samples.gauge('queue_entries', getattr(counts, state), queue, state)
            samples.gauge('queue_dropped_files', counts.dropped, queue)
            samples.gauge('queue_foreign_files', counts.foreign, queue)
            samples.gauge('queue_bytes', counts.size_bytes, queue)
            samples.counter('queue_evicted', counts.evicted, queue)
            age_s = max(0.0, (now_ns - counts.oldest_ns) / NS_PER_S) if counts.oldest_ns else 0.0
            samples.gauge('queue_oldest_claimable_age_seconds', age_s, queue)
            if counts.oldest_ns:
                samples.gauge('queue_oldest_claimable_timestamp_seconds', counts.oldest_ns / NS_PER_S, queue)
            if counts.next_ns:
                samples.gauge('queue_next_due_timestamp_seconds', counts.next_ns / NS_PER_S, queue)
            flags = read_flags(self._directory, queue)
            samples.gauge('queue_paused', PAUSED in flags, queue)
            samples.gauge('queue_draining', DRAINING in flags, queue)
            samples.gauge('queue_census_truncated', counts.is_truncated, queue)

    def _collect_scoreboard(self, samples: Samples) -> None:
        is_up = master_alive(self._directory)
        samples.gauge('master_up', is_up)
        path = master_directory(self._directory) / SCOREBOARD
        if not path.exists():
            return
        scoreboard = Scoreboard.open(path)
        try:
            master, measured = scoreboard.master(), scoreboard.records_with_measurements()
        finally:
            scoreboard.close()
        self._collect_master(samples, master)
        runners: dict[str, list[tuple[SliceRecord, Measurements]]] = {name: [] for name in self._configured()}
        for record, measurements in measured:
            runners.setdefault(record.runner, []).append((record, measurements))
        for name, queue in self._configured().items():
            if queue:
                samples.gauge('runner_queue_info', 1, name, queue)
        for name, slices in runners.items():
            records = [record for record, _ in slices]
            # Of a runner without slices nobody tells what it had counted.  To say 0 would look like a new beginning, and the next slices count on.
            if records:
                self._collect_counters(
                    samples, name, records, sum_of(measurements for _, measurements in slices)
                )
            self._collect_slices(samples, name, records, is_up=is_up)

    def _configured(self) -> dict[str, str]:
        """:return: the queues of the runners that there are to be."""
        runners = self._config.runners if self._config is not None else {}
        return {name: options.queue for name, options in runners.items()}

    def _collect_master(self, samples: Samples, master: MasterRecord) -> None:
        if not master.started_ns:
            return
        samples.created_s = master.started_ns / NS_PER_S
        samples.gauge('master_start_timestamp_seconds', master.started_ns / NS_PER_S)
        samples.gauge('config_last_reload_successful', not master.reload_error)
        if not master.reload_error:
            read_ns = master.reloaded_ns or master.started_ns
            samples.gauge('config_last_reload_success_timestamp_seconds', read_ns / NS_PER_S)

    def _collect_counters(
        self, samples: Samples, name: str, records: list[SliceRecord], measurements: Measurements
    ) -> None:
        for outcome in OUTCOMES:
            samples.counter(f'entries_{outcome}', sum(getattr(one, outcome) for one in records), name)
        for error, counted in sorted(measurements.errors.items()):
            samples.counter('entries_failed_by_error', counted.count, name, error)
        samples.counter('entries_failed_by_error', measurements.other_errors, name, OTHER)
        samples.counter('entries_recovered', measurements.recovered, name)
        samples.counter('runner_restarts', sum(one.restarts for one in records), name)
        samples.histogram('entry_process_seconds', measurements.process, name)
        samples.histogram('entry_wait_seconds', measurements.wait, name)

    def _collect_slices(
        self, samples: Samples, name: str, records: list[SliceRecord], *, is_up: bool
    ) -> None:
        wall_ns, now_ns = time.time_ns(), time.monotonic_ns()
        # Without a master nobody works, whatever the scoreboard says; it may be of another boot, and so its times.
        working = [
            one for one in records if is_up and one.state in (ProcessState.RUNNING, ProcessState.STOPPING)
        ]
        wanted = [one for one in records if is_up and one.state is not ProcessState.EXITED]
        newest = max(wanted, key=lambda one: one.started_ns, default=None)
        samples.gauge('runner_slices', len(working), name)
        samples.gauge('runner_slices_wanted', newest.numslices if newest is not None else 0, name)
        samples.gauge('runner_busy_slices', sum(bool(one.current) for one in working), name)
        late = sum(bool(one.deadline_ns) and one.deadline_ns < now_ns for one in working)
        samples.gauge('runner_deadline_overrun_slices', late, name)
        for metric, times in (
            ('runner_heartbeat_timestamp_seconds', [one.heartbeat_ns for one in working]),
            ('runner_claim_since_timestamp_seconds', [one.current_since_ns for one in working]),
        ):
            if known := [each_ns for each_ns in times if each_ns]:
                samples.gauge(metric, (wall_ns - now_ns + min(known)) / NS_PER_S, name)

    def _collect_disk(self, samples: Samples) -> None:
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return
        spool = self._directory.name
        samples.gauge('spool_free_bytes', found.f_bavail * found.f_frsize, spool)
        samples.gauge('spool_size_bytes', found.f_blocks * found.f_frsize, spool)
        samples.gauge('spool_free_inodes', found.f_favail, spool)


def most_frequent(errors: Mapping[str, int]) -> dict[str, int]:
    """:return: the most frequent classes, and how many have another; names that are none count as others."""
    named = Counter({name: count for name, count in errors.items() if ERROR_NAME.fullmatch(name)})
    named.pop(OTHER, None)
    most = dict(sorted(named.items(), key=lambda item: (-item[1], item[0]))[:MAX_ERRORS])
    return most | {OTHER: sum(errors.values()) - sum(most.values())}


def render(
    directory: Path, count: Count, config: Config | None = None, *, accept: str = ''
) -> tuple[bytes, str]:
    """Render all metrics of a spool.  The directories of its queues are not looked into.

    :param count: the last count of the queues (see `counting`); an empty one, if there was none yet.  Its ``failures`` grow
        if the scoreboard cannot be read.
    :param accept: the header of that name of the request.
    :return: the text, and its ``Content-Type``.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder('')
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(directory, count, config))
    return encode(registry), content_type
