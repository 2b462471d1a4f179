"""Kernel calls that Python has no name for: a rename that replaces nothing, more open files, the writers of a file, what a
flush of a file makes durable besides its content, and a directory that is like another one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, Protocol

    class Accelerator(Protocol):
        """The steps of a message's life in C; ``accelerator.c`` says what each does.

        False always says that nothing was done, and that Python is to take the step from its beginning.
        """

        def rewrite(self, fd: int, size: int, content: bytes, /) -> bool: ...

        def take_spare(self, directory: int, name: str, content: bytes, /) -> int | Literal[False] | None: ...

        def move(self, directory: int, name: str, to: int, new_name: str, fd: int, /) -> bool: ...

        def claim(
            self, directory: int, ready: str, claimed: str, /
        ) -> tuple[int, int, int, int, bytes | None] | Literal[False] | None: ...

        def names(self, directory: int, most: int, /) -> tuple[list[str], int] | Literal[False]: ...


RENAME_NOREPLACE = 1
# Of Linux and a few others, where files may be larger than 2 GiB.
_OFD_SETLK = getattr(fcntl, 'F_OFD_SETLK', None) if sys.platform == 'linux' else None

# What an `fsync` of a file makes durable besides its content, by file system; the higher, the more.
#
# CONTENT_ONLY: nothing.  The directory has a flush of its own.
# WITH_NAME: the renames of that file.
# WITH_ALL_NAMES: and every rename before them, of whatever file: names reach the disk in the order in which they were changed.
CONTENT_ONLY, WITH_NAME, WITH_ALL_NAMES = 0, 1, 2
_FSYNC_SCOPES = {'ext4': WITH_ALL_NAMES, 'xfs': WITH_ALL_NAMES, 'btrfs': WITH_NAME}


def accelerator() -> Accelerator | None:
    """:return: the steps of a message's life in C; None if they are not installed, or ``SWITCHBOARD_ACCELERATOR=0`` forbids them."""
    if os.environ.get('SWITCHBOARD_ACCELERATOR') == '0':
        return None
    try:
        import switchboard_accelerator  # type: ignore[import-not-found]  # not installed beside the checks
    except ImportError:
        return None
    steps: Accelerator = switchboard_accelerator
    return steps


def renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """:return: a function that gives 0 or an error number; None where the C library has no such call."""
    return _c_function('renameat2')


# By name, once they were looked for.
_C_FUNCTIONS: dict[str, Callable[..., int] | None] = {}


def _c_function(name: str) -> Callable[..., int] | None:
    """:return: a function of the C library, which gives 0 or an error number; None if it has no such."""
    if name not in _C_FUNCTIONS:
        import ctypes  # here, because `drop` seldom needs it and starts faster without

        try:
            call = getattr(ctypes.CDLL(None, use_errno=True), name)
        except (OSError, AttributeError):
            _C_FUNCTIONS[name] = None
        else:
            _C_FUNCTIONS[name] = lambda *arguments: ctypes.get_errno() if call(*arguments) else 0
    return _C_FUNCTIONS[name]


def lock_byte(fd: int, offset: int) -> bool:
    """Lock one byte of a file for an open file description, without waiting: the lock goes when the last descriptor of it is closed.

    :return: False if another description has it.
    :raises OSError: the file system has no such locks.
    """
    if _OFD_SETLK is None:
        return True  # nor has this kernel
    import struct  # here, because `drop` locks no byte

    wanted = struct.pack('hhqqi', fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    try:
        fcntl.fcntl(fd, _OFD_SETLK, wanted)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def syncfs(fd: int) -> bool:
    """Wait until all that was written to a file system is on the disk.

    :param fd: of any file or directory on it.
    :return: False if the kernel cannot, or cannot tell of errors (before 5.8): then nothing was done.
    :raises OSError: something could not be written.
    """
    if 'syncfs' not in _C_FUNCTIONS:
        major, _, rest = os.uname().release.partition('.')
        minor = rest.partition('.')[0]
        if not major.isdigit() or not minor.isdigit() or (int(major), int(minor)) < (5, 8):
            _C_FUNCTIONS['syncfs'] = None
    call = _c_function('syncfs')
    if call is None:
        return False
    if code := call(fd):
        raise OSError(code, os.strerror(code))
    return True


def fsync_scope(fd: int) -> int:
    """:return: the effect of an ``fsync`` of a file on this file system; `CONTENT_ONLY` where nobody knows.

    The kernel's list of mounts is asked, and not ``statfs``, which gives one number for ext2, ext3 and ext4.
    """
    try:
        name, device = _mounted(fd)
        scope = _FSYNC_SCOPES.get(name, CONTENT_ONLY)
        # Without a journal ext4 writes the directory with the file, and promises no order.
        return WITH_NAME if name == 'ext4' and not _has_journal(device) else scope
    except (OSError, ValueError, IndexError, StopIteration):
        return CONTENT_ONLY


# File systems of which one call reads as much of a directory as fits, and nobody changes the directory meanwhile.  Others may answer with less.
# (Btrfs is one of them: it leaves out names that came after the directory was opened, which is a call of its own.)
_READ_IN_ONE = frozenset(('ext4', 'xfs', 'tmpfs'))
# With so large a buffer, at the least, the GNU C library reads a directory.
_GNU_READ_BYTES = 32 * 1024


def directory_read_bytes(fd: int) -> int:
    """:return: so much of this directory is read with one call, in the records of ``getdents64``; 0 where nobody knows."""
    try:
        is_known = _mounted(fd)[0] in _READ_IN_ONE and os.confstr('CS_GNU_LIBC_VERSION')
    except (OSError, ValueError, IndexError, StopIteration):
        return 0
    return _GNU_READ_BYTES if is_known else 0


def _mounted(fd: int) -> tuple[str, str]:
    """:return: the type of the file system that a file is on, and the number of its device."""
    with open(f'/proc/self/fdinfo/{fd}', 'rb') as about:
        mount = next(line.split()[1] for line in about if line.startswith(b'mnt_id:'))
    with open('/proc/self/mountinfo', 'rb') as mounts:
        fields, _, rest = next(line.partition(b' - ') for line in mounts if line.split(b' ', 1)[0] == mount)
    return rest.split()[0].decode(), fields.split()[2].decode()


def _has_journal(device: str) -> bool:
    name = os.path.basename(os.readlink(f'/sys/dev/block/{device}'))
    with open(f'/sys/fs/ext4/{name}/journal_task', 'rb') as task:
        return task.read().strip() != b'<none>'


# The number of a request, the same on all of Linux but for a few old machines, where it is refused.
_FS_IOC_GETFLAGS = 0x80086601
# Flags that say how a directory is stored, and not what it is: by an index, by extents, in its inode.
_STORED_FLAGS = 0x1000 | 0x80000 | 0x10000000


def copy_attributes(source: int, target: int) -> bool:
    """Give a new directory owner, mode, access lists and labels of another one.

    :return: False if there is something that cannot be given: it is encrypted, or has a flag that new ones do not get.
    :raises OSError: this process may not give it.
    """
    if _flags_of(source) != _flags_of(target):
        return False
    old, new = os.fstat(source), os.fstat(target)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(target, old.st_uid, old.st_gid)
    if hasattr(os, 'listxattr'):
        theirs, inherited = _extended(source), _extended(target)
        for name in inherited.keys() - theirs.keys():
            os.removexattr(target, name)
        for name, value in theirs.items():
            if inherited.get(name) != value:
                os.setxattr(target, name, value)
    os.fchmod(target, old.st_mode & 0o7777)
    return True


def _flags_of(fd: int) -> int | None:
    flags = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
    except OSError:
        return None
    return int.from_bytes(flags[:4], sys.byteorder) & ~_STORED_FLAGS


def _extended(fd: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return {}


def open_files_limit() -> int:
    """:return: how many files this process may have open, as things are."""
    import resource  # here, because `drop` never asks

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def raise_open_files_limit() -> bool:
    """Raise this process's soft limit of open files.

    :return: False if it stands at the hard limit already, or has been met before `open_files_limit` was called: who may open no more
        files can load no module either.
    """
    try:
        import resource
    except (ImportError, OSError):
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft >= hard:
        return False
    raised = soft * 2 if hard == resource.RLIM_INFINITY else min(soft * 2, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError):  # the kernel has a limit of its own
        return False
    return True


def is_being_written(fd: int) -> bool | None:
    """Has a process got the file open for writing?  The kernel grants a read lease only if none has.

    :param fd: opened for reading only.
    :return: None if the file system, or the file's owner, does not let us know.
    """
    import signal  # here, because `drop` never asks

    try:
        # A writer that comes while we hold the lease is announced by a signal: by one that nobody dies of.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):
        return None
    return False
