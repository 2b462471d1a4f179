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

from switchboard.clock import Backoff
from switchboard.drop_errors import LockTimeoutError
from switchboard.store.kernel import (
    RENAME_NOREPLACE,
    accelerator,
    copy_attributes,
    directory_read_bytes,
    fsync_scope,
    is_being_written,
    open_files_limit,
    raise_open_files_limit,
    renameat2,
    syncfs,
)
from switchboard.store.layout import DRAFT_PREFIX

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from switchboard.store.kernel import Accelerator

FILE_MODE = 0o660

# Files from which one flush of the file system costs less than one of each (see docs/decisions).
SYNCFS_FROM = 16

# O_NOFOLLOW: no symbolic link is ever followed.  O_NONBLOCK: opening a fifo or a device never waits.
OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS
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
    readlink = staticmethod(os.readlink)
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
    fsync_scope = staticmethod(fsync_scope)
    directory_read_bytes = staticmethod(directory_read_bytes)

    # Several of these calls in one, where that is installed and nobody wants to see each of them: see `of_system`.
    accelerator: Accelerator | None = None

    # Nobody holds a lock that others wait for longer than some flushes and the listing of a directory take.
    lock_timeout_s = 10.0

    @classmethod
    def of_system(cls) -> Self:
        """:return: a disk for work, and not for a look or a test: with the accelerator, if there is one, and with `can_open_more`."""
        open_files_limit()  # loads what `can_open_more` needs, while a file can be opened
        disk = cls()
        disk.accelerator = accelerator()
        return disk

    def can_open_more(self, error: OSError) -> bool:
        """After a call that failed: is it worth another try, because this process may now open more files?

        A batch keeps a descriptor for each entry until it is finished.  The limit is raised when it is met, and not before: it
        belongs to the program, which may have reasons (``select`` takes no descriptor above 1,023).
        """
        return error.errno == errno.EMFILE and raise_open_files_limit()

    def open_file(self, name: str, flags: int, dir_fd: int | None = None) -> int:
        """Open or create a file, with a raised limit of open files if need be."""
        while True:
            try:
                return self.open(name, flags, FILE_MODE, dir_fd=dir_fd)
            except OSError as error:
                if not self.can_open_more(error):
                    raise

    def sync_files(self, fds: Sequence[int], *, names: bool = False) -> None:
        """Return when the content of files that were just written is on the disk: with one flush, if they are many.

        :param names: and the names that they were given; only where the file system has a flush of a file do that, see `Folder.fsync_scope`.
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

    def lock_when_free(
        self,
        fd: int,
        what: str,
        *,
        shared: bool = False,
        is_wanted: Callable[[], bool] | None = None,
        within_s: float | None = None,
    ) -> bool:
        """Take the lock on an open file, and wait for it, but not for ever: its holder may be stopped, or hang in the kernel.

        :param what: is locked, for people.
        :param is_wanted: asked now and then; the waiting ends when it says no.
        :param within_s: how long it is waited for; by default `lock_timeout_s`.
        :return: False if the lock is not wanted any more.
        :raises LockTimeoutError: it was not free within that time.
        """
        if self.lock(fd, shared=shared):
            return True
        within_s = self.lock_timeout_s if within_s is None else within_s
        ends_at_s = time.monotonic() + within_s
        wait = Backoff(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        while not self.lock(fd, shared=shared):
            if is_wanted is not None and not is_wanted():
                return False
            if time.monotonic() >= ends_at_s:
                raise LockTimeoutError(f'{what}: locked by another process for more than {within_s:.0f} s')
            time.sleep(wait.next())
        return True

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
                self.unlink_quietly(draft, dir_fd)  # another process was faster: the file is its
            except BaseException:
                self.unlink_quietly(draft, dir_fd)
                self.close_quietly(fd)
                raise
            self.close_quietly(fd)

    def unlock_and_close(self, fd: int) -> None:
        """Unlock first: a process that waits for the close (inotify tells of it before the kernel drops the lock) finds the
        lock free.
        """
        try:
            self.flock(fd, fcntl.LOCK_UN)
        except OSError:
            pass  # the close drops it as well
        self.close_quietly(fd)

    def close_quietly(self, fd: int) -> None:
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
            code = call(src_dir_fd, os.fsencode(source), dst_dir_fd, os.fsencode(target), RENAME_NOREPLACE)
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
        self,
        name: str,
        dir_fd: int,
        *,
        writable: bool = True,
        waits_for: str = '',
        within_s: float | None = None,
    ) -> tuple[int, os.stat_result] | None:
        """Open a regular file, lock it, and make sure that the name still leads to it.

        :param waits_for: a name of the locked thing, for people: then the lock is waited for, as long as the name leads to the file.  (Its holder
            may keep a finished file open, and locked, for his next message.)
        :param within_s: how long, as in `lock_when_free`.
        :raises LockTimeoutError: in vain.
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
            if not waits_for:
                self.flock(fd, _LOCK_NOW)
            elif not self.lock_when_free(
                fd,
                waits_for,
                is_wanted=lambda: self.leads_to(name, dir_fd, self.fstat(fd)),
                within_s=within_s,
            ):
                raise BlockingIOError
            # The status from before the lock would be old: the last holder may have written.
            status = self.fstat(fd)
            if not stat_module.S_ISREG(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, 'not a regular file', name)
            if self.leads_to(name, dir_fd, status):
                return fd, status
        except BlockingIOError:
            pass
        except BaseException:
            self.close_quietly(fd)
            raise
        self.close_quietly(fd)
        return None

    def create_locked(self, name: str, dir_fd: int) -> int:
        """Create a file and lock it.

        Between the two calls another process may take it for a leftover: it then has the lock, or has used the file.  If it has also thrown away
        what it wrote, or died, the file is emptied.

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
                    if status.st_size:
                        self.ftruncate(fd, 0)
                    if status.st_uid == 0:
                        self.chown_like_directory(fd, dir_fd, status)
                    if stat_module.S_IMODE(status.st_mode) != FILE_MODE:  # the umask took some of it
                        self.fchmod(fd, FILE_MODE)
                    return fd
        except BaseException:
            if locked:
                self.unlink_quietly(name, dir_fd)
            self.close_quietly(fd)
            raise
        self.close_quietly(fd)
        raise FileExistsError(errno.EEXIST, 'taken by a recovery', name)

    def chown_like_directory(self, fd: int, dir_fd: int, made: os.stat_result) -> None:
        """Give what root has just made, as its status says, to the owner and the group of the directory that holds it.

        An operator's command, or a mail server's, may run as root in the spool of a service user, who has to be able to read and to remove what it makes.
        Where nothing can be given away (a file system that knows no owners, or a container's root), it stays as it is.
        """
        owner = self.status_of_owner(dir_fd)
        if (owner.st_uid, owner.st_gid) in ((made.st_uid, made.st_gid), (0, 0)):
            return  # a file of root's alone serves nobody else
        try:
            self.fchown(fd, owner.st_uid, owner.st_gid)
        except OSError:
            pass

    def rmdir_quietly(self, path: str) -> None:
        """Remove an empty directory that never meant anything."""
        try:
            self.rmdir(path)
        except OSError:
            pass  # the janitor does it

    def unlink_quietly(self, name: str, dir_fd: int) -> None:
        """Remove a file that never meant anything."""
        try:
            self.unlink(name, dir_fd=dir_fd)
        except OSError:
            pass  # an empty file with a name that means nothing
