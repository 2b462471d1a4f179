"""Directories that have grown: what ext4 leaves when many names have come and gone, on whatever file system the tests run."""

from __future__ import annotations

import os
from typing import Any

from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.kernel import WITH_ALL_NAMES
from switchboard.store.renewal import RENEWED_FROM_BYTES, renew


class Grown:
    """A directory's status with another size."""

    st_size = 8 * RENEWED_FROM_BYTES

    def __init__(self, status: os.stat_result) -> None:
        self._status = status

    def __getattr__(self, name: str) -> Any:
        return getattr(self._status, name)


class GrowingDisk(Disk):
    """Says of the directories that it was told of that they have grown, and that names get to the disk in order."""

    def __init__(self) -> None:
        # By device and inode, and a descriptor that keeps the inode from being given to something else.
        self._grown: dict[tuple[int, int], int] = {}

    def grow(self, folder: Folder) -> None:
        """Have a directory be large from now on; what takes its place is not."""
        fd = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
        status = os.fstat(fd)
        self._grown[status.st_dev, status.st_ino] = fd

    def fstat(self, fd: int) -> Any:
        """See `Disk`."""
        status = os.fstat(fd)
        return Grown(status) if (status.st_dev, status.st_ino) in self._grown else status

    def fsync_scope(self, fd: int) -> int:
        """See `Disk`."""
        return WITH_ALL_NAMES

    def __del__(self) -> None:
        for fd in self._grown.values():
            os.close(fd)


def grow_and_renew(folder: Folder) -> None:
    """Let many entries come and go in a directory, and then somebody else renew it."""
    disk = GrowingDisk()
    disk.grow(folder)
    before = os.stat(folder.path).st_ino
    another = Folder(folder.path, disk)
    assert renew(another)
    assert os.stat(folder.path).st_ino != before
    another.close()
