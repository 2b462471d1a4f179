"""The directory ``.stage``: outputs between being written and being seen, and commit records.

``handoff`` tells what stands here when, and why.  This module repairs what dead processes left.
"""

from __future__ import annotations

import logging

from switchboard.disk import Disk, Folder
from switchboard.entry import READY, Namer
from switchboard.spares import Workshop

log = logging.getLogger('switchboard.queue')

COMMIT = 'commit'


class Stage:
    """The directory ``.stage``: outputs between being written and being seen, and commit records."""

    def __init__(self, spool_path: str, folder: Folder, disk: Disk, workshop: Workshop, namer: Namer) -> None:
        self.spool_path = spool_path
        self.folder = folder
        self.disk = disk
        self.workshop = workshop
        self.namer = namer

    def recover(self) -> int:
        """Roll forward what dead processes committed, and throw away what they did not.

        May run at any time, in any number of processes.

        :return: how many transactions and outputs were dealt with.
        """
        names = self.folder.names()
        dealt = 0
        for name in names:
            transaction, _, rest = name.partition(':')
            if rest == COMMIT:
                dealt += self._roll_forward(transaction)
        for name in names:
            transaction, _, rest = name.partition(':')
            if rest != COMMIT:
                dealt += self._throw_away(name, transaction)
        return dealt

    def _roll_forward(self, transaction: str) -> bool:
        record = f'{transaction}:{COMMIT}'
        opened = self.disk.open_locked(record, self.folder.fd)
        if opened is None:
            return False  # its owner lives, or somebody else was faster
        fd, status = opened
        try:
            # Listed again, under the record's lock: nobody but its holder moves the outputs.
            touched: dict[str, Folder] = {}
            for name in self.folder.names():
                parts = name.split(':')
                if parts[0] == transaction and len(parts) == 4:
                    _, _, queue, filebase = parts
                    target = touched.setdefault(queue, Folder(f'{self.spool_path}/{queue}', self.disk))
                    target.make()
                    self.disk.rename(name, filebase + READY, src_dir_fd=self.folder.fd, dst_dir_fd=target.fd)
            for target in touched.values():
                target.sync()
        except BaseException:
            self.disk.unlock_and_close(fd)
            raise
        self.workshop.give(fd, self.folder, record, status.st_size, reusable=False)
        log.info('%s: rolled forward outputs=%d', transaction, len(touched))
        return True

    def _throw_away(self, name: str, transaction: str) -> bool:
        opened = self.disk.open_locked(name, self.folder.fd)
        if opened is None:
            return False
        fd, status = opened
        # The record is looked for with the output's lock in hand: its owner is dead and commits no more.  If there is
        # none and the output is still here, it never was committed: a record goes only after its last output.
        if self.disk.exists(f'{transaction}:{COMMIT}', self.folder.fd) or not self.disk.leads_to(
            name, self.folder.fd, status
        ):
            self.disk.unlock_and_close(fd)
            return False
        self.workshop.give(fd, self.folder, name, status.st_size)
        return True
