"""The contents of a queue, counted while its directory is walked over: a million entries cost no memory.

Nothing is opened.  The names say which entries wait and which are delayed; sizes need one ``stat`` an entry, and can be left out.  Those
in the future need one too: their files' dates say whether they are delayed or only a turned clock has put them there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from switchboard.events import log_event
from switchboard.message.naming import (
    CLAIMED,
    NS_PER_S,
    PLAIN_SUFFIX,
    PRESERVED,
    READY,
    UNFINISHED,
    due_ns,
    format_when,
    is_filebase,
    is_on_hold,
    when_ns_of,
)
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD, MAILDIR_DIRECTORIES, MAILDIR_NEW

# After so many names a count with a budget looks at the time.
LOOK_EVERY = 256
# A directory that has changed so lately may change once more without its date showing it.
RACY_NS = 2 * NS_PER_S
# A thread that counts rests so many times as long as a count took.
REST_SHARE = 25
# Upper ends of the columns of an age table, in minutes: those of Postfix's qshape, which operators can read.
AGE_MINUTES = (5, 10, 20, 40, 80, 160, 320, 640, 1280)
AGE_TITLES = (*map(str, AGE_MINUTES), f'{AGE_MINUTES[-1]}+')


@dataclass(slots=True)
class QueueCounts:
    """The contents of one queue, counted.

    ``oldest_ns`` is since when the oldest entry could be claimed: delayed and claimed ones do not count.
    ``next_ns`` is when the next delayed one is due, see `due_ns`.  Those that an operator holds are not delayed.  Both are 0 for none.
    """

    queue: str
    waiting: int = 0
    delayed: int = 0
    held: int = 0
    claimed: int = 0
    preserved: int = 0
    # Files that other programs have dropped, and nobody has taken in yet.
    dropped: int = 0
    foreign: int = 0
    # Messages that went to make room for newer ones, as ``overflow`` says, since the first that did.
    evicted: int = 0
    size_bytes: int = 0
    oldest_ns: int = 0
    next_ns: int = 0
    # Of a bad queue: how many entries came from which queue.  Filled on demand, for it opens every file.
    origins: dict[str, int] = field(default_factory=dict)
    # Why it could not be counted.
    trouble: str = ''
    # Whether the time for it was over before all was counted.
    is_truncated: bool = False
    # Whether the bytes were added up.
    has_size: bool = True

    @property
    def entries(self) -> int:
        """All of them."""
        return self.waiting + self.delayed + self.held + self.claimed + self.preserved


def walk_entries(folder: Folder, suffixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Walk over the entries that have one of these suffixes, in no order.

    :return: filebase and suffix; nothing, if there is no such directory.
    """
    try:
        with folder.scan() as entries:
            for entry in entries:
                filebase, suffix = entry.name[:-4], entry.name[-4:]
                if suffix in suffixes and is_filebase(filebase):
                    yield filebase, suffix
    except FileNotFoundError:
        return


def count(
    folder: Folder, queue: str, *, sizes: bool = True, now_ns: int | None = None, until_ns: int | None = None
) -> QueueCounts:
    """Count the entries of a queue's directory; all zeros if there is none.

    :param until_ns: when to stop, on the monotonic clock; what there is more is not counted then.
    :raises PermissionError: this process may not look.
    """
    counts = QueueCounts(queue, has_size=sizes)
    now_ns = time.time_ns() if now_ns is None else now_ns
    now = format_when(now_ns) + '~'
    oldest, soonest_ns, next_ns = '~', 0, 0
    try:
        with folder.scan() as entries:
            for seen, entry in enumerate(entries):
                if until_ns is not None and seen % LOOK_EVERY == 0 and time.monotonic_ns() >= until_ns:
                    counts.is_truncated = True
                    break
                filebase, suffix = entry.name[:-4], entry.name[-4:]
                if suffix not in (READY, CLAIMED, PRESERVED) or not is_filebase(filebase):
                    _add_no_entry(counts, folder, entry)
                    continue
                if suffix == CLAIMED:
                    counts.claimed += 1
                elif suffix == PRESERVED:
                    counts.preserved += 1
                elif filebase <= now:
                    counts.waiting += 1
                    oldest = min(oldest, filebase)
                elif is_on_hold(filebase):
                    counts.held += 1
                elif (ready_ns := _due_ns(entry, filebase, now_ns)) <= now_ns:
                    counts.waiting += 1
                    soonest_ns = ready_ns
                else:
                    counts.delayed += 1
                    next_ns = min(next_ns or ready_ns, ready_ns)
                if sizes:
                    try:
                        counts.size_bytes += entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        pass  # it went on while it was counted
    except FileNotFoundError:
        return counts
    counts.oldest_ns, counts.next_ns = when_ns_of(oldest) or soonest_ns, next_ns
    return counts


def _add_no_entry(counts: QueueCounts, folder: Folder, entry: os.DirEntry[str]) -> None:
    if entry.name in MAILDIR_DIRECTORIES and entry.is_dir(follow_symlinks=False):
        counts.dropped += _count_mails(folder) if entry.name == MAILDIR_NEW else 0
    elif not entry.name.startswith('.'):
        is_dropped = entry.name.endswith(PLAIN_SUFFIX) and counts.queue != BAD
        counts.dropped += is_dropped
        counts.foreign += not is_dropped and not entry.name.endswith(UNFINISHED)


def _maildir_new(folder: Folder) -> Folder:
    return Folder(os.path.join(folder.path, MAILDIR_NEW), folder.disk)


def _count_mails(folder: Folder) -> int:
    """:return: the number of mails in a queue's maildir that nobody has taken in; none where this process may not look."""
    try:
        with _maildir_new(folder).scan() as entries:
            return sum(not entry.name.startswith('.') for entry in entries)
    except OSError:
        return 0


def directory_stamp(folder: Folder, now_ns: int) -> tuple[int, ...] | None:
    """:return: a mark, which is another one after a file in the directory has come, gone or got another name; None where that would not be sure."""
    try:
        status = folder.status()
    except OSError:
        return None
    if now_ns - status.st_mtime_ns < RACY_NS:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


class CountCache:
    """The counts of queues, each kept for as long as its directory is as it was, and no delayed entry has become due: most queues stand still."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[int, ...], int, QueueCounts]] = {}

    def count(
        self, folder: Folder, queue: str, *, sizes: bool = True, until_ns: int | None = None
    ) -> QueueCounts:
        """Count as `count` does, or give the last count once more."""
        now_ns = time.time_ns()
        stamp = self._stamp(folder, now_ns)
        if stamp is not None and queue in self._kept:
            kept, at_ns, counts = self._kept[queue]
            is_due = 0 < counts.next_ns <= now_ns
            if kept == stamp and counts.has_size >= sizes and at_ns <= now_ns and not is_due:
                return counts
        counts = count(folder, queue, sizes=sizes, now_ns=now_ns, until_ns=until_ns)
        self._kept.pop(queue, None)
        if stamp is not None and not counts.is_truncated:
            self._kept[queue] = stamp, now_ns, counts
        return counts

    @staticmethod
    def _stamp(folder: Folder, now_ns: int) -> tuple[int, ...] | None:
        stamp, mails = directory_stamp(folder, now_ns), _maildir_new(folder)
        if stamp is None or not mails.exists():
            return stamp
        of_mails = directory_stamp(mails, now_ns)
        return None if of_mails is None else (*stamp, *of_mails)


def _due_ns(entry: os.DirEntry[str], filebase: str, now_ns: int) -> int:
    when_ns = when_ns_of(filebase)
    try:
        return due_ns(when_ns, entry.stat(follow_symlinks=False).st_mtime_ns, now_ns)
    except FileNotFoundError:
        return when_ns  # it went on while it was counted


@dataclass(slots=True)
class AgeRow:
    """One row of an age table: how many entries of each age there are, and how many are not due yet."""

    name: str
    counts: list[int] = field(default_factory=lambda: [0] * (len(AGE_MINUTES) + 1))
    later: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts) + self.later

    def fields(self, by: str) -> dict[str, str | int]:
        """:return: the row for programs: its name as the value of the grouping, and a member for each column."""
        columns = dict(zip(AGE_TITLES, self.counts, strict=True))
        return {by: self.name, 'total': self.total, **columns, 'later': self.later}

    def add(self, age_s: float) -> None:
        """Count one entry of this age; below zero is not due yet."""
        if age_s < 0:
            self.later += 1
            return
        for column, minutes in enumerate(AGE_MINUTES):
            if age_s < minutes * 60:
                self.counts[column] += 1
                return
        self.counts[-1] += 1


def age_table(ages: Iterable[tuple[str, float]]) -> list[AgeRow]:
    """Make an age table.

    :param ages: the name of a row and an age in seconds, for each entry.
    :return: the rows, the fullest first.
    """
    rows: dict[str, AgeRow] = {}
    for name, age_s in ages:
        row = rows.get(name)
        if row is None:
            row = rows[name] = AgeRow(name)
        row.add(age_s)
    return sorted(rows.values(), key=lambda row: (-row.total, row.name))


def entry_age_s(folder: Folder, filebase: str, suffix: str, now_ns: int) -> float:
    """:return: seconds since an entry is ready, by its name and, in the future, its file's date; below zero if it is not."""
    when_ns = when_ns_of(filebase)
    if when_ns > now_ns and suffix == READY:
        try:
            status = folder.disk.stat(filebase + suffix, dir_fd=folder.fd, follow_symlinks=False)
            when_ns = due_ns(when_ns, status.st_mtime_ns, now_ns)
        except OSError:
            pass  # it went on meanwhile
    return (now_ns - when_ns) / NS_PER_S


class CountingThread:
    """A thread that counts, rests 25 times as long as that took, and counts again.

    :param count: an error that it raises is logged, and it is called again after the next rest.
    :param rest_s: the shortest rest.
    """

    def __init__(self, count: Callable[[], object], name: str, rest_s: float, log: logging.Logger) -> None:
        self._count = count
        self._rest_s = rest_s
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def close(self) -> None:
        """Count no more; return when the thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def is_stopping(self) -> bool:
        """Is the count to be ended?  A long one asks now and then."""
        return self._stop.is_set()

    def _run(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                self._count()
            except Exception:
                log_event(self._log, logging.ERROR, None, 'not counted', exc_info=True)
            self._stop.wait(max(self._rest_s, REST_SHARE * (time.monotonic() - began_s)))
