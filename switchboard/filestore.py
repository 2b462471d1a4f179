"""A directory of whole files, shared by processes that do not know of each other: ``tmp``, ``new`` and ``cur``.

A writer works in ``tmp`` and moves finished files to ``new``; a reader moves a file that it takes up to ``cur`` and removes it
when done.  A move is one rename, so nobody ever sees half a file and of two readers exactly one gets it.  This is the
maildir idea with the calls of gocept.filestore, so that a program written for that store runs here with one import
changed.  What differs, on purpose:

- ``list`` is sorted, shows regular files only (a fifo would block its opener), and no name that begins with a point
  (other programs' unfinished files, as every maildir reader takes them);
- a call that returns has reached the disk, unless ``durability='lazy'`` asks for the kernel's own pace;
- a copy appears at once and whole, as a move does;
- ``create`` without a name makes one that is unique and sorts in the order of creation;
- a name can never lead out of its directory.

The object keeps no state about the directory and no descriptor, so it may be inherited by ``fork``, and the directory may
be taken away and prepared again under it.  No lock says whether the process that took a file up still lives: a program that
needs that wants a queue (`Switchboard`), not this.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import socket
import stat
import threading
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from zope.interface import implementer

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.errors import DurabilityError
from switchboard.interfaces import IFileStore
from switchboard.store.disk import CREATE_FLAGS, FILE_MODE, OPEN_FLAGS, Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import MAILDIR_DIRECTORIES

if TYPE_CHECKING:
    from switchboard.queue_defaults import Durability

# What the builtin `open` and `os.mkdir` ask for, of which the umask takes its part.
OPEN_TO_THE_UMASK = 0o666

# What a copy reads at once: large enough that the calls do not count, small enough to hold in memory.
COPY_PIECE_BYTES = 1 << 20


class UniqueNames:
    """Maildir's names: no other process, host or moment makes the same, and they sort in the order of their making."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last_us = 0
        self._random = os.urandom(4).hex()
        # Maildir's own way to write the two characters that a name there must not have.
        self._host = socket.gethostname().replace('/', r'\057').replace(':', r'\072') or 'localhost'

    def __call__(self) -> str:
        with self._lock:
            # A clock that stands still or is set back must not make a later name the smaller one.
            self._last_us = max(self._clock.time_ns() // 1000, self._last_us + 1)
            seconds, microseconds = divmod(self._last_us, 1_000_000)
        return f'{seconds:010}.M{microseconds:06}P{os.getpid()}R{self._random}.{self._host}'


@implementer(IFileStore)
class FileStore:
    """One directory with ``tmp``, ``new`` and ``cur`` in it.

    Wherever a directory is asked for, it is one of these three words, or of those that a subclass has put into :attr:`sub_dirs`.

    :param path: where the store is, or will be when it is prepared.
    :param durability: ``full``: what a call did is on the disk when it returns; ``lazy``: it survives the death of every
        process, but not a power cut.
    :param shared: make directories and files for the group alone, whatever the umask, as in a spool; else they are as the umask
        says, so that readers of this program's files may read them too.
    """

    sub_dirs: Sequence[str] = MAILDIR_DIRECTORIES

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = 'full',
        shared: bool = False,
        disk: Disk | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.path = os.fspath(path)
        self._is_durable = durability == 'full'
        self._is_shared = shared
        self._mode = FILE_MODE if shared else OPEN_TO_THE_UMASK
        self._disk = disk or Disk.of_system()
        self._unique_name = UniqueNames(clock)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r})'

    def prepare(self) -> None:
        """Make the missing directories of the store, and those above it; may be called at any time.

        :raises NotADirectoryError: one of its names is taken by something else.
        """
        self._make(self.path)
        for directory in self.sub_dirs:
            self._make(os.path.join(self.path, directory))

    def create(self, filename: str | None = None, mode: str = 'w', *, encoding: str = 'utf-8') -> IO[Any]:
        """Open a file in ``tmp``.  Write it, close it, then `move` it: the move is what makes it count, and durable.

        A file of that name that is already in ``tmp`` is opened as `mode` says, so ``w`` empties it.

        :param filename: its name; without one, the file gets a new and unique name.
        :param mode: as for the builtin ``open``.
        :param encoding: of text; means nothing if `mode` is binary.
        :return: an ordinary file; its ``name`` is its full path, which `move` takes as it is.
        :raises ValueError: `filename` is no plain name.
        """
        wanted = self._unique_name() if filename is None else _checked(filename)

        def opener(path: str, flags: int) -> int:
            exclusive = os.O_EXCL if filename is None else 0
            return self._disk.open(path, flags | exclusive | OPEN_FLAGS, self._mode)

        text_encoding = None if 'b' in mode else encoding
        return open(self._place(wanted, 'tmp'), mode, encoding=text_encoding, opener=opener)

    def move(self, filename: str, source: str, destination: str) -> None:
        """Move a file from one directory to another, in one step.  A file of that name there is replaced.

        :param filename: a name, or a path as `list` gives it, of which the last part counts.
        :raises FileNotFoundError: it is not in `source`: another process was faster.
        :raises DurabilityError: a sync failed.  Before the move (the file is still in `source`) or after it.
        """
        name = _last_part(filename)
        source_path, destination_path = self._place(name, source), self._place(name, destination)
        if self._is_durable and source == 'tmp':
            # The content first: a crash must not find the name with nothing behind it.
            self._sync_file(source_path)
        self._disk.rename(source_path, destination_path)
        # The new name first: a power cut between the two may show the file twice, but never lose it.
        self._sync_names(destination, source)

    def copy(self, filename: str, source: str, destination: str) -> None:
        """Copy a file with its permissions.  The copy appears whole, and replaces a file of that name.

        :param filename: a name, or a path as `list` gives it, of which the last part counts.
        :raises FileNotFoundError: it is not in `source`.
        :raises FileExistsError: `source` and `destination` are the same directory.
        :raises DurabilityError: a sync failed; the copy may be there or not.
        """
        name = _last_part(filename)
        source_path, destination_path = self._place(name, source), self._place(name, destination)
        if source == destination:
            raise FileExistsError(errno.EEXIST, 'a file cannot be copied to itself', source_path)
        # The point keeps it out of `list` while it grows.
        unfinished_path = self._place('.' + self._unique_name(), 'tmp')
        source_fd = self._disk.open(source_path, os.O_RDONLY | OPEN_FLAGS)
        try:
            self._write_copy(source_fd, unfinished_path)
        finally:
            self._disk.close(source_fd)
        try:
            self._disk.rename(unfinished_path, destination_path)
        except BaseException:
            self._disk.unlink(unfinished_path)
            raise
        self._sync_names(destination)

    def remove(self, filename: str, source: str) -> None:
        """Remove a file.

        :param filename: a name, or a path as `list` gives it, of which the last part counts.
        :raises FileNotFoundError: it is not there.
        :raises DurabilityError: a sync failed; after a power cut the file may be there again.
        """
        self._disk.unlink(self._place(_last_part(filename), source))
        self._sync_names(source)

    def list(self, section: str) -> builtins.list[str]:
        """:return: the full paths of the regular files in one of the directories, sorted by name."""
        path = self._directory(section)
        with Folder(path, self._disk).scan() as entries:
            names = [
                entry.name
                for entry in entries
                if not entry.name.startswith('.') and entry.is_file(follow_symlinks=False)
            ]
        return [os.path.join(path, name) for name in sorted(names)]

    def _make(self, path: str) -> None:
        folder = Folder(path, self._disk)
        if self._is_shared:
            folder.make()
        else:
            self._make_open(path)
        folder.open()

    def _make_open(self, path: str) -> None:
        try:
            self._disk.mkdir(path, 0o777)
        except FileExistsError:
            pass  # by one who may have died before it was on the disk
        except FileNotFoundError:
            self._make_open(os.path.dirname(path))
            self._make_open(path)
            return
        if self._is_durable:
            above = Folder(os.path.dirname(path) or '.', self._disk)
            with contextlib.suppress(PermissionError):  # we may write there and not read, or neither
                self._sync(above.fd, 'fsync')

    def _directory(self, directory: str) -> str:
        if directory not in self.sub_dirs:
            known = ', '.join(self.sub_dirs)
            raise FileNotFoundError(
                errno.ENOENT, f'no such directory in a file store (it has {known})', directory
            )
        return os.path.join(self.path, directory)

    def _place(self, name: str, directory: str) -> str:
        return os.path.join(self._directory(directory), name)

    def _write_copy(self, source_fd: int, path: str) -> None:
        status = self._disk.fstat(source_fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, 'only regular files can be copied', path)
        fd = self._disk.open(path, CREATE_FLAGS, self._mode)
        try:
            offset = 0
            while piece := self._disk.read_all(source_fd, COPY_PIECE_BYTES, offset):
                self._disk.write_all(fd, piece, offset)
                offset += len(piece)
            self._disk.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o777)
            if self._is_durable:
                self._sync(fd, 'fdatasync')
        except BaseException:
            self._disk.unlink(path)
            raise
        finally:
            self._disk.close(fd)

    def _sync_file(self, path: str) -> None:
        fd = self._disk.open(path, os.O_RDONLY | OPEN_FLAGS)
        try:
            self._sync(fd, 'fdatasync')
        finally:
            self._disk.close(fd)

    def _sync_names(self, *directories: str) -> None:
        if self._is_durable:
            for directory in dict.fromkeys(directories):
                # Held by name: the descriptor is closed with its folder.
                folder = Folder(self._directory(directory), self._disk)
                self._sync(folder.fd, 'fsync')

    def _sync(self, fd: int, step: str) -> None:
        # Never tried again: after a failed sync the kernel has forgotten what it could not write.
        try:
            getattr(self._disk, step)(fd)
        except OSError as error:
            raise DurabilityError(str(error), step=step) from error


def _checked(name: str) -> str:
    if not name or name.startswith('.') or '/' in name or '\0' in name:
        raise ValueError(
            f'{name!r} is no plain file name: it is empty, begins with a point, or holds a slash or a NUL'
        )
    return name


def _last_part(filename: str) -> str:
    return _checked(os.path.basename(filename))
