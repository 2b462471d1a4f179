"""A disk that remembers which bytes were synced, and gives a state that a power cut may have left of the rest.

::

    disk = PowerLossDisk(seed=7)
    spool = Spool(directory, disk=disk)
    ...                                             # work; disk.note('stored 1') after each promise that was given
    for point in disk.crash_points():                # after each call that changed something
        point.restore(directory, elsewhere)         # what the disk could hold if the power went then

The work is done on a real directory, so that the code under test meets a real file system; what may survive is decided
afterwards, from the record of all changes, by the model in :mod:`switchboard.testing.power_model`.  One run can so be cut
at each of its points, and there in many ways.
"""

from __future__ import annotations

import os
import random
import stat as stat_module
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from switchboard.store.disk import Disk
from switchboard.store.kernel import CONTENT_ONLY
from switchboard.testing.power_model import DirectoryEntry, DiskModel

Event = tuple[str, tuple[Any, ...]]

NOTE = 'note'


class CrashPoint:
    """A point in a recorded run, between two changes.

    Assumes: it is used before the next one is asked for.
    """

    def __init__(self, number: int, last: str, model: DiskModel, seed: int, notes: list[Any]) -> None:
        self.number = number
        # What happened last: the name of a method of `DiskModel`.
        self.last_change = last
        self.model = model
        self.seed = seed
        # The notes until now.
        self.notes = notes

    def restore(
        self, source: str | os.PathLike[str], target: str | os.PathLike[str], variant: int = 0
    ) -> None:
        """Write to `target` what a power cut at this point might leave of the directory `source`.

        :param variant: another number, another outcome.
        """
        below: dict[str, list[tuple[str, bytes | str]]] = {}
        for (directory, name), content in self.surviving_files(variant).items():
            below.setdefault(directory, []).append((name, content))
        os.makedirs(target, exist_ok=True)
        _write(os.path.abspath(source), os.fspath(target), below)

    def surviving_files(self, variant: int = 0) -> dict[DirectoryEntry, bytes | str]:
        """:return: the content of each file and the path of each directory that `restore` writes, by directory and name."""
        return self.model.after_cut(random.Random(f'{self.seed} {self.number} {variant}'))


def _write(source: str, target: str, below: dict[str, list[tuple[str, bytes | str]]]) -> None:
    """A directory whose own name is lost is lost with all that is in it: so from the top down."""
    for name, content in below.get(source, ()):
        path = f'{target}/{name}'
        if isinstance(content, str):
            with suppress(FileExistsError):
                os.mkdir(path)
            _write(content, path, below)
        else:
            with open(path, 'wb', buffering=0) as file:
                file.write(content)


class PowerLossDisk(Disk):
    """Works on the real disk, without waiting for it, and records every change.

    :param seed: decides what each cut leaves.
    :param fsync_scope: the effect of a flush of a file besides its content, see `Folder.fsync_scope`: ``CONTENT_ONLY`` is the model without mercy,
        ``WITH_NAME`` and ``WITH_ALL_NAMES`` are what Btrfs, and what ext4 and XFS, keep.
    """

    def __init__(self, seed: int = 0, fsync_scope: int = CONTENT_ONLY) -> None:
        self.seed = seed
        self._fsync_scope = fsync_scope
        self.events: list[Event] = []
        # The running program's view: what each name and each descriptor leads to.
        self._names: dict[DirectoryEntry, int | str] = {}
        self._opened: dict[int, int | str] = {}
        # Directories that were renamed: what stands at a path now, by the path at which it was made.
        self._moved: dict[str, str] = {}
        self._numbers = 0

    # What tests use.

    def assume_durable(self, directory: str | os.PathLike[str]) -> None:
        """Take the present content of a directory as durable.  Without this, files that the run does not touch are unknown."""
        for place, folders, files in os.walk(os.path.abspath(directory)):
            for name in folders + files:
                self._inode((place, name))

    def note(self, what: Any) -> None:
        """Remember that something was promised, or began, at this point of the run."""
        self.events.append((NOTE, (what,)))

    def sync_all(self) -> None:
        """Everything so far is on the disk, as after a long time."""
        self.events.append(('sync_all', ()))

    def crash_points(self) -> Iterator[CrashPoint]:
        """Walk over the run: the point before the first change, and the one after each."""
        model = DiskModel(self._fsync_scope)
        notes: list[Any] = []
        yield CrashPoint(0, '', model, self.seed, notes)
        for number, (what, arguments) in enumerate(self.events, 1):
            if what == NOTE:
                notes.append(arguments[0])
            else:
                getattr(model, what)(*arguments)
            yield CrashPoint(number, what, model, self.seed, notes)

    # What the code under test uses.

    def _record(self, what: str, *arguments: Any) -> None:
        self.events.append((what, arguments))

    def _change(self, inode: int | str, *effects: tuple[DirectoryEntry, int | str | None]) -> None:
        self._record('change', inode, *effects)
        for entry, to in effects:
            if to is None:
                self._names.pop(entry, None)
            else:
                self._names[entry] = to

    def _entry(self, name: str, dir_fd: int | None) -> DirectoryEntry:
        if dir_fd is None:
            return self._directory(os.path.dirname(os.path.abspath(name))), os.path.basename(name)
        return str(self._opened[dir_fd]), name

    def _directory(self, path: str) -> str:
        return self._moved.get(path, path)

    def _inode(self, entry: DirectoryEntry) -> int | str | None:
        """:return: the file of a name; one that was there before this disk was is durable."""
        inode = self._names.get(entry)
        if inode is None:
            path = os.path.join(*entry)
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                return None
            if stat_module.S_ISDIR(mode):
                self._record('exists_directory', path, entry)
                inode = path
            elif stat_module.S_ISREG(mode):
                with open(path, 'rb') as file:
                    content = file.read()
                self._numbers += 1
                self._record('exists', self._numbers, entry, content)
                inode = self._numbers
            else:
                return None
            self._names[entry] = inode
        return inode

    def inode_of(self, fd: int) -> int | str:
        """:return: the file of a descriptor, by number, or its directory, by path."""
        return self._opened[fd]

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # type: ignore[override]  # `Disk` has the functions of `os` themselves
        """See `Disk`."""
        entry = self._entry(path, dir_fd)
        if flags & os.O_DIRECTORY:
            fd = os.open(path, flags, mode, dir_fd=dir_fd)
            inode = self._names.get(entry)
            self._opened[fd] = inode if isinstance(inode, str) else self._directory(os.path.join(*entry))
            return fd
        inode = self._inode(entry)
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
        if inode is None and flags & os.O_CREAT:
            self._numbers += 1
            inode = self._names[entry] = self._numbers
            self._record('create', inode, entry)
        # All others are read and never written.
        self._opened[fd] = -1 if inode is None else inode
        return fd

    def close(self, fd: int) -> None:
        """See `Disk`."""
        os.close(fd)
        self._opened.pop(fd, None)

    def dup2(self, fd: int, fd2: int, inheritable: bool = True) -> int:
        """See `Disk`."""
        self._opened[fd2] = self._opened[fd]
        return os.dup2(fd, fd2, inheritable)

    def pwrite(self, fd: int, content: bytes | memoryview, offset: int) -> int:  # type: ignore[override]  # `Disk` has the functions of `os` themselves
        """See `Disk`."""
        written = os.pwrite(fd, content, offset)
        self._record('write', self._opened[fd], offset, bytes(content[:written]))
        return written

    def ftruncate(self, fd: int, size: int) -> None:
        """See `Disk`."""
        os.ftruncate(fd, size)
        self._record('write', self._opened[fd], size, None)

    def fsync_scope(self, fd: int) -> int:
        """See `Disk`."""
        return self._fsync_scope

    def fdatasync(self, fd: int) -> None:  # type: ignore[override]  # `Disk` has the functions of `os` themselves
        """See `Disk`."""
        self._record('sync_data', self._opened[fd])

    def fsync(self, fd: int) -> None:  # type: ignore[override]  # `Disk` has the functions of `os` themselves
        """See `Disk`."""
        inode = self._opened[fd]
        self._record('sync_file' if isinstance(inode, int) else 'sync_directory', inode)

    def syncfs(self, fd: int) -> bool:
        """See `Disk`."""
        self.sync_all()
        return True

    def rename(  # type: ignore[override]  # `Disk` has the functions of `os` themselves
        self, source: str, target: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        """See `Disk`."""
        here, there = self._entry(source, src_dir_fd), self._entry(target, dst_dir_fd)
        inode = self._inode(here)
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        assert inode is not None
        if isinstance(inode, str):
            self._moved[os.path.join(*there)] = inode
        self._change(inode, (here, None), (there, inode))

    def renameat2(self) -> Callable[[int, bytes, int, bytes, int], int] | None:
        """See `Disk`."""
        below = Disk.renameat2()
        if below is None:
            return None

        def call(src_dir_fd: int, source: bytes, dst_dir_fd: int, target: bytes, flags: int) -> int:
            here = self._entry(os.fsdecode(source), src_dir_fd)
            there = self._entry(os.fsdecode(target), dst_dir_fd)
            inode = self._inode(here)
            code = below(src_dir_fd, source, dst_dir_fd, target, flags)
            if code == 0:
                assert inode is not None
                self._change(inode, (here, None), (there, inode))
            return code

        return call

    def unlink(self, name: str, *, dir_fd: int | None = None) -> None:  # type: ignore[override]  # `Disk` has the functions of `os` themselves
        """See `Disk`."""
        entry = self._entry(name, dir_fd)
        inode = self._inode(entry)
        os.unlink(name, dir_fd=dir_fd)
        assert inode is not None
        self._change(inode, (entry, None))

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:  # type: ignore[override]  # `Disk` has the functions of `os` themselves
        """See `Disk`."""
        entry = self._entry(path, dir_fd)
        os.mkdir(path, mode, dir_fd=dir_fd)
        self._change(os.path.join(*entry), (entry, os.path.join(*entry)))

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:  # type: ignore[override]  # `Disk` has the functions of `os` themselves
        """See `Disk`."""
        entry = self._entry(path, dir_fd)
        os.rmdir(path, dir_fd=dir_fd)
        self._change(os.path.join(*entry), (entry, None))
