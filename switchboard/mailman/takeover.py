"""Queue files that Mailman itself has written, made entries of this switchboard once, when a runner starts.

Mailman's files are pickles.  They are read by the restricted unpickler, which makes the classes that a Mailman queue holds and calls nothing else.  Each is
replaced in its place in the queue by one hand-off: a crash leaves the old file or the new entry, and never both.  A file that cannot
be read goes to the bad queue with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from switchboard.errors import EntryTakenError, QueueError
from switchboard.events import log_event
from switchboard.mailman.metadata import storable
from switchboard.message.entry import MAILMAN
from switchboard.message.journal import Record
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool

log = logging.getLogger('mailman.runner')

# Mailman writes the time with at most seven digits behind the point, this switchboard with nine.
_DIGITS = 9


def take_over(
    spool: Spool, queue: Switchboard, history: Callable[[Mapping[str, Any]], Sequence[Record]] | None = None
) -> int:
    """Replace what Mailman wrote into a queue.

    :param history: gives the records of an entry's history, by its metadata.
    :return: how many files were replaced.
    """
    count = 0
    for filebase in queue.get_files():
        if not is_mailmans_name(filebase):
            continue
        try:
            if queue.peek(filebase).kind == MAILMAN:
                _replace(spool, queue, filebase, history)
                count += 1
        except EntryTakenError:
            continue  # a living process has it
        except (QueueError, OSError) as error:
            log_event(log, logging.WARNING, filebase, 'not taken over', queue=queue.name, error=error)
    return count


def is_mailmans_name(filebase: str) -> bool:
    """Tell a name that Mailman gave from one of this switchboard's."""
    _, _, fraction = filebase.partition('+')[0].partition('.')
    return len(fraction) < _DIGITS


def _replace(
    spool: Spool,
    queue: Switchboard,
    filebase: str,
    history: Callable[[Mapping[str, Any]], Sequence[Record]] | None,
) -> None:
    msg, metadata = queue.dequeue(filebase)
    transaction = spool.transaction(queue, filebase)
    try:
        records = history(metadata) if history is not None else ()
        transaction.replace_input(msg, storable(msg, metadata), records)
    except BaseException:
        transaction.discard()
        queue.release(filebase)
        raise
    transaction.commit()
