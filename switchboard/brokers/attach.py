"""Queues on brokers as part of a spool: what `config.remote_queues` loads.

The spool gives such a queue what only this machine has: the bad queue, operators' flags, the keys that were seen, and the counts of deaths.
"""

from __future__ import annotations

import dataclasses
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
from switchboard.handoff.publish_many import Publication
from switchboard.handoff.publish_many import publish_many as store_in_directories
from switchboard.message.expiry import EXPIRES
from switchboard.message.metadata import dump_metadata, load_metadata
from switchboard.message.naming import PRESERVED, READY
from switchboard.options import QueueOptions
from switchboard.queue.recovery import record_time
from switchboard.spool.deadletters import DeadLetters
from switchboard.spool.spool import Spool
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD, DELIVERIES_PREFIX
from switchboard.store.limits import make_room

__all__ = ['BrokerTransaction', 'check', 'commit_all', 'make_queue', 'publish_many']


def check(options: QueueOptions) -> None:
    """Look whether a queue can be opened as its section says, without calling the broker.

    :raises ConfigError: the URL cannot be read, a library is missing, or the broker cannot keep an option.
    """
    assert options.url is not None
    url = read_broker_url(options.url)
    need_library(url)
    limits_of(options, url)


def warnings(name: str, options: QueueOptions) -> Sequence[ConfigError]:
    """Look for what works and is hardly meant, in a section that has no mistake."""
    assert options.url is not None
    found = read_broker_url(options.url).password_warning(f'queue.{name}')
    return [] if found is None else [found]


def make_queue(
    spool: Spool, name: str, slice: int | None, numslices: int, options: QueueOptions
) -> BrokerQueue:
    """:return: a new object for a queue of the spool that is on a broker.

    :raises ConfigError: the URL cannot be read, a library is missing, or the broker cannot keep an option.
    """
    assert options.url is not None
    delivery_counts = DeliveryCounts(
        Folder(spool.path(f'{DELIVERIES_PREFIX}{name}'), spool.disk),
        spool.disk,
        spool.clock,
        spool.expiry_clock,
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
            expiry_clock=spool.expiry_clock,
            services=BrokerServices(
                is_draining=partial(spool.flags.is_set, 'draining', name),
                is_paused=partial(spool.flags.is_set, 'paused', name),
                finished_markers=spool.dedupe_keys,  # type: ignore[arg-type]  # the queue has all that is asked for
                dead_letter=(
                    lambda queue: DeadLetters(
                        spool, name, options.dead_letter, partial(store_dead_letter, queue)
                    )
                )
                if options.dead_letter != BAD
                else None,
                disk=spool.disk,
                pool=spool.spares,
            ),
        )
    except ConfigError as error:
        error.section = error.section or f'queue.{name}'
        error.file = error.file or (str(spool.config.path) if spool.config else None)
        raise


def requeue_claimed(config: Config, name: str, keys: Collection[str]) -> None:
    """Have the broker deliver again the messages of a process that was killed on request, without counting its death.

    :param keys: of the messages, as that process has noted them.
    :raises QueueError: the broker is away; then the death is counted.
    """
    queue: Any = Spool.from_config(config).queue(name)
    try:
        for each in queue.broker_queues:
            queue.connection.requeue_uncounted(each, keys)
    finally:
        queue.close()


def store_dead_letter(
    queue: BrokerQueue, claim: BrokerClaim, targets: list[Any], fields: Mapping[str, Any]
) -> None:
    """Store a dead letter of a queue on a broker where it goes; it is acknowledged then: a crash in between has it stored once more."""
    entry = claim.entry
    make_room([target.reserve_for(entry) for target in targets])
    metadata = entry.apply_history(load_metadata(entry.metadata))
    metadata.pop(EXPIRES, None)  # a dead letter must not die again on arrival
    outgoing = dataclasses.replace(entry, metadata=dump_metadata(metadata))
    for target in targets:
        record = {
            'event': 'dead-lettered',
            'time': record_time(queue.clock),
            'queue': queue.name,
            'to': target.name,
            **fields,
        }
        store_copy(target, outgoing, [record], suffix=PRESERVED if target.name == BAD else READY)


def publish_many(spool: Spool, publications: Sequence[Publication]) -> list[Any]:
    """See `Spool.publish_many`: messages for directories alone share its flushes; the others are published one by one."""
    outcomes: list[Any] = [None] * len(publications)
    local: list[int] = []
    for number, publication in enumerate(publications):
        try:
            if any(isinstance(spool[name], BrokerQueue) for name in publication.queues):
                outcomes[number] = _store(spool, publication)
            else:
                local.append(number)
        except SwitchboardError as error:
            outcomes[number] = error
    stored = store_in_directories(spool, [publications[number] for number in local])
    for number, outcome in zip(local, stored, strict=True):
        outcomes[number] = outcome
    return outcomes


def _store(spool: Spool, publication: Publication) -> dict[str, str]:
    transaction = BrokerTransaction(spool, None, None)
    try:
        filebases = transaction.emit_all(
            [spool[name] for name in publication.queues], publication.msg, dict(publication.metadata)
        )
    except BaseException:
        transaction.discard()
        raise
    transaction.commit()
    return dict(zip(publication.queues, filebases, strict=True))
