"""Entries sorted into groups by something that they have: by queue, kind, origin, error or a key of the metadata.

With the age of each, that is the table of `queue_counts.age_table`; with a selection, it answers which cause is behind so many failures.  A `FailureSummaryCache` keeps those
of the bad queue, for callers who look again and again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from switchboard.events import log_event
from switchboard.message.naming import CLAIMED, NS_PER_S, PRESERVED, READY
from switchboard.operating.entry_fields import HISTORY_ERRORS
from switchboard.operating.finding import FoundEntry
from switchboard.operating.queue_counts import directory_stamp, entry_age_s, walk_entries
from switchboard.operating.selection import Selection, select
from switchboard.operating.summary import EntrySummary, summarize
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD

log = logging.getLogger('switchboard.queue')

NONE = '(none)'
# Of the text of an error.
MAX_MESSAGE_CHARACTERS = 400
# The time of a file that the disk did not give: it is read again at each look.
NEVER_NS = -1


def group_of(by: str, *, domain: bool = False) -> Callable[[EntrySummary], list[str]]:
    """:return: a function that says to which groups an entry belongs.

    :param by: ``queue``, ``kind``, ``origin``, ``error`` or ``frame``, or a key of the metadata; of a list, each member is a group.
    :param domain: of addresses, take the part behind the ``@``.
    """

    def read(entry: EntrySummary) -> list[str]:
        if by in ('queue', 'kind', 'origin', 'frame'):
            found: object = getattr(entry, by)
        elif by == 'error':
            found = entry.last_error[0]
        else:
            found = entry.metadata().get(by)
        values = [str(one) for one in found] if isinstance(found, list) else [str(found)] if found else []
        if domain:
            values = [value.rpartition('@')[2].rstrip('> ').lower() for value in values]
        return list(dict.fromkeys(values)) or [NONE]

    return read


def ages_by_group(
    queue_folders: Iterable[tuple[str, Folder]],
    now_ns: int,
    unread: dict[str, OSError],
    *,
    by: str = 'queue',
    domain: bool = False,
) -> Iterator[tuple[str, float]]:
    """Walk over the entries of some queues.

    :param unread: takes the queues that the disk does not give, and why.
    :return: the name of a group and an age in seconds, for each entry and each of its groups.  By queue nothing is opened, but for what
        was put aside, whose age its history says.
    :raises PermissionError: this process may not look.
    """
    groups = group_of(by, domain=domain)
    for queue, folder in queue_folders:
        try:
            if by == 'queue' and queue != BAD:
                for filebase, suffix in walk_entries(folder, (READY, CLAIMED)):
                    yield queue, entry_age_s(folder, filebase, suffix, now_ns)
                continue
            for found in select([(queue, folder)], Selection(), now_ns):
                yield from _ages_of(found, groups, now_ns)
        except PermissionError:
            raise
        except OSError as error:
            unread[queue] = error


def _ages_of(
    found: FoundEntry, groups: Callable[[EntrySummary], list[str]], now_ns: int
) -> Iterator[tuple[str, float]]:
    entry = found.look()
    if entry is None:
        return
    try:
        named, age = groups(entry), entry.age_s(now_ns)
    except HISTORY_ERRORS as error:
        log_event(log, logging.DEBUG, found.filebase, 'not read', error=error)
        named, age = [NONE], entry_age_s(found.folder, found.filebase, entry.suffix, now_ns)
    for name in named:
        yield name, age


class FailureSummary(NamedTuple):
    """The reason for which one entry was put aside, as far as a table of many tells it; `NONE` and empty where its history does not say."""

    since_ns: int
    error: str = NONE
    frame: str = NONE
    message: str = ''
    origin: str = ''

    @classmethod
    def of(cls, entry: EntrySummary) -> FailureSummary:
        """:return: that of an entry, however strange its history is."""
        try:
            error, message = entry.last_error
            return cls(
                entry.since_ns,
                error or NONE,
                entry.frame or NONE,
                message[:MAX_MESSAGE_CHARACTERS],
                entry.origin or '',
            )
        except HISTORY_ERRORS:
            return cls(entry.when_ns)

    def age_s(self, now_ns: int) -> float:
        """:return: for how long it lies there."""
        return max(0, now_ns - self.since_ns) / NS_PER_S


class FailureSummaryCache:
    """The causes of the preserved entries of one queue.  Each file is opened once: a later look opens those that are new, and an unchanged directory is not even read.

    :param limit: of so many entries; which ones, the directory's order decides.
    """

    def __init__(self, queue: str, limit: int) -> None:
        self._queue = queue
        self._limit = limit
        self._stamp: tuple[int, ...] | None = None
        # By name: when the file was changed last, and what it says.
        self._known: dict[str, tuple[int, FailureSummary]] = {}

    def read(self, folder: Folder, is_stopping: Callable[[], bool] = lambda: False) -> list[FailureSummary]:
        """:return: the causes; fewer, if it is over before all have been looked at.

        :raises OSError: it cannot be looked at.
        """
        stamp = directory_stamp(folder, time.time_ns())
        if stamp is None or stamp != self._stamp:
            self._stamp = stamp if self._read(folder, is_stopping) else None
        return [cause for _, cause in self._known.values()]

    def _read(self, folder: Folder, is_stopping: Callable[[], bool]) -> bool:
        before, self._known = self._known, {}
        is_all = True
        for filebase, suffix in walk_entries(folder, (PRESERVED,)):
            if len(self._known) >= self._limit:
                break
            if is_stopping():
                return False
            known = before.get(filebase)
            if known is None or known[0] != _modified_ns(folder, filebase + suffix):
                entry = summarize(folder, self._queue, filebase, suffix)
                if entry is None:
                    continue
                known = entry.modified_ns if entry.is_read else NEVER_NS, FailureSummary.of(entry)
            is_all &= known[0] != NEVER_NS
            self._known[filebase] = known
        return is_all


def _modified_ns(folder: Folder, name: str) -> int | None:
    """:return: when a file was changed last; None where that cannot be seen."""
    try:
        return folder.disk.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mtime_ns
    except OSError:
        return None
