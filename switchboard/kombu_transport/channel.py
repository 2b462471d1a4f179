"""A channel: publishing, consuming, acknowledging."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty
from typing import Any

from amqp.exceptions import ChannelError, ConsumerCancelled, NotAllowed
from kombu.transport import virtual
from kombu.transport.virtual.exchange import ExchangeType
from kombu.utils.uuid import uuid

from switchboard.declared.presence import Ticket
from switchboard.errors import SwitchboardError, UnknownQueueError
from switchboard.events import log_event
from switchboard.interfaces import Taken
from switchboard.kombu_transport.arguments import DELIVERY_LIMIT
from switchboard.kombu_transport.batch import PublishBatch
from switchboard.kombu_transport.entities import Entities
from switchboard.kombu_transport.errors import amqp_errors
from switchboard.kombu_transport.payload import unpack, wait_s
from switchboard.kombu_transport.queue_names import directory_name
from switchboard.kombu_transport.spool_connection import RoutedMessage, SpoolConnection
from switchboard.kombu_transport.unacked import UnackedMessage, UnackedMessages, retry_later
from switchboard.queue.switchboard import Switchboard
from switchboard.store.claims import claim_of

log = logging.getLogger('switchboard.queue')

# Messages that one consumer gets before the next one of the same connection has its turn: to look into a queue is more work than to take a message
# that was found there.
BURST = 16
# Characters of an error that a history keeps: some errors show all that they choked on.
MAX_REASON = 500
NO_ROUTE = 312


@dataclass(slots=True, eq=False)
class ChannelConsumer:
    """A consumer of a queue's messages.

    :param name: of the queue's directory.
    :param turn: the consumer with the smallest is the next.
    :param left: how many messages it may still get in its turn.
    """

    tag: str
    queue: str
    name: str
    no_ack: bool
    callback: Callable[[Any], object]
    on_cancel: Callable[[str], object] | None
    ticket: Ticket
    limit: int
    turn: int = 0
    left: int = BURST


class HeadersExchange(ExchangeType):
    """The type of exchange that kombu does not have.  Its bindings' keys say nothing."""

    type = 'headers'


class Channel(Entities, virtual.Channel):
    """See `kombu.transport.virtual.Channel`.

    :param connection: the transport.
    """

    QoS = UnackedMessages
    exchange_types = virtual.Channel.exchange_types | {HeadersExchange.type: HeadersExchange}
    supports_fanout = True
    do_restore = True
    # Bytes are kept in this; text as it is.
    body_encoding = 'base64'
    from_transport_options = ()

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self.spool_connection: SpoolConnection = connection.spool_connection
        self.spool = self.spool_connection.spool
        self.events: dict[str, set[Any]] = defaultdict(set)
        self._tags = itertools.count(1)
        self._by_tag: dict[str, ChannelConsumer] = {}
        super().__init__(connection, **kwargs)

    # Publishing.

    def basic_publish(
        self,
        message: dict[str, Any] | str,
        exchange: str,
        routing_key: str,
        mandatory: bool = False,
        **kwargs: Any,
    ) -> None:
        """Store a message in each queue that it is for.

        With ``delivery_mode`` 2, in a durable queue, it is on the disk when this returns.

        :param message: as `prepare_message` makes it, or bare text, as ``celery amqp`` has it.

        :raises NotFound: there is no such exchange.
        :raises ChannelError: no queue wants it, it is `mandatory`, and nobody listens to ``basic_return``.
        """
        if isinstance(message, str):
            prepared: dict[str, Any] = self.prepare_message(
                message, content_type='text/plain', content_encoding='utf-8'
            )
        else:
            prepared = message
        with self.spool_connection.lock, amqp_errors('Basic.publish'):
            routed = self.spool_connection.route(prepared, exchange or '', routing_key or '')
            stored = self.spool_connection.publish(routed)
        if not stored:
            self.unroutable(routed, prepared, mandatory)

    def unroutable(self, routed: RoutedMessage, message: Mapping[str, Any], mandatory: bool) -> None:
        """Deal with a message that no queue wants: return it if it is mandatory, else drop it."""
        info = routed.payload['properties']['delivery_info']
        exchange, routing_key = info['exchange'], info['routing_key']
        if not mandatory:
            log_event(log, logging.DEBUG, None, 'unroutable', exchange=exchange, routing_key=routing_key)
            return
        error = ChannelError(
            f'NO_ROUTE - exchange {exchange!r}, routing key {routing_key!r}', (50, 60), reply_code=NO_ROUTE
        )
        handlers = list(self.events['basic_return'])
        if not handlers:
            raise error
        for handler in handlers:
            handler(error, exchange, routing_key, message)

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """:return: the batch that `kombu.Producer.batch` collects in: many messages, one flush."""
        return PublishBatch(self, max_size)

    # Consuming.

    def basic_consume(
        self,
        queue: str,
        no_ack: bool,
        callback: Callable[[Any], object],
        consumer_tag: str,
        on_cancel: Callable[[str], object] | None = None,
        **kwargs: Any,
    ) -> str:
        """Have the messages of a queue delivered.

        :return: the consumer's tag.
        :raises NotFound: there is no such queue.
        :raises ResourceLocked: it is another connection's alone.
        :raises NotAllowed: the tag is another consumer's of this channel.
        """
        tag = consumer_tag or uuid()
        if tag in self._by_tag:
            raise NotAllowed(
                f'NOT_ALLOWED - consumer tag {tag!r} is in use on this channel', (60, 20), reply_code=530
            )
        name = directory_name(queue)
        with self.spool_connection.lock, amqp_errors('Basic.consume'):
            spool_queue = self.spool_connection.queue(name, 'consume')
            ticket = self.spool.register_consumer(name, self.spool_connection.owner_of(name))
            limit = self._delivery_limit(name)
            self._by_tag[tag] = ChannelConsumer(tag, queue, name, no_ack, callback, on_cancel, ticket, limit)
            self._consumers.add(tag)
            self.spool_connection.recover(spool_queue)
        self.connection.rescan()
        return tag

    def _delivery_limit(self, name: str) -> int:
        declaration = self.spool.declared.records.get(name)
        limit = declaration.arguments.get(DELIVERY_LIMIT) if declaration is not None else None
        return self.spool_connection.address.delivery_limit if limit is None else int(limit)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Have no more messages delivered.  Delivered ones stay unacknowledged."""
        with self.spool_connection.lock, amqp_errors('Basic.cancel'):
            consumer = self._by_tag.pop(consumer_tag, None)
            self._consumers.discard(consumer_tag)
            if consumer is not None:
                consumer.ticket.close()
        if self.connection is not None:
            self.connection.rescan()

    def consumers(self) -> list[ChannelConsumer]:
        """:return: all consumers of this channel."""
        return list(self._by_tag.values())

    def deliverable_queues(self) -> list[str]:
        """:return: the directories of the queues from which a message could be delivered now."""
        has_room = self.qos.can_consume()
        return list(dict.fromkeys(one.name for one in self._by_tag.values() if one.no_ack or has_room))

    def next_message(self, consumer: ChannelConsumer) -> Any:
        """:return: the next message of a consumer; None if there is none, or no room for it, or a callback has cancelled the consumer."""
        if self._by_tag.get(consumer.tag) is not consumer or not (consumer.no_ack or self.qos.can_consume()):
            return None
        with self.spool_connection.lock:
            try:
                with amqp_errors('Basic.deliver'):
                    return self._take(consumer.queue, consumer.name, consumer.no_ack, consumer.limit)
            except ChannelError as error:
                if not isinstance(error.__cause__, UnknownQueueError):
                    raise
        self._lost(consumer)
        return None

    def _lost(self, consumer: ChannelConsumer) -> None:
        """The queue was deleted."""
        self.basic_cancel(consumer.tag)
        if consumer.on_cancel is None:
            raise ConsumerCancelled(f'queue {consumer.queue!r} was deleted', (60, 30))
        consumer.on_cancel(consumer.tag)

    def _take(self, queue: str, name: str, no_ack: bool, limit: int) -> Any:
        spool_queue = self.spool_connection.queue(name, 'consume')
        while (taken := spool_queue.take()) is not None:
            tag = next(self._tags)
            unacked = UnackedMessage(spool_queue, taken.filebase, limit)
            try:
                message = self._made(spool_queue, taken, tag, queue)
                if message is None or (not no_ack and self._is_deferred(unacked, message)):
                    continue
                if no_ack:
                    unacked.finish()
            except (SwitchboardError, OSError):
                retry_later(unacked, UnackedMessage.give_back)  # nobody has seen it
                raise
            if not no_ack:
                self.qos.add(tag, message, unacked)
            return message
        return None

    def _is_deferred(self, unacked: UnackedMessage, message: Any) -> bool:
        """Have a task wait in its queue for its time, where more in this process's hands would leave no file for other messages."""
        if not self.qos.is_crowded() or not (delay_s := wait_s(message.headers)):
            return False
        queue, filebase = unacked.queue, unacked.filebase
        queue.release(filebase, delay_s=delay_s)
        log_event(log, logging.INFO, filebase, 'deferred', queue=queue.name, delay_s=round(delay_s))
        return True

    def _made(self, spool_queue: Switchboard, taken: Taken, tag: int, queue: str) -> Any:
        """:return: the message; None if it is none of kombu's, which must not kill its consumer, time and again."""
        claim = claim_of(spool_queue.folder, taken.filebase)
        assert claim is not None
        try:
            message = self.Message(unpack(taken.msg, taken.msgdata, claim.read(), tag, queue), channel=self)
            if message.errors:  # it keeps the errors of its body until the body is read
                raise message.errors[0][1]
        except Exception as error:
            reason = f'no message of kombu: {error!r}'[:MAX_REASON]
            spool_queue.finish(taken.filebase, preserve=True, cause='corrupt', reason=reason)
            log_event(
                log, logging.ERROR, taken.filebase, 'preserved', queue=queue, cause='corrupt', error=reason
            )
            return None
        return message

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """:return: the next message of a queue; None if there is none.

        :raises NotFound: there is no such queue.
        :raises ResourceLocked: it is another process's alone.
        """
        name = directory_name(queue)
        with self.spool_connection.lock, amqp_errors('Basic.get'):
            self.spool_connection.check_access(name)
            self.spool.declared.records.note_use(name)
            return self._take(queue, name, no_ack, self._delivery_limit(name))

    def basic_ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        """The message is done; with `multiple`, and all that were delivered before it."""
        self.qos.ack(delivery_tag, multiple)

    def basic_recover(self, requeue: bool = True) -> None:
        """Give all unacknowledged messages back."""
        self.qos.restore_unacked()
        self.connection.wake_for_capacity()

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Set how many unacknowledged messages this channel may have; 0 is what ``max_unacked`` says."""
        self.qos.prefetch_count = prefetch_count
        self.connection.wake_for_capacity()

    def drain_events(self, timeout: float | None = None, callback: Any = None) -> None:
        """See `kombu.transport.virtual.Channel`."""
        self._get_many((), timeout)

    def _get_many(self, queues: Iterable[str], timeout: float | None = None) -> None:
        """Deliver one message.

        :raises queue.Empty: there is none.
        """
        if not self.connection.deliver((self,)):
            raise Empty

    def after_reply_message_received(self, queue: str) -> None:
        """The queue goes with its owner, or when its time is over: there may be more replies."""

    # Messages.

    def encode_body(self, body: Any, encoding: str | None = None) -> tuple[Any, str | None]:
        """See `kombu.transport.virtual.Channel`; text needs no encoding."""
        if isinstance(body, str):
            return body, 'utf-8'
        encoded: tuple[Any, str | None] = super().encode_body(body, encoding)
        return encoded

    def close(self) -> None:
        """Give all unacknowledged messages back, then cancel all consumers.

        In this order: a queue that goes with its last consumer takes with it what waits in it.
        """
        with ExitStack() as closing:
            for consumer in self._by_tag.values():
                closing.callback(consumer.ticket.close)  # if the disk refuses what comes before that
            closing.callback(super().close)
            if not self.closed and self._qos is not None:
                self._qos.restore_unacked_once()
