"""Files that are opened or made with care, because others may write to the place where they lie.

First, files that somebody has named: in a configuration, or by their place in a directory that a group may write to.

The name may lead to a fifo, which is opened when a writer comes, and to a device, which never ends: a daemon would hang at its start, and say
nothing.  So they are opened without waiting, and all but regular files are refused.  The kernel shows some of its own as regular files that are to
be waited for (``/proc/kmsg``): to read them fails, too.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader, FileIO

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from typing import TypeVar

    from _typeshed import WriteableBuffer

    T = TypeVar('T')


class _Unwaited(FileIO):
    """A file whose reading never says that there is nothing yet."""

    def readinto(self, buffer: WriteableBuffer) -> int:
        """See `io.RawIOBase`."""
        found: int | None = super().readinto(buffer)
        return _there(found)

    def readall(self) -> bytes:
        """See `io.RawIOBase`."""
        return _there(super().readall())


def _there(found: T | None) -> T:
    if found is None:
        raise OSError(errno.EINVAL, 'is a file to wait at, and no regular one')
    return found


def open_regular_file(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file to be read; links are followed.

    :raises OSError: it cannot be opened, or is no regular file.
    :raises ValueError: the name cannot be one of a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, 'is not a regular file', os.fspath(path))
        return BufferedReader(_Unwaited(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def open_or_make(name: str, flags: int, mode: int, directory: int) -> int:
    """Open a file without following a link; make it if need be, with these permissions whatever the umask.

    :param directory: the descriptor of the directory in which it lies.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=directory)
        except FileExistsError:
            try:
                return os.open(name, flags, dir_fd=directory)
            except FileNotFoundError:
                continue  # removed in between
        os.fchmod(descriptor, mode)
        return descriptor
