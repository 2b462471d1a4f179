"""Hand-off where a queue is on a broker: the broker cannot be part of our one rename, so the order of the steps says what a crash leaves.

=========================  =========================================================  =====================================================
from                       steps                                                      a crash in between
=========================  =========================================================  =====================================================
directory to broker        publish, wait for the confirms, finish the input           the input is tried again, and its outputs are published
                                                                                      again, with the same message ids
broker to directory        outputs and the marker of the input's digest are           the broker gives the input out again; its marker is
                           committed in one step, then it is acknowledged             known, so it is acknowledged and not worked on
broker to broker           publish, wait for the confirms, acknowledge                as directory to broker
=========================  =========================================================  =====================================================

So nothing is lost, and a second copy can be recognised: an output's message id is made of its input's digest, its queue and its number.  A queue on
a broker that one of our runners reads is deduplicated by the markers, for as long as its ``dedupe_window`` is, if what the runner emits goes to
directories.

Rejected: AMQP's transactions, which are not atomic across a crash either, and exclude confirms.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from zope.interface import implementer

from switchboard.brokers.producer import PreparedMessage, publish_all
from switchboard.brokers.queue import BrokerQueue
from switchboard.errors import (
    BrokerDownError,
    EntryTakenError,
    QueueError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.events import log_event
from switchboard.handoff.deduplication import DedupeSpool, commit_deduplicated
from switchboard.handoff.publish_many import Publication, PublishOutcome, PublishSpool
from switchboard.handoff.publish_many import publish_many as store_in_directories
from switchboard.handoff.transaction import Transaction
from switchboard.interfaces import ITransaction
from switchboard.message.journal import Record
from switchboard.message.naming import UNIQUE_DIGITS, digest_of, key_digest
from switchboard.queue.recovery import record_time
from switchboard.store.publishing import raise_queue_error

log = logging.getLogger('switchboard.queue')


@implementer(ITransaction)
class BrokerTransaction:
    """One input, and its outputs, some of which are on brokers.  See `ITransaction`.

    :param queue: the input's queue; None for a message that is published.
    """

    def __init__(self, spool: DedupeSpool, queue: Any, filebase: str | None) -> None:
        self.spool = spool
        self.queue = queue
        self.filebase = filebase
        self.is_remote = isinstance(queue, BrokerQueue)
        # The part in directories: the input, if it is there, and outputs.
        is_near = filebase is not None and not self.is_remote
        self.local = (
            Transaction(spool.stage, queue, queue.claim_of(filebase)) if is_near else Transaction(spool.stage)
        )
        self.prepared: list[PreparedMessage] = []
        self._numbers: dict[str, int] = {}

    @property
    def has_outputs(self) -> bool:
        """See `ITransaction`."""
        return bool(self.prepared) or self.local.has_outputs

    def emit(self, queue: Any, msg: Any, metadata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        [filebase] = self.emit_all([queue], msg, metadata)
        return filebase

    def emit_all(self, queues: Sequence[Any], msg: Any, metadata: Mapping[str, Any]) -> list[str]:
        """See `ITransaction`."""
        remote, near = _parted(queues)
        once = queues[0].serializers.serialize(msg) if len(queues) > 1 else msg
        # First the part that can be undone in one call.
        prepared = [
            queue.producer.prepare(once, dict(metadata), digest_tail=self._unique(queue.name))
            for queue in remote
        ]
        self._check_together(remote, prepared)
        filebases = dict(
            zip(map(id, near), self.local.emit_all(near, once, metadata) if near else (), strict=True)
        )
        self.prepared += prepared
        filebases |= {id(queue): one.filebase for queue, one in zip(remote, prepared, strict=True)}
        return [filebases[id(queue)] for queue in queues]

    def _check_together(self, queues: Sequence[BrokerQueue], prepared: Sequence[PreparedMessage]) -> None:
        """:raises OutputsNeverFitError: with these outputs, there are more for a queue than it ever holds."""
        for queue in queues:
            queue.producer.check_together(
                [one for one in (*self.prepared, *prepared) if one.producer is queue.producer]
            )

    def _unique(self, queue: str) -> str | None:
        """:return: the digits that an output has again if its input is tried again; None if it has no input."""
        if self.filebase is None:
            return None
        number = self._numbers[queue] = self._numbers.get(queue, 0) + 1
        text = f'{digest_of(self.filebase)} {queue} {number}'
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:UNIQUE_DIGITS]

    def forward(self, *queues: Any, record: Record | None = None, now: bool = False) -> None:
        """See `ITransaction`.

        :param record: an addition to the history of copies.
        :param now: make copies ready now, behind what waits.
        """
        assert self.filebase is not None
        remote, near = _parted(queues)
        entry = self.queue.claim_of(self.filebase).read()
        prepared = [
            queue.producer.prepare_copy(
                entry, record or self._moved(queue), digest_tail=self._unique(queue.name), now=now
            )
            for queue in remote
        ]
        self._check_together(remote, prepared)
        if near and not self.is_remote:
            self.local.forward(*near, record=record, now=now)
        elif near:
            kept = len(self.local.items)
            try:
                for queue in near:
                    self.local.add(queue, queue.prepare_copy(entry, record or self._moved(queue), now=now))
            except BaseException:
                self.local.drop_after(kept)
                raise
        self.prepared += prepared

    def _moved(self, queue: Any) -> Record:
        return {
            'event': 'moved',
            'time': record_time(self.queue.clock),
            'queue': self.queue.name,
            'to': queue.name,
        }

    def keep(self, msg: Any, msgdata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        assert self.filebase is not None
        self.discard()
        if not self.is_remote:
            return self.local.keep(msg, msgdata)
        queue: BrokerQueue = self.queue
        if queue.is_message_changed(self.filebase, msg):
            claim = queue.claim_of(self.filebase)
            prepared = queue.producer.prepare_replacement(msg, dict(msgdata), claim.entry)
            queue.replace(claim, [prepared])
            return prepared.filebase
        changed = queue.metadata_changes(self.filebase, msgdata)
        return queue.release(self.filebase, record={'event': 'kept', **changed} if changed else None)

    def commit(self) -> None:
        """See `ITransaction`.

        :raises QueueError: it could not be; the outputs published by then stay so, the input stays claimed.
        """
        for error in commit_all(self.spool, (self,)).values():
            raise error

    def discard(self) -> None:
        """See `ITransaction`."""
        self.local.discard()
        self.prepared.clear()


def _parted(queues: Sequence[Any]) -> tuple[list[BrokerQueue], list[Any]]:
    """:return: the outputs on brokers, and those in directories."""
    remote = [queue for queue in queues if isinstance(queue, BrokerQueue)]
    return remote, [queue for queue in queues if not isinstance(queue, BrokerQueue)]


def publish_many(spool: PublishSpool, publications: Sequence[Publication]) -> list[PublishOutcome]:
    """See `Spool.publish_many`: messages for directories alone share its flushes; the others are published one by one."""
    outcomes: list[PublishOutcome] = [{} for _ in publications]
    local: list[int] = []
    for number, publication in enumerate(publications):
        try:
            queues = [spool[name] for name in publication.queues]
            if any(queue.is_remote for queue in queues):
                outcomes[number] = _publish_one(spool, publication, queues)
            else:
                local.append(number)
        except SwitchboardError as error:
            outcomes[number] = error
    stored = store_in_directories(spool, [publications[number] for number in local])
    for number, outcome in zip(local, stored, strict=True):
        outcomes[number] = outcome
    return outcomes


def _publish_one(spool: DedupeSpool, publication: Publication, queues: Sequence[Any]) -> dict[str, str]:
    transaction = BrokerTransaction(spool, None, None)
    try:
        filebases = transaction.emit_all(queues, publication.msg, publication.metadata)
    except BaseException:
        transaction.discard()
        raise
    transaction.commit()
    return dict(zip(publication.queues, filebases, strict=True))


def commit_all(
    spool: DedupeSpool, transactions: Sequence[BrokerTransaction]
) -> dict[BrokerTransaction, SwitchboardError]:
    """Commit many transactions: what goes to brokers is confirmed first, of all of them.

    :return: the transactions that were not committed, and why; their inputs are still claimed.
    """
    failed = publish_outputs(transactions)
    for transaction in failed:
        transaction.local.discard()
    near = {one.local: one for one in transactions if not one.is_remote and one not in failed}
    failed |= {near[local]: error for local, error in commit_deduplicated(spool, list(near)).items()}
    for transaction in transactions:
        if transaction.is_remote and transaction not in failed:
            try:
                _commit_remote(spool, transaction)
            except QueueError as error:
                failed[transaction] = error
    return failed


def publish_outputs(transactions: Sequence[BrokerTransaction]) -> dict[BrokerTransaction, SwitchboardError]:
    """Publish what goes to brokers, confirmed.

    :return: the transactions of which something was not published, and why.
    """
    prepared = [(transaction, one) for transaction in transactions for one in transaction.prepared]
    failed: dict[BrokerTransaction, SwitchboardError] = {}
    for (transaction, _), error in zip(prepared, publish_all([one for _, one in prepared]), strict=True):
        if isinstance(error, UnknownQueueError):
            # It is to be there (declare=no), and no message for it fares better before it is.
            failed.setdefault(transaction, BrokerDownError(str(error), step='publish'))
        elif error is not None:
            failed.setdefault(transaction, error)
    return failed


def _commit_remote(spool: DedupeSpool, transaction: BrokerTransaction) -> None:
    """Commit a transaction whose input is on a broker.

    :raises QueueError: its outputs could not be stored; they are thrown away.
    """
    queue, filebase = transaction.queue, transaction.filebase
    assert filebase is not None
    has_outputs = bool(transaction.local.items)
    if has_outputs:
        commit_outputs(spool, transaction)
    try:
        is_ended = queue.ack_when_possible(queue.claim_of(filebase))
    except EntryTakenError as error:
        log_event(log, logging.WARNING, filebase, 'claim lost', queue=queue.name, error=error)
        is_ended = False
    if not is_ended and not has_outputs:
        # The broker gives it out again.  The work is done all the same, and on this machine that is to be known.
        commit_outputs(spool, transaction)


def commit_outputs(spool: DedupeSpool, transaction: BrokerTransaction) -> None:
    """Store the outputs with the marker of their input, unless that is known: then they were stored before."""
    queue, filebase, local = transaction.queue, transaction.filebase, transaction.local
    assert filebase is not None
    markers, marker = spool.dedupe_keys(queue), key_digest(digest_of(filebase))
    with ExitStack() as stack:
        try:
            stack.enter_context(markers.locked((marker,)))
            spool.stage.wait_until_published(markers.outputs((marker,)))
            if markers.find(marker) is not None:
                log_event(log, logging.INFO, filebase, 'duplicate', queue=queue.name)
                local.discard()
                return
            local.add(queue, markers.prepare_marker(marker, filebase))
        except OSError as error:
            local.discard()
            raise_queue_error(error, 'hand-off', queue.name, spool.stage.folder.path)
        except BaseException:
            local.discard()
            raise
        for failure in commit_deduplicated(spool, [local]).values():
            raise failure
