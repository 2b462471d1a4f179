"""The way into a queue on a broker: pack as a directory does, name, and publish confirmed.

A queue's options become arguments of the broker's queue (`limits_of`).  Configurations with options that no broker can keep are refused in `switchboard.config.remote_queues`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from switchboard.brokers import connect
from switchboard.brokers.connection import Connection
from switchboard.brokers.driver import QueueLimits
from switchboard.brokers.encode import encode_entry
from switchboard.brokers.message import DUE_HEADER, OutgoingMessage
from switchboard.brokers.url import BrokerUrl, read_broker_url
from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.config.remote_queues import unsupported_options
from switchboard.errors import (
    ConfigError,
    ContentDisallowedError,
    MessageTooLargeError,
    NoRouteError,
    OutputsNeverFitError,
    QueueDrainingError,
    QueueError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.message.entry import Entry, read_entry
from switchboard.message.expiry import expiry_after_move
from switchboard.message.journal import Record
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import (
    DIGEST_DIGITS,
    NS_PER_S,
    SLICE_BITS,
    SYSTEM_NAME_GENERATOR,
    NameGenerator,
    Slice,
    check_queue_name,
    parse_filebase,
    slice_digits_of,
    with_when,
)
from switchboard.message.packing import EncodedEntry, Packer
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.trace_context import prepare_in_span


def limits_of(options: QueueOptions, url: BrokerUrl) -> QueueLimits:
    """Say how much the broker's queue may hold.

    :raises ConfigError: an option asks for what this broker cannot do.
    """
    for key, reason in unsupported_options(options, url.address):
        raise ConfigError(reason, key=key)
    if url.queue_type == 'quorum' and options.priority:
        raise ConfigError('a quorum queue has no priorities; one of type=classic has', key='priority')
    # Each of the broker's queues counts for itself.
    return QueueLimits(
        max_messages=None if options.max_messages is None else max(1, options.max_messages // url.slices),
        max_bytes=None if options.max_bytes is None else max(1, options.max_bytes // url.slices),
        overflow=options.overflow,
    )


log = logging.getLogger('switchboard.queue')

# Messages of `enqueue_many` that are packed before the first is sent.
BATCH_LIMIT = 256
# RabbitMQ's timers are of 32 bits; a message that waits for longer is looked at in between.
LONGEST_WAIT_S = 20 * 86400.0


@dataclass(frozen=True, slots=True, eq=False)
class PreparedMessage:
    """A message that is packed for a broker's queue, and not yet published."""

    producer: BrokerProducer
    filebase: str
    outgoing: OutgoingMessage
    queue: str
    delay_s: float = 0.0


class BrokerProducer:
    """Puts messages into one queue on a broker.

    :param is_draining: has an operator closed the queue to new messages?
    :raises ConfigError: the URL cannot be read, a library is missing, or the broker cannot keep an option.
    """

    def __init__(
        self,
        name: str,
        url: str | BrokerUrl,
        slice: Slice,
        options: QueueOptions,
        clock: Clock,
        connection: Connection | None,
        is_draining: Callable[[], bool],
    ) -> None:
        self.name = check_queue_name(name)
        self.slice = slice
        self.options = options
        self.clock = clock
        self.url = read_broker_url(url) if isinstance(url, str) else url
        self.serializers = Serializers(
            options.accept, options.pickle_classes, options.serializer, options.message_class
        )
        name_generator = SYSTEM_NAME_GENERATOR if clock is SYSTEM_CLOCK else NameGenerator(clock)
        self._packer = Packer(name, self.options, self.serializers, name_generator)
        self._limits = limits_of(self.options, self.url)
        self.connection = connection or connect(self.url)
        base = self.url.queue or name
        count = self.url.slices
        # Of one, it has the plain name, so that other programs find it.
        self.all_queues = [base] if count == 1 else [f'{base}.{i + 1}of{count}' for i in range(count)]
        self.broker_queues = self._share()
        self._declared: tuple[int, set[str]] = (-1, set())
        self._is_draining = is_draining

    def _share(self) -> list[str]:
        """:return: the broker's queues that this slice works on: each has one slice; where there are more slices, some share."""
        index, runners, queues = self.slice.index, self.slice.count, len(self.all_queues)
        if runners > queues:
            return [self.all_queues[index * queues // runners]]
        return [name for number, name in enumerate(self.all_queues) if number * runners // queues == index]

    def queue_of(self, filebase: str) -> str:
        """:return: the broker's queue that an entry belongs into, by its order key or its content."""
        return self.all_queues[(int(slice_digits_of(filebase), 16) * len(self.all_queues)) >> SLICE_BITS]

    def declare(self, queues: Sequence[str], *, redeclare: bool = False) -> None:
        """Make those of the broker's queues that are missing; once a connection.

        :raises BrokerDownError: the broker is away.
        :raises QueueMismatchError: one is there with other arguments.
        """
        if not self.url.declare:
            return
        connection_number, known = self._declared
        if redeclare or connection_number != self.connection.connection_number:
            known = set()
        for queue in queues:
            if queue not in known:
                self.connection.declare_queue(queue, limits=self._limits)
                known.add(queue)
        self._declared = (self.connection.connection_number, known)

    # In.

    def enqueue(self, msg: Any, metadata: dict[str, Any]) -> str:
        """See `ISwitchboard`."""
        prepared = self.prepare(msg, metadata)
        publish([prepared])
        return prepared.filebase

    def enqueue_many(self, messages: Iterable[Any]) -> list[str]:
        """See `ISwitchboard`."""
        stored: list[str] = []
        waiting: list[PreparedMessage] = []

        def flush() -> None:
            outcomes = publish_all(waiting)
            stored.extend(one.filebase for one, error in zip(waiting, outcomes, strict=True) if error is None)
            waiting.clear()
            for error in outcomes:
                if error is not None:
                    raise error

        try:
            for message in messages:
                msg, metadata = message if isinstance(message, tuple) else (message, {})
                waiting.append(self.prepare(msg, dict(metadata)))
                if len(waiting) == BATCH_LIMIT:
                    flush()
            flush()
        except Exception as error:
            if stored:
                error.add_note('stored before: ' + ' '.join(sorted(stored)))
            raise
        return stored

    def prepare(
        self, msg: Any, metadata: dict[str, Any], *, digest_tail: str | None = None
    ) -> PreparedMessage:
        """Pack a message without publishing it yet.

        :param digest_tail: the last 32 digits of its digest, if they are not to be chosen here.
        :raises QueueError: as :meth:`enqueue`.
        """
        if metadata.get('dedupe_key') is not None:
            raise QueueError(
                'dedupe_key: only a queue in a directory knows what it has seen', queue=self.name
            )
        if self._is_draining():
            raise QueueDrainingError('it is being drained: nothing is let in', queue=self.name)
        return prepare_in_span(metadata, self.name, lambda: self._prepare(msg, metadata, digest_tail))

    def _prepare(self, msg: Any, metadata: dict[str, Any], digest_tail: str | None) -> PreparedMessage:
        is_delayed = 'delay' in metadata or 'not_before' in metadata
        entry = self._entry(self._packer.pack(msg, metadata, digest_tail=digest_tail))
        self._check_size(entry)
        return self.prepare_entry(entry, is_delayed=is_delayed)

    def prepare_copy(
        self, entry: Entry, record: Record | None = None, *, digest_tail: str | None = None, now: bool = False
    ) -> PreparedMessage:
        """Pack a copy of another queue's entry without publishing it yet: same content, another name, its history.

        :param record: an addition to the copy's history.
        :param digest_tail: see :meth:`prepare`.
        :param now: ready now; else it keeps the entry's time.
        :raises QueueError: as :meth:`enqueue`.
        """
        self.check_room(entry)
        copy = self._entry(self._packer.pack_copy(entry, record, now=now))
        if digest_tail is not None:
            when, plus, rest = copy.filebase.partition('+')
            name = f'{when}{plus}{slice_digits_of(copy.filebase)}{digest_tail}{rest[DIGEST_DIGITS:]}'
            copy = replace(copy, filebase=name)
        return self.prepare_entry(copy)

    def take_over(self, entry: Entry, record: Record, *, now: bool) -> str:
        """Publish an entry that an operator sends here, confirmed.

        :param record: of its move, for its history.
        :param now: ready at once, behind the messages that wait.
        :return: its filebase here.
        :raises QueueError: it was not published.
        """
        self.check_room(entry)
        now_ns = self.clock.time_ns()
        moved = {**record, 'to': self.name, 'time': now_ns / NS_PER_S}
        if now:
            metadata = entry.apply_history(load_metadata(entry.metadata))
            moved |= expiry_after_move(
                metadata, self.options.ttl_s, now_ns, forgiven=record['event'] != 'moved'
            )
            entry = replace(entry, filebase=with_when(entry.filebase, now_ns))
        publish([self.prepare_entry(entry, [moved])])
        return entry.filebase

    def prepare_replacement(self, msg: Any, metadata: dict[str, Any], old: Entry) -> PreparedMessage:
        """Pack a message that takes another's place, with its history."""
        entry = self._entry(self._packer.pack_replacement(msg, metadata, old))
        self._check_size(entry)
        return self.prepare_entry(entry)

    def check_room(self, entry: Entry) -> None:
        """Ask whether another queue's entry may come here; how full the broker's queue is, it says itself.

        :raises ContentDisallowedError: its kind is not accepted.
        :raises MessageTooLargeError: it could never fit.
        """
        if self._is_draining():
            raise QueueDrainingError('it is being drained: nothing is let in', queue=self.name)
        if self.serializers.for_kind(entry.kind) is None:
            raise ContentDisallowedError(entry.kind, queue=self.name)
        limit = self.options.max_body_bytes
        if limit is not None and len(entry.body) > limit:
            raise MessageTooLargeError(
                f'a body of {len(entry.body)} bytes, and the queue takes {limit}', queue=self.name
            )
        self._check_size(entry)

    def _check_size(self, entry: Entry) -> None:
        """Refuse what the broker's queue has no room for, however empty it is.

        The broker would say that it is full, now and each time, or throw everything out of it, and the message behind it.

        :raises MessageTooLargeError: it could never fit.
        """
        most = self._limits.max_bytes
        if most is not None and len(entry.body) > most:
            raise MessageTooLargeError(
                f'{len(entry.body)} bytes, and max_bytes{self._each} is {most}', queue=self.name
            )

    def check_together(self, prepared: Sequence[PreparedMessage]) -> None:
        """Refuse outputs of one message that have no room together, however empty the queue is.

        :param prepared: the outputs for this queue, in any of the queues of the broker.
        :raises OutputsNeverFitError: they could never fit.
        """
        for queue in {one.queue for one in prepared}:
            # A delayed message comes in later, when there is room.
            mine = [one for one in prepared if one.queue == queue and one.delay_s <= 0]
            most, most_bytes = self._limits.max_messages, self._limits.max_bytes
            together = sum(len(one.outgoing.body) for one in mine)
            reason = ''
            if most is not None and len(mine) > most:
                reason = f'{len(mine)} outputs or more, and max_messages{self._each} is {most}'
            elif most_bytes is not None and together > most_bytes:
                reason = f'outputs of {together} bytes or more, and max_bytes{self._each} is {most_bytes}'
            if reason:
                raise OutputsNeverFitError(
                    f'one message has {reason}: this can never be stored', queue=self.name
                )

    @property
    def _each(self) -> str:
        return ' of each slice' if len(self.all_queues) > 1 else ''

    def _entry(self, packed: EncodedEntry) -> Entry:
        entry = read_entry(packed.filebase, packed.content)
        entry.queue = self.name
        return entry

    def prepare_entry(
        self, entry: Entry, more: Sequence[Record] = (), *, is_delayed: bool = False, delay_s: float = 0.0
    ) -> PreparedMessage:
        """Pack an entry under its own name.

        :param more: records to be added to its history.
        :param is_delayed: the time in its name is waited for.
        """
        if is_delayed:
            name = parse_filebase(entry.filebase)
            assert name is not None
            delay_s = (name.when_ns - self.clock.time_ns()) / NS_PER_S
        outgoing = encode_entry(entry, more, tracebacks=self.url.sends_tracebacks)
        if delay_s > LONGEST_WAIT_S:
            outgoing.headers[DUE_HEADER] = self.clock.time_ns() / NS_PER_S + delay_s
            delay_s = LONGEST_WAIT_S
        return PreparedMessage(
            self, entry.filebase, outgoing, self.queue_of(entry.filebase), max(0.0, delay_s)
        )

    def count(self) -> int:
        """:return: how many messages are ready in the broker's queues of this slice.

        :raises BrokerDownError: the broker is away.
        """
        return sum(self.connection.count(queue) for queue in self.broker_queues)


def publish(prepared: Sequence[PreparedMessage]) -> None:
    """Publish packed messages that belong together.

    :raises SwitchboardError: the first that was not published was refused for this; others may have been published.
    """
    for error in publish_all(prepared):
        if error is not None:
            raise error


def publish_all(prepared: Sequence[PreparedMessage]) -> list[SwitchboardError | None]:
    """Publish packed messages: of each queue, all are sent before their confirms are waited for.

    :return: for each, None if the broker has confirmed it, or why not.
    """
    outcomes: dict[int, SwitchboardError | None] = {}
    for producer in dict.fromkeys(one.producer for one in prepared):
        mine = [number for number, one in enumerate(prepared) if one.producer is producer]
        try:
            producer.declare(sorted({prepared[number].queue for number in mine}))
        except SwitchboardError as error:
            outcomes.update(dict.fromkeys(mine, error))
            continue
        now = [number for number in mine if prepared[number].delay_s <= 0]
        outcomes.update(zip(now, _publish(producer, [prepared[number] for number in now]), strict=True))
        for number in mine:
            one = prepared[number]
            if one.delay_s <= 0:
                continue
            try:
                producer.connection.delay(one.queue, one.outgoing, one.delay_s)
                outcomes[number] = None
            except SwitchboardError as error:
                outcomes[number] = error
    return [outcomes[number] for number in range(len(prepared))]


def _publish(producer: BrokerProducer, prepared: Sequence[PreparedMessage]) -> list[SwitchboardError | None]:
    outcomes: list[Any] = producer.connection.publish_many(
        [(one.outgoing, '', one.queue) for one in prepared]
    )
    for number, error in enumerate(outcomes):
        if isinstance(error, NoRouteError):
            outcomes[number] = _once_more(producer, prepared[number], error)
        elif isinstance(error, QueueError):
            error.queue = producer.name
    return outcomes


def _once_more(
    producer: BrokerProducer, prepared: PreparedMessage, error: NoRouteError
) -> SwitchboardError | None:
    """Somebody has deleted the queue since it was declared."""
    missing = UnknownQueueError(f'the broker has no queue {prepared.queue!r}', queue=producer.name)
    missing.__cause__ = error
    if not producer.url.declare:
        return missing
    try:
        producer.declare([prepared.queue], redeclare=True)
        producer.connection.publish(prepared.outgoing, routing_key=prepared.queue)
    except NoRouteError:
        return missing
    except SwitchboardError as another:
        return another
    return None
