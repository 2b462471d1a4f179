"""Moving an entry as it is from one queue to another: one rename, with the move in its history.

A crash leaves it where it was, with or without the record, or where it was to go: never in both, never in neither.  So
nothing needs to be synced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from switchboard.errors import CorruptEntryError, EntryTakenError, QueueError
from switchboard.message.expiry import expiry_after_move
from switchboard.message.journal import origin_queue
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import CLAIMED, PRESERVED, READY, with_when
from switchboard.queue.recovery import note_safely, record_event
from switchboard.queue.switchboard import Switchboard
from switchboard.store.claims import Claim, claim_of, open_claim
from switchboard.store.layout import BAD
from switchboard.store.limits import Reservation, make_room
from switchboard.store.publishing import raise_queue_error


def claim_ready_or_preserved(queue: Switchboard, filebase: str) -> Claim:
    """Lock an entry of a queue, ready or preserved, for an operator's move.

    :raises EntryTakenError: a process is working on it, or it is gone.
    :raises QueueError: it cannot be opened.
    """
    return claim_of(queue.folder, filebase) or claim_idle(queue, filebase, (READY, PRESERVED))


def claim_idle(queue: Switchboard, filebase: str, suffixes: Sequence[str]) -> Claim:
    """Lock an entry that nobody works on, in one of these states.  One whose process died is recovered for it.

    :raises EntryTakenError: a process is working on it, or it is gone.
    :raises QueueError: it cannot be opened.
    """
    try:
        claim = _claim_in(queue, filebase, suffixes)
        if claim is None and queue.consumer.recover([filebase], include_own=False):
            claim = _claim_in(queue, filebase, suffixes)
        if claim is not None:
            return claim
        working = queue.folder.has(filebase + CLAIMED)
    except QueueError as error:
        error.queue = queue.name
        raise
    except OSError as error:
        raise_queue_error(error, 'claim', queue.name, queue.folder.path_of(filebase + READY))
    reason = 'a process is working on it' if working else 'no such entry'
    raise EntryTakenError(reason, queue=queue.name, filebase=filebase)


def move(
    claim: Claim,
    source: Switchboard,
    target: Switchboard,
    *,
    event: str = 'moved',
    now: bool = False,
    when_ns: int | None = None,
    preserved: bool = False,
    **fields: Any,
) -> str:
    """Move a locked entry into another queue, or back into its own, ready.

    :param event: the history's word for it.
    :param now: make it ready at once, behind what waits; else it keeps its time.
    :param when_ns: give it this time.
    :param preserved: put it there as into the bad queue, where nobody takes it.
    :return: its filebase there.
    :raises QueueError: it could not be moved; it is where it was, and no longer locked, unless it was at work: then it
        still is.
    """
    if target.is_remote:
        return _send(claim, source, target, event, now or when_ns is not None, fields)
    if now:
        when_ns = target.clock.time_ns()
    filebase = claim.filebase if when_ns is None else with_when(claim.filebase, when_ns)
    with released_on_failure(claim, source):
        if when_ns is not None and not now:
            claim.set_mtime(when_ns)  # which may be ahead of the clock: it is no wish for a delay
        suffix = PRESERVED if preserved or target.name == BAD else READY
        entry = claim.read()
        if target.options.ttl_s is not None or b'expires"' in entry.metadata or entry.records:
            metadata = entry.apply_history(load_metadata(entry.metadata))
            fields |= expiry_after_move(
                metadata, target.options.ttl_s, target.clock.time_ns(), forgiven=event != 'moved'
            )
        write = record_event if suffix == READY else note_safely
        sync = source.options.durability == 'full'
        write(claim, event, clock=source.clock, sync=sync, queue=source.name, to=target.name, **fields)
        filebase = claim.rename(target.folder, filebase, suffix)
        if suffix == READY:
            target.consumer.note_reordered(filebase)
    claim.close()
    return filebase


def _claim_in(queue: Switchboard, filebase: str, suffixes: Sequence[str]) -> Claim | None:
    claims = (open_claim(queue.folder, filebase, suffix) for suffix in suffixes)
    return next((claim for claim in claims if claim is not None), None)


@contextmanager
def using_reservation(reservation: Reservation | None) -> Iterator[None]:
    """An entry comes into the room that was reserved for it; if it does not, the room is free again.

    Not only when the object goes: an error that somebody keeps keeps it, too.
    """
    is_used = False
    try:
        yield
        is_used = True
    finally:
        if reservation is not None:
            reservation.end(is_used=is_used)


@contextmanager
def released_on_failure(claim: Claim, source: Switchboard, step: str = 'move') -> Iterator[None]:
    """An entry with which a step could not be taken is unlocked, unless it was at work before.

    :raises EntryTakenError: its file is gone.
    """
    try:
        yield
    except OSError as error:
        source.consumer.raise_claim_error(claim, error, step)
    except BaseException:
        if not claim.is_at_work:
            claim.close()
        raise


def _send(
    claim: Claim, source: Switchboard, target: Switchboard, event: str, now: bool, fields: dict[str, Any]
) -> str:
    """Move a locked entry into a queue on a broker: it is stored there before it ends here, so that a crash in between leaves two."""
    remote: Any = target
    with released_on_failure(claim, source):
        filebase: str = remote.take_over(
            claim.read(), {'event': event, 'queue': source.name, **fields}, now=now
        )
        claim.finish(source.pool)
    return filebase


def require_origin_queue(queue: Switchboard, filebase: str) -> str:
    """The queue that an entry came from, by its history.

    :raises QueueError: it does not say.
    """
    name = origin_queue(queue.history(filebase), queue.name)
    if name is None or not _is_trusted(queue, filebase):
        raise QueueError(
            'its history does not say where it came from: name a queue', queue=queue.name, filebase=filebase
        )
    return name


def _is_trusted(queue: Switchboard, filebase: str) -> bool:
    for suffix in (PRESERVED, READY, CLAIMED):
        try:
            status = queue.disk.stat(filebase + suffix, dir_fd=queue.folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise_queue_error(error, 'read', queue.name, queue.folder.path_of(filebase + suffix))
        return queue.folder.trusts(status.st_uid)
    return False


def send_back(queue: Switchboard, filebase: str, target: Switchboard, **fields: Any) -> str:
    """Retry an entry: move it to `target`, ready at once, with its counts of failures and recoveries forgiven.

    :return: its filebase there.
    :raises CorruptEntryError: it cannot be read, so that it would only come back; it is where it was.
    :raises ContentDisallowedError: the queue does not accept its kind.
    :raises MessageTooLargeError: the queue could never hold it.
    :raises QueueError: it could not be moved.
    """
    claim = claim_ready_or_preserved(queue, filebase)
    with released_on_failure(claim, queue, 'read'):
        entry = claim.read()
        if entry.damage is not None:
            raise CorruptEntryError(
                f'{entry.damage.reason}; it would come back at once', queue=queue.name, filebase=filebase
            )
        reservation = target.reserve_for(entry)
        times = sum(record.get('event') == 'retried' for record in entry.records)
        make_room((reservation,))
    with using_reservation(reservation):
        return move(claim, queue, target, event='retried', now=True, before=times, **fields)
