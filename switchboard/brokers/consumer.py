"""The messages of a queue on a broker, taken one at a time, and which of them this process holds.

As with a directory, the process holds an entry, and not the object by which it was taken: any object of the same queue may
finish it.  So claims stand in one table, by broker, queue and filebase.  A fork leaves them with the parent.

Any number of threads may take: one at a time fetches and chooses, and what it takes is in that table before the next one looks, so that a message that
was given out twice is found there.

Nothing is fetched ahead.  There are two exceptions, of one message and of few: what an idle runner found when it looked once more before sleeping is
the next that it takes, and a deferred message (`ISwitchboard.defer`) is kept until its time, because a broker would give it out again at once.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from dataclasses import dataclass
from typing import Any

from switchboard.brokers.connection import Connection
from switchboard.brokers.decode import entry_of, identity_of
from switchboard.brokers.delivery_counts import DeliveryCounts
from switchboard.brokers.message import DUE_HEADER, Delivery
from switchboard.brokers.producer import BrokerProducer, publish
from switchboard.errors import (
    BrokerDownError,
    EntryTakenError,
    QueueError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.events import log_event
from switchboard.handoff.deduplication import Dedupe
from switchboard.message.entry import Entry
from switchboard.message.naming import LONGEST_DELAY_S, NS_PER_S, digest_of, key_digest
from switchboard.queue.consumer import LOOK_AGAIN_S
from switchboard.store.forks import after_fork


@dataclass(slots=True, eq=False)
class BrokerClaim:
    """A delivery, the connection by which it came, and the entry that it is.

    :ivar is_changed: its history is another one than the broker's message says.
    :ivar deaths: how many holders of it have died since it was given out first.
    """

    connection: Connection
    delivery: Delivery
    entry: Entry
    is_changed: bool = False
    deaths: int = 0

    @property
    def filebase(self) -> str:
        """The entry's name."""
        return self.entry.filebase

    @property
    def identity(self) -> str:
        """The key by which its deaths are counted."""
        return identity_of(self.delivery)

    def read(self) -> Entry:
        """:return: the entry, as `Claim.read` does."""
        return self.entry

    @property
    def history(self) -> Entry:
        """The entry, whose records came with it."""
        return self.entry

    def is_ours(self) -> bool:
        """Does this process still have the message?"""
        return self.connection.is_ours(self.delivery)

    def note(self, record: dict[str, Any]) -> None:
        """Add a record to the history; the broker gets it when the message is given back, or preserved."""
        self.entry.records.append(record)
        self.is_changed = True


# By broker, queue and filebase.
OWN_CLAIMS: dict[tuple[str, str, str], BrokerClaim] = {}

os.register_at_fork(after_in_child=OWN_CLAIMS.clear)


log = logging.getLogger('switchboard.queue')

# Messages that are passed on the way to one that was asked for by name, and messages that may wait in our hands.
LOOK_AHEAD = 1000
MAX_DEFERRED = 100


class ConnectionLostError(EntryTakenError):
    """The broker has taken back what this process had, and gives it out again."""


class BrokerConsumer:
    """The messages of one slice of a broker's queue.

    :param delivery_counts: where it is noted what this process holds.
    :param markers: of finished messages, if the queue is a spool's.
    """

    def __init__(
        self, producer: BrokerProducer, delivery_counts: DeliveryCounts, markers: Dedupe | None = None
    ) -> None:
        self._producer = producer
        self._delivery_counts = delivery_counts
        self._markers = markers
        self._peeked: BrokerClaim | None = None
        self._deferred: dict[str, int] = {}
        self._waiting: dict[str, BrokerClaim] = {}
        self._turn = 0
        self._lock = threading.RLock()
        _CONSUMERS.add(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # another thread of the parent's may have had it

    def _key(self, filebase: str) -> tuple[str, str, str]:
        return self._producer.url.shown, self._producer.all_queues[0], filebase

    # What comes.

    def take(self) -> BrokerClaim | None:
        """Take the next message that may be worked on; it is at work from now on.  None if there is none now."""
        with self._lock:
            return self._registered(self._next())

    def _next(self) -> BrokerClaim | None:
        self._producer.connection.flush_acks()
        if (claim := self._due_again()) is not None:
            return claim
        claim, self._peeked = self._peeked, None
        if claim is not None and claim.is_ours():
            return claim
        while (claim := self._get()) is not None:
            if not self._is_deferred(claim):
                return claim
            if len(self._waiting) >= MAX_DEFERRED:
                self._give_back(claim)
                return None
            self._waiting[claim.filebase] = claim
        return None

    def has_next(self) -> bool:
        """Is there something to take?  If so, it is the next that is taken."""
        with self._lock:
            if self._peeked is None or not self._peeked.is_ours():
                self._peeked = self._next()
            return self._peeked is not None

    def find(self, filebase: str) -> BrokerClaim | None:
        """Take one message out of turn; those before it go back to where they were."""
        with self._lock:
            return self._registered(self._find(filebase))

    def _find(self, filebase: str) -> BrokerClaim | None:
        if self._key(filebase) in OWN_CLAIMS:
            return None
        self._unwait()
        passed: list[BrokerClaim] = []
        found = None
        queue = self._producer.queue_of(filebase)
        try:
            while len(passed) < LOOK_AHEAD and (claim := self._get_from(queue)) is not None:
                if claim.filebase == filebase and self._due_in_s(claim) is None:
                    found = claim
                    break
                passed.append(claim)
                if claim.filebase == filebase:
                    break
        finally:
            for claim in reversed(passed):
                self._give_back(claim)
        return found

    def _get(self) -> BrokerClaim | None:
        queues = self._producer.broker_queues
        for _ in queues:
            claim = self._get_from(queues[self._turn % len(queues)])
            if claim is not None:
                return claim
            self._turn += 1
        return None

    def _get_from(self, queue: str) -> BrokerClaim | None:
        producer = self._producer
        while True:
            producer.declare([queue])
            try:
                delivery = producer.connection.get(queue)
            except UnknownQueueError:
                if not producer.url.declare:
                    raise
                producer.declare([queue], redeclare=True)
                return None
            if delivery is None:
                return None
            claim = self._decoded(delivery)
            try:
                # Redelivered to the process that holds it; a duplicate, or done; or not due.
                if not (self._is_redelivered(claim) or self._is_known(claim) or self._is_early(claim)):
                    return claim
            except BaseException:
                self._give_back(claim)  # nobody has it in hand: it would be ours for as long as we live
                raise

    def _decoded(self, delivery: Delivery) -> BrokerClaim:
        """Make a claim of a delivery.

        A body may kill this process, or stall it until it is killed, while it is decompressed and decoded.  So that is noted before, as a message
        at work is; and a message that has had its deaths is not decoded any more.
        """
        producer, digest = self._producer, identity_of(delivery)
        deaths = self._deaths(delivery, digest)
        is_at_work = self._delivery_counts.is_claimed(digest)  # given out again to its own holder
        self._delivery_counts.note_claimed(digest)
        try:
            options = producer.options
            entry = entry_of(
                delivery, options.max_body_bytes, undecoded=deaths >= max(1, options.max_recoveries)
            )
        finally:
            if not is_at_work:
                self._delivery_counts.note_ended(digest)
        entry.queue = producer.name
        return BrokerClaim(producer.connection, delivery, entry, deaths=deaths)

    def _deaths(self, delivery: Delivery, digest: str) -> int:
        if self._producer.connection.counts_deaths:
            return delivery.deaths or 0
        if not delivery.redelivered:
            return 0
        self._delivery_counts.collect_dead_holders()
        return self._delivery_counts.deaths(digest)

    def _own(self, claim: BrokerClaim) -> BrokerClaim | None:
        return OWN_CLAIMS.get(self._key(claim.filebase)) or self._waiting.get(claim.filebase)

    def _is_redelivered(self, claim: BrokerClaim) -> bool:
        """Was the message lost by this process, with its connection or by a lease that ran out?  The process has it again."""
        own = self._own(claim)
        if own is None or (
            own.is_ours() and not claim.connection.is_redelivery(own.delivery, claim.delivery)
        ):
            return False
        own.connection, own.delivery = claim.connection, claim.delivery
        log_event(log, logging.INFO, claim.filebase, 'redelivered', queue=self._producer.name)
        return True

    def _is_known(self, claim: BrokerClaim) -> bool:
        """Was the message published twice, or done before its producer, or the broker, learned of that?  It is acknowledged."""
        markers = self._markers
        if self._own(claim) is None and (
            markers is None or markers.find(key_digest(digest_of(claim.filebase))) is None
        ):
            return False
        log_event(log, logging.INFO, claim.filebase, 'duplicate', queue=self._producer.name)
        self._ack(claim)
        return True

    def _is_early(self, claim: BrokerClaim) -> bool:
        """Is the message not due yet?  The broker keeps it for the rest of its time; while it cannot, the message is deferred here."""
        if (delay_s := self._due_in_s(claim)) is None:
            return False
        try:
            publish([self._producer.prepare_entry(claim.entry, delay_s=delay_s)])
        except SwitchboardError as error:
            # Given back, it would be the next one again, and stop all behind it.
            if claim.filebase not in self._waiting:
                log_event(
                    log,
                    logging.WARNING,
                    claim.filebase,
                    'not delayed',
                    queue=self._producer.name,
                    error=error,
                )
            self.defer(claim.filebase, LOOK_AGAIN_S)
            return False
        self._ack(claim)
        return True

    def _due_in_s(self, claim: BrokerClaim) -> float | None:
        """:return: how long the message is to be delayed; None if its time has come."""
        due_s = claim.delivery.headers.get(DUE_HEADER)
        now_s = self._producer.clock.time_ns() / NS_PER_S
        # The header may be anybody's, and a message that cannot be read must not go out again as if it could.
        if not isinstance(due_s, int | float) or claim.entry.damage is not None:
            return None
        if due_s <= now_s + 1 or (isinstance(due_s, float) and math.isnan(due_s)):
            return None
        return min(due_s, now_s + LONGEST_DELAY_S) - now_s

    def _ack(self, claim: BrokerClaim) -> None:
        claim.connection.ack_later(claim.delivery)
        claim.connection.flush_acks()

    def _give_back(self, claim: BrokerClaim) -> None:
        try:
            claim.connection.requeue(claim.delivery)
        except EntryTakenError:
            pass  # the broker has it already

    # Deferred messages.

    def defer(self, filebase: str, seconds: float) -> None:
        """Do not take an entry for a while."""
        now_ns = self._producer.clock.monotonic_ns()
        with self._lock:
            if len(self._deferred) > MAX_DEFERRED:
                self._deferred = {
                    one: until_ns for one, until_ns in self._deferred.items() if until_ns > now_ns
                }
            self._deferred[filebase] = now_ns + int(seconds * NS_PER_S)

    def _is_deferred(self, claim: BrokerClaim) -> bool:
        until_ns = self._deferred.get(claim.filebase)
        if until_ns is None:
            return False
        if until_ns > self._producer.clock.monotonic_ns():
            return True
        del self._deferred[claim.filebase]
        return False

    def _due_again(self) -> BrokerClaim | None:
        for filebase, claim in list(self._waiting.items()):
            if not claim.is_ours():
                del self._waiting[filebase]
            elif not self._is_deferred(claim):
                if self._is_early(claim):
                    del self._waiting[filebase]
                elif not self._is_deferred(claim):
                    return self._waiting.pop(filebase)
        return None

    def wait_s(self) -> float | None:
        """:return: seconds until a message that is there may be taken."""
        producer = self._producer
        waits = [
            (self._deferred.get(filebase, 0) - producer.clock.monotonic_ns()) / NS_PER_S
            for filebase in list(self._waiting)
        ]
        try:
            waits += [
                due_s
                for queue in producer.broker_queues
                if (due_s := producer.connection.next_due_s(queue)) is not None
            ]
        except QueueError as error:
            log_event(log, logging.DEBUG, None, 'not read', queue=producer.name, error=error)
        return max(0.0, min(waits)) if waits else None

    def _unwait(self) -> None:
        claims = [*self._waiting.values(), *([self._peeked] if self._peeked is not None else [])]
        self._waiting.clear()
        self._peeked = None
        for claim in reversed(claims):
            self._give_back(claim)

    def ack_later(self, claim: BrokerClaim) -> None:
        """Acknowledge a message when the broker is back.  Until then it is held, as far as the broker is concerned."""
        self.unregister(claim)
        claim.connection.ack_later(claim.delivery)

    # Held messages.

    def _registered(self, claim: BrokerClaim | None) -> BrokerClaim | None:
        """Have a message at work from now on, if there is one."""
        if claim is not None:
            OWN_CLAIMS[self._key(claim.filebase)] = claim
            self._delivery_counts.note_claimed(claim.identity)
        return claim

    def claim_of(self, filebase: str) -> BrokerClaim:
        """:raises EntryTakenError: this process has no such claim, or has lost it."""
        claim = OWN_CLAIMS.get(self._key(filebase))
        if claim is not None and not claim.is_ours():
            self.unregister(claim)
            raise ConnectionLostError(
                'the connection was lost: the broker gives it out again',
                queue=self._producer.name,
                filebase=filebase,
            )
        if claim is None:
            raise EntryTakenError('not held by this process', queue=self._producer.name, filebase=filebase)
        return claim

    def unregister(self, claim: BrokerClaim) -> None:
        """From now on the message is not ours."""
        OWN_CLAIMS.pop(self._key(claim.filebase), None)
        self._delivery_counts.note_ended(claim.identity)

    def claimed(self) -> list[str]:
        """:return: the filebases that this process holds of this slice's queues."""
        address, first, _ = self._key('')
        queues = set(self._producer.broker_queues)
        return sorted(
            filebase
            for (one, other, filebase), claim in list(OWN_CLAIMS.items())
            if (one, other) == (address, first) and claim.delivery.queue in queues and claim.is_ours()
        )

    def close(self) -> None:
        """Give back the messages that were looked at and not taken."""
        try:
            self._producer.connection.flush_acks()
        except BrokerDownError as error:
            log_event(log, logging.WARNING, None, 'not acknowledged', queue=self._producer.name, error=error)
        with self._lock:
            self._unwait()


_CONSUMERS = after_fork(BrokerConsumer._after_fork)
