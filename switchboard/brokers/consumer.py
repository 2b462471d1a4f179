"""What this process holds of queues on brokers.

As with a directory, it is the process that holds an entry, and not the object by which it was taken: any object of the same queue may
finish it.  So claims stand in one table, by broker, queue and filebase.  A fork leaves them with the parent.

Where the messages of a broker's queue come from, one at a time, and which of them this process has.

Nothing is fetched ahead.  There are two exceptions, of one message and of few: what an idle runner found when it looked once more before sleeping is
the next that it takes, and what was put off (`ISwitchboard.hold`) is kept until its time, because a broker would give it out again at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from switchboard.brokers.connection import Connection
from switchboard.brokers.decode import entry_of, identity_of
from switchboard.brokers.delivery_counts import DeliveryCounts
from switchboard.brokers.message import DUE, Delivery
from switchboard.brokers.producer import LONGEST_DELAY_S, BrokerProducer, publish
from switchboard.errors import BrokerDownError, EntryTakenError, QueueError, UnknownQueueError
from switchboard.events import event
from switchboard.message.entry import Entry
from switchboard.message.naming import NS, digest_of


@dataclass(slots=True, eq=False)
class BrokerClaim:
    """A delivery, the connection by which it came, and the entry that it is.

    :ivar is_changed: its history is another one than the broker's message says.
    :ivar deaths: how many holders of it have died since it was given out first.
    """

    link: Connection
    delivery: Delivery
    entry: Entry
    is_changed: bool = False
    deaths: int = 0

    @property
    def filebase(self) -> str:
        """The entry's name."""
        return self.entry.filebase

    @property
    def digest(self) -> str:
        """The entry's identity."""
        return digest_of(self.entry.filebase)

    @property
    def identity(self) -> str:
        """What deaths are counted by."""
        return identity_of(self.delivery)

    def read(self) -> Entry:
        """:return: the entry, as `Claim.read` does."""
        return self.entry

    def holds(self) -> bool:
        """Is it still ours?"""
        return self.link.holds(self.delivery)

    def note(self, record: dict[str, Any]) -> None:
        """Add a record to the history; the broker has_message of it when the message is given back, or preserved."""
        self.entry.records.append(record)
        self.is_changed = True


# By broker, queue and filebase.
OWN_CLAIMS: dict[tuple[str, str, str], BrokerClaim] = {}

os.register_at_fork(after_in_child=OWN_CLAIMS.clear)


log = logging.getLogger('switchboard.queue')

# Messages that are passed on the way to one that was asked for by name, and messages that may wait in our hands.
LOOK_AHEAD = 1000
MAX_PUT_OFF = 100


class ConnectionLostError(EntryTakenError):
    """The broker has taken back what this process had, and gives it out again."""


class Source:
    """The messages of one slice of a broker's queue.

    :param delivery_counts: where it is noted what this process holds.
    :param is_done: was an entry done already?
    """

    def __init__(
        self, queue: BrokerProducer, delivery_counts: DeliveryCounts, is_done: Callable[[str], bool]
    ) -> None:
        self._queue = queue
        self._delivery_counts = delivery_counts
        self._is_done = is_done
        self._next: BrokerClaim | None = None
        self._put_off: dict[str, int] = {}
        self._waiting: dict[str, BrokerClaim] = {}
        self._turn = 0
        self._acks: list[BrokerClaim] = []

    def _key(self, filebase: str) -> tuple[str, str, str]:
        return self._queue.url.shown, self._queue.all_queues[0], filebase

    # What comes.

    def next(self) -> BrokerClaim | None:
        """Take the next message that may be worked on; None if there is none now."""
        self._flush_acks()
        if (claim := self._due_again()) is not None:
            return claim
        claim, self._next = self._next, None
        if claim is not None and claim.holds():
            return claim
        while (claim := self._get()) is not None:
            if not self._is_put_off(claim):
                return claim
            if len(self._waiting) >= MAX_PUT_OFF:
                self._give_back(claim)
                return None
            self._waiting[claim.filebase] = claim
        return None

    def look(self) -> bool:
        """Is there something to take?  If so, it is the next that is taken."""
        if self._next is None or not self._next.holds():
            self._next = self.next()
        return self._next is not None

    def find(self, filebase: str) -> BrokerClaim | None:
        """Take one message out of turn; those before it go back to where they were."""
        if self._key(filebase) in OWN_CLAIMS:
            return None
        self._unwait()
        passed: list[BrokerClaim] = []
        found = None
        queue = self._queue.queue_of(filebase)
        while len(passed) < LOOK_AHEAD and (claim := self._get_from(queue)) is not None:
            if claim.filebase == filebase:
                found = claim
                break
            passed.append(claim)
        for claim in reversed(passed):
            self._give_back(claim)
        return found

    def _get(self) -> BrokerClaim | None:
        queues = self._queue.broker_queues
        for _ in queues:
            claim = self._get_from(queues[self._turn % len(queues)])
            if claim is not None:
                return claim
            self._turn += 1
        return None

    def _get_from(self, queue: str) -> BrokerClaim | None:
        board = self._queue
        while True:
            board.declare([queue])
            try:
                delivery = board.link.get(queue)
            except UnknownQueueError:
                if not board.url.declare:
                    raise
                board.declare([queue], anew=True)
                return None
            if delivery is None:
                return None
            claim = self._decoded(delivery)
            if not self._is_over(claim):
                return claim

    def _decoded(self, delivery: Delivery) -> BrokerClaim:
        """Make a claim of a delivery.

        A body may kill this process, or stall it until it is killed, while it is decompressed and decoded.  So that is noted before, as a message
        at work is; and what has had its deaths is not decoded any more.
        """
        board, digest = self._queue, identity_of(delivery)
        deaths = self._deaths(delivery, digest)
        is_at_work = self._delivery_counts.has(digest)  # given out again to its own holder
        self._delivery_counts.begin(digest)
        try:
            options = board.options
            entry = entry_of(
                delivery, options.max_body_bytes, as_it_came=deaths >= max(1, options.max_recoveries)
            )
        finally:
            if not is_at_work:
                self._delivery_counts.end(digest)
        entry.queue = board.name
        return BrokerClaim(board.link, delivery, entry, deaths=deaths)

    def _deaths(self, delivery: Delivery, digest: str) -> int:
        if self._queue.link.counts_deaths:
            return delivery.deaths or 0
        if not delivery.redelivered:
            return 0
        self._delivery_counts.collect()
        return self._delivery_counts.deaths(digest)

    def _is_over(self, claim: BrokerClaim) -> bool:
        """Deal with a message that is not to be worked on now."""
        board = self._queue
        ours = OWN_CLAIMS.get(self._key(claim.filebase)) or self._waiting.get(claim.filebase)
        if ours is not None and not (ours.holds() and not board.link.is_same(ours.delivery, claim.delivery)):
            # What we have was taken from us, by a lost connection or a lease that ran out, and now it is given to us again.
            ours.link, ours.delivery = claim.link, claim.delivery
            event(log, logging.INFO, claim.filebase, 'redelivered', queue=board.name)
            return True
        if ours is not None or self._is_done(claim.filebase):
            # Published twice, or done before its producer, or the broker, heard of that.
            event(log, logging.INFO, claim.filebase, 'duplicate', queue=board.name)
            self._acks.append(claim)
            self._flush_acks()
            return True
        due_s = claim.delivery.headers.get(DUE)
        now_s = board.clock.time_ns() / NS
        if isinstance(due_s, int | float) and due_s > now_s + 1:
            delay_s = min(due_s, now_s + LONGEST_DELAY_S) - now_s  # the number may be anybody's
            publish([board.prepare_again(claim.entry, claim.filebase, (), delay_s)])
            self._acks.append(claim)
            self._flush_acks()
            return True
        return False

    def _give_back(self, claim: BrokerClaim) -> None:
        try:
            claim.link.requeue(claim.delivery)
        except EntryTakenError:
            pass  # the broker has it already

    # What is put off.

    def put_off(self, filebase: str, seconds: float) -> None:
        """Do not take an entry for a while."""
        now_ns = self._queue.clock.monotonic_ns()
        if len(self._put_off) > MAX_PUT_OFF:
            self._put_off = {one: until_ns for one, until_ns in self._put_off.items() if until_ns > now_ns}
        self._put_off[filebase] = now_ns + int(seconds * NS)

    def _is_put_off(self, claim: BrokerClaim) -> bool:
        until_ns = self._put_off.get(claim.filebase)
        if until_ns is None:
            return False
        if until_ns > self._queue.clock.monotonic_ns():
            return True
        del self._put_off[claim.filebase]
        return False

    def _due_again(self) -> BrokerClaim | None:
        for filebase, claim in list(self._waiting.items()):
            if not claim.holds():
                del self._waiting[filebase]
            elif not self._is_put_off(claim):
                del self._waiting[filebase]
                return claim
        return None

    def wait_s(self) -> float | None:
        """:return: seconds until a message that is there may be taken."""
        board = self._queue
        waits = [
            (self._put_off.get(filebase, 0) - board.clock.monotonic_ns()) / NS for filebase in self._waiting
        ]
        try:
            waits += [
                due_s for queue in board.broker_queues if (due_s := board.link.next_due_s(queue)) is not None
            ]
        except QueueError as error:
            event(log, logging.DEBUG, None, 'not read', queue=board.name, error=error)
        return max(0.0, min(waits)) if waits else None

    def _unwait(self) -> None:
        claims = [*self._waiting.values(), *([self._next] if self._next is not None else [])]
        self._waiting.clear()
        self._next = None
        for claim in reversed(claims):
            self._give_back(claim)

    # What is done, while the broker was away.

    def ack_later(self, claim: BrokerClaim) -> None:
        """Acknowledge a message when the broker is back.  Until then it is held, as far as the broker is concerned."""
        self.let_go(claim)
        self._acks.append(claim)

    def _flush_acks(self) -> None:
        while self._acks:
            try:
                self._queue.link.ack(self._acks[0].delivery)
            except EntryTakenError as error:
                event(log, logging.DEBUG, self._acks[0].filebase, 'not acknowledged', error=error)
            del self._acks[0]

    # What is held.

    def hold(self, claim: BrokerClaim) -> None:
        """From now on the message is at work."""
        OWN_CLAIMS[self._key(claim.filebase)] = claim
        self._delivery_counts.begin(claim.identity)

    def held(self, filebase: str) -> BrokerClaim:
        """:raises EntryTakenError: this process has no such claim, or has lost it."""
        claim = OWN_CLAIMS.get(self._key(filebase))
        if claim is not None and not claim.holds():
            self.let_go(claim)
            raise ConnectionLostError(
                'the connection was lost: the broker gives it out again',
                queue=self._queue.name,
                filebase=filebase,
            )
        if claim is None:
            raise EntryTakenError('not held by this process', queue=self._queue.name, filebase=filebase)
        return claim

    def let_go(self, claim: BrokerClaim) -> None:
        """From now on the message is not ours."""
        OWN_CLAIMS.pop(self._key(claim.filebase), None)
        self._delivery_counts.end(claim.identity)

    def claimed(self) -> list[str]:
        """:return: the filebases that this process holds of this slice's queues."""
        address, first, _ = self._key('')
        queues = set(self._queue.broker_queues)
        return sorted(
            filebase
            for (one, other, filebase), claim in list(OWN_CLAIMS.items())
            if (one, other) == (address, first) and claim.delivery.queue in queues and claim.holds()
        )

    def close(self) -> None:
        """Give back what was looked at and not taken."""
        try:
            self._flush_acks()
        except BrokerDownError as error:
            event(log, logging.WARNING, None, 'not acknowledged', number=len(self._acks), error=error)
        self._unwait()
