"""One dropped file becoming an entry, as one step.

The hand-off does it: the file takes the input's place in a transaction, and the entry made from it is the output.  So
the entry appears if and only if the file is gone from where it was dropped, whatever dies when (see
``docs/explanation/states.md``).

Rejected: renaming the file itself to an entry's name (it has no header, so nothing would tell a whole mail from half of
one, and it may be linked, readable only or another user's), and publishing first and removing after (whoever dies in
between has doubled the message if somebody has finished the first one by then).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from switchboard.handoff.stage import COMMIT, Stage
from switchboard.handoff.transaction import Transaction
from switchboard.store.disk import Disk, Folder

# Of the digest, what stands behind the digits of the slice.
UNIQUE_DIGITS = 32


@dataclass(slots=True, eq=False)
class Dropped:
    """A file that another program has dropped: open for reading, and locked.

    The lock keeps the other processes of this queue away.  Whoever drops files need not know of it.
    """

    fd: int
    folder: Folder
    name: str
    status: os.stat_result

    @property
    def unique(self) -> str:
        """Digits that stay the same each time this file is looked at, and that no other file has."""
        import hashlib  # here, because it brings a megabyte of OpenSSL with it

        status = self.status
        identity = f'{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}:'.encode() + os.fsencode(self.name)
        return hashlib.sha256(identity).hexdigest()[:UNIQUE_DIGITS]

    def has_changed(self, disk: Disk) -> bool:
        """Was it written to since it was opened?"""
        now, then = disk.fstat(self.fd), self.status
        return (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns)

    def close(self, disk: Disk) -> None:
        """Let go of it: what was not taken is still there."""
        try:
            disk.unlock_and_close(self.fd)
        except OSError:
            pass  # the descriptor is gone either way


class Adoption(Transaction):
    """A transaction whose input is a dropped file."""

    def __init__(self, stage: Stage, dropped: Dropped) -> None:
        super().__init__(stage)
        self.dropped = dropped

    def rename_input(self) -> None:
        """Step 3: where the file was dropped, it is gone now, and its entry is certain."""
        stage, dropped = self.stage, self.dropped
        stage.disk.rename(
            dropped.name, f'{self.name}:{COMMIT}', src_dir_fd=dropped.folder.fd, dst_dir_fd=stage.folder.fd
        )
        self._record = (dropped.fd, dropped.status.st_size)

    @property
    def input_folder(self) -> Folder:
        """See `Transaction`."""
        return self.dropped.folder

    def take_back_input(self) -> bool:
        """See `Transaction`."""
        stage, dropped = self.stage, self.dropped
        try:
            stage.disk.rename_exclusive(
                f'{self.name}:{COMMIT}',
                dropped.name,
                src_dir_fd=stage.folder.fd,
                dst_dir_fd=dropped.folder.fd,
            )
        except OSError:
            return False
        self._record = (-1, 0)
        return True

    def remove_record(self) -> None:
        """Step 4, second half.  The file is not used again: it may be another user's, or have other links."""
        fd, size = self._record
        self.stage.workshop.give(fd, self.stage.folder, f'{self.name}:{COMMIT}', size, reusable=False)
        self._record = (-1, 0)
