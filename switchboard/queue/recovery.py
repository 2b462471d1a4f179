"""The ends of a claim: steps on a locked file, and the recovery of claims whose owners died.

Recovery takes the lock of each ``.bak``.  Got it: the owner is dead; a record is appended and the file renamed back.
Refused: the owner is at work.  So it may run at any time, in any number of processes.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from switchboard.clock import Clock
from switchboard.errors import LockTimeoutError, QueueError
from switchboard.events import log_event
from switchboard.message.journal import FOREIGN, Record
from switchboard.message.naming import CLAIMED, PRESERVED, one_ns_later
from switchboard.store.claims import Claim, claim_of, open_claim
from switchboard.store.folder import Folder

log = logging.getLogger('switchboard.queue')

# How long the one who recovers an entry, or notes something in it, needs at the most.
UNLOCK_WAIT_S = 0.5

# The event of a death that an operator wanted: the recovery that follows is not counted.
INTERRUPTED = 'interrupted'


def record_time(clock: Clock) -> float:
    """:return: the time as records hold it: seconds since the epoch, to the microsecond."""
    return clock.time_ns() // 1000 / 1_000_000


def record_event(
    claim: Claim, name: str, /, *, clock: Clock, sync: bool, must_be_written: bool = False, **fields: Any
) -> None:
    """Add a record to a claim's history, if that is possible.

    A history that cannot be written (a full disk, a file that is readable only) must not keep its message from moving.

    :param sync: have it on the disk before the name says so.
    :param must_be_written: the record changes the metadata: without it, the entry's next consumer would repeat the acts that it tells of.
    :raises OSError: such a record could not be written this time.  A history that is too long for it is no error: that is logged.
    """
    try:
        if claim.writable:
            claim.append(_record(name, clock, fields), sync=sync)
        elif must_be_written:
            claim.replace_with_copy(sync=sync, record=_record(name, clock, fields))
        else:
            log_event(log, logging.WARNING, claim.filebase, 'history read-only', record=name)
    except OSError as error:
        if must_be_written and error.errno != errno.EFBIG:
            raise
        log_event(log, logging.WARNING, claim.filebase, 'history not written', record=name, error=error)


def _record(name: str, clock: Clock, fields: Mapping[str, Any]) -> Record:
    record: Record = {'event': name, 'time': record_time(clock)}
    return {**record, **fields, **record}


def move_to_bad(
    claim: Claim, bad: Folder, reason: str, *, queue: str, clock: Clock, sync: bool, **fields: Any
) -> None:
    """Put a claimed entry into the bad queue and end the claim.

    A crash leaves it claimed, with or without the record, or preserved.

    :raises OSError: it could not be renamed; it stays claimed.
    """
    filebase = claim.filebase
    bad.make()
    note_safely(claim, 'preserved', clock=clock, sync=sync, queue=queue, reason=reason, **fields)
    claim.rename(bad, filebase, PRESERVED)
    claim.close()
    log_event(log, logging.WARNING, filebase, 'preserved', queue=queue, reason=reason)


def note_safely(claim: Claim, name: str, /, *, clock: Clock, sync: bool, **fields: Any) -> None:
    """As `record_event`, and have a copy take the place of a file that another user may still have open, and could write a history into.

    The copy says all that this process has to say, or there is none: what the other user has written must not stand last in a file that is ours.
    If it is not possible the file stays what it is, and its history is not believed (see `Folder.trusts`).
    """
    if claim.is_foreign or claim.links > 1:
        record = _record(name, clock, fields)
        if claim.is_foreign:
            record = {**record, FOREIGN: claim.uid}
        try:
            claim.replace_with_copy(sync=sync, record=record)
            return
        except OSError as error:
            log_event(
                log, logging.WARNING, claim.filebase, 'not copied', queue=claim.folder.queue, error=error
            )
    record_event(claim, name, clock=clock, sync=sync, **fields)


def move_to_bad_unread(folder: Folder, name: str, bad: Folder, reason: str) -> None:
    """Put an entry that this process may not open into the bad queue: without a lock, as nobody like us has one.

    :raises OSError: it could not be renamed; it is where it was.
    """
    filebase = name[: name.rindex('.')]
    bad.make()
    while True:
        try:
            bad.rename_from_exclusive(folder, name, filebase + PRESERVED)
            break
        except FileExistsError:
            filebase = one_ns_later(filebase)  # a copy that somebody has made by hand has that name
    log_event(log, logging.WARNING, filebase, 'preserved', queue=folder.queue, reason=reason)


def recover(
    folder: Folder,
    filebases: Iterable[str],
    bad: Folder,
    end_claim: Callable[[Claim], bool],
    *,
    include_own: bool,
    wait: bool = False,
) -> list[str]:
    """Deal with the claims of dead owners.

    :param filebases: entries of the folder that are claimed.
    :param end_claim: ends a claim, and says whether the entry is ready again.
    :param include_own: also deal with those that this process holds.
    :param wait: another process may be recovering some of them: wait a moment for those that are locked.
    :return: the filebases that are ready again; of the others the owner lives, or they went to the dead letters.
    """
    recovered, locked = [], []
    for filebase in filebases:
        try:
            claim = claim_of(folder, filebase)
            if claim is not None and not include_own:
                continue
            claim = claim or open_claim(folder, filebase, CLAIMED)
        except PermissionError:
            _recover_unread(folder, filebase, bad)
            continue
        except (QueueError, OSError) as error:
            log_event(log, logging.WARNING, filebase, 'not recovered', queue=folder.queue, error=error)
            continue
        if claim is None:
            locked.append(filebase)
            continue
        try:
            if end_claim(claim):
                recovered.append(filebase)
        except OSError as error:
            log_event(log, logging.ERROR, filebase, 'not recovered', queue=folder.queue, error=error)
            claim.close()
    if wait and locked:
        ends_at_s = time.monotonic() + UNLOCK_WAIT_S
        left = [filebase for filebase in locked if _is_let_go(folder, filebase, ends_at_s)]
        recovered += recover(folder, left, bad, end_claim, include_own=include_own)
    return recovered


def _is_let_go(folder: Folder, filebase: str, ends_at_s: float) -> bool:
    """Wait until a claimed entry is unlocked, or is none any more.

    :return: whether it is still there, without an owner.
    """
    try:
        opened = folder.disk.open_locked(
            filebase + CLAIMED,
            folder.fd,
            writable=False,
            waits_for='an entry',
            within_s=max(0.0, ends_at_s - time.monotonic()),
        )
    except (LockTimeoutError, OSError):
        return False  # which the next recovery tells of
    if opened is None:
        return False
    folder.disk.unlock_and_close(opened[0])
    return True


def _recover_unread(folder: Folder, filebase: str, bad: Folder) -> None:
    try:
        move_to_bad_unread(folder, filebase + CLAIMED, bad, 'unreadable')
    except OSError as error:
        log_event(log, logging.WARNING, filebase, 'not recovered', queue=folder.queue, error=error)
