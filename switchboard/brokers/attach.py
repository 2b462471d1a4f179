"""Queues on brokers as part of a spool: what `RemoteQueues` loads.

The spool gives such a queue what only this machine has: the bad queue, operators' flags, the keys that were seen, and the counts of deaths.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from switchboard.brokers import need_library
from switchboard.brokers.consumer import BrokerClaim
from switchboard.brokers.delivery_counts import DeliveryCounts
from switchboard.brokers.producer import limits_of
from switchboard.brokers.queue import BrokerQueue, BrokerServices, store_copy
from switchboard.brokers.transaction import BrokerTransaction, commit_all
from switchboard.brokers.url import read_broker_url
from switchboard.config.config import Config
from switchboard.errors import ConfigError, SwitchboardError
from switchboard.events import event
from switchboard.handoff.publish_many import Publication
from switchboard.handoff.publish_many import publish_many as store_in_directories
from switchboard.message.expiry import EXPIRES
from switchboard.message.metadata import dump_metadata, load_metadata
from switchboard.message.naming import PRESERVED, READY
from switchboard.options import QueueOptions
from switchboard.queue.recovery import timestamp
from switchboard.routing.bindings import EXCHANGE_PREFIX
from switchboard.spool.deadletters import MAX_ROUNDS
from switchboard.spool.spool import Spool
from switchboard.store.disk import Folder
from switchboard.store.layout import BAD, HELD_PREFIX

__all__ = ['BrokerTransaction', 'check', 'commit_all', 'make_queue', 'publish_many']

log = logging.getLogger('switchboard.queue')


def check(options: QueueOptions) -> None:
    """Look whether a queue can be opened as its section says, without calling the broker.

    :raises ConfigError: the URL cannot be read, a library is missing, or the broker cannot keep an option.
    """
    assert options.url is not None
    url = read_broker_url(options.url)
    need_library(url)
    limits_of(options, url)


def make_queue(
    spool: Spool, name: str, slice: int | None, numslices: int, options: QueueOptions
) -> BrokerQueue:
    """:return: a new object for a queue of the spool that is on a broker.

    :raises ConfigError: the URL cannot be read, a library is missing, or the broker cannot keep an option.
    """
    assert options.url is not None
    delivery_counts = DeliveryCounts(
        Folder(spool.path(f'{HELD_PREFIX}{name}'), spool.disk), spool.disk, spool.clock, spool.steady
    )
    try:
        return BrokerQueue(
            name,
            options.url,
            slice,
            numslices,
            options=options,
            clock=spool.clock,
            bad=spool[BAD] if name != BAD else None,
            delivery_counts=delivery_counts,
            steady=spool.steady,
            services=BrokerServices(
                is_draining=partial(spool.flags.is_set, 'draining', name),
                is_paused=partial(spool.flags.is_set, 'paused', name),
                keys=spool.dedupe,  # type: ignore[arg-type]  # the queue has all that is asked for
                dead_letter=partial(BrokerDeadLetters, spool) if options.dead_letter != BAD else None,
                disk=spool.disk,
                pool=spool.spares,
            ),
        )
    except ConfigError as error:
        error.section = error.section or f'queue.{name}'
        error.file = error.file or (str(spool.config.path) if spool.config else None)
        raise


def free(config: Config, name: str, keys: Collection[str]) -> None:
    """Have given out again what a process held that was killed on request.

    :param keys: of the messages, as that process has noted them.
    :raises QueueError: the broker is away; then the death is counted.
    """
    queue: Any = Spool.from_config(config).queue(name)
    try:
        for each in queue.broker_queues:
            queue.connection.free(each, keys)
    finally:
        queue.close()


class BrokerDeadLetters:
    """The dead letters of a queue on a broker.  See `DeadLetters`.

    They are stored where they go, and then acknowledged: a crash in between has them stored once more.
    """

    def __init__(self, spool: Spool, queue: BrokerQueue) -> None:
        self._spool = spool
        self._queue = queue

    def __call__(self, claim: BrokerClaim, cause: str, reason: str) -> bool:
        """Store a copy where the queue's dead letters go.

        :return: False if it is to go to the bad queue instead.
        """
        name, entry = self._queue.name, claim.entry
        rounds = [one for one in entry.records if one.get('event') == 'dead-lettered']
        if sum(one.get('queue') == name and one.get('cause') == cause for one in rounds) >= MAX_ROUNDS:
            event(log, logging.ERROR, claim.filebase, 'dead letter loop', queue=name)
            return False
        metadata = entry.changed_metadata(load_metadata(entry.metadata))
        try:
            targets = self._targets(metadata)
            for target in targets:
                target.check_room(entry)
            metadata.pop(EXPIRES, None)  # a dead letter must not die again on arrival
            outgoing = dataclasses.replace(entry, metadata=dump_metadata(metadata))
            for target in targets:
                record = {
                    'event': 'dead-lettered',
                    'time': timestamp(self._queue.clock),
                    'queue': name,
                    'to': target.name,
                    'cause': cause,
                    'reason': reason,
                }
                store_copy(target, outgoing, [record], suffix=PRESERVED if target.name == BAD else READY)
        except SwitchboardError as error:
            event(log, logging.ERROR, claim.filebase, 'not dead-lettered', queue=name, error=error)
            return False
        names = ','.join(target.name for target in targets)
        event(
            log,
            logging.WARNING,
            claim.filebase,
            'dead-lettered',
            queue=name,
            to=names,
            cause=cause,
            reason=reason,
        )
        return True

    def _targets(self, metadata: Mapping[str, Any]) -> list[Any]:
        target = self._queue.options.dead_letter
        if not target.startswith(EXCHANGE_PREFIX):
            return [self._spool[target]]
        key = metadata.get('routing_key')
        key = key if isinstance(key, str) else self._queue.name
        queues = self._spool.exchanges.route(target.removeprefix(EXCHANGE_PREFIX), key, metadata)
        return [self._spool[queue] for queue in queues]


def publish_many(spool: Spool, parcels: Sequence[Publication]) -> list[Any]:
    """See `Spool.publish_many`: messages for directories alone share its flushes; the others are published one by one."""
    outcomes: list[Any] = [None] * len(parcels)
    local: list[int] = []
    for number, parcel in enumerate(parcels):
        try:
            if any(isinstance(spool[name], BrokerQueue) for name in parcel.queues):
                outcomes[number] = _store(spool, parcel)
            else:
                local.append(number)
        except SwitchboardError as error:
            outcomes[number] = error
    stored = store_in_directories(spool, [parcels[number] for number in local])
    for number, outcome in zip(local, stored, strict=True):
        outcomes[number] = outcome
    return outcomes


def _store(spool: Spool, parcel: Publication) -> dict[str, str]:
    transaction = BrokerTransaction(spool, None, None)
    try:
        filebases = transaction.emit_all(
            [spool[name] for name in parcel.queues], parcel.msg, dict(parcel.metadata)
        )
    except BaseException:
        transaction.discard()
        raise
    transaction.commit()
    return dict(zip(parcel.queues, filebases, strict=True))
