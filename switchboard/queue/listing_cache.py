"""A large directory is read seldom: what came and went since is heard of, or it is known that nothing did.

Reading a directory of a million names takes a second of the processor, though all of them may be delayed until next week.  A
runner that read it at each wake-up would do nothing else.  So when reading has taken long, what it found is kept and brought up to
date, in one of two ways:

- the kernel tells the name of each entry that comes and goes (see ``wakeup``), from before the reading on.  In this mode the watch
  stays while the runner works: an event costs microseconds, a reading a second;
- where it does not, and where no event told of a change, the directory's modification time says that there was none.  It is believed
  only if it was some seconds old when the reading began, for two changes in one instant have the same time.

Both may be wrong where the kernel does not see what other machines do, so the directory is read again all the same, when
:data:`SHARE` times as long has passed as a reading takes: a hundredth of the time.  Directories that are quickly read are read each
time, as ever.

Only the first names are kept, of those that are due and of those that are to wait; when they are used up, the directory is read again.
"""

from __future__ import annotations

import heapq
import time
from typing import Protocol

from switchboard.clock import Clock
from switchboard.message.naming import NS, READY, format_when, is_filebase, parse
from switchboard.queue.listing import CHUNK, Letterbox, Listing, is_ours
from switchboard.queue.smallest import Firsts

# A reading that takes longer is dear: some twenty thousand names.
DEAR_NS = NS // 50
# How many times as long as it took a reading is good for.
SHARE = 100
# File systems date in steps of up to two seconds.
STAMP_STEP_NS = 3 * NS

# What the kernel dates files by; `clock` may be a test's, and file systems do not ask it.
_COARSE = getattr(time, 'CLOCK_REALTIME_COARSE', time.CLOCK_REALTIME)


class News(Protocol):
    """Tells which names came into a directory and which went."""

    def follow(self, wanted: bool) -> None:
        """Say whether names are of interest."""

    def mark(self) -> int | None:
        """Forget what was told up to now.

        :return: what to give to :meth:`since`; None if nothing will be told.
        """

    def since(self, mark: int) -> list[tuple[str, bool]] | None:
        """:return: the names since the mark, or since they were last asked for, each with whether it came; None if not all
        of them are known.
        """


class Mirror:
    """Lists as a `Listing` does, from memory where that is safe.

    :param dear_ns: see :data:`DEAR_NS`.
    :param kept: how many names are kept of those that are due, and of those that are to wait; up to twice as many.
    """

    def __init__(self, listing: Listing, dear_ns: int = DEAR_NS, kept: int = CHUNK) -> None:
        self._listing = listing
        self._dear_ns = dear_ns
        self._kept = kept
        self.clock: Clock = listing.clock
        # Set by whoever sleeps on the directory.
        self.news: News | None = None
        self._is_dear = False
        self._read_at_ns = 0
        self._took_ns = 0
        self._mark: int | None = None
        self._stamp_ns: int | None = None
        self._due: set[str] = set()
        self._due_horizon: str | None = None
        # A heap, which may hold names that are gone; those in the set are not.
        self._heap: list[str] = []
        self._future: set[str] = set()
        self._future_horizon: str | None = None

    @property
    def letterbox(self) -> Letterbox | None:
        """See `Listing`."""
        return self._listing.letterbox

    @property
    def dropped(self) -> list[str]:
        """See `Listing`."""
        return self._listing.dropped

    def due(self, limit: int | None = CHUNK) -> tuple[list[str], int | None]:
        """See `Listing`."""
        now_ns = self._listing.now_ns()
        if self._is_dear and self._is_current(now_ns):
            self._ripen(now_ns)
            if not self._is_used_up(limit):
                return self._known(limit)
        began_ns = self.clock.monotonic_ns()
        self._mark = self.news.mark() if self.news is not None else None
        self._stamp_ns = self._settled_stamp()
        due, future = self._listing.survey(now_ns, limit and min(limit, self._kept), self._kept)
        self._measure(began_ns)
        if self._is_dear:
            self._remember(due, future, now_ns)
            if self._is_current(now_ns):  # with what came and went meanwhile
                self._ripen(now_ns)
                return self._known(limit)
        return self._listing.settle(due, future, now_ns, limit)

    def _known(self, limit: int | None) -> tuple[list[str], int | None]:
        reported = self._listing.reported
        if reported:
            self._due = {filebase for filebase in self._due if filebase + READY not in reported}
        name = parse(self._heap[0]) if self._heap else None
        return sorted(self._due, key=self._listing.order)[:limit], name.when_ns if name else None

    def _measure(self, began_ns: int) -> None:
        self._took_ns = self.clock.monotonic_ns() - began_ns
        self._is_dear = self._took_ns >= self._dear_ns
        if self.news is not None:
            self.news.follow(self._is_dear)

    def _is_current(self, now_ns: int) -> bool:
        """Bring up to date what was read.

        :return: False if that cannot be done.
        """
        age_ns = self.clock.monotonic_ns() - self._read_at_ns
        if age_ns > self._took_ns * SHARE or self._listing.dropped:
            return False
        if self.news is not None and self._mark is not None:
            told = self.news.since(self._mark)
            if told is not None:
                return all(self._apply(name, came, now_ns) for name, came in told)
        mark = self.news.mark() if self.news is not None else None
        if self._stamp_ns is None or self._stamp_ns != self._stamp():
            return False
        self._mark = mark
        return True

    def _remember(self, due: Firsts, future: Firsts, now_ns: int) -> None:
        self._read_at_ns = self.clock.monotonic_ns()
        displaced, waiting = self._listing.sort_out(future.sorted(), now_ns)
        self._due, self._due_horizon = set(due), due.horizon
        for filebase in displaced:
            self._add_due(filebase)
        self._heap, self._future, self._future_horizon = waiting, set(waiting), future.horizon

    def _stamp(self) -> int:
        return self._listing.disk.fstat(self._listing.folder.fd).st_mtime_ns

    def _settled_stamp(self) -> int | None:
        """:return: when the directory was last changed; None if another change could have the same time."""
        if not self._is_dear:
            return None  # not worth a system call
        coarse_ns, stamp_ns = time.clock_gettime_ns(_COARSE), self._stamp()
        return stamp_ns if coarse_ns - stamp_ns >= STAMP_STEP_NS else None

    def _apply(self, name: str, came: bool, now_ns: int) -> bool:
        """Note that a name came or went.

        :return: False if it is none of an entry, and somebody has to look what it is.
        """
        filebase = name.removesuffix(READY)
        if not is_filebase(filebase):
            return not came or is_ours(name)
        if filebase == name:
            return not came
        if not came:
            self._due.discard(filebase)
            self._future.discard(filebase)
        elif self._listing.slice.holds(filebase):
            self._add(filebase, now_ns)
        return True

    def _add(self, filebase: str, now_ns: int) -> None:
        listing = self._listing
        if filebase > format_when(now_ns) + '~' and not listing.is_displaced(filebase, now_ns):
            if self._future_horizon is None or filebase <= self._future_horizon:
                if filebase not in self._future:
                    heapq.heappush(self._heap, filebase)
                self._future.add(filebase)
            if len(self._future) > 2 * self._kept:
                self._future_horizon = sorted(self._future)[self._kept - 1]
                self._future = {one for one in self._future if one <= self._future_horizon}
            if len(self._heap) > 4 * self._kept:
                self._heap = sorted(self._future)
        else:
            self._add_due(filebase)

    def _add_due(self, filebase: str) -> None:
        order = self._listing.order
        if self._due_horizon is not None and order(filebase) > self._due_horizon:
            return  # others that are not known come before it
        self._due.add(filebase)
        if len(self._due) > 2 * self._kept:
            first = sorted(self._due, key=order)[: self._kept]
            self._due, self._due_horizon = set(first), order(first[-1])

    def _ripen(self, now_ns: int) -> None:
        now = format_when(now_ns) + '~'
        while self._heap and (self._heap[0] <= now or self._heap[0] not in self._future):
            filebase = heapq.heappop(self._heap)
            if filebase in self._future:
                self._future.discard(filebase)
                self._add_due(filebase)

    def _is_used_up(self, limit: int | None) -> bool:
        if self._due_horizon is not None and (limit is None or not self._due):
            return True
        return self._future_horizon is not None and not self._future
