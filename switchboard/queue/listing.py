"""The listing of a queue's directory: the entries of one slice, and files that are no entries.

The directory is read by its own descriptor.  Should somebody have renamed it away and put another in its place (a backup that was
restored), the reading notices and goes on in the new one.  One that is large and has nothing in it is renewed (see `switchboard.store.renewal`):
when it is found empty, or when the last of the entries that were found in it has been finished.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

from switchboard.clock import Backoff, Clock
from switchboard.events import log_event
from switchboard.message.naming import (
    CLAIMED,
    NS_PER_S,
    PRESERVED,
    READY,
    UNFINISHED,
    FilebaseFinder,
    Slice,
    join_names,
    parse_filebase,
    requested_wait_ns,
)
from switchboard.store.claims import OWN_CLAIMS
from switchboard.store.folder import Folder
from switchboard.store.publishing import raise_queue_error
from switchboard.store.renewal import is_sparse

log = logging.getLogger('switchboard.queue')

# So few names are read with one system call everywhere, during which the kernel lets nobody change the directory: of two files that came one after
# the other, the second is not seen without the first.  Whether a file that was renamed can be missed is another question, see `Folder.reads_every_name`.
# (The smallest buffer of a C library holds some twenty names of entries.  Where more is known they are more, some 340: see `Folder.is_read_in_one_call`.)
NAMES_IN_ONE_CALL = 20

# Names taken from the directory together, while it is walked over.
NAMES_AT_A_TIME = 1000

# How often it is asked whether the directory is still the one at its path.
LOOK_EVERY_NS = NS_PER_S // 10
# How long a directory that could not be renewed is left as it is, at first and at the most: each time twice as long as before, for a try
# takes as long as a reading.
RENEW_AGAIN_S = (0.1, 60.0)

_KNOWN_SUFFIXES = (READY, CLAIMED, PRESERVED, UNFINISHED)


class FilePickup(Protocol):
    """Imports files that other programs drop into a queue's directory, and that are no entries yet."""

    # Directories in the queue's directory that belong to the pickup, and the suffix of the files to import.
    directories: frozenset[str]
    suffix: str
    # The directory of a maildir into which others move what they have finished.
    maildir_new: str | None

    def collect(self, names: list[str]) -> int:
        """Make entries of dropped files.

        :param names: the foreign mails in the queue's directory.
        :return: how many entries there are now.
        """
        ...

    def has_more(self) -> bool:
        """Is there something that the last call had no time for?"""
        ...

    def wait_s(self) -> float | None:
        """:return: seconds until a file that is perhaps being written is to be looked at again."""
        ...


class Listing:
    """Reads a queue's directory.

    :param renew: puts a fresh directory in its place; False if that cannot be.
    """

    def __init__(
        self,
        folder: Folder,
        clock: Clock,
        slice_: Slice,
        pickup: FilePickup | None = None,
        *,
        notes_claimed: bool = False,
        renew: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.queue = folder.queue
        self.slice = slice_
        self._finder = FilebaseFinder(slice_)
        self.pickup = pickup
        # Of the last reading: the foreign mails that it met, the entries at work, if they are wanted, how many names in all, how large
        # the directory was, and whether it cost as much as for a fuller one.
        self.foreign_mail: list[str] = []
        self.claimed: list[str] = []
        self.seen = self.size_bytes = 0
        # Were they read with one call?
        self.is_whole = False
        self.is_sparse = False
        # Of a sparse directory: how many of the entries that were found in it are not known to be gone.
        self.left: int | None = None
        self._renew = renew
        self._renew_at_ns, self._renewal = 0, Backoff(*RENEW_AGAIN_S)
        self._notes_claimed = notes_claimed
        self._look_at_ns = 0
        self._key = folder.key
        # Names that are no entries, and about which the log has said so.
        self.reported: set[str] = set()

    def filebase_chunks(self, suffix: str) -> tuple[list[str]] | Iterator[list[str]]:
        """Read the directory: the entries of this slice that have a suffix, in no order.

        A name of no known form is reported once, and left alone.

        :return: all of them, read at once; of a large directory, an iterator that walks over it and gives some thousand at a time.
        :raises DurabilityError: the directory cannot be read.
        """
        self.foreign_mail.clear()
        self.claimed.clear()
        self.is_whole = False
        try:
            read = self.folder.names_and_size()
        except OSError as error:
            raise_queue_error(error, 'list', self.queue, self.folder.path)
        if read is None:
            return self._walk(suffix)
        names, self.size_bytes = read
        self.seen = len(names)
        joined = join_names(names)
        self.is_whole = self.seen <= NAMES_IN_ONE_CALL or self.folder.is_read_in_one_call(self.seen, joined)
        some = self._sift(joined, self.seen, suffix)
        self._has_read(len(some))
        return (some,)

    def _walk(self, suffix: str) -> Iterator[list[str]]:
        self.seen = found = 0
        try:
            with (scan := self.folder.scan()) as entries:
                self.size_bytes = scan.size_bytes
                while names := [entry.name for entry in islice(entries, NAMES_AT_A_TIME)]:
                    self.seen += len(names)
                    some = self._sift(join_names(names), len(names), suffix)
                    found += len(some)
                    yield some
                    if len(names) < NAMES_AT_A_TIME:
                        break
        except OSError as error:
            raise_queue_error(error, 'list', self.queue, self.folder.path)
        self.is_whole = self.seen <= NAMES_IN_ONE_CALL
        self._has_read(found)

    def _has_read(self, found: int) -> None:
        self.is_sparse = is_sparse(self.size_bytes, self.seen)
        self.left = found if self.is_sparse else None
        if not self.seen:
            self._try_to_renew()

    def note_finished(self) -> None:
        """Note that an entry of a sparse directory was finished; with the last one that is known, the directory may be renewed.

        For a program that never looks while there is nothing.
        """
        assert self.left is not None
        self.left -= 1
        if self.left <= 0:
            self._try_to_renew()

    def _try_to_renew(self) -> None:
        """Renew a sparse directory, if it is empty by now and no try was made a moment ago."""
        if self.left is None or (now_ns := self.clock.monotonic_ns()) < self._renew_at_ns:
            return
        if self._renew():
            self.size_bytes, self.left, self.is_sparse = 0, None, False
            self._renewal.reset()
        else:
            self._renew_at_ns = now_ns + int(self._renewal.next() * NS_PER_S)

    def _sift(self, joined: str, number: int, suffix: str) -> list[str]:
        filebases = self._ours(joined, suffix)
        if len(filebases) < number:
            for name in self._finder.others(joined):
                if name.endswith(suffix):
                    self.report_foreign_file(name, 'foreign name')
                elif not is_known_name(name):
                    self._notice(name)
            if self._notes_claimed:
                self.claimed += self._ours(joined, CLAIMED)
        return filebases

    def _ours(self, joined: str, suffix: str) -> list[str]:
        filebases = self._finder.filebases(joined, suffix)
        if self.reported:
            filebases = [filebase for filebase in filebases if filebase + suffix not in self.reported]
        return filebases

    def _notice(self, name: str) -> None:
        if self.pickup is not None and self.pickup.suffix and name.endswith(self.pickup.suffix):
            self.foreign_mail.append(name)
        elif self.pickup is None or name not in self.pickup.directories:
            self.report_foreign_file(name, 'foreign file')

    def report_foreign_file(self, name: str, what: str) -> None:
        """Log a name that is no entry's: once; later readings pass it over."""
        if name not in self.reported:
            self.reported.add(name)
            log_event(log, logging.WARNING, None, 'ignored', name=name, what=what, queue=self.queue)

    def is_replaced(self, *, refresh: bool) -> bool:
        """Is the directory to be read from now on another one than the last time that this was asked?

        :param refresh: ask the disk; else a reading finds out by itself.
        """
        self.reopen_if_replaced()
        try:
            if refresh:
                self.folder.follow_renewal()
            key, self._key = self._key, self.folder.key
        except OSError:
            return False  # the reading raises the error
        return key != self._key

    def reopen_if_replaced(self) -> None:
        """Go on in the directory that stands in the queue's place by now, with its reading and its writing."""
        now_ns = self.clock.monotonic_ns()
        if now_ns < self._look_at_ns:
            return
        self._look_at_ns = now_ns + LOOK_EVERY_NS
        try:
            if not self.folder.is_replaced() or self.folder.follow_renewal():
                return
            # Claims end where they began: what this process holds in the old directory is finished first.
            if any(key == self.folder.key for key, _ in [*OWN_CLAIMS]):
                return
            self.folder.reopen()
        except OSError:
            return  # it is looked at again
        log_event(log, logging.WARNING, None, 'directory replaced', queue=self.queue)

    def modified_ns(self) -> int | None:
        """:return: the directory's modification time; None if the disk does not say."""
        try:
            return self.folder.status().st_mtime_ns
        except OSError:
            return None

    def has_entry(self, filebase: str, *suffixes: str) -> bool:
        """Is there an entry of this name, in one of these states?

        :raises DurabilityError: the disk does not say.
        """
        try:
            return any(self.folder.has(filebase + suffix) for suffix in suffixes)
        except OSError as error:
            raise_queue_error(error, 'look', self.queue, self.folder.path)

    def requested_wait_ns(self, filebase: str, now_ns: int) -> int | None:
        """See `requested_wait_ns`, of an entry that is ready."""
        name = parse_filebase(filebase)
        try:
            status = self.folder.disk.stat(filebase + READY, dir_fd=self.folder.fd, follow_symlinks=False)
        except OSError:
            return None
        return requested_wait_ns(name.when_ns, status.st_mtime_ns, now_ns) if name is not None else None


def is_known_name(name: str) -> bool:
    """May a queue's directory hold a file of this name, as far as its form tells?"""
    return name.startswith('.') or name.endswith(_KNOWN_SUFFIXES)
