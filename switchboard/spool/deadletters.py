"""Dead letters: entries that their queue cannot or may not keep go to the queue or exchange that ``dead_letter`` names.

The default is the bad queue, where entries stay until an operator looks at them.  An entry that goes to another queue is
ready there, and its history says where it came from, when, and why: ``rejected`` (its runner said so), ``attempts`` (it failed
too often), ``recoveries`` (its owners died), ``expired``, ``overflow``.  A file that cannot be read, or
may not be, goes to the bad queue in any case: another queue could do nothing with it.

Dead letters that go round in circles end in the bad queue, and so do those that their target does not take.

A program that comes from AMQP expects that a message whose time is over, or for which a bounded queue has no room, is gone unless
the queue has somewhere to send it; the bad queue would fill with what nobody will ever ask for.  A declaration says so by name, for
each cause; messages that were *rejected* are kept all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, Generic, Protocol, TypeVar

from switchboard.errors import SwitchboardError
from switchboard.events import log_event
from switchboard.handoff.moving import move, using_reservation
from switchboard.handoff.transaction import Transaction
from switchboard.message.entry import Entry
from switchboard.message.expiry import EXPIRES
from switchboard.message.journal import Record
from switchboard.message.metadata import load_metadata
from switchboard.queue.recovery import record_time
from switchboard.queue.switchboard import Switchboard
from switchboard.routing.bindings import EXCHANGE_PREFIX
from switchboard.routing.exchange import ExchangeTable
from switchboard.store.claims import Claim
from switchboard.store.limits import make_room

log = logging.getLogger('switchboard.queue')

# Coming back to the same queue for the same cause this often, an entry goes round in circles.
MAX_ROUNDS = 8


class DeadLetterSpool(Protocol):
    """The part of a spool that dead letters need."""

    @property
    def exchanges(self) -> ExchangeTable: ...

    def transaction(self, queue: Switchboard | None, filebase: str | None) -> Transaction: ...

    def __getitem__(self, name: str) -> Switchboard: ...


class DeadLetter(Protocol):
    """A claimed entry of a queue, in a directory or on a broker; its history has ``records``."""

    @property
    def filebase(self) -> str: ...

    @property
    def history(self) -> Any: ...

    def read(self) -> Entry: ...


L = TypeVar('L', bound=DeadLetter)


class DeadLetters(Generic[L]):
    """The dead letters of one queue.

    :param target: where they go, as ``dead_letter`` names it.
    :param send: stores an entry in the queues to which it goes, with what its history says: the cause, the reason, and by which exchange and key it went.
    :param key: the routing key by which an exchange routes them; by default the message's own, or the queue's name.
    """

    def __init__(
        self,
        spool: DeadLetterSpool,
        queue: str,
        target: str,
        send: Callable[[L, list[Switchboard], Record], None],
        key: str | None = None,
    ) -> None:
        self._spool = spool
        self._queue = queue
        self._target = target
        self._send = send
        self._key = key

    def __call__(self, claim: L, cause: str, reason: str) -> bool:
        """Send a claimed entry where the queue's dead letters go.

        :return: False if it is to go to the bad queue instead; it is still claimed then, unless its file is gone.
        """
        queue, target = self._queue, self._target
        rounds = sum(
            record.get('event') == 'dead-lettered'
            and record.get('queue') == queue
            and record.get('cause') == cause
            for record in claim.history.records
        )
        if rounds >= MAX_ROUNDS:
            log_event(log, logging.ERROR, claim.filebase, 'dead letter loop', queue=queue)
            return False
        filebase = claim.filebase
        try:
            names, route = self._route(claim)
            targets = [self._spool[name] for name in names]
            self._send(claim, targets, {'cause': cause, 'reason': reason, **route})
        except (SwitchboardError, OSError) as error:
            log_event(
                log, logging.ERROR, filebase, 'not dead-lettered', queue=queue, target=target, error=error
            )
            return False
        to = ','.join(names)
        log_event(
            log, logging.WARNING, filebase, 'dead-lettered', queue=queue, to=to, cause=cause, reason=reason
        )
        return True

    def _route(self, claim: L) -> tuple[tuple[str, ...], Record]:
        """:return: the queues that it goes to, and for its history the exchange and the key that said so, if one did."""
        exchange = self._target.removeprefix(EXCHANGE_PREFIX)
        if exchange == self._target:
            return (exchange,), {}
        entry = claim.read()
        metadata = entry.apply_history(load_metadata(entry.metadata))
        key = metadata.get('routing_key') if self._key is None else self._key
        key = key if isinstance(key, str) else self._queue
        names = self._spool.exchanges.route(exchange, key, metadata)
        return names, {'exchange': exchange, 'routing_key': key}


def store_dead_letter(
    spool: DeadLetterSpool, queue: Switchboard, claim: Claim, targets: list[Switchboard], fields: Record
) -> None:
    """Store a dead letter of a directory in the queues to which it goes, and end its claim, in one step."""
    if len(targets) == 1 and not targets[0].is_remote:
        reservation = targets[0].reserve_for(claim.read())
        make_room((reservation,))
        with using_reservation(reservation):
            move(claim, queue, targets[0], event='dead-lettered', now=True, **fields)
        return
    record: Record = {'event': 'dead-lettered', 'time': record_time(queue.clock), 'queue': queue.name}
    transaction = spool.transaction(queue, claim.filebase)
    try:
        # The copies' histories say it, not the input's: should we die here, nothing has happened to that.
        transaction.forward(*targets, record={**record, **fields, 'drop': [EXPIRES]}, now=True)
    except BaseException:
        transaction.discard()
        raise
    transaction.commit()


def discard_dead_letter(
    queue: Switchboard, causes: Collection[str], claim: Claim, cause: str, reason: str
) -> bool:
    """Drop a claimed entry, if that is wanted for this cause.

    :return: False if it is to go to the bad queue; it is still claimed then.
    """
    if cause not in causes:
        return False
    filebase = claim.filebase
    claim.finish(queue.pool)
    log_event(log, logging.INFO, filebase, 'dropped', queue=queue.name, cause=cause)
    return True
