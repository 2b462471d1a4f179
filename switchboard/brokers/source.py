"""Where the messages of a broker's queue come from, one at a time, and which of them this process has.

Nothing is fetched ahead.  There are two exceptions, of one message and of few: what an idle runner found when it looked once more before sleeping is
the next that it takes, and what was put off (`ISwitchboard.hold`) is kept until its time, because a broker would give it out again at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from switchboard.brokers.arriving import entry_of, identity_of
from switchboard.brokers.claims import OWN_CLAIMS, BrokerClaim
from switchboard.brokers.headers import DUE
from switchboard.brokers.inlet import LONGEST_DELAY_S, post
from switchboard.brokers.wire import Delivery
from switchboard.errors import BrokerDownError, EntryTakenError, QueueError, UnknownQueueError
from switchboard.events import event
from switchboard.message.naming import NS

if TYPE_CHECKING:
    from switchboard.brokers.outlet import BrokerOutlet

log = logging.getLogger('switchboard.queue')

# Messages that are passed on the way to one that was asked for by name, and messages that may wait in our hands.
LOOK_AHEAD = 1000
MAX_PUT_OFF = 100


class LostClaimError(EntryTakenError):
    """The broker has taken back what this process had, and gives it out again."""


class Source:
    """The messages of one slice of a broker's queue."""

    def __init__(self, board: BrokerOutlet) -> None:
        self._board = board
        self._next: BrokerClaim | None = None
        self._put_off: dict[str, int] = {}
        self._waiting: dict[str, BrokerClaim] = {}
        self._turn = 0
        self._owed: list[BrokerClaim] = []

    def _key(self, filebase: str) -> tuple[str, str, str]:
        return self._board.url.shown, self._board.all_queues[0], filebase

    # What comes.

    def next(self) -> BrokerClaim | None:
        """Take the next message that may be worked on; None if there is none now."""
        self._pay()
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
        queue = self._board.queue_of(filebase)
        while len(passed) < LOOK_AHEAD and (claim := self._get_from(queue)) is not None:
            if claim.filebase == filebase:
                found = claim
                break
            passed.append(claim)
        for claim in reversed(passed):
            self._give_back(claim)
        return found

    def _get(self) -> BrokerClaim | None:
        queues = self._board.broker_queues
        for _ in queues:
            claim = self._get_from(queues[self._turn % len(queues)])
            if claim is not None:
                return claim
            self._turn += 1
        return None

    def _get_from(self, queue: str) -> BrokerClaim | None:
        board = self._board
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
        board, digest = self._board, identity_of(delivery)
        deaths = self._deaths(delivery, digest)
        is_at_work = board.ledger.has(digest)  # given out again to its own holder
        board.ledger.begin(digest)
        try:
            options = board.options
            entry = entry_of(
                delivery, options.max_body_bytes, as_it_came=deaths >= max(1, options.max_recoveries)
            )
        finally:
            if not is_at_work:
                board.ledger.end(digest)
        entry.queue = board.name
        return BrokerClaim(board.link, delivery, entry, deaths=deaths)

    def _deaths(self, delivery: Delivery, digest: str) -> int:
        if self._board.link.counts_deaths:
            return delivery.deaths or 0
        if not delivery.redelivered:
            return 0
        self._board.ledger.collect()
        return self._board.ledger.deaths(digest)

    def _is_over(self, claim: BrokerClaim) -> bool:
        """Deal with a message that is not to be worked on now."""
        board = self._board
        ours = OWN_CLAIMS.get(self._key(claim.filebase)) or self._waiting.get(claim.filebase)
        if ours is not None and not (ours.holds() and not board.link.is_same(ours.delivery, claim.delivery)):
            # What we have was taken from us, by a lost connection or a lease that ran out, and now it is given to us again.
            ours.link, ours.delivery = claim.link, claim.delivery
            event(log, logging.INFO, claim.filebase, 'redelivered', queue=board.name)
            return True
        if ours is not None or board.is_done(claim.filebase):
            # Published twice, or done before its producer, or the broker, heard of that.
            event(log, logging.INFO, claim.filebase, 'duplicate', queue=board.name)
            self._owed.append(claim)
            self._pay()
            return True
        due_s = claim.delivery.headers.get(DUE)
        now_s = board.clock.time_ns() / NS
        if isinstance(due_s, int | float) and due_s > now_s + 1:
            delay_s = min(due_s, now_s + LONGEST_DELAY_S) - now_s  # the number may be anybody's
            post([board.posted_again(claim, claim.filebase, (), delay_s)])
            self._owed.append(claim)
            self._pay()
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
        now_ns = self._board.clock.monotonic_ns()
        if len(self._put_off) > MAX_PUT_OFF:
            self._put_off = {one: until_ns for one, until_ns in self._put_off.items() if until_ns > now_ns}
        self._put_off[filebase] = now_ns + int(seconds * NS)

    def _is_put_off(self, claim: BrokerClaim) -> bool:
        until_ns = self._put_off.get(claim.filebase)
        if until_ns is None:
            return False
        if until_ns > self._board.clock.monotonic_ns():
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
        board = self._board
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

    def owe(self, claim: BrokerClaim) -> None:
        """Acknowledge a message when the broker is back.  Until then it is held, as far as the broker is concerned."""
        self.let_go(claim)
        self._owed.append(claim)

    def _pay(self) -> None:
        while self._owed:
            try:
                self._board.link.ack(self._owed[0].delivery)
            except EntryTakenError as error:
                event(log, logging.DEBUG, self._owed[0].filebase, 'not acknowledged', error=error)
            del self._owed[0]

    # What is held.

    def hold(self, claim: BrokerClaim) -> None:
        """From now on the message is at work."""
        OWN_CLAIMS[self._key(claim.filebase)] = claim
        self._board.ledger.begin(claim.identity)

    def held(self, filebase: str) -> BrokerClaim:
        """:raises EntryTakenError: this process has no such claim, or has lost it."""
        claim = OWN_CLAIMS.get(self._key(filebase))
        if claim is not None and not claim.holds():
            self.let_go(claim)
            raise LostClaimError(
                'the connection was lost: the broker gives it out again',
                queue=self._board.name,
                filebase=filebase,
            )
        if claim is None:
            raise EntryTakenError('not held by this process', queue=self._board.name, filebase=filebase)
        return claim

    def let_go(self, claim: BrokerClaim) -> None:
        """From now on the message is not ours."""
        OWN_CLAIMS.pop(self._key(claim.filebase), None)
        self._board.ledger.end(claim.identity)

    def claimed(self) -> list[str]:
        """:return: the filebases that this process holds of this slice's queues."""
        address, first, _ = self._key('')
        queues = set(self._board.broker_queues)
        return sorted(
            filebase
            for (one, other, filebase), claim in list(OWN_CLAIMS.items())
            if (one, other) == (address, first) and claim.delivery.queue in queues and claim.holds()
        )

    def close(self) -> None:
        """Give back what was looked at and not taken."""
        try:
            self._pay()
        except BrokerDownError as error:
            event(log, logging.WARNING, None, 'not acknowledged', number=len(self._owed), error=error)
        self._unwait()
