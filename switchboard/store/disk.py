"""The one door to the file system: no other module calls ``os`` on a spool.

:class:`Disk` is a table of primitives.  Each is the system call itself, bound as a static method, so that the
indirection costs an attribute look-up and nothing else.  A test passes another table that fails the n-th call, or that
remembers which bytes were synced (see ``switchboard.testing``); nothing is ever patched.
"""

from __future__ import annotations

import errno
import fcntl
import os
import posix
import stat as stat_module
import time
from _weakref import ref  # which is there already; `weakref` would be loaded for nothing else
from itertools import islice

from switchboard.errors import LockTimeoutError
from switchboard.store.kernel import (
    IN_ORDER,
    accelerator,
    allow_more_files,
    copy_attributes,
    is_being_written,
    rename_order,
    renameat2,
    syncfs,
)
from switchboard.store.layout import DRAFT_PREFIX

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, Self, TypeVar

    from switchboard.store.kernel import Accelerator

    T = TypeVar('T')

DIRECTORY_MODE = 0o770
FILE_MODE = 0o660

# Files from which one flush of the file system costs less than one of each (see docs/decisions).
SYNCFS_FROM = 16
# Of a directory whose name may not be on the disk yet.  Nobody has a use for the sticky bit here.
UNFINISHED_MODE = 0o1700
# Of a directory whose queue is being deleted.  The set-user-id bit has no meaning on a directory.
CLOSED_BIT = 0o4000

# O_NOFOLLOW: no symbolic link is ever followed.  O_NONBLOCK: opening a fifo or a device never waits.
OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK_NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
# Between two looks whether a lock is free.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.0001, 0.02


def draft_name() -> str:
    """:return: a name for a file that is to be renamed over another one."""
    return DRAFT_PREFIX + os.urandom(8).hex()


class Disk:
    """The system calls that the queue is made of."""

    open = staticmethod(os.open)
    # Not `os.close`, which gevent replaces by one that closes a directory later, in a round of its loop: a program's limit is reached until then.
    close = staticmethod(posix.close)
    dup2 = staticmethod(os.dup2)
    flock = staticmethod(fcntl.flock)
    fstat = staticmethod(os.fstat)
    stat = staticmethod(os.stat)
    pread = staticmethod(os.pread)
    seek = staticmethod(os.lseek)
    pwrite = staticmethod(os.pwrite)
    ftruncate = staticmethod(os.ftruncate)
    fchmod = staticmethod(os.fchmod)
    fchown = staticmethod(os.fchown)
    fdatasync = staticmethod(getattr(os, 'fdatasync', os.fsync))
    fsync = staticmethod(os.fsync)
    syncfs = staticmethod(syncfs)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    scandir = staticmethod(os.scandir)
    utime = staticmethod(os.utime)
    statvfs = staticmethod(os.statvfs)
    geteuid = staticmethod(os.geteuid)
    status_of_owner = staticmethod(os.fstat)
    renameat2 = staticmethod(renameat2)
    copy_attributes = staticmethod(copy_attributes)
    is_being_written = staticmethod(is_being_written)
    rename_order = staticmethod(rename_order)

    # Several of these calls in one, where that is installed and nobody wants to see each of them: see `of_system`.
    accelerator: Accelerator | None = None

    # Nobody holds a lock that others wait for longer than some flushes and the listing of a directory take.
    lock_timeout_s = 10.0

    @classmethod
    def of_system(cls) -> Self:
        """:return: a disk for work, and not for a look or a test: with the accelerator, if there is one."""
        disk = cls()
        disk.accelerator = accelerator()
        return disk

    def makes_room(self, error: OSError) -> bool:
        """After a call that failed: is it worth another try, because this process may now open more files?

        A batch keeps a descriptor for each entry until it is finished.  The limit is raised when it is met, and not before: it
        belongs to the program, which may have reasons (``select`` takes no descriptor above 1,023).
        """
        return error.errno == errno.EMFILE and allow_more_files()

    def open_file(self, name: str, flags: int, dir_fd: int) -> int:
        """Open or create a file, with a raised limit of open files if need be."""
        try:
            return self.open(name, flags, FILE_MODE, dir_fd=dir_fd)
        except OSError as error:
            if not self.makes_room(error):
                raise
        return self.with_room(lambda: self.open(name, flags, FILE_MODE, dir_fd=dir_fd))

    def with_room(self, open_it: Callable[[], T]) -> T:
        """Open something, as often as that may help."""
        while True:
            try:
                return open_it()
            except OSError as error:
                if not self.makes_room(error):
                    raise

    def sync_files(self, fds: Sequence[int], *, names: bool = False) -> None:
        """Return when the content of files that were just written is on the disk: with one flush, if they are many.

        :param names: and the names that they were given; only where the file system has a flush of a file do that, see `Folder.order`.
        :raises OSError: something could not be written: none of them is to be believed.
        """
        if len(fds) < SYNCFS_FROM or not self.syncfs(fds[0]):
            for fd in fds:
                # Where a name is to come with the content it must be fsync: the other one may leave out what only the name needs.
                if names:
                    self.fsync(fd)
                else:
                    self.fdatasync(fd)

    def write_all(self, fd: int, content: bytes | memoryview, offset: int = 0) -> None:
        """Write everything: a call may write less than it was given when the disk runs full."""
        written = self.pwrite(fd, content, offset)
        while written < len(content):
            written += self.pwrite(fd, memoryview(content)[written:], offset + written)

    def read_all(self, fd: int, size: int, offset: int = 0) -> bytes:
        """Read `size` bytes, or what there is of them."""
        content = self.pread(fd, size, offset)
        if len(content) == size or not content:
            return content
        parts = [content]
        got = len(content)
        while got < size and (part := self.pread(fd, size - got, offset + got)):
            parts.append(part)
            got += len(part)
        return b''.join(parts)

    def lock(self, fd: int, *, shared: bool = False) -> bool:
        """Take the lock on an open file, alone or with others, without waiting.

        :return: False if another open file description holds it.
        """
        try:
            self.flock(fd, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
        except BlockingIOError:
            return False
        return True

    def lock_when_free(self, fd: int, what: str, *, shared: bool = False) -> None:
        """Take the lock on an open file, and wait for it, but not for ever: its holder may be stopped, or hang in the kernel.

        :param what: is locked, for people.
        :raises LockTimeoutError: it was not free within `lock_timeout_s`.
        """
        if self.lock(fd, shared=shared):
            return
        ends_at_s = time.monotonic() + self.lock_timeout_s
        wait_s = _FIRST_WAIT_S
        while not self.lock(fd, shared=shared):
            if time.monotonic() >= ends_at_s:
                raise LockTimeoutError(
                    f'{what}: locked by another process for more than {self.lock_timeout_s:.0f} s'
                )
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def open_lock_file(self, name: str, dir_fd: int, *, flags: int = os.O_RDWR) -> int:
        """Open a file that is there to be locked, or to be read and written by many; it is made if it is not there.

        Ensures: every process that sees it may open it.  It is made under another name, so that it never has the mode that a umask leaves.

        :param flags: how to open it.
        :raises OSError: it cannot be opened or made.
        """
        while True:
            try:
                return self.open_file(name, flags | OPEN_FLAGS, dir_fd)
            except FileNotFoundError:
                pass
            draft = draft_name()
            fd = self.create_locked(draft, dir_fd)
            try:
                self.rename_exclusive(draft, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            except FileExistsError:
                self.remove_new(draft, dir_fd)  # another process was faster: the file is its
            except BaseException:
                self.remove_new(draft, dir_fd)
                self.let_go(fd)
                raise
            self.let_go(fd)

    def unlock_and_close(self, fd: int) -> None:
        """Unlock first: a process that waits for the close (inotify tells of it before the kernel drops the lock) finds the
        lock free.
        """
        try:
            self.flock(fd, fcntl.LOCK_UN)
        except OSError:
            pass  # the close drops it as well
        self.let_go(fd)

    def let_go(self, fd: int) -> None:
        """Close a descriptor, whatever the kernel says to that.

        It is gone after an error too, so a second try could close a file of somebody else's; and bytes that had to be on
        the disk was synced before.
        """
        try:
            self.close(fd)
        except OSError:
            pass

    def rename_exclusive(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        """Rename without replacing.

        :raises FileExistsError: the target is there.  Where the kernel cannot do it in one call, the target is looked
            for first, which another process may run between; names are unique, so only copies made by hand can meet.
        """
        call = self.renameat2()
        if call is not None:
            code = call(src_dir_fd, os.fsencode(source), dst_dir_fd, os.fsencode(target))
            if code == 0:
                return
            if code not in (errno.EINVAL, errno.ENOSYS):
                raise OSError(code, os.strerror(code), source, None, target)
        if self.exists(target, dst_dir_fd):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
        self.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def exists(self, name: str, dir_fd: int) -> bool:
        """Is there anything of this name?"""
        try:
            self.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def leads_to(self, name: str, dir_fd: int, opened: os.stat_result) -> bool:
        """Does the name still lead to the file that was opened?  Ask with its lock held, or the answer is worth nothing."""
        try:
            named = self.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return named.st_ino == opened.st_ino and named.st_dev == opened.st_dev

    def open_locked(
        self, name: str, dir_fd: int, *, writable: bool = True
    ) -> tuple[int, os.stat_result] | None:
        """Open a regular file, lock it, and make sure that the name still leads to it.

        :return: the descriptor and the file's status; None if the lock is refused or the name is gone or leads
            elsewhere by now: not now, look again.
        :raises OSError: it cannot be opened.
        :raises IsADirectoryError: it is no regular file.
        """
        flags = os.O_RDWR if writable else os.O_RDONLY
        try:
            fd = self.open_file(name, flags | OPEN_FLAGS, dir_fd)
        except FileNotFoundError:
            return None
        try:
            self.flock(fd, _LOCK_NOW)
            # The status from before the lock would be old: the last holder may have written.
            status = self.fstat(fd)
            if not stat_module.S_ISREG(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, 'not a regular file', name)
            if self.leads_to(name, dir_fd, status):
                return fd, status
        except BlockingIOError:
            pass
        except BaseException:
            self.let_go(fd)
            raise
        self.let_go(fd)
        return None

    def create_locked(self, name: str, dir_fd: int) -> int:
        """Create a file and lock it.

        Between the two calls another process may take it for a leftover: it then has the lock, or has used the file.

        :raises FileExistsError: the name is taken, or a recovery was faster; try another name.
        """
        fd = self.open_file(name, CREATE_FLAGS, dir_fd)
        locked = False
        try:
            locked = self.lock(fd)
            if locked:
                status = self.fstat(fd)
                # It may have had the file, used it and let it go again: then the name leads nowhere, and the file is a message.
                if self.leads_to(name, dir_fd, status):
                    self.give_to_owner(fd, dir_fd)
                    if stat_module.S_IMODE(status.st_mode) != FILE_MODE:  # the umask took some of it
                        self.fchmod(fd, FILE_MODE)
                    return fd
        except BaseException:
            if locked:
                self.remove_new(name, dir_fd)
            self.let_go(fd)
            raise
        self.let_go(fd)
        raise FileExistsError(errno.EEXIST, 'taken by a recovery', name)

    def give_to_owner(self, fd: int, dir_fd: int) -> None:
        """Give what root has just made to the owner and the group of the directory that holds it.

        An operator's command, or a mail server's, may run as root in the spool of a service user, who has to be able to read and to remove what it makes.
        Where nothing can be given away (a file system that knows no owners, or a container's root), it stays as it is.
        """
        if self.geteuid() != 0:
            return
        owner, made = self.status_of_owner(dir_fd), self.status_of_owner(fd)
        if (owner.st_uid, owner.st_gid) in ((made.st_uid, made.st_gid), (0, 0)):
            return  # a file of root's alone serves nobody else
        try:
            self.fchown(fd, owner.st_uid, owner.st_gid)
        except OSError:
            pass

    def remove_new(self, name: str, dir_fd: int) -> None:
        """Remove a file that never meant anything."""
        try:
            self.unlink(name, dir_fd=dir_fd)
        except OSError:
            pass  # an empty file with a name that means nothing


class Folder:
    """A directory, by descriptor: names in it are resolved in one step, and it can be synced.

    The descriptor is opened when first needed and closed with the object.  Listings open the directory anew, by that descriptor,
    because a position in it is shared by all who inherited a descriptor.

    A directory that has grown large and is empty may be renewed (see `renewal`): another one takes its place, and nothing can be put into
    the old one.  A process that has the old one open misses a name there, and goes on in the new one: see :meth:`follow`.
    """

    def __init__(self, path: str | os.PathLike[str], disk: Disk) -> None:
        self.path = os.fspath(path)
        self.place = os.path.basename(self.path)  # what histories call it: a queue's name
        self.disk = disk
        self._fd = -1
        self._replaced: list[int] = []
        self._order: int | None = None

    @property
    def order(self) -> int:
        """The effect of an ``fsync`` of a file in it besides the content: `APART`, `WITH_FILE` or `IN_ORDER`."""
        if self._order is None:
            self._order = self.disk.rename_order(self.fd)
        return self._order

    def make(self, *, sync: bool = True) -> None:
        """Make the directory, and those above it, if they are not there; 0770 whatever the umask says.

        A new one is on the disk when this returns: a message on the disk in a directory that is not would be lost with it.
        Its mode says until then that it is not, so that its finder after its maker's death does the rest.

        :param sync: False for what means nothing after a power cut.
        """
        try:
            self.disk.mkdir(self.path, UNFINISHED_MODE)
            self._go_on()
        except FileExistsError:
            self._go_on()
            if stat_module.S_IMODE(self.disk.fstat(self.fd).st_mode) & 0o1777 != UNFINISHED_MODE:
                return
        except FileNotFoundError:
            self._above().make(sync=sync)
            self.make(sync=sync)
            return
        if sync:
            try:
                self._above().sync()
            except PermissionError:
                pass  # we may write there and not read, so it cannot be opened to be synced
        self._give_to_owner()
        # The set-group-id bit, inherited from the directory above, stays.
        mode = stat_module.S_IMODE(self.disk.fstat(self.fd).st_mode)
        self.disk.fchmod(self.fd, mode & 0o6000 | DIRECTORY_MODE)

    def _go_on(self) -> None:
        """Use the directory at the path, if the one that this object has open was removed, or renamed away."""
        if self._fd >= 0 and self.is_replaced() and not self.follow():
            self.reopen()

    def _give_to_owner(self) -> None:
        if self.disk.geteuid() != 0:
            return
        above = self._above()  # kept for as long as its descriptor is of use
        self.disk.give_to_owner(self.fd, above.fd)

    def open(self) -> None:
        """Open the directory now, where an error is to be raised here and not in the middle of a step.

        :raises OSError: it cannot be opened, or is no directory.
        """
        _ = self.fd

    def open_lock_file(self, name: str) -> int:
        """Open a file as `Disk.open_lock_file` does; the directory is made with it."""
        try:
            return self.disk.open_lock_file(name, self.fd)
        except FileNotFoundError:
            self.make(sync=False)
        return self.disk.open_lock_file(name, self.fd)

    def share(self) -> None:
        """Have all that is made in it from now on belong to its group: the set-group-id bit, which directories made in it inherit."""
        mode = stat_module.S_IMODE(self.disk.fstat(self.fd).st_mode)
        self.disk.fchmod(self.fd, mode | stat_module.S_ISGID)

    def trusts(self, uid: int) -> bool:
        """May a file's history be believed, if that is its owner: this user, root, or the owner of the directory?"""
        return uid in (0, self.disk.geteuid(), self.disk.fstat(self.fd).st_uid)

    def revive(self) -> bool:
        """Make a directory anew that somebody has removed.

        :return: whether it was: what failed because something is not there is to be tried again.
        """
        status = self.disk.fstat(self.fd)
        if status.st_nlink or status.st_mode & CLOSED_BIT:
            return False
        self.make()
        return True

    def is_closed(self) -> bool:
        """Has the directory that this object has open been taken away, or is it about to be?  One that was renewed is followed."""
        if self._fd < 0:
            return False
        status = self.disk.fstat(self._fd)
        return bool(status.st_mode & CLOSED_BIT) or (status.st_nlink == 0 and not self.follow())

    def close_to_new(self, closed: bool = True) -> None:
        """Mark the directory, so that processes that have it open close it."""
        mode = stat_module.S_IMODE(self.disk.fstat(self.fd).st_mode)
        self.disk.fchmod(self.fd, mode & ~CLOSED_BIT | CLOSED_BIT * closed)

    def _above(self) -> Folder:
        return Folder(os.path.dirname(os.path.abspath(self.path)), self.disk)

    # The directory's descriptor, opened when first asked for; and what tells it from all others, however its path is spelled.
    fd: int
    key: tuple[int, int]

    def __getattr__(self, name: str) -> Any:
        if name not in ('fd', 'key'):
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {name!r}')
        fd = self._open()
        try:
            status = self.disk.fstat(fd)
        except BaseException:
            self.disk.let_go(fd)
            raise
        # Another thread may have opened it meanwhile, and go by its descriptor.
        if self.__dict__.setdefault('fd', fd) != fd:
            self.disk.let_go(fd)
            return self.fd if name == 'fd' else (status.st_dev, status.st_ino)
        self.key, self._fd = (status.st_dev, status.st_ino), fd
        opened = _opened_by(self.disk)
        opened.add(ref(self, opened.discard))
        return getattr(self, name)

    def close(self) -> None:
        """Give the descriptor back now.  When it is needed again, it is opened anew."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            del self.fd, self.key
            self.disk.let_go(fd)

    def _open(self) -> int:
        return self.disk.with_room(lambda: self.disk.open(self.path, DIRECTORY_FLAGS))

    def scan(self) -> Scan:
        """Walk over its entries, in no order, without holding all of them in memory.

        :raises FileNotFoundError: it was removed.
        """
        return self.disk.with_room(self._scan)

    def _scan(self) -> Scan:
        while True:
            fd = self.disk.open('.', DIRECTORY_FLAGS, dir_fd=self.fd)
            try:
                status = self.disk.fstat(fd)
                if status.st_nlink:
                    entries: Any = self.disk.scandir(fd)  # type: ignore[arg-type]
                    return Scan(self.disk, fd, entries, status.st_size)
            except BaseException:
                self.disk.let_go(fd)
                raise
            self.disk.let_go(fd)
            if not self.follow():  # a reading would find nothing, and no error
                raise FileNotFoundError(errno.ENOENT, 'the directory was removed', self.path)

    def follow(self) -> bool:
        """Go on in the directory that has taken the place of this one, if this one was renewed.

        The descriptor keeps its number, for another thread may be using it: in a directory that is gone there is nothing that it could be
        in the middle of.

        :return: whether it was: what failed because something is not there is to be tried again.
        """
        disk = self.disk
        status = disk.fstat(self.fd)
        if status.st_nlink or status.st_mode & CLOSED_BIT:
            return False
        try:
            fd = self._open()
        except FileNotFoundError:
            return False
        try:
            if self.order != IN_ORDER:
                self._above().sync()  # its own name is on the disk before anything in it is promised to be
            status = disk.fstat(fd)
            disk.dup2(fd, self.fd, False)
            self.key = status.st_dev, status.st_ino
        finally:
            disk.let_go(fd)
        return True

    def receive(self, source: Folder, name: str, target: str) -> None:
        """Rename a file of another directory into this one, or into the one that has taken its place.

        :raises OSError: it could not be; nothing has changed.
        """
        steps = self.disk.accelerator
        if steps is not None and steps.move(source.fd, name, self.fd, target, -1):
            return
        while True:
            try:
                self.disk.rename(name, target, src_dir_fd=source.fd, dst_dir_fd=self.fd)
                return
            except FileNotFoundError:
                if not self.follow():
                    raise

    def receive_exclusive(self, source: Folder, name: str, target: str) -> None:
        """As :meth:`receive`, and without replacing.

        :raises FileExistsError: see `Disk.rename_exclusive`.
        """
        while True:
            try:
                self.disk.rename_exclusive(name, target, src_dir_fd=source.fd, dst_dir_fd=self.fd)
                return
            except FileNotFoundError:
                if not self.follow():
                    raise

    def has(self, name: str) -> bool:
        """Is there anything of this name in it, or in the one that has taken its place?"""
        return self.disk.exists(name, self.fd) or (self.follow() and self.disk.exists(name, self.fd))

    def is_replaced(self) -> bool:
        """Does another directory stand at this path by now, because somebody renamed this one away or over?

        A queue that is being deleted is not replaced: what comes after it is another queue.
        """
        opened = self.disk.fstat(self.fd)
        if opened.st_mode & CLOSED_BIT:
            return False
        try:
            named = self.disk.stat(self.path)
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino)

    def reopen(self) -> None:
        """Go on with the directory that stands at this path by now.

        The descriptor from before stays open: another thread may be using it, and its number must not come to mean something else.
        """
        fd = self._open()
        status = self.disk.fstat(fd)
        self._replaced.append(self._fd)
        self.fd, self.key, self._fd = fd, (status.st_dev, status.st_ino), fd

    def read_at_once(self, most: int) -> tuple[list[str], int] | None:
        """:return: all names in it, and its size in bytes; None if they are more than `most`, or are to be walked over."""
        steps = self.disk.accelerator
        return (steps.names(self.fd, most) or None) if steps is not None else None

    def names(self, limit: int | None = None) -> list[str]:
        """All names in it, or `limit` of them, in no order."""
        with self.scan() as entries:
            return [entry.name for entry in islice(entries, limit)]

    def exists(self) -> bool:
        """Is there such a directory, or anything else of its path?"""
        try:
            self.disk.stat(self.path)
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str, limit: int) -> bytes | None:
        """:return: a small file's content, as much of it as `limit` says; None if there is none.

        :raises OSError: it cannot be read.
        """
        try:
            fd = self.disk.open_file(name, os.O_RDONLY | OPEN_FLAGS, self.fd)
        except FileNotFoundError:
            return None
        try:
            return self.disk.read_all(fd, limit)
        finally:
            self.disk.let_go(fd)

    def replace(self, name: str, content: bytes, *, sync: bool, modified_ns: int | None = None) -> None:
        """Put a small file in place by write and rename: readers find the old one or the new one, whole.

        :param sync: return when it is on the disk.
        :param modified_ns: its modification time.
        :raises OSError: it could not be written; the old one stays.
        """
        self.disk.unlock_and_close(self.put(name, content, sync=sync, modified_ns=modified_ns))

    def put(self, name: str, content: bytes, *, sync: bool, modified_ns: int | None = None) -> int:
        """As `replace`.

        :return: the file's descriptor, which holds the lock on it.
        """
        disk = self.disk
        fd, draft = self._create_draft()
        try:
            disk.write_all(fd, content)
            if modified_ns is not None:
                disk.utime(fd, ns=(modified_ns, modified_ns))
            if sync:
                disk.fdatasync(fd)
            disk.rename(draft, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            draft = ''
            if sync:
                self.sync()
        except BaseException:
            if draft:
                disk.remove_new(draft, self.fd)
            disk.unlock_and_close(fd)
            raise
        return fd

    def _create_draft(self) -> tuple[int, str]:
        while True:
            draft = draft_name()
            try:
                return self.disk.create_locked(draft, self.fd), draft
            except FileExistsError:
                continue  # somebody looked in between, and took it for a dead one's
            except BaseException:
                self.disk.remove_new(draft, self.fd)
                raise

    def clear_drafts(self) -> None:
        """Remove what processes left that died while they wrote."""
        for name in self.names():
            if name.startswith(DRAFT_PREFIX) and (opened := self.disk.open_locked(name, self.fd)) is not None:
                self.disk.remove_new(name, self.fd)
                self.disk.unlock_and_close(opened[0])

    def sync(self) -> None:
        """Return when all names that were added, changed and removed so far are on the disk."""
        self.disk.fsync(self.fd)

    def __del__(self) -> None:
        for fd in (self._fd, *self._replaced):
            if fd >= 0:
                posix.close(fd)

    def __repr__(self) -> str:
        return f'Folder({self.path!r})'


class Scan:
    """A walk over a directory, and the descriptor that it goes by.

    :param size_bytes: of the directory, as large as it has ever been on some file systems.
    """

    __slots__ = ('_disk', '_entries', '_fd', 'size_bytes')

    def __init__(
        self,
        disk: Disk,
        fd: int,
        entries: AbstractContextManager[Iterator[os.DirEntry[str]]],
        size_bytes: int,
    ) -> None:
        self._disk = disk
        self._fd = fd
        self._entries = entries
        self.size_bytes = size_bytes

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return self._entries.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._entries.__exit__(*error)
        self._disk.let_go(self._fd)
        self._fd = -1

    def __del__(self) -> None:
        if self._fd >= 0:
            posix.close(self._fd)


def _opened_by(disk: Disk) -> set[ref[Folder]]:
    """:return: the directories that a disk has opened, as far as they live.

    Objects that refer to each other may keep them for long after their last use.
    """
    opened: set[ref[Folder]] = disk.__dict__.setdefault('_open_folders', set())
    return opened


def close_folders(disk: Disk) -> None:
    """Close all directories that were opened by a disk, so that nothing stays behind for the garbage collector."""
    for reference in list(_opened_by(disk)):
        if (folder := reference()) is not None:
            folder.close()
