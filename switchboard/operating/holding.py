"""Entries that an operator holds: nobody takes them until he lets them go.

A held entry stays in its queue, ready, under a time in the year 2286.  So there is no further place or state that a crash could
leave it in, every program that looks sees it, and no runner needs to know.  Its history says who it was: since when, why, and
the time that it had, which it gets back with its place.

While it is held it neither expires nor is dropped from a full queue, though it counts there; when it is let go and its time
is over by then, it is a dead letter.

Rejected: a queue for held entries, as Postfix has one (the way back would have to be remembered, and limits and order be asked
anew); a suffix of its own (each program that knows the other three would take it for a foreign file).
"""

from __future__ import annotations

from switchboard.errors import QueueError
from switchboard.handoff.moving import claim_idle, released_on_failure
from switchboard.message.naming import PRESERVED, READY, is_filebase, is_on_hold, on_hold_name, with_when
from switchboard.queue.switchboard import Switchboard
from switchboard.store.claims import Claim
from switchboard.store.publishing import raise_queue_error


def _claim(queue: Switchboard, filebase: str) -> Claim:
    try:
        preserved = queue.folder.has(filebase + PRESERVED)
    except OSError as error:
        raise_queue_error(error, 'claim', queue.name, queue.folder.path)
    if preserved:
        raise QueueError(
            'a preserved entry waits for nobody, so there is nothing to hold; `retry` sends it back',
            queue=queue.name,
            filebase=filebase,
        )
    return claim_idle(queue, filebase, (READY,))


def hold(queue: Switchboard, filebase: str, **fields: str) -> str:
    """Keep an entry from being taken.

    :param fields: more fields of its record in the history: ``by``, ``via``, ``reason``.
    :return: its filebase from now on.
    :raises EntryTakenError: a process is working on it, or it is gone.
    :raises QueueError: it is held already, or the disk refused; it is as it was.
    """
    if is_on_hold(filebase):
        raise QueueError('it is held already', queue=queue.name, filebase=filebase)
    claim = _claim(queue, filebase)
    record = {'event': 'held', 'when': filebase.partition('+')[0], **fields}
    return _rename(queue, claim, on_hold_name(filebase), record)


def release(queue: Switchboard, filebase: str, **fields: str) -> str:
    """Let an entry be taken again: it has its old time and place.

    :param fields: more fields of its record in the history: ``by``, ``via``, ``reason``.

    :return: its filebase from now on.
    :raises EntryTakenError: it is gone.
    :raises QueueError: it is not held, or the disk refused; it is as it was.
    """
    if not is_on_hold(filebase):
        raise QueueError('it is not held', queue=queue.name, filebase=filebase)
    claim = _claim(queue, filebase)
    with released_on_failure(claim, queue, 'read'):
        records = claim.read().records
    when = next((one.get('when', '') for one in reversed(records) if one.get('event') == 'held'), '')
    renamed = f'{when}{filebase[filebase.index("+") :]}'
    if not is_filebase(renamed) or is_on_hold(renamed):  # its history could not be written, or was not by us
        renamed = with_when(filebase, queue.clock.time_ns())
    return _rename(queue, claim, renamed, {'event': 'let go', **fields})


def _rename(queue: Switchboard, claim: Claim, renamed: str, record: dict[str, str]) -> str:
    with released_on_failure(claim, queue, 'rename'):
        return queue.consumer.rename(claim, renamed, record, is_delayed=True)
