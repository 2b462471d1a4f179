"""Where new entries are written, and where finished ones go.

Creating and deleting a file for each message costs ten times more than writing over an old one (see the performance
page), so a spool keeps finished files in ``.spare`` and writes the next messages into them.  Every new entry is
written in that directory, under its lock, and published by a rename out of it: a crash leaves a spare, which means
nothing.

A file is used again only if it is a regular file of ours with one link: another user's process may still have it open,
and a backup by hard links must not change.  A stale body cannot be taken for a message: the header names its digest,
which must be that of the name.

A `Switchboard` without a spool has a `Scratch` instead: temporary files in its own directory, none kept.
"""

from __future__ import annotations

import os
import stat as stat_module
from _weakref import ref  # `weakref` itself takes the mail servers' door a twentieth of its time to load

from switchboard.message.naming import SYSTEM_NAMER, Namer
from switchboard.store.disk import FILE_MODE, Disk, Folder

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

# Descriptors of spares kept open and locked by this process: enough for a burst, few beside the soft limit of 1,024.
KEPT_OPEN = 64
# Names remembered of finished files that are not kept open: for a burst, and few enough to be found gone one by one.
REMEMBERED = 1024
# Between two looks at the directory for spares of other processes, when the last look found none.
MISSES_BEFORE_LOOK = 64
# A spare keeps its blocks up to this size; above, they go back to the file system.
KEPT_BYTES = 64 * 1024
# The few that are kept open may be larger: giving blocks back and asking for them anew costs more than writing them.
POOLED_BYTES = 256 * 1024
# Finished files after which those in the directory are counted again, at the least.
COUNT_EVERY = 256
# Files in `.spare` beyond which finished ones are deleted.
MAX_SPARES = 4096


class PoolFile:
    """A file that is written under its lock and not yet published."""

    __slots__ = ('fd', 'folder', 'name', 'size')

    def __init__(self, fd: int, folder: Folder, name: str, size: int) -> None:
        self.fd = fd
        self.folder = folder
        self.name = name
        # What it holds by now: the last message's bytes in a spare, nothing in a new file.
        self.size = size


class Workshop(Protocol):
    """The place where drafts are made, and finished files are left."""

    def take(self) -> PoolFile:
        """:return: a file to write: locked, and with no meaning whatever is in it."""

    def give(self, fd: int, folder: Folder, name: str, size: int, *, reusable: bool = True) -> None:
        """Take the file `name` of `folder`, open and locked as `fd`, out of the world.

        :param reusable: it may be written again by this process; it is closed otherwise.
        :raises OSError: that was refused.  The file is where it was, and still open and locked.
        """

    def discard(self, draft: PoolFile, *, reusable: bool = True) -> None:
        """Throw a draft away.  Never raises: what remains is a file that means nothing."""

    def reclaim(self) -> int:
        """Give back the room that finished files take, because the disk is full.  Never raises.

        :return: how many files were deleted.
        """

    def recover(self) -> int:
        """Remove what dead processes left.

        :return: how many files.
        """


class Spares:
    """The finished files of a spool, kept to be written again.  See `Workshop`.

    Ensures: every file in the pool is locked by this process; every other file of the directory is unlocked unless
    somebody is writing it.

    :param folder: the directory ``.spare``.
    :param scrub: empty each file when it is given, for those who must not keep finished messages on the disk.
    :param limit: files in the directory beyond which finished ones are deleted (about: it is counted now and then).
    :param looks: names of others' spares that are tried in one look, for a process that writes one message and ends; None
        is all of them.
    """

    def __init__(
        self,
        folder: Folder,
        disk: Disk,
        namer: Namer = SYSTEM_NAMER,
        *,
        scrub: bool = False,
        limit: int = MAX_SPARES,
        kept_bytes: int = KEPT_BYTES,
        looks: int | None = None,
    ) -> None:
        self.folder = folder
        self.disk = disk
        self.namer = namer
        self.scrub = scrub
        self.limit = limit
        self.looks = looks
        self.kept_bytes = kept_bytes
        self._pool: list[PoolFile] = []
        self._seen: list[str] = []
        self._misses = MISSES_BEFORE_LOOK
        self._given = self._count_at = 0
        self._full = False
        _POOLS[:] = [pool for pool in _POOLS if pool() is not None]
        _POOLS.append(ref(self))

    def take(self) -> PoolFile:
        """See `Workshop`."""
        while self._pool:
            draft = self._pool.pop()
            if self._is_usable(draft):
                return draft
            remove(draft, self.disk)
        return self._find() or create(self.folder, self.disk, self.namer)

    def _is_usable(self, draft: PoolFile) -> bool:
        """May another message be written into the file?  It may have come from anywhere, as somebody's own entry."""
        try:
            status = self.disk.fstat(draft.fd)
            if status.st_nlink != 1 or status.st_uid != self.disk.geteuid():
                return False
            # Also if its maker died between making it and giving it its mode.
            if stat_module.S_IMODE(status.st_mode) != FILE_MODE:
                self.disk.fchmod(draft.fd, FILE_MODE)
        except OSError:
            return False
        return True

    def _find(self) -> PoolFile | None:
        """Take a spare that another process left, if there is one."""
        if not self._seen and self._misses >= MISSES_BEFORE_LOOK:
            self._misses = 0
            self._seen = self.folder.names(self.looks)
            # Each process starts elsewhere in the list, or all would try the same files one after the other.
            cut = int.from_bytes(os.urandom(4), 'big') % (len(self._seen) + 1)
            self._seen = self._seen[cut:] + self._seen[:cut]
        while self._seen:
            name = self._seen.pop()
            opened = try_open(name, self.folder, self.disk)
            if opened is None:
                continue
            fd, status = opened
            draft = PoolFile(fd, self.folder, name, status.st_size)
            if status.st_uid != self.disk.geteuid():
                self.disk.unlock_and_close(fd)  # of use to its owner
            elif self._is_usable(draft):
                return draft
            else:
                remove(draft, self.disk)
        self._misses += 1
        return None

    def give(self, fd: int, folder: Folder, name: str, size: int, *, reusable: bool = True) -> None:
        """See `Workshop`.  The rename comes first and the lock is kept until after it."""
        if reusable and not self._is_full():
            try:
                self.disk.rename(name, name, src_dir_fd=folder.fd, dst_dir_fd=self.folder.fd)
                self._keep(PoolFile(fd, self.folder, name, size))
                return
            except FileNotFoundError:
                raise
            except OSError:
                pass  # a directory that is full has no room for the name, and deleting needs none
        self.disk.unlink(name, dir_fd=folder.fd)
        self.disk.unlock_and_close(fd)

    def discard(self, draft: PoolFile, *, reusable: bool = True) -> None:
        """See `Workshop`."""
        if reusable and draft.folder is self.folder:
            self._keep(draft)
        else:
            remove(draft, self.disk)

    def _keep(self, draft: PoolFile) -> None:
        stays = len(self._pool) < KEPT_OPEN
        try:
            if self.scrub or (draft.size > self.kept_bytes and not (stays and draft.size <= POOLED_BYTES)):
                self.disk.ftruncate(draft.fd, 0)
                draft.size = 0
        except OSError:
            remove(draft, self.disk)
            return
        if stays:
            self._pool.append(draft)
        else:
            self.disk.unlock_and_close(draft.fd)
            if len(self._seen) < REMEMBERED:  # who has finished a burst is about to write the next one
                self._seen.append(draft.name)

    def _is_full(self) -> bool:
        self._given += 1
        if self._given >= self._count_at:
            # Counting costs as much as there are, so far from the limit it is done seldom.
            self._given = 0
            try:
                room = self.limit - self.count()
            except OSError:
                room = 0  # it cannot be told: no more of them
            self._full, self._count_at = room <= 0, max(COUNT_EVERY, room // 4)
        return self._full

    def count(self) -> int:
        """:return: how many files wait in the directory, those that are just being written included."""
        with self.folder.scan() as entries:
            return sum(1 for _ in entries)

    def fill(self, number: int, size: int = 4096) -> int:
        """Make spares until there are `number`, each with room for `size` bytes.

        :return: how many were made.
        """
        made = max(0, min(number, self.limit) - self.count())
        for _ in range(made):
            draft = create(self.folder, self.disk, self.namer)
            try:
                self.disk.write_all(draft.fd, b'\0' * size)
            finally:
                self.disk.unlock_and_close(draft.fd)
        return made

    def empty(self) -> int:
        """Delete every spare that nobody is writing.

        :return: how many.
        """
        self.close()
        deleted = 0
        for name in self.folder.names():
            opened = try_open(name, self.folder, self.disk)
            if opened is not None:
                remove(PoolFile(opened[0], self.folder, name, 0), self.disk)
                deleted += 1
        return deleted

    def reclaim(self) -> int:
        """See `Workshop`."""
        try:
            return self.empty()
        except OSError:
            return 0

    def recover(self) -> int:
        """See `Workshop`: what a crash leaves here is a spare like all others."""
        return 0

    def close(self) -> None:
        """Let go of the spares that this process keeps open."""
        while self._pool:
            self.disk.unlock_and_close(self._pool.pop().fd)

    def _forget(self) -> None:
        # In a child after a fork: the locks belong to the parent as well, so they are closed and never unlocked.
        for draft in self._pool:
            self.disk.let_go(draft.fd)
        self._pool.clear()
        self._seen.clear()

    def __del__(self) -> None:
        self._forget()


_POOLS: list[ref[Spares]] = []


def _forget_all() -> None:
    for known in _POOLS:
        pool = known()
        if pool is not None:
            pool._forget()


os.register_at_fork(after_in_child=_forget_all)


def create(folder: Folder, disk: Disk, namer: Namer, suffix: str = '') -> PoolFile:
    """:return: a new draft."""
    while True:
        name = namer.digest('00000000') + suffix
        try:
            return PoolFile(disk.create_locked(name, folder.fd), folder, name, 0)
        except FileExistsError:
            continue


def try_open(name: str, folder: Folder, disk: Disk) -> tuple[int, os.stat_result] | None:
    """:return: the file, locked, and its status; None if it is not to be had."""
    try:
        return disk.open_locked(name, folder.fd)
    except OSError:
        return None  # somebody has put something else there


def remove(draft: PoolFile, disk: Disk) -> None:
    """Delete a draft."""
    try:
        disk.unlink(draft.name, dir_fd=draft.folder.fd)
    except OSError:
        pass  # it means nothing where it is
    disk.unlock_and_close(draft.fd)
