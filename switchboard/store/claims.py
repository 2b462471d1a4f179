"""Claims: what this process is working on, and how it came to be allowed to.

Lock first, name after.  A claim opens the ``.pck``, takes its lock without waiting, makes sure that the name still leads
to the locked file, and only then renames it to ``.bak``.  So a ``.bak`` is locked from its first instant, and one
without a lock has a dead owner.  The kernel drops the lock when its owner dies, at whichever instruction.

Rejected: naming first and locking after (a recovery between the two steals live work), lease times (they break slow
jobs), process numbers in names (they are used again).

A lock belongs to an open file description, so a second ``open`` in the same process is refused like any other.  The
table :data:`OWN_CLAIMS` is how the process knows its own: a claim enters itself when it has its lock, follows its file's
name, and strikes itself out when it ends.  Nobody else writes there.
"""

from __future__ import annotations

import errno
import logging
import os
import stat as stat_module
from dataclasses import dataclass

from switchboard.errors import DurabilityError, EntryTakenError, ForeignFileError, QueueError
from switchboard.events import log_event
from switchboard.message.entry import Entry, read_entry
from switchboard.message.journal import Record, pack_record
from switchboard.message.naming import CLAIMED, PRESERVED, READY, UNFINISHED, digest_of, one_ns_later
from switchboard.store.disk import Disk, draft_name
from switchboard.store.folder import Folder, add_path_to_error
from switchboard.store.reading import WHOLE_BYTES, History, read_file, read_history

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from switchboard.store.kernel import Accelerator
    from switchboard.store.order_lock import OrderLock
    from switchboard.store.pool import FilePool, PoolFile


log = logging.getLogger('switchboard.queue')


@dataclass(slots=True, eq=False)
class Claim:
    """A locked file, and the name under which it stands.

    Assumes: the owner of a `Claim` has its lock; nobody else renames the file or writes to it.
    """

    fd: int
    folder: Folder
    filebase: str
    suffix: str
    size: int
    uid: int
    writable: bool
    modified_ns: int
    entry: Entry | None = None
    # How many names the file had when it was opened.
    links: int = 1
    # Holds the lock of its key, in a queue of strict order.
    order_fd: int = -1
    _history: History | None = None
    # The whole file, if it was read together with the claim, until it is taken apart.
    _content: bytes | None = None
    # Under which the table has it.
    _key: tuple[tuple[int, int], str] = ((-1, -1), '')

    @property
    def name(self) -> str:
        """The file's name in its folder."""
        return self.filebase + self.suffix

    @property
    def path(self) -> str:
        """The file's path."""
        return self.folder.path_of(self.name)

    def is_removed(self) -> bool:
        """Has somebody taken the file away, as far as the disk says?"""
        try:
            return not self.folder.has(self.name)
        except OSError:  # the disk does not say
            return False

    def read(self) -> Entry:
        """Read the whole file, once."""
        entry = self.entry
        if entry is None:
            if self._content is not None and self._history is None:
                entry, self._content = read_entry(self.filebase, self._content), None
            else:
                history = self.history if self.size > WHOLE_BYTES else self._history
                entry = read_file(self.filebase, self.fd, self.size, self.folder.disk, history)
            entry.queue = self.folder.queue
            self.entry = entry
        return entry

    @property
    def history(self) -> History:
        """The history of the entry so far; its body, which may be larger than there is memory for, is not read."""
        if self._history is None:
            if self.entry is None:
                self._history = read_history(self.filebase, self.fd, self.size, self.folder.disk)
            else:
                self._history = History(self.entry.records, self.entry.end)
        return self._history

    @property
    def is_at_work(self) -> bool:
        """Does the file's name tell everybody that it is being worked on?  Otherwise only the lock does."""
        return self.suffix == CLAIMED

    @classmethod
    def of_new_file(cls, file: PoolFile) -> Claim:
        """:return: a claim on a file that this process has made, and that is no entry."""
        uid = file.folder.disk.geteuid()
        return cls(file.fd, file.folder, file.name, '', file.size, uid, writable=True, modified_ns=0)

    def append(self, record: Record, *, sync: bool) -> None:
        """Add a record to the history.

        A crash in it leaves a torn record, which readers ignore and the next append overwrites.

        The file keeps its modification time: beside a name in the future it tells a wish for a delay from a turned clock.

        :param sync: return when it is on the disk.
        :raises OSError: it could not be written; the history is what it was.
        """
        history, disk, packed = self.history, self.folder.disk, self._packed(record)
        if disk.fstat(self.fd).st_nlink > 1:
            self.replace_with_copy(sync=sync)  # a backup by hard links must not change
        if self.size > history.end:
            disk.ftruncate(self.fd, history.end)  # the rest of a torn append must not follow this one
        # Before it is written: what fails half-way is cut off by the next append.
        self.size = history.end + len(packed)
        disk.write_all(self.fd, packed, history.end)
        self.set_mtime(self.modified_ns)
        if sync:
            disk.fdatasync(self.fd)
        self._has_appended(record, len(packed))

    def _packed(self, record: Record) -> bytes:
        if not self.history.is_whole:
            raise OSError(errno.EFBIG, 'its history is too long', self.name)
        return pack_record(record, digest_of(self.filebase))

    @property
    def is_foreign(self) -> bool:
        """Is the file another user's, who may still have it open?"""
        return self.uid != self.folder.disk.geteuid()

    def replace_with_copy(self, *, sync: bool, record: Record | None = None) -> None:
        """Replace the file with a copy that has no other name, and that no other process has open.

        A crash leaves the one or the other, and perhaps an unfinished copy, which recovery removes.

        :param record: an addition to the copy's history: no copy without it takes the name.
        :param sync: have the copy on the disk before it takes the name.
        :raises OSError: it could not be made; the file is what it was.
        """
        disk, folder = self.folder.disk, self.folder
        if self.size > MAX_COPIED_BYTES:
            raise OSError(errno.EFBIG, f'{self.size} bytes are too many to copy', self.name)
        history, packed = self.history, b'' if record is None else self._packed(record)
        draft = f'{draft_name()}{UNFINISHED}'
        fd = disk.create_locked(draft, folder.fd)
        try:
            _copy(disk, self.fd, fd, self.size if record is None else history.end)
            if packed:
                disk.write_all(fd, packed, history.end)
            disk.utime(fd, ns=(self.modified_ns, self.modified_ns))
            if sync:
                disk.fdatasync(fd)
            disk.rename(draft, self.name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        except BaseException:
            disk.unlink_quietly(draft, folder.fd)
            disk.unlock_and_close(fd)
            raise
        disk.unlock_and_close(self.fd)
        self.fd, self.uid, self.writable, self.links = fd, disk.fstat(fd).st_uid, True, 1
        if record is not None:
            self._has_appended(record, len(packed))

    def _has_appended(self, record: Record, length: int) -> None:
        history = self.history
        history.records.append(record)
        history.end += length
        self.size = history.end
        if self.entry is not None:
            self.entry.end = self.size

    def set_mtime(self, modified_ns: int) -> None:
        """Set the file's modification time, if that is allowed: of another user's file it is not."""
        try:
            self.folder.disk.utime(self.fd, ns=(modified_ns, modified_ns))
        except PermissionError:
            return
        self.modified_ns = modified_ns

    def rename(self, folder: Folder, filebase: str, suffix: str) -> str:
        """Give the file another name, in one step.

        Names are unique, so one that is taken was made by hand: a backup that was put back.  If it is another name of this file, this one gives way.
        A copy that says the same is removed: it would be done twice.  One that says something else, or is at work, keeps its name,
        and this file gets the next time that is free.

        :return: the filebase that it has now.
        """
        while True:
            name = filebase + suffix
            try:
                folder.rename_from_exclusive(self.folder, self.name, name)
            except FileExistsError:
                if folder.disk.leads_to(name, folder.fd, folder.disk.fstat(self.fd)):
                    # A rename between two names of one file does nothing.
                    self.folder.disk.unlink(self.name, dir_fd=self.folder.fd)
                elif self._removes_copy(folder, filebase, suffix):
                    continue
                else:
                    filebase = one_ns_later(filebase)
                    continue
            self._follow(folder, filebase, suffix)
            return filebase

    def _removes_copy(self, folder: Folder, filebase: str, suffix: str) -> bool:
        """Remove the file under a name if nobody works on it and it is the same message as this one.

        :return: False if it stays.
        """
        try:
            copy = open_claim(folder, filebase, suffix)
            if copy is None:
                return False
            try:
                if not copy.read().is_same_as(self.read()):
                    return False
                folder.disk.unlink(copy.name, dir_fd=folder.fd)
            finally:
                copy.close()
        except (QueueError, OSError, MemoryError):
            return False  # both are kept
        log_event(log, logging.WARNING, filebase, 'copy removed', queue=folder.queue)
        return True

    def rename_unchecked(self, folder: Folder, filebase: str, suffix: str) -> None:
        """Give the file a name that nobody else can have meant, without asking whether it is free."""
        folder.rename_from(self.folder, self.name, filebase + suffix)
        self._follow(folder, filebase, suffix)

    def _follow(self, folder: Folder, filebase: str, suffix: str) -> None:
        self._unregister()
        self.folder, self.filebase, self.suffix = folder, filebase, suffix
        self.register()

    def register(self) -> None:
        """Enter the table of this process's claims."""
        self._key = key = self.folder.key, self.filebase + self.suffix
        OWN_CLAIMS[key] = self

    def _unregister(self) -> None:
        if OWN_CLAIMS.get(self._key) is self:
            del OWN_CLAIMS[self._key]

    def _leave(self) -> None:
        # The key is kept as long as the claim, under whichever name: a committed input may be taken back, and what comes
        # after it is not to be begun before its outputs are there.
        self._unregister()
        if self.order_fd >= 0:
            fd, self.order_fd = self.order_fd, -1
            self.folder.disk.close_quietly(fd)

    def finish(self, pool: FilePool) -> None:
        """End the entry: its file goes to the pool, and the claim is over.

        :raises OSError: that was refused.  The file is where it was, and still claimed.
        """
        name = self.filebase + self.suffix
        pool.recycle(self.fd, self.folder, name, self.size, reusable=self.writable and self.links == 1)
        self._leave()

    def close(self) -> None:
        """End the claim: drop the lock, and leave the file under the name that it has.  Nothing happens to one that was closed before."""
        self._leave()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self.folder.disk.unlock_and_close(fd)

    def is_own(self) -> bool:
        """Does this process still hold the claim?  If not, it has ended, or a child after a fork has let go of it."""
        return OWN_CLAIMS.get(self._key) is self


# What opening a symbolic link, a directory, a socket or a device without a driver is refused with.
_FOREIGN = frozenset((errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.ENOTDIR))
_FORBIDDEN = frozenset((errno.EACCES, errno.EPERM))

# Larger files are not copied: they stay what they are.
MAX_COPIED_BYTES = 256 * 1024 * 1024
COPIED_AT_ONCE = 1024 * 1024

# By directory and name: one process may look at one directory through many objects.
OWN_CLAIMS: dict[tuple[tuple[int, int], str], Claim] = {}


def _close_inherited() -> None:
    # A child that kept the descriptors would keep the locks when its parent dies.
    for claim in OWN_CLAIMS.values():
        claim.folder.disk.close_quietly(claim.fd)
        claim.fd = -1
        if claim.order_fd >= 0:
            claim.folder.disk.close_quietly(claim.order_fd)
            claim.order_fd = -1
    OWN_CLAIMS.clear()


os.register_at_fork(after_in_child=_close_inherited)


def open_claim(folder: Folder, filebase: str, suffix: str) -> Claim | None:
    """Lock an entry under the name it has.

    :return: None if the lock is refused or the name is gone: not now, look again.
    :raises ForeignFileError: the name leads to no regular file.
    :raises PermissionError: this process may not open it.
    """
    claim = _open_claim(folder, filebase, suffix)
    if claim is not None:
        claim.register()
    return claim


def _open_claim(folder: Folder, filebase: str, suffix: str) -> Claim | None:
    name, disk = filebase + suffix, folder.disk
    writable = True
    try:
        try:
            opened = disk.open_locked(name, folder.fd)
        except PermissionError:
            # Dropped by another user and readable only: good enough to work on, not to write a history into.
            writable = False
            opened = disk.open_locked(name, folder.fd, writable=False)
    except OSError as error:
        if error.errno in _FOREIGN or (error.errno in _FORBIDDEN and not _is_regular(folder, name)):
            raise ForeignFileError(f'{name} is not a regular file', filebase=filebase) from error
        add_path_to_error(error, folder.path_of(name))
        raise
    if opened is None:
        return _open_claim(folder, filebase, suffix) if folder.follow_renewal() else None
    fd, status = opened
    if status.st_nlink > 1:
        try:
            _keep_one_name(folder, filebase, suffix, status)
            status = disk.fstat(fd)
        except BaseException:
            disk.unlock_and_close(fd)
            raise
    size, uid, modified_ns = status.st_size, status.st_uid, status.st_mtime_ns
    return Claim(fd, folder, filebase, suffix, size, uid, writable, modified_ns, links=status.st_nlink)


def _keep_one_name(folder: Folder, filebase: str, suffix: str, status: os.stat_result) -> None:
    """Take the other names of the entry in this directory away: a rename from one to another does nothing and succeeds.

    Assumes: the file is locked, so that nobody works on it under any of them.
    """
    for other in (READY, CLAIMED, PRESERVED):
        if other != suffix and folder.disk.leads_to(filebase + other, folder.fd, status):
            folder.disk.unlink(filebase + other, dir_fd=folder.fd)


def _copy(disk: Disk, source: int, target: int, size: int) -> None:
    """Copy a file's bytes: where it has holes the copy has some, and nowhere else, for a body that was never written counts as damaged."""
    at = 0
    while at < size and (at := _content_from(disk, source, at, size)) < size:
        ends = min(disk.seek(source, at, os.SEEK_HOLE), size)
        while at < ends and (part := disk.read_all(source, min(COPIED_AT_ONCE, ends - at), at)):
            disk.write_all(target, part, at)
            at += len(part)
    disk.ftruncate(target, size)


def _content_from(disk: Disk, fd: int, at: int, size: int) -> int:
    """:return: where the next part begins that is no hole; `size` if there is none."""
    try:
        return disk.seek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size


def _is_regular(folder: Folder, name: str) -> bool:
    try:
        status = folder.disk.stat(name, dir_fd=folder.fd, follow_symlinks=False)
    except FileNotFoundError:
        return True  # gone meanwhile: not foreign
    return stat_module.S_ISREG(status.st_mode)


def claim_ready(folder: Folder, filebase: str, order: OrderLock | None = None) -> Claim:
    """Claim a ready entry: lock, check, rename to ``.bak``.

    A crash before the rename leaves the entry ready, one after it leaves a ``.bak`` without a lock.

    :param order: locks its key, too.
    :raises EntryTakenError: somebody else was faster, or another one of its key is at work.
    :raises ForeignFileError: the name leads to no regular file.
    :raises PermissionError: this process may not open it.
    :raises DurabilityError: this process may not rename it.
    """
    disk = folder.disk
    accelerator = disk.accelerator if order is None else None
    if accelerator is not None and (claim := _claim_at_once(accelerator, folder, filebase)) is not None:
        return claim
    claim = _open_claim(folder, filebase, READY)
    if claim is None:
        raise EntryTakenError('taken by another process, or gone', filebase=filebase)
    try:
        if order is not None:
            fd = order.lock(filebase)
            if fd is None:
                raise EntryTakenError('another one of its key is at work', filebase=filebase)
            claim.order_fd = fd
        disk.rename(filebase + READY, filebase + CLAIMED, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    except BaseException as error:
        claim.close()
        if isinstance(error, FileNotFoundError):
            raise EntryTakenError('gone', filebase=filebase) from error
        add_path_to_error(error, claim.path)
        if isinstance(error, PermissionError):  # the directory's fault: the entry itself could be opened
            raise DurabilityError(str(error), step='claim', filebase=filebase) from error
        raise
    claim.suffix = CLAIMED
    claim.register()
    return claim


def _claim_at_once(accelerator: Accelerator, folder: Folder, filebase: str) -> Claim | None:
    """Claim a ready entry in one call.

    :return: None if nothing was done.
    :raises EntryTakenError: as `claim_ready`.
    """
    name = filebase + CLAIMED
    taken = accelerator.claim(folder.fd, filebase + READY, name)
    if not taken:
        if taken is None and not folder.follow_renewal():
            raise EntryTakenError('taken by another process, or gone', filebase=filebase)
        return None
    fd, size, uid, modified_ns, content = taken
    claim = Claim(fd, folder, filebase, CLAIMED, size, uid, True, modified_ns)
    claim._content = content
    claim._key = key = folder.key, name
    OWN_CLAIMS[key] = claim
    return claim


def claim_of(folder: Folder, filebase: str) -> Claim | None:
    """:return: this process's own claim on an entry that it is working on, if it has one."""
    name = filebase + CLAIMED
    claim = OWN_CLAIMS.get((folder.key, name))
    if claim is not None:
        return claim
    try:
        is_renewed = folder.follow_renewal()
    except OSError:  # the next call on the directory tells of a disk that refuses
        return None
    return OWN_CLAIMS.get((folder.key, name)) if is_renewed else None
