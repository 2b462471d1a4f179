"""What is in a queue's directory: which entries of a slice are there, in which order, and which are due.

An entry whose ``when`` lies in the future waits for it.  When the machine's clock was set back, entries from before lie in
the future without anybody having asked for a delay: their files' modification times lie there too.

However many entries there are, only the first ones are kept in memory, of those that are due and of those that are to wait.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Protocol
from zlib import crc32

from switchboard.clock import Clock
from switchboard.errors import DurabilityError
from switchboard.message.naming import (
    CLAIMED,
    NS,
    PRESERVED,
    READY,
    UNFINISHED,
    Slice,
    format_when,
    matcher,
    parse,
    with_when,
)
from switchboard.queue.smallest import Firsts
from switchboard.store.disk import Disk, Folder

log = logging.getLogger('switchboard.queue')

# Names kept from one listing.
CHUNK = 100_000
# Future entries whose modification time is looked at in one listing: those that come first.
LOOKED_AT = 1000
# A clock that differs by less is nobody's business: the entry waits that long.
CLOCK_SLACK_NS = NS

# What one level of priority is worth, if the queue does not say.
PRIORITY_STEP_NS = 60 * NS

# An entry's time is taken when it is named, and it is seen when it is written and synced: mostly a moment later.
SETTLED_NS = NS

# So few names are read with one system call, during which the kernel lets nobody change the directory: what is seen then is
# all that was there.  (The smallest buffer of a C library holds some twenty names of entries.)
NAMES_IN_ONE_CALL = 20

# Many entries that are named in one instant have names a nanosecond apart, and so a little ahead of the clock.
SAME_INSTANT_NS = NS // 1000

# Names taken from the directory together, while it is walked over.
NAMES_AT_A_TIME = 1000

_KNOWN_SUFFIXES = (READY, CLAIMED, PRESERVED, UNFINISHED)


class Letterbox(Protocol):
    """Takes in files that other programs drop, which are no entries yet."""

    # Names in the queue's directory that are the letterbox's own, and the end of the names that are dropped there.
    directories: frozenset[str]
    suffix: str
    # The directory of a maildir into which others move what they have finished.
    maildir_new: str | None

    def collect(self, names: list[str]) -> int:
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
        self.reported: set[str] = set()
        # Future entries whose delay was asked for, and those that only a turned clock put into the future.
        self._delayed: set[str] = set()
        self._displaced: set[str] = set()
        # How many names the last reading of the directory met.
        self._seen = 0

    def filebases(self, suffix: str) -> Iterator[str]:
        """Walk over the entries of this slice that have a suffix, in no order.

        What is of no known form is reported once, and left alone.

        :raises DurabilityError: the directory cannot be read.
        """
        for some in self._some_filebases(suffix):
            yield from some

    def _some_filebases(self, suffix: str) -> Iterator[list[str]]:
        """The same, many at a time: then each costs a third."""
        self.dropped.clear()
        self._seen = 0
        try:
            with self.folder.scan() as entries:
                while names := [entry.name for entry in islice(entries, NAMES_AT_A_TIME)]:
                    self._seen += len(names)
                    yield self._sift(names, suffix)
        except OSError as error:
            raise DurabilityError(str(error), step='list', queue=self.queue) from error

    def _sift(self, names: list[str], suffix: str) -> list[str]:
        cut, matches = -len(suffix), matcher()
        found = [name[:cut] for name in names if name.endswith(suffix)]
        if len(found) < len(names):
            for name in names:
                if not name.endswith(suffix) and not is_ours(name):
                    self._notice(name)
        filebases = [filebase for filebase in found if matches(filebase)]
        if len(filebases) < len(found):
            for filebase in found:
                if not matches(filebase):
                    self.report(filebase + suffix, 'foreign name')
        if self.reported:
            filebases = [filebase for filebase in filebases if filebase + suffix not in self.reported]
        if self.slice.count > 1:
            filebases = [filebase for filebase in filebases if self.slice.holds(filebase)]
        return filebases

    def _notice(self, name: str) -> None:
        if self.letterbox is not None and self.letterbox.suffix and name.endswith(self.letterbox.suffix):
            self.dropped.append(name)
        elif self.letterbox is None or name not in self.letterbox.directories:
            self.report(name, 'foreign file')

    def report(self, name: str, what: str) -> None:
        """Log something that is no entry: once, and it is not looked at again."""
        if name not in self.reported:
            self.reported.add(name)
            log.warning('%s: %s, left alone queue=%s', name, what, self.queue)

    def due(self, limit: int | None = CHUNK) -> tuple[list[str], int | None]:
        """List the entries that are due, or the first `limit` of them.

        :return: their filebases in order, and the time (ns since the epoch) at which the next one will be.
        """
        now_ns = self.now_ns()
        due, future = self.survey(now_ns, limit)
        return self.settle(due, future, now_ns, limit)

    def now_ns(self) -> int:
        """:return: the time up to which entries are due."""
        return self.clock.time_ns() + SAME_INSTANT_NS

    def survey(self, now_ns: int, limit: int | None = CHUNK, ahead: int = CHUNK) -> tuple[Firsts, Firsts]:
        """Read the directory once.

        :param ahead: how many are kept of those that are to wait.
        :return: the first of the entries whose time has come, and the first of those whose time has not.
        """
        now = format_when(now_ns) + '~'
        due, future = Firsts(limit, self.order), Firsts(ahead)
        for some in self._some_filebases(READY):
            first = [filebase for filebase in some if filebase <= now]
            due.extend(first)
            if len(first) < len(some):
                future.extend([filebase for filebase in some if filebase > now])
        return due, future

    def oldest(self, number: int) -> list[str]:
        """:return: the first of the entries that are due by their age alone, without regard to priorities."""
        return self._pick(number, None)

    def sample(self, number: int) -> list[str]:
        """:return: some of the entries that are due, picked by chance."""
        salt = random.getrandbits(32)
        return self._pick(number, lambda filebase: f'{crc32(filebase.encode("ascii"), salt):08x}')

    def _pick(self, number: int, key: Callable[[str], str] | None) -> list[str]:
        now = format_when(self.now_ns()) + '~'
        picked = Firsts(number, key)
        for some in self._some_filebases(READY):
            picked.extend([filebase for filebase in some if filebase <= now])
        return picked.sorted()[:number]

    def settle(
        self, due: Firsts, future: Firsts, now_ns: int, limit: int | None
    ) -> tuple[list[str], int | None]:
        """Say what can be believed of a survey.

        :return: as :meth:`due`.
        """
        displaced, waiting = self.sort_out(future.sorted(), now_ns)
        first = parse(waiting[0]) if waiting else None
        settled = self._settled([*due, *displaced], now_ns, all_of_them=limit is None)
        # Mostly none has a priority, and then they sort as they are: several times as fast.
        settled.sort(key=self.order if '+p' in ''.join(settled) else None)
        return settled[:limit], first.when_ns if first else None

    def _settled(self, due: list[str], now_ns: int, *, all_of_them: bool) -> list[str]:
        """Leave out, or look again for, what came while the directory was read.

        A reading that goes on while two entries are put can miss the first and see the second.  What is seen may be given out
        when a later reading has seen all that was there before it: young entries wait while there are older ones, and
        where there are only young ones, the directory is read again.
        """
        young = format_when(now_ns - SETTLED_NS)
        newest = max(due, default='')
        if newest < young or self._seen <= NAMES_IN_ONE_CALL:
            return due
        settled = [filebase for filebase in due if filebase < young]
        if settled and not all_of_them and not self._is_urgent(due, young, settled):
            return settled
        displaced = self._displaced.intersection(due)
        now = format_when(now_ns) + '~'
        return [
            one
            for some in self._some_filebases(READY)
            for one in some
            if one <= newest and (one <= now or one in displaced)
        ]

    def _is_urgent(self, due: list[str], young: str, settled: list[str]) -> bool:
        # A young entry with a priority may come before all others: then it must not wait for them.
        urgent = [one for one in due if one >= young and '+p' in one]
        return bool(urgent) and min(map(self.order, urgent)) < min(map(self.order, settled))

    def sort_out(self, future: list[str], now_ns: int) -> tuple[list[str], list[str]]:
        """Tell entries that only a turned clock has put into the future from those that are to wait.

        :param future: the first ones, in order: a turned clock's are among them, unless very many are due before.
        :return: those that are due, and the others.
        """
        looked_at = 0
        for filebase in future:
            if filebase not in self._delayed and filebase not in self._displaced and looked_at < LOOKED_AT:
                looked_at += 1
                kind = self._displaced if self.is_displaced(filebase, now_ns) else self._delayed
                kind.add(filebase)
        there = set(future)
        self._delayed &= there
        self._displaced &= there
        if not self._displaced:
            return [], future
        waiting = [filebase for filebase in future if filebase not in self._displaced]
        return [filebase for filebase in future if filebase in self._displaced], waiting

    def is_displaced(self, filebase: str, now_ns: int) -> bool:
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


def is_ours(name: str) -> bool:
    """Is it the name of something that a queue's directory may hold, as far as its form tells?"""
    return name.startswith('.') or name.endswith(_KNOWN_SUFFIXES)


def order(filebase: str, step_ns: int = PRIORITY_STEP_NS) -> str:
    """The key by which entries are sorted: FIFO, and each level of priority is worth `step_ns` of waiting.

    So a high priority goes before what came up to a few minutes earlier, and nothing is put off for ever.
    """
    if filebase[-3:-1] != '+p':
        return filebase
    name = parse(filebase)
    return with_when(filebase, max(0, name.when_ns - name.priority * step_ns)) if name else filebase
