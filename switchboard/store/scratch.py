"""Temporary files in a queue's own directory, for a `Switchboard` without a spool: see `Workshop`."""

from __future__ import annotations

from switchboard.message.naming import SYSTEM_NAMER, UNFINISHED, Namer
from switchboard.store.disk import Disk, Folder
from switchboard.store.pool import PoolFile, create, remove, try_open


class Scratch:
    """Temporary files in the queue's own directory; every finished file is deleted."""

    def __init__(self, folder: Folder, disk: Disk, namer: Namer = SYSTEM_NAMER) -> None:
        self.folder = folder
        self.disk = disk
        self.namer = namer

    def take(self) -> PoolFile:
        """See `Workshop`."""
        return create(self.folder, self.disk, self.namer, suffix=UNFINISHED)

    def give(self, fd: int, folder: Folder, name: str, size: int, *, reusable: bool = True) -> None:
        """See `Workshop`."""
        self.disk.unlink(name, dir_fd=folder.fd)
        self.disk.unlock_and_close(fd)

    def discard(self, draft: PoolFile, *, reusable: bool = True) -> None:
        """See `Workshop`."""
        remove(draft, self.disk)

    def reclaim(self) -> int:
        """See `Workshop`: nothing is kept here."""
        return 0

    def recover(self) -> int:
        """See `Workshop`."""
        removed = 0
        try:
            names = self.folder.names()
        except OSError:
            return 0  # whoever lists the queue next will be told
        for name in names:
            if name.endswith(UNFINISHED):
                opened = try_open(name, self.folder, self.disk)
                if opened is not None:
                    remove(PoolFile(opened[0], self.folder, name, 0), self.disk)
                    removed += 1
        return removed
