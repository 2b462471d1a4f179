"""The pool of files: new entries are written into them, and finished ones come back.

Creating and deleting a file for each message costs more than writing over an old one: half as much again or many times as much,
by the file system (see the performance page).  So a spool keeps finished files in ``.spare`` and writes the next messages into them.  Every new entry is
written in that directory, under its lock, and published by a rename out of it: a crash leaves a spare, which means
nothing.

There are as many as messages were waiting at once: each that is finished leaves one, and each new one takes one.  So the next burst of
that size is written into finished files.  What lay unused for an hour goes slowly (:meth:`FilePool.shrink`), and :data:`MAX_SPARE_BYTES`
bounds the room.

A file is used again only if it is a regular file of ours with one link: another user's process may still have it open,
and a backup by hard links must not change.  A stale body cannot be taken for a message: the header names its digest,
which must be that of the name.

The pool of a `Switchboard` without a spool is the queue's own directory: it keeps nothing, and its unfinished files have a
suffix of their own.
"""

from __future__ import annotations

import os
import stat as stat_module
from _weakref import ref  # `weakref` itself takes `drop` a twentieth of its time to load
from itertools import islice

from switchboard.message.naming import NS_PER_S, SYSTEM_NAME_GENERATOR, UNFINISHED, NameGenerator
from switchboard.store.disk import FILE_MODE
from switchboard.store.folder import Folder, add_path_to_error
from switchboard.store.layout import UNUSED_SPARES

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from typing import TypeVar

    from switchboard.store.kernel import Accelerator

    T = TypeVar('T')

# Descriptors of spares kept open and locked by this process: enough for a burst, few beside the soft limit of 1,024.
KEPT_OPEN = 64
# Names remembered of finished files that are not kept open: for a burst of so many, in some ten megabytes.
MAX_KNOWN_NAMES = 131_072
# New files between two looks at the directory for spares of other processes, when the last look was not worthwhile; more, where the directory is
# large.  A look takes 30 us; a new file takes from 10 us to, where files are being deleted, 500.
MISSES_BEFORE_LOOK = 8
# A spare keeps its blocks up to this size; above, they go back to the file system.
KEPT_BYTES = 64 * 1024
# The few that are kept open may be larger: giving blocks back and asking for them anew costs more than writing them.
KEPT_OPEN_BYTES = 256 * 1024
# Names of others' files that are remembered from one look: all of a large pool would be tens of megabytes.
NAMES_AT_ONCE = 65_536
# A look was worthwhile if one in so many of the names that it found was to be had, and at least so many: then the next one may follow at once.
WORTHWHILE_SHARE, WORTHWHILE_FILES = 16, 4
# So many of the names that were found are tried whatever came of those before.
TRIED_ONE_BY_ONE = 8
# So many more files have to be given than were taken before those in the directory are counted again, at the least.
COUNT_EVERY = 256
# Counting costs as much as there are: one in so many of them is given before they are counted again.
COUNT_SHARE = 8
# The room that files in `.spare` may take; beyond, finished ones are deleted.
MAX_SPARE_BYTES = 1 << 30
# What a small file takes of it.
BLOCK_BYTES = 4096
MAX_SPARES = MAX_SPARE_BYTES // BLOCK_BYTES
# So many are kept even if they lay unused for long.
ALWAYS_KEPT = 4096
# Of the others that were not used for so long, one in `SHRINKS_BY` goes: half of them in some five hours.
UNUSED_NS = 3600 * NS_PER_S
SHRINKS_BY = 8
_MAX_NOTE_BYTES = 200


class PoolFile:
    """A file that is written under its lock and not yet published."""

    __slots__ = ('fd', 'folder', 'name', 'size')

    def __init__(self, fd: int, folder: Folder, name: str, size: int) -> None:
        self.fd = fd
        self.folder = folder
        self.name = name
        # What it holds by now: the last message's bytes in a spare, nothing in a new file.
        self.size = size


class FilePool:
    """The place where new entries are written, and where finished files are left.

    Ensures: every file that the pool keeps open is locked by this process; every other one of its directory is unlocked unless
    somebody is writing it.  Threads may share it: each step takes a file out of a list, or puts one in, at once.

    :param folder: the directory ``.spare``; of a queue without a spool, its own.
    :param suffix: of the names of unfinished files, where entries stand beside them.
    :param scrub: empty each file when it is recycled, where finished messages must not stay on the disk.
    :param limit: files in the directory beyond which finished ones are deleted (about: it is counted now and then); with 0 none is
        kept.
    :param limit_bytes: room for them, by the mean size of the files that this process gives.
    :param names_at_once: names of others' files that are tried in one look; fewer for a process that writes one message and ends.
    """

    def __init__(
        self,
        folder: Folder,
        name_generator: NameGenerator = SYSTEM_NAME_GENERATOR,
        *,
        suffix: str = '',
        scrub: bool = False,
        limit: int = MAX_SPARES,
        limit_bytes: int = MAX_SPARE_BYTES,
        names_at_once: int = NAMES_AT_ONCE,
    ) -> None:
        self.folder = folder
        self.disk = folder.disk
        self.name_generator = name_generator
        self.suffix = suffix
        self.scrub = scrub
        self.limit = limit
        self._limit_bytes = limit_bytes
        self._mean_bytes: float = BLOCK_BYTES
        self.names_at_once = names_at_once
        self.kept_open: list[PoolFile] = []
        self._known_names: list[str] = []
        self.misses = self._misses_before_look = MISSES_BEFORE_LOOK
        # Files taken since the last look, and with how many it was worthwhile; and those that others had taken before.
        self._found, self._worthwhile_from, self._lost = 0, WORTHWHILE_FILES, 0
        # Files that this process has taken and not given back: so many are worth keeping for it.  A process that only finishes what others
        # put would keep files locked that they look for.
        self._in_use = 0
        # Since the files in the directory were counted, those that went into it, without those that were taken out of it: for how many there
        # is room, and with how many they are counted again.
        self._added = self._max_added = self._count_at = 0
        _POOLS[:] = [pool for pool in _POOLS if pool() is not None]
        _POOLS.append(ref(self))

    @classmethod
    def without_spares(
        cls, folder: Folder, name_generator: NameGenerator = SYSTEM_NAME_GENERATOR
    ) -> FilePool:
        """:return: a pool in a queue's own directory, which is empty when the queue is: each finished file is deleted."""
        return cls(folder, name_generator, suffix=UNFINISHED, limit=0)

    def acquire(self) -> PoolFile:
        """:return: a file to write: locked, and with no meaning whatever is in it."""
        while (file := _pop(self.kept_open)) is not None:
            if self._is_usable(file):
                self._note_taken()
                return file
            _remove(file)
        try:
            if self.limit and (file := self._take_spare()) is not None:
                return file
            file = self._create()
        except FileNotFoundError:
            if not self.limit or not self.folder.recreate_if_removed():
                raise
            self._known_names.clear()  # somebody has removed the directory, and its content meant nothing
            file = self._create()
        self._in_use += 1
        return file

    def rewrite(self, accelerator: Accelerator, content: bytes) -> PoolFile | None:
        """Write a whole message into a spare, in one call.

        :return: the file, locked; None if :meth:`acquire` and the disk's own calls are to do it.
        """
        if (file := _pop(self.kept_open)) is not None:
            if accelerator.rewrite(file.fd, file.size, content):
                file.size = len(content)
                self._note_taken()
                return file
            self.kept_open.append(file)
            return None
        if (name := _pop(self._known_names)) is not None:
            fd = accelerator.take_spare(self.folder.fd, name, content)
            if type(fd) is int:
                self._found += 1
                self._note_taken()
                return PoolFile(fd, self.folder, name, len(content))
            if fd is False:
                self._known_names.append(name)
            # Or another process goes through the same names: `_open_known` knows what to do then.
        return None

    def _note_taken(self) -> None:
        """Note that a file was taken out of the directory."""
        self._in_use += 1
        self._added -= 1

    def _note_returned(self) -> bool:
        """Note that a file goes into the directory.

        :return: whether this process has taken as many, and so has a use for it.
        """
        self._added += 1
        if self._in_use > 0:
            self._in_use -= 1
            return True
        return False

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

    def _take_spare(self) -> PoolFile | None:
        """Take a spare that another process left, if there is one."""
        draft = self._open_known()
        if draft is None and (self._was_worthwhile() or self.misses >= self._misses_before_look):
            self._look_for_spares()
            draft = self._open_known()
        if draft is None:
            self.misses += 1
            return None
        self._found += 1
        self._note_taken()
        return draft

    def _was_worthwhile(self) -> bool:
        """Has the last look brought so much that the next one may follow at once?

        Not if others were faster at most of what it found: then there are too few for all that look, and some more are made.
        """
        return self._found >= self._worthwhile_from and self._found >= self._lost

    def _look_for_spares(self) -> None:
        """Look which files others have left."""
        self.misses = self._found = self._lost = 0
        with (scan := self.folder.scan()) as entries:
            seen = [entry.name for entry in islice(entries, self.names_at_once)]
        # So dear is a look at a directory that once was full of them: 2 us for each block, as for some names.
        blocks = scan.size_bytes // BLOCK_BYTES
        self._misses_before_look = max(MISSES_BEFORE_LOOK, blocks // 4)
        self._worthwhile_from = max(WORTHWHILE_FILES, (blocks + len(seen)) // WORTHWHILE_SHARE)
        if not seen and blocks > 1:
            # Here, because `drop` seldom needs it.
            from switchboard.store.renewal import renew

            renew(self.folder)
        # Each process starts elsewhere in the list, or all would try the same files one after the other.
        cut = int.from_bytes(os.urandom(4), 'big') % (len(seen) + 1)
        self._known_names = seen[cut:] + seen[:cut]

    def _open_known(self) -> PoolFile | None:
        """Take one of the spares that the last look has found, or that this process has given."""
        passed_over = 1
        while (name := _pop(self._known_names)) is not None:
            opened = _try_open(self.folder, name)
            if opened is None:
                self._lost += 1
                # Another process goes through the same list, and is here before this one: its trail is left sooner than one by one.
                if len(self._known_names) > TRIED_ONE_BY_ONE:
                    del self._known_names[-passed_over:]
                    passed_over *= 2
                continue
            fd, status = opened
            draft = PoolFile(fd, self.folder, name, status.st_size)
            if status.st_uid != self.disk.geteuid():
                self.disk.unlock_and_close(fd)  # of use to its owner
            elif self._is_usable(draft):
                return draft
            else:
                _remove(draft)
        return None

    def recycle(self, fd: int, folder: Folder, name: str, size: int, *, reusable: bool = True) -> None:
        """End the file `name` of `folder`, open and locked as `fd`.  The rename comes first; the lock is kept until after it.

        :param reusable: the file may be written again by this process; it is deleted otherwise.
        :raises OSError: that was refused.  The file is where it was, and still open and locked.
        """
        if reusable and not self._is_full(size):
            if (accelerator := self.disk.accelerator) is not None and self._recycle_at_once(
                accelerator, fd, folder, name, size
            ):
                return
            try:
                self.folder.rename_from(folder, name, name)
                self._keep(PoolFile(fd, self.folder, name, size))
                return
            except FileNotFoundError:
                if not self.folder.recreate_if_removed():  # or the directory is gone, and the file is not
                    raise
            except OSError:
                pass  # a directory that is full has no room for the name, and deleting needs none
        self.disk.unlink(name, dir_fd=folder.fd)
        self.disk.unlock_and_close(fd)

    def _recycle_at_once(
        self, accelerator: Accelerator, fd: int, folder: Folder, name: str, size: int
    ) -> bool:
        """Rename a small file into the pool, and let go of it if it is not to be kept open, in one call.

        :return: False if nothing was done.
        """
        if self.scrub or size > KEPT_BYTES:
            return False
        stays = self._in_use > 0 and len(self.kept_open) < KEPT_OPEN
        if not accelerator.move(folder.fd, name, self.folder.fd, name, -1 if stays else fd):
            return False
        is_wanted = self._note_returned()
        if stays:
            self.kept_open.append(PoolFile(fd, self.folder, name, size))
        elif is_wanted and len(self._known_names) < MAX_KNOWN_NAMES:
            self._known_names.append(name)
        return True

    def discard(self, draft: PoolFile, *, reusable: bool = True) -> None:
        """Throw a file away that was not published.  Never raises: what remains is a file that means nothing."""
        if reusable and self.limit and draft.folder is self.folder:
            self._keep(draft)
        else:
            _remove(draft)

    def _keep(self, draft: PoolFile) -> None:
        is_wanted = self._note_returned()
        stays = is_wanted and len(self.kept_open) < KEPT_OPEN
        try:
            if self.scrub or (draft.size > KEPT_BYTES and not (stays and draft.size <= KEPT_OPEN_BYTES)):
                self.disk.ftruncate(draft.fd, 0)
                draft.size = 0
        except OSError:
            _remove(draft)
            return
        if stays:
            self.kept_open.append(draft)
        else:
            self.disk.unlock_and_close(draft.fd)
            # Who has finished a burst is about to write the next one.
            if is_wanted and len(self._known_names) < MAX_KNOWN_NAMES:
                self._known_names.append(draft.name)

    def _is_full(self, size: int) -> bool:
        if not self.limit:
            return True
        if size > BLOCK_BYTES or self._mean_bytes > BLOCK_BYTES:
            kept = 0 if self.scrub or size > KEPT_BYTES else size
            self._mean_bytes += (max(BLOCK_BYTES, kept) - self._mean_bytes) / COUNT_EVERY
        if self._added >= self._count_at:
            self._count()
        if self._added < self._max_added:
            return False
        self._count_at -= 1  # a refusal brings the next count nearer, too
        return True

    def _count(self) -> None:
        """Count the files in the directory, and see how much room there is for more.

        A process that takes as many as it gives need not count again; seldom, too, where there is much room, or much to count.
        """
        try:
            there = self.count()
            self._max_added = min(self.limit, int(self._limit_bytes / self._mean_bytes)) - there
        except OSError:
            there = self._max_added = 0  # unknown: no more of them
        self._added = 0
        self._count_at = max(COUNT_EVERY, there // COUNT_SHARE, self._max_added // 4)

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
            draft = self._create()
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
            deleted += _delete(self.folder, name)
        return deleted

    def shrink(self, run: Folder, boot_ns: int) -> int:
        """Give back some of the files that lay unused for an hour.  The janitor calls it in each round.

        :param run: where it is noted since when how many have lain unused.
        :param boot_ns: the time now, on the boot clock.
        :return: how many were deleted.
        :raises OSError: the directory or the note cannot be read or written.
        """
        count, unused = self.count(), self.unused(run, boot_ns)
        if unused is None:
            least, since_ns = count, boot_ns
        else:
            least, since_ns = min(unused[0], count), boot_ns - unused[1]
        deleted = 0
        if boot_ns - since_ns >= UNUSED_NS:
            surplus = max(0, least - ALWAYS_KEPT) // SHRINKS_BY
            deleted = sum(_delete(self.folder, name) for name in self.folder.names(surplus)) if surplus else 0
            least, since_ns = count - deleted, boot_ns
        if unused is None or (least, boot_ns - since_ns) != unused:
            run.replace(UNUSED_SPARES, f'{least} {since_ns}'.encode(), sync=False)
        return deleted

    @staticmethod
    def unused(run: Folder, boot_ns: int) -> tuple[int, int] | None:
        """:return: how many were never used, and for how many nanoseconds; None if nobody has looked since the machine was started."""
        words = (run.read(UNUSED_SPARES, _MAX_NOTE_BYTES) or b'').split()
        if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) > boot_ns:
            return None
        return int(words[0]), boot_ns - int(words[1])

    def free_space(self) -> int:
        """Delete the finished files, because the disk is full.  Never raises.

        :return: how many.
        """
        try:
            return self.empty() if self.limit else 0
        except OSError:
            return 0

    def close(self) -> None:
        """Let go of the files that this process keeps open."""
        while (file := _pop(self.kept_open)) is not None:
            self.disk.unlock_and_close(file.fd)

    def _forget(self) -> None:
        # In a child after a fork: the locks belong to the parent as well, so they are closed and never unlocked.
        for file in self.kept_open:
            self.disk.close_quietly(file.fd)
        self.kept_open.clear()
        self._known_names.clear()
        self._in_use = 0

    def __del__(self) -> None:
        self._forget()

    def _create(self) -> PoolFile:
        while True:
            name = self.name_generator.digest('00000000') + self.suffix
            try:
                return PoolFile(self.disk.create_locked(name, self.folder.fd), self.folder, name, 0)
            except FileExistsError:
                continue
            except FileNotFoundError:
                if not self.folder.follow_renewal():
                    raise
            except OSError as error:
                add_path_to_error(error, self.folder.path_of(name))
                raise


def delete_unfinished(folder: Folder) -> int:
    """Delete what dead processes left unfinished between a queue's entries.

    :return: how many.
    """
    try:
        names = folder.names()
    except OSError:
        return 0  # the next listing of the queue gets the error
    deleted = 0
    for name in names:
        if name.endswith(UNFINISHED):
            deleted += _delete(folder, name)
    return deleted


def _delete(folder: Folder, name: str) -> bool:
    opened = _try_open(folder, name)
    if opened is None:
        return False
    _remove(PoolFile(opened[0], folder, name, 0))
    return True


def _try_open(folder: Folder, name: str) -> tuple[int, os.stat_result] | None:
    """:return: the file, locked, and its status; None if it is not to be had."""
    try:
        return folder.disk.open_locked(name, folder.fd)
    except OSError:
        return None  # somebody has put something else there


def _remove(file: PoolFile) -> None:
    disk = file.folder.disk
    try:
        disk.unlink(file.name, dir_fd=file.folder.fd)
    except OSError:
        pass  # it means nothing where it is
    disk.unlock_and_close(file.fd)


def _pop(files: list[T]) -> T | None:
    """Take the last one, if there is one: in one step, because other threads do the same."""
    try:
        return files.pop()
    except IndexError:
        return None


_POOLS: list[ref[FilePool]] = []


def _forget_all() -> None:
    for known in _POOLS:
        pool = known()
        if pool is not None:
            pool._forget()


os.register_at_fork(after_in_child=_forget_all)
