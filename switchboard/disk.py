"""The one door to the file system: no other module calls ``os`` on a spool.

:class:`Disk` is a table of primitives.  Each is the system call itself, bound as a static method, so that the
indirection costs an attribute look-up and nothing else.  A test passes another table that fails the n-th call, or that
remembers what was synced (see ``switchboard.testing``); nothing is ever patched.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource  # here and not where it is used: a process that may open no more files cannot import either
import stat as stat_module

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

DIRECTORY_MODE = 0o770
FILE_MODE = 0o660

# O_NOFOLLOW: no symbolic link is ever followed.  O_NONBLOCK: opening a fifo or a device never waits.
OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS

_RENAME_NOREPLACE = 1


def _renameat2() -> Callable[[int, bytes, int, bytes], int] | None:
    """:return: a function that gives 0 or an error number; None where the C library has no such call."""
    if not _RENAMEAT2:
        _RENAMEAT2.append(_find_renameat2())
    return _RENAMEAT2[0]


# What was found, once it was looked for.
_RENAMEAT2: list[Callable[[int, bytes, int, bytes], int] | None] = []


def _find_renameat2() -> Callable[[int, bytes, int, bytes], int] | None:
    import ctypes  # here, because the mail servers' door never needs it and starts faster without

    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None

    def renameat2(src_dir_fd: int, source: bytes, dst_dir_fd: int, target: bytes) -> int:
        failed = call(src_dir_fd, source, dst_dir_fd, target, _RENAME_NOREPLACE)
        return ctypes.get_errno() if failed else 0

    return renameat2


def _allow_more_files() -> bool:
    """Raise this process's soft limit of open files.

    :return: False if it stands at the hard limit already.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft >= hard:
        return False
    raised = soft * 2 if hard == resource.RLIM_INFINITY else min(soft * 2, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError):  # the kernel has a limit of its own
        return False
    return True


class Disk:
    """The system calls that the queue is made of."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    flock = staticmethod(fcntl.flock)
    fstat = staticmethod(os.fstat)
    stat = staticmethod(os.stat)
    pread = staticmethod(os.pread)
    pwrite = staticmethod(os.pwrite)
    ftruncate = staticmethod(os.ftruncate)
    fchmod = staticmethod(os.fchmod)
    fdatasync = staticmethod(getattr(os, 'fdatasync', os.fsync))
    fsync = staticmethod(os.fsync)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    scandir = staticmethod(os.scandir)
    utime = staticmethod(os.utime)
    statvfs = staticmethod(os.statvfs)
    geteuid = staticmethod(os.geteuid)
    renameat2 = staticmethod(_renameat2)

    def makes_room(self, error: OSError) -> bool:
        """After a call that failed: is it worth another try, because this process may now open more files?

        A batch keeps a descriptor for each entry until it is finished.  The limit is raised when it is met, and not before: it
        belongs to the program, which may have reasons (``select`` takes no descriptor above 1,023).
        """
        return error.errno == errno.EMFILE and _allow_more_files()

    def open_file(self, name: str, flags: int, dir_fd: int) -> int:
        """Open or create a file, with a raised limit of open files if need be."""
        try:
            return self.open(name, flags, FILE_MODE, dir_fd=dir_fd)
        except OSError as error:
            if not self.makes_room(error):
                raise
        return self.open(name, flags, FILE_MODE, dir_fd=dir_fd)

    def write_all(self, fd: int, content: bytes, offset: int = 0) -> None:
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

    def lock(self, fd: int) -> bool:
        """Take the lock on an open file without waiting.

        :return: False if another open file description holds it.
        """
        try:
            self.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock_and_close(self, fd: int) -> None:
        """Unlock first: whoever waits for the close (inotify tells of it before the kernel drops the lock) finds the
        lock free.
        """
        try:
            self.flock(fd, fcntl.LOCK_UN)
        finally:
            self.close(fd)

    def rename_exclusive(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        """Rename without replacing.

        :raises FileExistsError: the target is there.  Where the kernel cannot do it in one call, the target is looked
            for first, which another process may run between; names are unique, so only copies made by hand can meet.
        """
        renameat2 = self.renameat2()
        if renameat2 is not None:
            code = renameat2(src_dir_fd, os.fsencode(source), dst_dir_fd, os.fsencode(target))
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
            if self.lock(fd):
                # The status from before the lock would be old: the last holder may have written.
                status = self.fstat(fd)
                if not stat_module.S_ISREG(status.st_mode):
                    raise IsADirectoryError(errno.EISDIR, 'not a regular file', name)
                if self.leads_to(name, dir_fd, status):
                    return fd, status
        except BaseException:
            self.close(fd)
            raise
        self.close(fd)
        return None

    def create_locked(self, name: str, dir_fd: int) -> int:
        """Create a file and lock it.

        Between the two calls a recovery may take it for a leftover: it then has the lock, or has removed the name.

        :raises FileExistsError: the name is taken, or a recovery was faster; try another name.
        """
        fd = self.open_file(name, CREATE_FLAGS, dir_fd)
        try:
            if self.lock(fd):
                status = self.fstat(fd)
                if status.st_nlink == 1:
                    if stat_module.S_IMODE(status.st_mode) != FILE_MODE:  # the umask took some of it
                        self.fchmod(fd, FILE_MODE)
                    return fd
        except BaseException:
            self.close(fd)
            raise
        self.close(fd)
        raise FileExistsError(errno.EEXIST, 'taken by a recovery', name)


class Folder:
    """A directory, by descriptor: names in it are resolved in one step, and it can be synced.

    The descriptor is opened when first needed and closed with the object.  Listings open the directory anew, because
    a position in it is shared by all who inherited a descriptor.
    """

    def __init__(self, path: str | os.PathLike[str], disk: Disk) -> None:
        self.path = os.fspath(path)
        self.disk = disk
        self._fd = -1
        self._key = (0, 0)

    def make(self) -> None:
        """Make the directory, and those above it, if they are not there; 0770 whatever the umask says.

        A new one is on the disk when this returns: a message on the disk in a directory that is not would be lost with it.
        """
        try:
            self.disk.mkdir(self.path, DIRECTORY_MODE)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._above().make()
            self.make()
            return
        mode = stat_module.S_IMODE(self.disk.fstat(self.fd).st_mode)
        # The set-group-id bit, inherited from the directory above, stays.
        if mode & 0o777 != DIRECTORY_MODE:
            self.disk.fchmod(self.fd, mode & 0o7000 | DIRECTORY_MODE)
        try:
            self._above().sync()
        except PermissionError:
            pass  # we may write there and not read, so it cannot be opened to be synced

    def _above(self) -> Folder:
        return Folder(os.path.dirname(os.path.abspath(self.path)), self.disk)

    @property
    def fd(self) -> int:
        """The directory's descriptor."""
        if self._fd < 0:
            self._fd = self._open()
            status = self.disk.fstat(self._fd)
            self._key = (status.st_dev, status.st_ino)
        return self._fd

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return self.disk.open(self.path, flags)
        except OSError as error:
            if not self.disk.makes_room(error):
                raise
        return self.disk.open(self.path, flags)

    @property
    def key(self) -> tuple[int, int]:
        """What tells this directory from all others, however its path is spelled."""
        self.fd  # noqa: B018  opening it reads the key
        return self._key

    def scan(self) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """Walk over what is in it, in no order, without holding it all in memory."""
        try:
            return self._scan()
        except OSError as error:
            if not self.disk.makes_room(error):
                raise
        return self._scan()

    def _scan(self) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        entries: AbstractContextManager[Iterator[os.DirEntry[str]]] = self.disk.scandir(self.path)  # type: ignore[arg-type]
        return entries

    def names(self) -> list[str]:
        """All names in it, in no order."""
        with self.scan() as entries:
            return [entry.name for entry in entries]

    def sync(self) -> None:
        """Return when all names that were added, changed and removed so far are on the disk."""
        self.disk.fsync(self.fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def __repr__(self) -> str:
        return f'Folder({self.path!r})'
