"""Request and reply: a queue of one's own for the answers, which goes away with its owner.

::

    with Replies(spool) as replies:
        correlation_id = replies.ask({'list': 'users'}, routing_key='lookup')
        answer, msgdata = replies.wait(correlation_id, timeout_s=10)

The request carries ``reply_to``, the name of the queue, and ``correlation_id``; a runner answers with ``self.reply(...)``.  When the
program that asked is gone, so is its queue: an answer that comes then raises `UnknownQueueError` at the runner, which fails the request,
or, with ``dead_letter``, sends it on: it is never lost without a word.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any, Self

from switchboard.errors import QueueError, ReplyTimeoutError
from switchboard.events import log_event
from switchboard.spool.spool import Spool

log = logging.getLogger('switchboard.queue')

REPLY_TO, CORRELATION_ID = 'reply_to', 'correlation_id'


class Replies:
    """The answers to one program's requests.  Use it in a ``with`` block, or close it.

    One thread at a time.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._owner = spool.declared.new_owner()
        self.queue = f'reply.{uuid.uuid4().hex}'
        self._queue = spool.declare(self.queue, owner=self._owner, options={'durability': 'lazy'})
        self._wakeup = self._queue.make_wakeup()
        self._answers: dict[str, tuple[Any, dict[str, Any]]] = {}

    def ask(self, msg: Any, metadata: Mapping[str, Any] | None = None, **keys: Any) -> str:
        """Publish a request; the arguments are those of `Spool.publish`.

        :return: the correlation id to :meth:`wait` for.
        :raises TypeError: as of `ISpool.publish`.
        """
        correlation_id = uuid.uuid4().hex
        keys |= {REPLY_TO: self.queue, CORRELATION_ID: correlation_id}
        self._spool.publish(msg, metadata, **keys)
        return correlation_id

    def wait(self, correlation_id: str, timeout_s: float | None = None) -> tuple[Any, dict[str, Any]]:
        """Wait for the answer to a request; answers to others are kept for them.

        :return: the answer and its metadata.
        :raises ReplyTimeoutError: it has not come in time; it may still come.
        """
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        while correlation_id not in self._answers:
            self._wakeup.arm()
            try:
                if self._collect():
                    continue
                left_s = None if ends_s is None else ends_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise ReplyTimeoutError(f'no answer within {timeout_s} s', queue=self.queue)
                soon_s = self._queue.wait_s()
                waits = [
                    wait_s
                    for wait_s in (left_s, soon_s, None if self._wakeup.is_watching else 0.05)
                    if wait_s is not None
                ]
                self._wakeup.wait(min(waits) if waits else None)
            finally:
                self._wakeup.disarm()
        return self._answers.pop(correlation_id)

    def _collect(self) -> bool:
        """Take the answers that have come.

        :return: True if anything has.
        """
        found = False
        while (taken := self._queue.take()) is not None:
            found = True
            correlation_id = taken.msgdata.get(CORRELATION_ID)
            if isinstance(correlation_id, str):
                self._answers[correlation_id] = taken.msg, taken.msgdata
            self._queue.finish(taken.filebase)
        return found

    def close(self) -> None:
        """Give the queue up: it goes away, with the answers that nobody waited for."""
        self._wakeup.close()
        try:
            self._spool.delete(self.queue)
        except (QueueError, OSError) as error:
            # It goes when it is found to have no owner.
            log_event(log, logging.WARNING, None, 'not removed', queue=self.queue, error=error)
        finally:
            self._owner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
