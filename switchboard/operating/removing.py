"""Removing an entry on an operator's word: it is claimed first, so that nobody loses what he is working on."""

from __future__ import annotations

from switchboard.errors import EntryTakenError
from switchboard.handoff.moving import claim_any
from switchboard.queue.switchboard import Switchboard
from switchboard.store.publishing import refuse


def remove(board: Switchboard, filebase: str) -> None:
    """Finish an entry, ready or preserved, unread.

    :raises EntryTakenError: a process is working on it, or it is gone.
    :raises QueueError: the disk refused; it is where it was.
    """
    claim = claim_any(board, filebase)
    try:
        claim.finish(board.pool)
    except OSError as error:
        claim.close()
        if isinstance(error, FileNotFoundError):
            raise EntryTakenError('its file is gone', queue=board.name, filebase=filebase) from error
        refuse(error, 'remove', board.name)
