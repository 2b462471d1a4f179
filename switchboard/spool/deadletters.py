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
from collections.abc import Mapping
from typing import Any, Protocol

from switchboard.declared.declarations import Declaration
from switchboard.errors import SwitchboardError
from switchboard.events import event
from switchboard.handoff.moving import move
from switchboard.handoff.stage import Stage
from switchboard.handoff.transaction import Transaction
from switchboard.message.expiry import EXPIRES
from switchboard.message.journal import Record
from switchboard.message.metadata import load_metadata
from switchboard.queue.recovery import timestamp
from switchboard.queue.switchboard import Switchboard
from switchboard.routing.bindings import EXCHANGE_PREFIX
from switchboard.routing.exchange import ExchangeTable
from switchboard.store.claims import Claim
from switchboard.store.layout import BAD

log = logging.getLogger('switchboard.queue')

# Coming back to the same queue for the same cause this often, an entry goes round in circles.
MAX_ROUNDS = 8


class Targets(Protocol):
    """The part of a spool that dead letters need."""

    stage: Stage

    @property
    def exchanges(self) -> ExchangeTable: ...

    def transaction(self, queue: Switchboard | None, filebase: str | None) -> Transaction: ...

    def __getitem__(self, name: str) -> Switchboard: ...


class DeadLetters:
    """The dead letters of one queue.

    :param declaration: the declaration of the queue, if a program declared it.
    """

    def __init__(self, spool: Targets, queue: Switchboard, declaration: Declaration | None = None) -> None:
        self._spool = spool
        self._queue = queue
        self._declaration = declaration

    def __call__(self, claim: Claim, cause: str, reason: str) -> bool:
        """Send a claimed entry where the queue's dead letters go.

        :return: False if it is to go to the bad queue instead; it is still claimed then.
        """
        if self._queue.options.dead_letter == BAD:
            return self._discard(claim, cause)
        records = claim.history.records
        rounds = sum(
            record.get('event') == 'dead-lettered'
            and record.get('queue') == self._queue.name
            and record.get('cause') == cause
            for record in records
        )
        if rounds >= MAX_ROUNDS:
            event(log, logging.ERROR, claim.filebase, 'dead letter loop', queue=self._queue.name)
            return False
        try:
            targets = [self._spool[name] for name in self._queues(claim)]
            for target in targets:
                target.check_room(claim.read())
            self._send(claim, targets, cause, reason)
        except (SwitchboardError, OSError) as error:
            event(
                log,
                logging.ERROR,
                claim.filebase,
                'not dead-lettered',
                queue=self._queue.name,
                target=self._queue.options.dead_letter,
                error=error,
            )
            return False
        return True

    def _discard(self, claim: Claim, cause: str) -> bool:
        if self._declaration is None or cause not in self._declaration.discard:
            return False
        filebase = claim.filebase
        claim.finish(self._queue.pool)
        event(log, logging.INFO, filebase, 'dropped', queue=self._queue.name, cause=cause)
        return True

    def _queues(self, claim: Claim) -> tuple[str, ...]:
        target = self._queue.options.dead_letter
        if not target.startswith(EXCHANGE_PREFIX):
            return (target,)
        entry = claim.read()
        metadata = entry.changed_metadata(load_metadata(entry.metadata))
        key = self.routing_key(metadata)
        return self._spool.exchanges.route(target.removeprefix(EXCHANGE_PREFIX), key, metadata)

    def routing_key(self, metadata: Mapping[str, Any]) -> str:
        """:return: the key by which an exchange routes a dead letter: the declaration's, the message's own, or the queue's name."""
        if self._declaration is not None and self._declaration.dead_letter_key is not None:
            return self._declaration.dead_letter_key
        key = metadata.get('routing_key')
        return key if isinstance(key, str) else self._queue.name

    def _send(self, claim: Claim, targets: list[Switchboard], cause: str, reason: str) -> None:
        queue, filebase = self._queue, claim.filebase
        fields: dict[str, Any] = {'cause': cause, 'reason': reason}
        if len(targets) == 1 and not targets[0].is_remote:
            move(claim, queue, targets[0], event='dead-lettered', now=True, **fields)
        else:
            record: Record = {'event': 'dead-lettered', 'time': timestamp(queue.clock), 'queue': queue.name}
            transaction = self._spool.transaction(queue, filebase)
            try:
                # The copies' histories say it, not the input's: should we die here, nothing has happened to that.
                transaction.forward(*targets, record={**record, **fields, 'drop': [EXPIRES]}, now=True)
            except BaseException:
                transaction.discard()
                raise
            transaction.commit()
        names = ','.join(target.name for target in targets)
        event(
            log,
            logging.WARNING,
            filebase,
            'dead-lettered',
            queue=queue.name,
            to=names,
            cause=cause,
            reason=reason,
        )
