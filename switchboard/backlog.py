"""What waits in a queue: one listing, worked off entry by entry.

A listing per message would make each message as dear as the backlog is long.  So the names that are due are
read once, sorted, and given out one after the other; the directory is read again when they are used up or old.  Only the
first :data:`CHUNK` names are kept, so that a million waiting messages cost no memory.

An entry whose ``when`` lies in the future waits for it.  When the machine's clock was set back, entries from before lie in
the future without anybody having asked for a delay: their files' modification times lie there too.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from switchboard.clock import Clock
from switchboard.disk import Disk, Folder
from switchboard.entry import (
    CLAIMED,
    NS,
    PRESERVED,
    READY,
    UNFINISHED,
    Slice,
    format_when,
    is_filebase,
    parse,
    with_when,
)
from switchboard.errors import DurabilityError

log = logging.getLogger('switchboard.queue')

# Names kept from one listing.
CHUNK = 20_000
# Future entries whose modification time is looked at in one listing: those that come first.
LOOKED_AT = 1000
# A clock that differs by less is nobody's business: the entry waits that long.
CLOCK_SLACK_NS = NS

# How long a listing is good for: an entry with a higher priority may have come since.  A large directory takes long to
# list, and must not be listed all the time.
RELIST_NS = NS
RELIST_SHARE = 20

# What one level of priority is worth, if the queue does not say.
PRIORITY_STEP_NS = 60 * NS

# An entry's time is taken when it is named, and it is seen when it is written and synced: mostly a moment later.
SETTLED_NS = NS

# Many entries that are named in one instant have names a nanosecond apart, and so a little ahead of the clock.
SAME_INSTANT_NS = NS // 1000

_KNOWN_SUFFIXES = (READY, CLAIMED, PRESERVED, UNFINISHED)


class Letterbox(Protocol):
    """Takes in files that other programs drop, which are no entries yet."""

    # Names in the queue's directory that are the letterbox's own, and the end of the names that are dropped there.
    directories: frozenset[str]
    suffix: str
    # The directory of a maildir into which others move what they have finished.
    maildir_new: str | None

    def take_in(self, names: list[str]) -> int:
        """Make entries of what was dropped.

        :param names: those in the queue's directory.
        :return: how many there are now.
        """
        ...

    def has_more(self) -> bool:
        """Is there something that the last call had no time for?"""
        ...

    def wait_s(self) -> float | None:
        """:return: seconds until a file that is perhaps being written is to be looked at again."""
        ...


class Listing:
    """Reads a queue's directory: which entries of a slice are there, in which order, and which are due."""

    def __init__(
        self,
        folder: Folder,
        disk: Disk,
        clock: Clock,
        queue: str,
        slice_: Slice,
        priority_step_s: float = PRIORITY_STEP_NS / NS,
    ) -> None:
        self.folder = folder
        self.disk = disk
        self.clock = clock
        self.queue = queue
        self.slice = slice_
        self.order: Callable[[str], str] = partial(order, step_ns=int(priority_step_s * NS))
        self.letterbox: Letterbox | None = None
        # What the last listing saw of the letterbox's.
        self.dropped: list[str] = []
        self._reported: set[str] = set()
        # Future entries whose delay was asked for, and those that only a turned clock put into the future.
        self._delayed: set[str] = set()
        self._displaced: set[str] = set()

    def filebases(self, suffix: str) -> Iterator[str]:
        """Walk over the entries of this slice that have a suffix, in no order.

        What is of no known form is reported once, and left alone.

        :raises DurabilityError: the directory cannot be read.
        """
        try:
            yield from self._filebases(suffix)
        except OSError as error:
            raise DurabilityError(str(error), step='list', queue=self.queue) from error

    def _filebases(self, suffix: str) -> Iterator[str]:
        cut = -len(suffix)
        holds = self.slice.holds
        self.dropped.clear()
        with self.folder.scan() as entries:
            for entry in entries:
                name = entry.name
                if not name.endswith(suffix):
                    if not name.startswith('.') and not name.endswith(_KNOWN_SUFFIXES):
                        self._notice(name)
                    continue
                filebase = name[:cut]
                if not is_filebase(filebase):
                    self.report(name, 'foreign name')
                elif holds(filebase) and name not in self._reported:
                    yield filebase

    def _notice(self, name: str) -> None:
        if self.letterbox is not None and self.letterbox.suffix and name.endswith(self.letterbox.suffix):
            self.dropped.append(name)
        elif self.letterbox is None or name not in self.letterbox.directories:
            self.report(name, 'foreign file')

    def report(self, name: str, what: str) -> None:
        """Log something that is no entry: once, and it is not looked at again."""
        if name not in self._reported:
            self._reported.add(name)
            log.warning('%s: %s, left alone queue=%s', name, what, self.queue)

    def due(self, limit: int | None = CHUNK) -> tuple[list[str], int | None]:
        """List the entries that are due, or the first `limit` of them.

        :return: their filebases in order, and the time (ns since the epoch) at which the next one will be.
        """
        now_ns = self.clock.time_ns() + SAME_INSTANT_NS
        now = format_when(now_ns) + '~'
        due: list[str] = []
        future: list[str] = []
        for filebase in self.filebases(READY):
            if filebase <= now:
                due.append(filebase)
                if limit is not None and len(due) >= 2 * limit:
                    due = sorted(due, key=self.order)[:limit]
            else:
                future.append(filebase)
        next_ns = self._sort_out(future, due, now_ns) if future else None
        due = self._settled(due, now_ns, all_of_them=limit is None)
        due.sort(key=self.order)
        return due[:limit], next_ns

    def _settled(self, due: list[str], now_ns: int, *, all_of_them: bool) -> list[str]:
        """Leave out, or look again for, what came while the directory was read.

        A reading that goes on while two entries are put can miss the first and see the second.  What is seen may be given out
        when a later reading has seen all that was there before it: young entries wait while there are older ones, and
        where there are only young ones, the directory is read again.
        """
        young = format_when(now_ns - SETTLED_NS)
        newest = max(due, default='')
        if newest < young:
            return due
        if not all_of_them and (settled := [filebase for filebase in due if filebase < young]):
            return settled
        displaced = self._displaced.intersection(due)
        now = format_when(now_ns) + '~'
        return [one for one in self.filebases(READY) if one <= newest and (one <= now or one in displaced)]

    def _sort_out(self, future: list[str], due: list[str], now_ns: int) -> int | None:
        """Move entries that only a turned clock has put into the future to those that are due.

        :return: when the first of the others is due.
        """
        first: int | None = None
        looked_at = 0
        future.sort()
        for filebase in future:
            if filebase not in self._delayed and filebase not in self._displaced and looked_at < LOOKED_AT:
                looked_at += 1
                kind = self._displaced if self._is_displaced(filebase, now_ns) else self._delayed
                kind.add(filebase)
            if filebase in self._displaced:
                due.append(filebase)
            elif first is None:
                name = parse(filebase)
                first = name.when_ns if name else None
        waiting = set(future)
        self._delayed &= waiting
        self._displaced &= waiting
        return first

    def _is_displaced(self, filebase: str, now_ns: int) -> bool:
        name = parse(filebase)
        try:
            status = self.disk.stat(filebase + READY, dir_fd=self.folder.fd, follow_symlinks=False)
        except OSError:
            return False
        return (
            name is not None
            and status.st_mtime_ns > now_ns + CLOCK_SLACK_NS
            and status.st_mtime_ns >= name.when_ns - CLOCK_SLACK_NS
        )


def order(filebase: str, step_ns: int = PRIORITY_STEP_NS) -> str:
    """The key by which entries are sorted: FIFO, and each level of priority is worth `step_ns` of waiting.

    So a high priority goes before what came up to a few minutes earlier, and nothing is put off for ever.
    """
    if filebase[-3:-1] != '+p':
        return filebase
    name = parse(filebase)
    return with_when(filebase, max(0, name.when_ns - name.priority * step_ns)) if name else filebase


class Lists(Protocol):
    """What is asked of a :class:`Listing`; another one may list something else than a directory."""

    clock: Clock
    letterbox: Letterbox | None
    dropped: list[str]

    def due(self, limit: int | None = CHUNK) -> tuple[list[str], int | None]:
        """See `Listing`."""
        ...


class Backlog:
    """The entries that are due, given out one by one."""

    def __init__(self, listing: Lists) -> None:
        self._listing = listing
        self._due: deque[str] = deque()
        self._held_until_ns: dict[str, int] = {}
        self._relist_at_ns = 0
        self._next_due_ns: int | None = None

    def hold(self, filebase: str, seconds: float) -> None:
        """Do not give an entry out for a while, though it is due."""
        self._held_until_ns[filebase] = self._listing.clock.monotonic_ns() + int(seconds * NS)

    def next(self) -> str | None:
        """:return: the next filebase; None if a listing that was just read holds no more."""
        now_ns = self._listing.clock.monotonic_ns()
        if not self._due or now_ns >= self._relist_at_ns:
            self._list(now_ns)
        while self._due:
            filebase = self._due.popleft()
            if filebase not in self._held_until_ns:
                return filebase
        return None

    def ready(self) -> bool:
        """List anew: is there anything to give out?"""
        self._list(self._listing.clock.monotonic_ns())
        letterbox = self._listing.letterbox
        if letterbox is not None and letterbox.has_more():
            return True
        return any(filebase not in self._held_until_ns for filebase in self._due)

    def _list(self, now_ns: int) -> None:
        due, self._next_due_ns = self._listing.due()
        letterbox = self._listing.letterbox
        if letterbox is not None and letterbox.take_in(list(self._listing.dropped)):
            due, self._next_due_ns = self._listing.due()
        if self._held_until_ns:
            there = set(due)
            self._held_until_ns = {
                filebase: until_ns
                for filebase, until_ns in self._held_until_ns.items()
                if until_ns > now_ns and filebase in there
            }
            if due and there == self._held_until_ns.keys():
                # Young entries need not wait for older ones that are not to be had.
                due, self._next_due_ns = self._listing.due(None)
                del due[CHUNK:]
        self._due = deque(due)
        took_ns = self._listing.clock.monotonic_ns() - now_ns
        self._relist_at_ns = now_ns + max(RELIST_NS, took_ns * RELIST_SHARE)

    def wait_s(self) -> float | None:
        """:return: seconds until something that is there may be given out; None if there is no such thing."""
        waits = []
        if self._held_until_ns:
            waits.append(min(self._held_until_ns.values()) - self._listing.clock.monotonic_ns())
        if self._next_due_ns is not None:
            waits.append(self._next_due_ns - self._listing.clock.time_ns())
        letterbox = self._listing.letterbox
        if letterbox is not None and (wait_s := letterbox.wait_s()) is not None:
            waits.append(int(wait_s * NS))
        return max(0, min(waits)) / NS if waits else None
