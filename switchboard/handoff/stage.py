"""The directory ``.stage``: outputs between being written and being seen, and commit records.

``handoff`` tells what stands here when, and why.  This module repairs what dead processes left.
"""

from __future__ import annotations

import logging
import os

from switchboard.events import event
from switchboard.message.naming import READY, Namer
from switchboard.store.disk import Disk, Folder
from switchboard.store.pool import FilePool

log = logging.getLogger('switchboard.queue')

COMMIT = 'commit'


class Stage:
    """The directory ``.stage``: outputs between being written and being seen, and commit records."""

    def __init__(self, spool_path: str, folder: Folder, disk: Disk, pool: FilePool, namer: Namer) -> None:
        self.spool_path = spool_path
        self.folder = folder
        self.disk = disk
        self.pool = pool
        self.namer = namer

    def recover(self) -> int:
        """Roll forward what dead processes committed, and throw away what they did not.

        May run at any time, in any number of processes.

        :return: how many transactions and outputs were dealt with.
        """
        # Records first: what they name must not be looked at as if it had none.
        names = sorted(self.folder.names(), key=lambda name: not name.endswith(f':{COMMIT}'))
        return sum(self._deal_with(name) for name in names)

    def _deal_with(self, name: str) -> bool:
        transaction, _, rest = name.partition(':')
        try:
            return self._roll_forward(transaction) if rest == COMMIT else self._throw_away(name, transaction)
        except OSError as error:
            # One that cannot be dealt with, or that is none of ours, must not keep the others waiting.
            event(log, logging.ERROR, None, 'not recovered', transaction=name, error=error)
            return False

    def _roll_forward(self, transaction: str) -> bool:
        record = f'{transaction}:{COMMIT}'
        # For reading only: a record may be a file that another user has dropped.
        opened = self.disk.open_locked(record, self.folder.fd, writable=False)
        if opened is None:
            return False  # its owner lives, or somebody else was faster
        fd, status = opened
        try:
            published = self._publish(transaction)
            self.pool.recycle(fd, self.folder, record, status.st_size, reusable=False)
        except BaseException:
            self.disk.unlock_and_close(fd)
            raise
        event(log, logging.INFO, None, 'rolled forward', transaction=transaction, outputs=published)
        return True

    def _publish(self, transaction: str) -> int:
        """Move a transaction's outputs to where they belong.  Assumes: its record is locked.

        :return: how many.
        """
        # Its owner may have died before it synced: the record is to be on the disk before an output is seen, and what
        # the owner has published is to be there before the record goes.  One sync of this directory is both.
        self.folder.sync()
        targets: dict[str, Folder] = {}
        published = 0
        # Listed again, under the record's lock: nobody but its holder moves the outputs.
        for name in self.folder.names():
            parts = name.split(':')
            if parts[0] != transaction or len(parts) != 4 or parts[2] in ('', '.', '..'):
                continue
            queue, filebase = parts[2:]
            if queue not in targets:
                targets[queue] = Folder(f'{self.spool_path}/{queue}', self.disk)
                targets[queue].make()
            self.disk.rename(name, filebase + READY, src_dir_fd=self.folder.fd, dst_dir_fd=targets[queue].fd)
            published += 1
        for target in targets.values():
            target.sync()
        return published

    def _throw_away(self, name: str, transaction: str) -> bool:
        opened = self.disk.open_locked(name, self.folder.fd)
        if opened is None:
            return False
        fd, status = opened
        try:
            thrown_away = self._is_uncommitted(name, transaction, status)
            if thrown_away:
                self.pool.recycle(fd, self.folder, name, status.st_size)
        except BaseException:
            self.disk.unlock_and_close(fd)
            raise
        if not thrown_away:
            self.disk.unlock_and_close(fd)
        return thrown_away

    def _is_uncommitted(self, name: str, transaction: str, status: os.stat_result) -> bool:
        """Assumes: the output is locked, so that its owner is dead and commits no more.

        If there is no record now, and the output is still here, it never was committed: a record goes only after its last
        output.
        """
        return not self.disk.exists(f'{transaction}:{COMMIT}', self.folder.fd) and self.disk.leads_to(
            name, self.folder.fd, status
        )
