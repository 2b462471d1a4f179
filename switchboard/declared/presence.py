"""Presence of processes: each has a locked file, and the kernel releases the lock when the process dies.

A *ticket* is a file in a directory, locked by the process that it speaks for.  A locked ticket is a process that lives; one whose lock can
be had belongs to a dead one, and its finder clears it away.  So a count of consumers is a count of living
consumers, and "the owner is gone" is a fact and not a guess.

Rejected: process numbers in files (they are used again, and say nothing across containers), heartbeats (a stopped or
swapped-out process looks dead, and a dead one looks alive for a while).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from switchboard.message.naming import NS_PER_S, NameGenerator
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.forks import after_fork
from switchboard.store.layout import CONSUMERS, OWNERS

# Directories that are kept open: a process may look at the consumers of thousands of queues.
OPEN_PLACES = 16


class ConsumerCount(NamedTuple):
    """Two numbers of a place: the tickets that are held, and the tickets of exited processes, which are removed by now."""

    present: int
    gone: int


class Ticket:
    """A file that this process holds the lock on.  Closed with the object, at :meth:`close`, or by the kernel.

    A child after a fork does not hold it: the place is the parent's.
    """

    def __init__(
        self, folder: Folder, name: str, fd: int, on_close: Callable[[], object] | None = None
    ) -> None:
        self.folder = folder
        self.name = name
        self._fd = fd
        self._on_close = on_close
        _TICKETS.add(self)

    @property
    def is_active(self) -> bool:
        """Is this process still there?"""
        return self._fd >= 0

    def close(self) -> None:
        """Go away.  The second time, and in a forked child, nothing happens."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            self.folder.disk.unlink(self.name, dir_fd=self.folder.fd)
        except OSError:
            pass  # without its lock it means nothing
        self.folder.disk.unlock_and_close(fd)
        if self._on_close is not None:
            self._on_close()

    def _forget(self) -> None:
        # In a forked child.  The lock belongs to the parent as well, so it is not unlocked.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self.folder.disk.close_quietly(fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            # The program may be coming to its end: the next look finds the place empty.
            self._on_close = None
            with suppress(BaseException):  # there is nobody to tell
                self.close()


_TICKETS = after_fork(Ticket._forget)


class Presence:
    """The tickets below one directory, by place.

    :param path: the directory; made when the first ticket is.
    """

    def __init__(self, path: str, disk: Disk, name_generator: NameGenerator) -> None:
        self.path = path
        self.disk = disk
        self.name_generator = name_generator
        self._folders: dict[str, Folder] = {}  # a few, the last that were asked for

    def folder(self, place: str) -> Folder:
        """:return: the directory of a place, which may not be there."""
        folder = self._folders.get(place)
        if folder is None or folder.is_deleted():
            if len(self._folders) >= OPEN_PLACES:
                self._folders.clear()
            folder = self._folders[place] = Folder(os.path.join(self.path, place), self.disk)
        return folder

    def prepare(self, place: str) -> Folder:
        """:return: the directory of a place, which is there, and open."""
        folder = self._folders.get(place)
        if folder is None or folder.is_deleted():
            folder = self.folder(place)
            folder.make(sync=False)
            folder.open()
        return folder

    def register(self, place: str, on_close: Callable[[], object] | None = None) -> Ticket:
        """Say that this process is there.

        :param on_close: called when it is closed.
        :raises OSError: the file cannot be made.
        """
        content = b'{"pid": %d, "since": %r}' % (os.getpid(), self.name_generator.clock.time_ns() / NS_PER_S)
        while True:
            folder = self.prepare(place)
            name = self.name_generator.digest('00000000')
            try:
                fd = self.disk.create_locked(name, folder.fd)
            except FileExistsError:
                continue  # somebody looked in between, and took it for a dead one's
            except FileNotFoundError:
                self._folders.pop(place, None)  # the place was closed in between
                continue
            try:
                self.disk.write_all(fd, content)
            except OSError:
                pass  # a full disk, or a broken one: people read it, nobody else does, and who would empty the disk must not be kept out
            return Ticket(folder, name, fd, on_close)

    def count(self, place: str) -> ConsumerCount | None:
        """Count the living, and clear away what exited processes left.

        :return: None if nobody ever registered.
        """
        folder = self.folder(place)
        present = gone = 0
        try:
            for name in folder.names():
                if self._is_free(name, folder):
                    gone += 1
                elif self.disk.exists(name, folder.fd):
                    present += 1
        except FileNotFoundError:
            self._folders.pop(place, None)
            return None
        return ConsumerCount(present, gone)

    def places(self) -> Iterator[Folder]:
        """Yield the directories in which tickets are."""
        if (owners := self.folder(OWNERS)).exists():
            yield owners
        above = self.folder(CONSUMERS)
        for name in above.names() if above.exists() else ():
            yield self.folder(f'{CONSUMERS}/{name}')

    def clear(self, above: str) -> None:
        """Clear away what exited processes left in all places of one kind."""
        try:
            names = self.folder(above).names()
        except FileNotFoundError:
            return  # nobody ever registered
        for name in names:
            self.count(f'{above}/{name}')

    def is_active(self, place: str, name: str) -> bool:
        """Does the process with this ticket live?"""
        folder = self.folder(place)
        try:
            return not self._is_free(name, folder) and self.disk.exists(name, folder.fd)
        except FileNotFoundError:
            self._folders.pop(place, None)
            return False

    def _is_free(self, name: str, folder: Folder) -> bool:
        try:
            opened = self.disk.open_locked(name, folder.fd)
        except PermissionError:
            return False  # another user's: not for us to say that nobody is there
        if opened is None:
            return False
        try:
            self.disk.unlink(name, dir_fd=folder.fd)
        finally:
            self.disk.unlock_and_close(opened[0])
        return True

    def remove(self, place: str) -> bool:
        """Take a place away.

        :return: False if somebody is there.
        """
        folder = self.folder(place)
        try:
            self.disk.rmdir(folder.path)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        self._folders.pop(place, None)
        return True
