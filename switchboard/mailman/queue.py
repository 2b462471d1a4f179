"""A switchboard with the manners of Mailman's: its arguments, its class of messages, its shunt queue."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from typing import Any

from lazr.config import as_boolean
from mailman.config import config
from mailman.email.message import Message
from mailman.interfaces.switchboard import ISwitchboard
from zope.interface import implementer

from switchboard.clock import SYSTEM_CLOCK
from switchboard.events import log_event
from switchboard.mailman.metadata import restore_attributes, storable
from switchboard.mailman.takeover import take_over
from switchboard.message.entry import MAILMAN
from switchboard.message.journal import Record
from switchboard.queue.recovery import record_time
from switchboard.queue_defaults import SAFE_KINDS
from switchboard.spool.spool import Spool

log = logging.getLogger('mailman.error')

SHUNT = 'shunt'
# Under which Mailman notes from which queue a message was shunted.
ORIGIN = 'whichq'
# Where a message goes back to for which that was not noted.
UNSHUNTED = 'in'

# Why a message was shunted, where nothing says more.
WITHOUT_ERROR = 'shunted without an error: its list may be gone'
BEFORE = "shunted before Mailman's queues were kept here: its logs may say why"

MESSAGE_CLASS = f'{Message.__module__}:{Message.__qualname__}'
# What Mailman itself wrote is read as well, until it is taken over.
ACCEPTED = (*SAFE_KINDS, MAILMAN)

_spools: dict[str, Spool] = {}
# The queue whose entry this process works on, if it does: Mailman's runners work on one at a time.
_at_work: list[str] = []


def spool_at(directory: str) -> Spool:
    """:return: the one spool of this process over the directory that holds Mailman's queues."""
    spool = _spools.get(directory)
    if spool is None or spool.stage.folder.is_deleted():
        spool = _spools[directory] = Spool(directory)
    return spool


@implementer(ISwitchboard)
class MailmanQueue:
    """One of Mailman's queues.  See Mailman's `ISwitchboard`.

    Its directory is a queue of the spool that is the directory above.

    :param slice: which of `numslices` parts of the queue this object sees; any number where there is only one.
    :param recover: make ready again what dead processes had claimed, and take over what Mailman itself has written.
    """

    def __init__(
        self,
        name: str,
        queue_directory: str,
        slice: int | None = None,
        numslices: int = 1,
        recover: bool = False,
    ) -> None:
        parent, own = os.path.split(os.path.abspath(queue_directory))
        self.queue_directory, self.name = queue_directory, name
        self._spool = spool_at(parent)
        self._queue = self._spool.queue(own, slice, numslices, accept=ACCEPTED, message_class=MESSAGE_CLASS)
        # The entry that the last call of `dequeue` did not give.
        self._refused = ''
        if recover:
            self.recover_backup_files()

    def enqueue(self, _msg: Any, _metadata: Mapping[str, Any] | None = None, **_kws: Any) -> str:
        """Store a message with its metadata, on the disk when this returns."""
        metadata = storable(_msg, {**(_metadata or {}), **_kws})
        metadata['version'] = config.QFILE_SCHEMA_VERSION
        if self.name != SHUNT:
            return self._queue.enqueue(_msg, metadata)
        item = self._queue.prepare(_msg, metadata, records=_shunted(metadata, sys.exception()))
        self._queue.producer.publish(item)
        return item.filebase

    def dequeue(self, filebase: str) -> tuple[Any, dict[str, Any]]:
        """Claim an entry, and give its message and its metadata.

        Mailman's runner takes every error for an unreadable message, and asks at once to preserve it.  An unreadable one lies in the bad queue by
        then; another process's message, or one that the disk did not give, is left where it is (see :meth:`finish`).
        """
        self._refused = filebase
        msg, metadata = self._queue.dequeue(filebase)
        self._refused = ''
        _at_work[:] = [self.name]
        restore_attributes(msg, metadata)
        return msg, metadata

    def finish(self, filebase: str, preserve: bool = False) -> None:
        """Remove a claimed entry, or keep it in the bad queue; what goes wrong is logged, as Mailman expects it."""
        if filebase == self._refused:
            self._refused = ''
            return
        _at_work.clear()
        try:
            self._queue.finish(filebase, preserve)
        except Exception:
            log_event(log, logging.ERROR, filebase, 'outcome not stored', queue=self.name, exc_info=True)

    @property
    def files(self) -> list[str]:
        """The entries that are ready, first in first out."""
        return self.get_files()

    def get_files(self, extension: str = '.pck') -> list[str]:
        """The entries in one state, first in first out."""
        return self._queue.files if extension == '.pck' else self._queue.get_files(extension)

    def recover_backup_files(self) -> None:
        """Make ready again what dead processes had claimed; what a living one holds is left alone.

        What Mailman itself has written is taken over, here and in the queues for which Mailman starts no runner.
        """
        for queue in {self, *_without_runner()}:
            queue._queue.recover_backup_files()
            take_over(queue._spool, queue._queue, _shunted_before if queue.name == SHUNT else None)


def _without_runner() -> list[MailmanQueue]:
    """:return: the queues that wait for an operator: nobody else takes over what lies in them."""
    names = [each.name.rpartition('.')[2] for each in config.runner_configs if not as_boolean(each.start)]
    found = [config.switchboards.get(name) for name in names]
    return [queue for queue in found if isinstance(queue, MailmanQueue)]


def _shunted(
    metadata: Mapping[str, Any], error: BaseException | None = None, reason: str = WITHOUT_ERROR
) -> list[Record]:
    """:return: the history of a shunted message: what failed, and where `switchboard retry` sends it, which is where `mailman unshunt` does.

    :param error: the error that the runner is handling, if any: it shunts a message for a list that is gone without one.
    :param reason: why it was shunted, if there is none.
    """
    records: list[Record] = []
    time_s, origin = record_time(SYSTEM_CLOCK), str(metadata.get(ORIGIN, UNSHUNTED))
    if error is not None:
        reason = f'{type(error).__name__}: {error}'
        records.append(
            {
                'event': 'failed',
                'time': time_s,
                'runner': _at_work[0] if _at_work else origin,
                'error': type(error).__name__,
                'message': str(error),
                'traceback': ''.join(traceback.format_exception(error)),
            }
        )
    record: Record = {
        'event': 'dead-lettered',
        'time': time_s,
        'queue': _directory_of(origin),
        'cause': 'rejected',
        'reason': reason,
    }
    return [*records, {**record, 'runner': _at_work[0]} if _at_work and reason != BEFORE else record]


# Of a message that Mailman shunted without this switchboard: why is in its logs only.
_shunted_before = partial(_shunted, reason=BEFORE)


def _directory_of(name: str) -> str:
    """:return: the name of the directory in which Mailman has a queue."""
    queue = config.switchboards.get(name)
    return os.path.basename(os.path.normpath(queue.queue_directory)) if queue is not None else name
