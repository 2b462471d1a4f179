"""What has to be done to a spool now and then, by somebody: also in queues that nobody works on.

The master sends a process of its own to do it (``housekeeping``); ``switchboard tidy`` does it by hand.  All of it may run at any time
and in many processes at once, because it touches nothing that a living process holds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from switchboard.errors import EntryExpiredError, QueueError
from switchboard.expiry import is_expired
from switchboard.metadata import load_metadata
from switchboard.spool import BAD, Spool
from switchboard.switchboard import Switchboard

log = logging.getLogger('switchboard.queue')

# Entries of one queue that are looked at in one round: the first, which have waited longest.
LOOKED_AT = 1000


@dataclass(slots=True)
class Tidied:
    """What a round has found to do."""

    handoffs: int = 0
    recovered: int = 0
    expired: int = 0
    reaped: int = 0
    forgotten: int = 0


def tidy(spool: Spool) -> Tidied:
    """Do one round.

    :return: what there was to do.  What could not be done is in the log, and is tried again in the next round.
    """
    done = Tidied()
    try:
        done.handoffs = spool.recover()
    except OSError as error:
        log.error('hand-offs not recovered error=%s', error)
    try:
        done.reaped = len(spool.reap())
    except (QueueError, OSError) as error:
        log.error('declared queues not looked at error=%s', error)
    for name in spool.queue_names():
        if name == BAD:
            continue
        try:
            board = spool[name]
            done.recovered += len(board.recover_backup_files(own=False))
            done.expired += expire(board)
            done.forgotten += spool.dedupe(board).forget()
        except (QueueError, OSError) as error:
            log.error('not tidied queue=%s error=%s', name, error)
    return done


def expire(board: Switchboard) -> int:
    """Send entries whose time is over to the dead letters.

    :return: how many.
    """
    expired = 0
    for filebase in board.first_files(LOOKED_AT):
        try:
            entry = board.peek(filebase, '.pck')
            metadata = load_metadata(entry.metadata) if entry.damage is None else {}
            if not is_expired(entry.changed_metadata(metadata), board.clock):
                continue
            board.dequeue(filebase)
            board.release(filebase)  # somebody has changed it between the two looks
        except EntryExpiredError:
            expired += 1
        except QueueError as error:
            log.debug('%s: not looked at error=%s', filebase, error)
    return expired
