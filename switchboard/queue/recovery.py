"""What becomes of claims whose owners died, and of entries that cannot be processed.

Recovery takes the lock of each ``.bak``.  Got it: the owner is dead; a record is appended and the file renamed back.
Refused: the owner is at work.  So it may run at any time, in any number of processes.

The third recovery of an entry sends it to the bad queue: two deaths can be bad luck, three are the message's fault.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from switchboard.clock import Clock
from switchboard.errors import QueueError
from switchboard.message.journal import Record, count_since_retry
from switchboard.message.naming import CLAIMED, PRESERVED, READY, with_when
from switchboard.options import QueueOptions
from switchboard.store.claims import Claim, claim_of, open_claim
from switchboard.store.disk import Disk, Folder

log = logging.getLogger('switchboard.queue')


def timestamp(clock: Clock) -> float:
    """:return: the time as records hold it: seconds since the epoch, to the microsecond."""
    return clock.time_ns() // 1000 / 1_000_000


class Recovery:
    """Repairs one queue's directory."""

    def __init__(
        self, queue: str, folder: Folder, bad: Folder, options: QueueOptions, disk: Disk, clock: Clock
    ) -> None:
        self.queue = queue
        self.folder = folder
        self.bad = bad
        self.options = options
        self.disk = disk
        self.clock = clock
        # Set by a spool, for a queue whose dead letters go elsewhere than to the bad queue.
        self.dead_letter: Callable[[Claim, str, str], bool] | None = None

    @property
    def sync(self) -> bool:
        """Is the history to be on the disk before the name says so?"""
        return self.options.durability == 'full'

    def append(self, claim: Claim, event: str, /, **fields: Any) -> None:
        """Add a record to a claim's history, if that is possible.

        A history that cannot be written (a full disk, a file that is readable only) must not keep its message from moving.
        """
        record: dict[str, Any] = {'event': event, 'time': timestamp(self.clock)}
        record = {**record, **fields, **record}
        if not claim.writable:
            log.warning('%s: history is readable only event=%s', claim.filebase, event)
            return
        try:
            claim.append(record, sync=self.sync)
        except OSError as error:
            log.warning('%s: history not written event=%s error=%s', claim.filebase, event, error)

    def set_aside(self, claim: Claim, cause: str, reason: str, **fields: Any) -> None:
        """End the claim on an entry that its queue cannot keep: it goes to the dead letters, by default the bad queue.

        :param cause: one of ``rejected attempts recoveries expired overflow corrupt disallowed``.
        :raises OSError: it could not be renamed; it stays claimed.
        """
        readable = cause not in ('corrupt', 'disallowed')
        if self.dead_letter is None or not readable or not self.dead_letter(claim, cause, reason):
            self.preserve(claim, reason, cause=cause, **fields)

    def preserve(self, claim: Claim, reason: str, **fields: Any) -> None:
        """Put a claimed entry into the bad queue and end the claim.

        A crash leaves it claimed, with or without the record, or preserved.  Where the bad queue has an entry of this name
        already (somebody has copied files by hand), it is preserved under the present time.

        :raises OSError: it could not be renamed; it stays claimed.
        """
        filebase = claim.filebase
        self.bad.make()
        self.append(claim, 'preserved', queue=self.queue, reason=reason, **fields)
        try:
            claim.rename(self.bad, filebase, PRESERVED)
        except FileExistsError:
            claim.rename(self.bad, with_when(filebase, self.clock.time_ns()), PRESERVED)
        claim.close()
        log.warning('%s: preserved queue=%s reason=%s', filebase, self.queue, reason)

    def is_preserved(self, filebase: str) -> bool:
        """Is there such an entry in the bad queue?"""
        try:
            return self.disk.exists(filebase + PRESERVED, self.bad.fd)
        except OSError:
            return False

    def preserve_unread(self, filebase: str, suffix: str, reason: str) -> None:
        """Put an entry that this process may not open into the bad queue: without a lock, as nobody like us has one.

        :raises OSError: it could not be renamed; it is where it was.
        """
        self.bad.make()
        self.disk.rename_exclusive(
            filebase + suffix, filebase + PRESERVED, src_dir_fd=self.folder.fd, dst_dir_fd=self.bad.fd
        )
        log.warning('%s: preserved unread queue=%s reason=%s', filebase, self.queue, reason)

    def recover(self, filebase: str, *, own: bool) -> bool:
        """Recover one claimed entry.

        :param own: also if it is this process that holds it.
        :return: True if it is ready again; False if its owner lives, or it went to the bad queue.
        """
        claim = claim_of(self.folder, filebase)
        if claim is not None and not own:
            return False
        if claim is None:
            try:
                claim = open_claim(self.folder, filebase, CLAIMED, self.disk)
            except PermissionError:
                return self._recover_unread(filebase)
            except (QueueError, OSError) as error:
                log.warning('%s: not recovered queue=%s error=%s', filebase, self.queue, error)
                return False
            if claim is None:
                return False
        try:
            return self._recover(claim)
        except OSError as error:
            log.error('%s: not recovered queue=%s error=%s', filebase, self.queue, error)
            claim.close()
            return False

    def _recover_unread(self, filebase: str) -> bool:
        try:
            self.preserve_unread(filebase, CLAIMED, 'unreadable')
        except OSError as error:
            log.warning('%s: not recovered queue=%s error=%s', filebase, self.queue, error)
        return False

    def _recover(self, claim: Claim) -> bool:
        filebase = claim.filebase
        records = claim.read().records
        recoveries = count_since_retry(records, 'recovered') + 1
        if recoveries >= self.options.max_recoveries or not claim.writable:
            self.append(claim, 'recovered', count=recoveries)
            self.set_aside(claim, 'recoveries', f'recovered {recoveries} times: its owner died each time')
            return False
        self.append(claim, 'recovered', count=recoveries)
        claim.rename(self.folder, filebase, READY)
        claim.close()
        log.info('%s: recovered queue=%s count=%d', filebase, self.queue, recoveries)
        return True

    def release(self, claim: Claim, filebase: str, when_ns: int | None, record: Record | None) -> None:
        """Give a claimed entry back under the name `filebase`.

        :param when_ns: the time it is meant to be ready; its file is dated now, to show that the delay is wanted.
        :raises OSError: it could not be renamed; it stays claimed.
        """
        if record is not None:
            fields = dict(record)
            self.append(claim, fields.pop('event', 'released'), **fields)
        if when_ns is not None:
            claim.date(self.clock.time_ns())
        claim.rename(self.folder, filebase, READY)
        claim.close()
