"""Unacknowledged messages: each is a claim that this process holds.

A claim ends when it is acknowledged (the entry is done), rejected (it goes to the dead letters, by default the bad queue), given back (it is
ready again, under its old name), or when the process dies: then the kernel drops its lock, and it is ready again as soon as another
consumer looks.  A consumer that lives and is slow keeps it; there is no time-out.

So a claim that the disk refuses to end would stay for as long as this process lives, and take room that its consumer needs.  The caller of
``ack`` gets an error, and often cannot help it (Celery writes it to its log): the transport tries again, now and then, until the disk obeys.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from kombu.transport.virtual import QoS

from switchboard.errors import EntryTakenError, QueueError
from switchboard.events import log_event
from switchboard.kombu_transport.errors import amqp_errors
from switchboard.kombu_transport.payload import FAILED, REQUEUED, RETURNED, was_delivered
from switchboard.message.journal import count_since_retry
from switchboard.queue.switchboard import Switchboard
from switchboard.store.claims import OWN_CLAIMS, claim_of

log = logging.getLogger('switchboard.queue')

# Descriptors that a process needs for other things than messages in its hands.
SPARE_FILES = 256


@cache
def max_claims() -> int:
    """:return: how many messages this process may hold, in all its channels, each of which is an open file.

    Their number is that of the hard limit: the soft one is raised when it is met.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else max(1, hard - SPARE_FILES)


# From this part of them on, a task whose time has not come waits in its queue and not in a worker's hands: the rest is for tasks that are due.
CROWDED = 0.75

# How long after a warning that messages wait for files the next one is due.
WARN_AGAIN_S = 60.0


@dataclass(slots=True, eq=False)
class UnackedMessage:
    """A message in a consumer's hands.

    :param limit: how often it may fail; 0 is for ever.
    """

    queue: Switchboard
    filebase: str
    limit: int

    @property
    def is_claimed(self) -> bool:
        """Does this process hold the message?  A child after a fork does not."""
        return claim_of(self.queue.folder, self.filebase) is not None

    def finish(self) -> None:
        """Acknowledge it."""
        self.queue.finish(self.filebase)

    def reject(self) -> None:
        """Put it where dead letters go."""
        self.queue.finish(self.filebase, preserve=True, cause='rejected', reason='rejected by its consumer')

    def requeue(self) -> None:
        """Give it back to be delivered again, unless that was done too often."""
        count = count_since_retry(self.queue.history(self.filebase), *FAILED) + 1
        if 0 < self.limit <= count:
            reason = f'given back {count} times by its consumers'
            self.queue.finish(self.filebase, preserve=True, cause='attempts', reason=reason)
        else:
            self.queue.release(self.filebase, record={'event': REQUEUED})

    def give_back(self) -> None:
        """Give it back because the consumer closes: not held against it, but it may have been begun."""
        known = was_delivered(self.queue.history(self.filebase))
        self.queue.release(self.filebase, record=None if known else {'event': RETURNED})


Ending = Callable[[UnackedMessage], None]

# What the disk refused to end when its channel ended, in this process.
_LEFT: deque[tuple[UnackedMessage, Ending]] = deque()


def retry_later(unacked: UnackedMessage, how: Ending) -> None:
    """Have it ended later, by whichever connection of this process looks next."""
    log_event(log, logging.ERROR, unacked.filebase, 'disk refused', queue=unacked.queue.name)
    _LEFT.append((unacked, how))


def retry_refused_endings() -> None:
    """Try again to end the claims given to :meth:`retry_later`."""
    for _ in range(len(_LEFT)):
        try:
            unacked, how = _LEFT.popleft()
        except IndexError:  # another thread does the same
            return
        if not _is_ended(unacked, how):
            _LEFT.append((unacked, how))


def end_claim(unacked: UnackedMessage, how: Ending) -> None:
    """End a claim, unless it has ended already, is the parent's, or is over because somebody has taken its file away: to AMQP, none of these is an error.

    :raises QueueError: the disk refuses it.
    :raises OSError: the same.
    """
    if not unacked.is_claimed:
        return
    try:
        how(unacked)
    except EntryTakenError as error:
        log_event(log, logging.WARNING, unacked.filebase, 'claim lost', queue=unacked.queue.name, error=error)


def _is_ended(unacked: UnackedMessage, how: Ending) -> bool:
    try:
        if unacked.is_claimed:
            end_claim(unacked, how)
            log_event(log, logging.INFO, unacked.filebase, 'disk back', queue=unacked.queue.name)
    except (QueueError, OSError):
        return False
    return True


class UnackedMessages(QoS):
    """The unacknowledged messages of one channel, and how many it may have.  See `kombu.transport.virtual.QoS`."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self.claims: dict[Any, UnackedMessage] = {}
        # How those were to end that the disk refused.
        self._refused: dict[Any, Ending] = {}
        self._next_warning_s = 0.0

    def can_consume(self) -> bool:
        """Is there room for one more message?"""
        return self.can_consume_max_estimate() > 0

    def can_consume_max_estimate(self) -> int:
        """:return: for how many messages there is room."""
        limit: int = self.prefetch_count or self.channel.spool_connection.address.max_unacked
        files = max_claims() - len(OWN_CLAIMS)
        if files <= 0 < limit - len(self.claims):
            self._warn_of_files(len(OWN_CLAIMS))
        return max(0, min(limit - len(self.claims), files))

    def _warn_of_files(self, count: int) -> None:
        """Say, now and then, that nothing more is taken: the held messages may be tasks that wait for their time, and others wait behind them."""
        now_s = time.monotonic()
        if now_s < self._next_warning_s:
            return
        self._next_warning_s = now_s + WARN_AGAIN_S
        advice = 'raise its limit of open files (LimitNOFILE=, ulimit -Hn), or have tasks with an ETA wait in their queue: eta=broker in the URL'
        log_event(log, logging.WARNING, None, 'file limit reached', held=count, advice=advice)

    def is_crowded(self) -> bool:
        """Does this process hold so many messages that it should take none which only wait for their time?"""
        return len(OWN_CLAIMS) > max_claims() * CROWDED

    def __len__(self) -> int:
        return len(self.claims)

    def __bool__(self) -> bool:
        return True

    def add(self, tag: Any, message: Any, unacked: UnackedMessage) -> None:
        """Note a delivery."""
        self.claims[tag] = unacked
        self._delivered[tag] = message

    def ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        """See `QoS`."""
        for tag in self._up_to(delivery_tag) if multiple else (delivery_tag,):
            self._end(tag, UnackedMessage.finish, 'Basic.ack')

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        """See `QoS`."""
        self._end(delivery_tag, UnackedMessage.requeue if requeue else UnackedMessage.reject, 'Basic.reject')

    def _up_to(self, last: Any) -> list[Any]:
        tags = list(self.claims)
        return tags[: tags.index(last) + 1] if last in self.claims else []

    def _end(self, tag: Any, how: Ending, method: str) -> None:
        channel = self.channel
        with channel.spool_connection.lock, amqp_errors(method):
            unacked = self.claims.get(tag)
            if unacked is None:
                self._forget(tag)
                return
            try:
                end_claim(unacked, how)
            except (QueueError, OSError):
                self._refused[tag] = how
                raise
            self._forget(tag)
        channel.connection.wake_for_capacity()

    def end_refused(self) -> None:
        """Try again to end what the disk refused to end."""
        for tag, how in list(self._refused.items()):
            unacked = self.claims.get(tag)
            if unacked is None or _is_ended(unacked, how):
                self._forget(tag)
                self.channel.connection.wake_for_capacity()

    def _forget(self, tag: Any) -> None:
        self.claims.pop(tag, None)
        self._delivered.pop(tag, None)
        self._refused.pop(tag, None)

    def restore_unacked(self) -> list[tuple[BaseException, Any]]:
        """Give all back, but those that were to end otherwise."""
        errors: list[tuple[BaseException, Any]] = []
        with self.channel.spool_connection.lock:
            for tag, unacked in list(self.claims.items()):
                message = self._delivered.get(tag)
                how = self._refused.get(tag, UnackedMessage.give_back)
                try:
                    end_claim(unacked, how)
                except (QueueError, OSError) as error:
                    retry_later(unacked, how)
                    errors.append((error, message))
                self._forget(tag)
        return errors

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give all back, at the end of the channel or of the process."""
        self._on_collect.cancel()
        if self.channel.do_restore:
            self.restore_unacked()
