"""Arrivals of a bridge: a broker's messages become entries of local queues, or of bad, each only once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from switchboard.brokers.decode import entry_of
from switchboard.brokers.message import HEADER_PREFIX, KIND_HEADER, UNREADABLE_HEADER
from switchboard.errors import (
    CorruptEntryError,
    DurabilityError,
    EntryTakenError,
    QueueDrainingError,
    QueueFullError,
    SwitchboardError,
)
from switchboard.runner.api import BAD, HIGHEST_PRIORITY, NS_PER_S, Publication, PublishOutcome, Serializers
from switchboard.runners.bridge_remote import PATH_HEADER, PATH_KEY, path_of, remote_history

if TYPE_CHECKING:
    from switchboard.brokers.message import Delivery

# Errors about the place and not about the message: it is tried again, and nothing is put aside for them.
TEMPORARY_ERRORS = (QueueFullError, DurabilityError, QueueDrainingError)
# Of the headers of a message that is put aside, so much is kept: that must never fail for being too large.
MAX_HEADERS, MAX_CHARACTERS = 50, 1000
# Of decoded bodies, so much is gathered before it is stored: a fetched body may be a hundred times as long when it is decompressed.
GROUP_BYTES = 32 * 1024 * 1024
# What these headers mean to strangers is not what they mean here.
MEANINGFUL = frozenset(('delay', 'not_before', 'ttl', 'priority'))


class Arrival(NamedTuple):
    """A message, its stored entries, and why it is in bad or nowhere."""

    delivery: Delivery
    outcome: PublishOutcome
    reason: str = ''


class ArrivalStore:
    """Stores what a bridge has fetched.

    :param runner: the runner, whose spool, name and settings count.
    :param origin: the broker, for histories.
    """

    def __init__(self, runner: Any, origin: str) -> None:
        self._spool = runner.spool
        self._clock = runner.clock
        self._name = runner.name
        self._values = runner.setting_values
        self._origin = origin
        self._serializers = Serializers()
        # Entries in bad, stored as .pck, whose rename to .psv has failed so far.
        self._begun: dict[Delivery, Arrival] = {}
        # Of the group that is gathered at the moment.
        self._decoded_bytes = 0

    def store(self, deliveries: Sequence[Delivery]) -> list[Arrival]:
        """Store messages, all with the flushes of one; those for which there is no way go to bad.

        :return: the fate of each, in the same order.
        """
        begun, self._begun = self._begun, {}
        stored = iter(self._store([delivery for delivery in deliveries if delivery not in begun]))
        return [
            self._preserved(begun[delivery] if delivery in begun else next(stored)) for delivery in deliveries
        ]

    def _store(self, deliveries: Sequence[Delivery]) -> list[Arrival]:
        """Store messages in groups, so that not all that were fetched are in memory decompressed."""
        arrivals: list[Arrival] = []
        while len(arrivals) < len(deliveries):
            arrivals += self._store_some(deliveries[len(arrivals) :])
        return arrivals

    def _store_some(self, deliveries: Sequence[Delivery]) -> list[Arrival]:
        publications: list[Publication] = []
        self._decoded_bytes = 0
        for delivery in deliveries:
            try:
                publications.append(self._publication(delivery))
            except SwitchboardError as error:
                publications.append(self._publication_for_bad(delivery, error))
            if self._decoded_bytes >= GROUP_BYTES:
                break
        deliveries = deliveries[: len(publications)]
        outcomes: list[PublishOutcome] = []
        for _, alike in groupby(publications, key=lambda publication: publication.dedupe_key is None):
            # Those without an id must not pass those with one.
            outcomes += self._spool.publish_many(list(alike))
        hopeless = [
            number for number, outcome in enumerate(outcomes) if _is_hopeless(outcome, publications[number])
        ]
        for number in hopeless:
            publications[number] = self._publication_for_bad(deliveries[number], outcomes[number])
        again = self._spool.publish_many([publications[number] for number in hopeless])
        for number, outcome in zip(hopeless, again, strict=True):
            outcomes[number] = outcome
        return [_arrived(*each) for each in zip(deliveries, publications, outcomes, strict=True)]

    def _preserved(self, arrival: Arrival) -> Arrival:
        """Rename entries in bad to .psv; if that fails, this is the only step left for the next try."""
        if arrival.reason and not isinstance(arrival.outcome, SwitchboardError):
            try:
                self._spool[BAD].finish(arrival.outcome[BAD], preserve=True, reason=arrival.reason)
            except EntryTakenError:
                pass  # it came a second time, and was preserved at the first
            except SwitchboardError as error:
                self._begun[arrival.delivery] = arrival
                return Arrival(arrival.delivery, error, str(error))
        return arrival

    def _publication(self, delivery: Delivery) -> Publication:
        """:raises SwitchboardError: it cannot be read, or there is no way for it."""
        msg, msgdata, history = self._read(delivery)
        exchange = self._values['exchange']
        msgdata |= {'exchange': delivery.exchange, 'routing_key': delivery.routing_key}
        key = self._values['routing_key'].fill(msg, msgdata)
        queues = self._spool.exchanges.route(exchange, key, msgdata)
        if exchange:
            msgdata |= {'exchange': exchange, 'routing_key': key}
        path = path_of(delivery.headers.get(PATH_HEADER))
        if path:
            msgdata[PATH_KEY] = path
        records = remote_history(history, path[-1] if path else self._origin)
        records.append(self._arrival(delivery))
        return Publication(msg, self._keyed(delivery, msgdata), tuple(queues), records)

    def _read(self, delivery: Delivery) -> tuple[Any, dict[str, Any], Sequence[Any]]:
        """:return: the message, its metadata, and its history on the other side."""
        if self._values['format'] == 'message':
            entry = entry_of(delivery)
            self._decoded_bytes += len(entry.body)
            msg, msgdata = entry.load(self._serializers)
            history = entry.records
            return msg, msgdata if KIND_HEADER in delivery.headers else _foreign(delivery, msgdata), history
        if UNREADABLE_HEADER in delivery.headers:
            raise CorruptEntryError(str(delivery.headers[UNREADABLE_HEADER])[:MAX_CHARACTERS])
        from switchboard.kombu_transport.payload import pack

        properties = dict(delivery.properties)
        message = {
            'body': delivery.body,
            'content-type': properties.pop('content_type', 'application/data'),
            'content-encoding': properties.pop('content_encoding', 'binary'),
            'headers': {
                key: value for key, value in delivery.headers.items() if not key.startswith(HEADER_PREFIX)
            },
            'properties': properties,
        }
        return *pack(message, delivery.exchange, delivery.routing_key, delayed=False), ()

    def _publication_for_bad(self, delivery: Delivery, error: object) -> Publication:
        """:return: the message as it came, for a person to look at."""
        headers = list(delivery.headers.items())[:MAX_HEADERS]
        metadata = {
            'reason': f'{type(error).__name__}: {error}'[:MAX_CHARACTERS],
            'exchange': delivery.exchange,
            'routing_key': delivery.routing_key,
            'content_type': str(delivery.properties.get('content_type', '')),
            'headers': {str(key)[:MAX_CHARACTERS]: str(value)[:MAX_CHARACTERS] for key, value in headers},
        }
        return Publication(
            bytes(delivery.body), self._keyed(delivery, metadata), (BAD,), [self._arrival(delivery)]
        )

    def _arrival(self, delivery: Delivery) -> dict[str, Any]:
        return {
            'event': 'bridged',
            'time': self._clock.time_ns() / NS_PER_S,
            'by': self._name,
            'from': f'{self._origin} {delivery.queue}',
            **({'redelivered': True} if delivery.redelivered else {}),
        }

    def _keyed(self, delivery: Delivery, metadata: dict[str, Any]) -> dict[str, Any]:
        """:return: the metadata, with the key by which the message is known when it comes again."""
        metadata.pop('dedupe_key', None)
        if delivery.message_id and self._values['dedupe']:
            body = hashlib.sha1(delivery.body, usedforsecurity=False).hexdigest()
            metadata['dedupe_key'] = f'{delivery.message_id} {body}'
        return metadata


def _arrived(delivery: Delivery, publication: Publication, outcome: PublishOutcome) -> Arrival:
    if isinstance(outcome, SwitchboardError):
        return Arrival(delivery, outcome, str(outcome))
    reason = str(publication.metadata['reason']) if tuple(publication.queues) == (BAD,) else ''
    return Arrival(delivery, outcome, reason)


def _is_hopeless(outcome: PublishOutcome, publication: Publication) -> bool:
    is_refused = isinstance(outcome, SwitchboardError) and not isinstance(outcome, TEMPORARY_ERRORS)
    return is_refused and tuple(publication.queues) != (BAD,)


def _foreign(delivery: Delivery, msgdata: Mapping[str, Any]) -> dict[str, Any]:
    """:return: the metadata of a message that no installation of ours has sent: nothing in it takes effect here by chance."""
    metadata = {
        f'remote_{key}' if key in MEANINGFUL else key: value
        for key, value in msgdata.items()
        if not key.startswith(HEADER_PREFIX)
    }
    priority = delivery.properties.get('priority')
    if type(priority) is int and priority > 0:
        metadata['priority'] = min(priority, HIGHEST_PRIORITY)
    return metadata
