"""Measurements of a slice: how long messages waited and took, which errors ended them, how many it recovered.

These are counted in the runner's memory and go to the scoreboard before it rests, at most once a second while it works, and at once
when a message failed.  So a busy runner pays a few additions a message for them, and no system call; one that is killed loses
the measurements of its last second, and no count of messages (those are written with each, see `scoreboard`).

Names of errors come from the author of the error class, who may have made one out of a message: they are bounded.  The first `MAX_ERRORS` classes have a
counter each, all others share one, and so does a name that is none (`ERROR_NAME`).  Who was first is remembered, so
that slices which are added up keep the same ones for ever: a sum never falls, and no counter changes its meaning.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from switchboard.message.naming import NS_PER_S
from switchboard.status.double_buffer import DoubleBuffer

# Upper ends in seconds: those that OpenTelemetry proposes, and a tail for jobs.
BOUNDS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(30.0, 60.0, 300.0, 1800.0),
)
_BOUNDS_NS = tuple(round(bound * NS_PER_S) for bound in BOUNDS_S)
_BUCKETS = len(BOUNDS_S) + 1
MAX_ERRORS = 20
ERROR_NAME = re.compile(r'[A-Za-z_][\w.]{0,80}', re.ASCII)
OTHER = 'other'
# For the names of all errors together.
_NAMES_BYTES = 1280
_MOST = (1 << 64) - 1

# process: buckets, sum; wait: buckets, sum; recovered, other errors; counts and first times of errors; their names
_FIELDS = f'{_BUCKETS}QQ{_BUCKETS}QQQQ{MAX_ERRORS}Q{MAX_ERRORS}Q{_NAMES_BYTES}s'
COPY_BYTES = 2048


@dataclass(slots=True)
class Histogram:
    """Durations by bucket; the last one is for those longer than all bounds.  A sum in nanoseconds."""

    counts: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    sum_ns: int = 0

    def observe(self, taken_ns: int) -> None:
        """Count one duration."""
        self.counts[bisect_left(_BOUNDS_NS, taken_ns)] += 1
        self.sum_ns += taken_ns

    def add(self, other: Histogram) -> None:
        """Count what another one has counted."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum_ns += other.sum_ns

    @property
    def total(self) -> int:
        """The number of durations that were counted."""
        return sum(self.counts)


@dataclass(slots=True)
class ErrorCount:
    """The number of messages that an error ended, and the time of the first."""

    count: int
    first_ns: int


@dataclass(slots=True)
class Measurements:
    """The measurements since the master started.  ``other_errors`` are those that have no counter of their own."""

    process: Histogram = field(default_factory=Histogram)
    wait: Histogram = field(default_factory=Histogram)
    recovered: int = 0
    other_errors: int = 0
    errors: dict[str, ErrorCount] = field(default_factory=dict)

    def failed_by(self, error: str, now_ns: int) -> None:
        """Count a failure by the name of its class."""
        self._count(error, ErrorCount(1, now_ns))

    def _count(self, name: str, more: ErrorCount) -> None:
        if (known := self.errors.get(name)) is not None:
            known.count += more.count
        elif ERROR_NAME.fullmatch(name) is None or name == OTHER or not self._has_room(name):
            self.other_errors += more.count
        else:
            self.errors[name] = more

    def _has_room(self, name: str) -> bool:
        return (
            len(self.errors) < MAX_ERRORS
            and sum(map(len, self.errors)) + len(self.errors) + len(name) <= _NAMES_BYTES
        )

    def values(self) -> tuple[Any, ...]:
        """:return: all numbers and names, in the order in which the scoreboard holds them."""
        counted = [(each.count, each.first_ns) for each in self.errors.values()]
        counted += [(0, 0)] * (MAX_ERRORS - len(counted))
        return (
            *self.process.counts,
            self.process.sum_ns & _MOST,
            *self.wait.counts,
            self.wait.sum_ns & _MOST,
            self.recovered,
            self.other_errors,
            *(count for count, _ in counted),
            *(first_ns for _, first_ns in counted),
            '\0'.join(self.errors).encode(),
        )

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Self:
        """:return: the measurements that `values` has written."""
        at = iter(values)
        process = Histogram([next(at) for _ in range(_BUCKETS)], next(at))
        wait = Histogram([next(at) for _ in range(_BUCKETS)], next(at))
        recovered, other = next(at), next(at)
        counts = [next(at) for _ in range(MAX_ERRORS)]
        firsts = [next(at) for _ in range(MAX_ERRORS)]
        names = next(at).rstrip(b'\0').decode('ascii', 'replace').split('\0')
        made = cls(process, wait, recovered, other)
        for name, count, first_ns in zip(names, counts, firsts, strict=False):
            if name and count:
                made._count(name, ErrorCount(count, first_ns))
        return made


def sum_of(
    measurements: Iterable[Measurements], keep: Mapping[str, ErrorCount] | None = None
) -> Measurements:
    """:return: all of them together.

    :param keep: the errors that are to have a counter of their own, if it is decided already; without it, those that came first.
    """
    total = Measurements()
    found: dict[str, ErrorCount] = {}
    for each in measurements:
        total.process.add(each.process)
        total.wait.add(each.wait)
        total.recovered += each.recovered
        total.other_errors += each.other_errors
        for name, theirs in each.errors.items():
            ours = found.setdefault(name, ErrorCount(0, theirs.first_ns))
            ours.count += theirs.count
            ours.first_ns = min(ours.first_ns, theirs.first_ns)
    for name, counted in sorted(found.items(), key=lambda item: (item[1].first_ns, item[0])):
        if keep is None:
            total._count(name, counted)
        elif name in keep:
            total.errors[name] = ErrorCount(counted.count, keep[name].first_ns)
        else:
            total.other_errors += counted.count
    return total


def buffer(offset: int) -> DoubleBuffer:
    """:return: where measurements lie in a page."""
    return DoubleBuffer(_FIELDS, offset, COPY_BYTES)
