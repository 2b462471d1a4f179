"""A connection to RabbitMQ.

Two channels: by one, messages come and are acknowledged; the other publishes with confirms.  What may fail without harm (asking for a
queue that is not there) has a channel of its own, because AMQP closes a channel at each error, and all that is unacknowledged on it goes back.

RabbitMQ closes the channel, too, when a message was not acknowledged for as long as its ``consumer_timeout``: that counts as the end of the
connection, and the held messages are void.
"""

from __future__ import annotations

import os
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from amqp import exceptions
from kombu import Connection as KombuConnection

from switchboard.brokers.connection import Connection, Publish, QueueLimits
from switchboard.brokers.message import Delivery, OutgoingMessage
from switchboard.brokers.rabbitmq_publish import RabbitPublisher
from switchboard.brokers.rabbitmq_queues import RabbitDeclarer, open_channel
from switchboard.errors import UnknownQueueError
from switchboard.store.watch import SelfPipe, readable

# How long the rest of a frame may take of which the beginning is here.
FRAME_TIMEOUT_S = 1.0

_PROPERTIES = (
    'message_id content_type content_encoding priority expiration timestamp reply_to correlation_id type app_id user_id '
    'delivery_mode'
).split()


class RabbitConnection(Connection):
    """A connection to RabbitMQ.  See `Connection`."""

    kind = 'rabbitmq'

    def _begin(self) -> None:
        super()._begin()
        self._connection: Any = None
        self._declarer = RabbitDeclarer(self, self._channel)
        self._publisher = RabbitPublisher(self, self._channel)
        self._client: Any = None  # kombu's, which knows the address and its alternates
        self._taking: Any = None
        self._pushed: deque[Delivery] = deque()
        self._consumers: dict[str, str] = {}
        self._prefetch = 1
        # For who sleeps on the connection: what another thread has read of it, or that it is gone.
        self._notifier: SelfPipe | None = None

    def _channel(self) -> Any:
        return open_channel(self._connection)

    # What its parts do.

    def publish_many(self, postings: Sequence[Publish], *, mandatory: bool = True) -> list[Exception | None]:
        """See `Remote`."""
        with self._lock:
            return self._publisher.publish_many(postings, mandatory=mandatory)

    def delay(self, queue: str, outgoing: OutgoingMessage, delay_s: float) -> None:
        """See `Remote`."""
        self._declarer.delay(queue, outgoing, delay_s)

    def declare_queue(
        self, queue: str, *, limits: QueueLimits | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """See `Remote`."""
        self._declarer.declare_queue(queue, limits=limits, arguments=arguments)

    def declare_exchange(self, exchange: str, type: str = 'topic') -> None:
        """See `Remote`."""
        self._declarer.declare_exchange(exchange, type)

    def bind(self, queue: str, exchange: str, routing_key: str = '') -> None:
        """See `Remote`."""
        self._declarer.bind(queue, exchange, routing_key)

    def delete_queue(self, queue: str) -> None:
        """See `Remote`."""
        self._declarer.delete_queue(queue)

    def count(self, queue: str) -> int:
        """See `Remote`."""
        return self._declarer.count(queue)

    # The connection.

    def _open(self) -> None:
        if self._client is None:
            self._client = KombuConnection(
                self.broker.address,
                connect_timeout=self.connect_timeout_s,
                heartbeat=self.broker.heartbeat_s,
                transport_options={'client_properties': {'connection_name': f'switchboard {os.getpid()}'}},
            )
            self._secure()
        try:
            if self.broker.tls is not None:
                self.broker.tls.check_files()
            self._connection = self._client.transport.establish_connection()
        except Exception:
            self._client.maybe_switch_next()  # the next of a list of addresses
            self._secure()
            raise
        # A broker that stands still must not hold a runner for ever.
        self._connection.sock.settimeout(self.confirm_timeout_s)

    def _secure(self) -> None:
        if self.broker.tls is not None:
            self._client.ssl = self.broker.tls.for_rabbitmq(self._client.hostname or 'localhost')

    def _is_open(self) -> bool:
        return self._connection is not None

    def _shut(self) -> None:
        self._connection.close()

    def _drop(self) -> None:
        super()._drop()
        self._publisher.drop()
        connection, self._connection = self._connection, None
        self._taking = None
        self._pushed.clear()
        self._consumers.clear()
        self._ring()
        if connection is not None:
            try:
                connection.collect()
            except Exception:  # noqa: S110  it is thrown away, whatever its state is
                pass

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        transport = getattr(connection, '_transport', None)
        if transport is not None and transport.sock is not None:
            # Not by its own close(), which would shut the connection down for the parent too.
            os.close(transport.sock.detach())
            transport.sock = None

    def _troubles(self) -> tuple[type[BaseException], ...]:
        return (
            OSError,
            exceptions.ConnectionError,
            exceptions.RecoverableConnectionError,
            EOFError,
        )

    def is_trouble(self, error: BaseException) -> bool:
        # py-amqp stumbles over what it has thrown away itself when the connection broke.  Any other such error is a mistake of ours.
        is_collected = self._connection is not None and self._connection._transport is None
        return super().is_trouble(error) or (is_collected and isinstance(error, AttributeError | TypeError))

    def beat_s(self) -> float:
        return max(0.2, self.broker.heartbeat_s / 4)

    def _beat(self) -> None:
        self._read_all()
        if self._pushed:
            self._ring()
        self._connection.heartbeat_tick(rate=2)

    def _ring(self) -> None:
        if self._notifier is not None:
            self._notifier.wake()

    def _is_readable(self) -> bool:
        sock = self._connection.sock
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        return bool(readable([sock.fileno()], 0))

    def _read(self) -> None:
        """Take one frame in.  Not by ``drain_events``, which after a mere heartbeat waits for more."""
        try:
            self._connection.blocking_read(timeout=FRAME_TIMEOUT_S)
        except TimeoutError:
            pass  # half a frame: py-amqp keeps it, and the rest comes

    def _read_all(self) -> None:
        while self._is_readable():
            self._read()

    # In.

    def get(self, queue: str) -> Delivery | None:
        """See `Remote`."""
        with self._lock:
            delivery: Delivery | None = self.again('get', lambda: self._get(queue))
            if delivery is not None:
                self._held[delivery.tag] = delivery
            return delivery

    def _get(self, queue: str) -> Delivery | None:
        if queue in self._consumers and self._prefetch > 1:
            # Nothing is asked for beside it: RabbitMQ may answer with a later message than those that it is just pushing.
            self._read_all()
            return self._take_pushed(queue)
        if (pushed := self._take_pushed(queue)) is not None:
            return pushed
        channel = self._take_channel()
        try:
            message = channel.basic_get(queue)
        except exceptions.ChannelError as error:
            self._lose_channel()
            if isinstance(error, exceptions.NotFound):
                raise UnknownQueueError('the broker has no such queue', queue=queue) from error
            raise self._down(str(error), 'get') from error
        if message is not None:
            return self._delivery(queue, message)
        # Messages pushed before that answer, and those that TLS has read behind it, are no longer on the socket and would wake nobody.
        self._read_all()
        taken = self._take_pushed(queue)
        if self._pushed:
            self._ring()
        return taken

    def _take_pushed(self, queue: str) -> Delivery | None:
        for pushed in self._pushed:
            if pushed.queue == queue:
                self._pushed.remove(pushed)
                return pushed
        return None

    def _take_channel(self) -> Any:
        if self._taking is None:
            self._taking = self._channel()
        return self._taking

    def _lose_channel(self) -> None:
        """Go on without the channel that messages came by: what it held is the broker's again."""
        self._taking = None
        self.connection_number += 1
        self._held.clear()
        self._pushed.clear()
        self._consumers.clear()

    def _delivery(self, queue: str, message: Any) -> Delivery:
        body = message.body
        told = message.delivery_info
        headers = dict(message.properties.get('application_headers') or {})
        deaths = headers.get('x-delivery-count')
        return Delivery(
            queue,
            body.encode() if isinstance(body, str) else bytes(body),
            headers,
            {key: message.properties[key] for key in _PROPERTIES if message.properties.get(key) is not None},
            told.get('exchange', ''),
            told.get('routing_key', ''),
            bool(told.get('redelivered')),
            deaths if isinstance(deaths, int) else None,
            told['delivery_tag'],
            self.connection_number,
        )

    def _ack(self, delivery: Delivery) -> None:
        # If the broker has taken it back meanwhile, it has said so, and says nothing more.
        self._read_all()
        if self._taking is None:
            raise exceptions.RecoverableConnectionError('the broker has closed the channel')
        self._taking.basic_ack(delivery.tag)

    def _requeue(self, delivery: Delivery) -> None:
        if self._taking is None:
            raise exceptions.RecoverableConnectionError('the broker has closed the channel')
        self._taking.basic_reject(delivery.tag, requeue=True)

    # While idle, the broker pushes: one message, no more.

    def consume(self, queues: Sequence[str], *, prefetch: int = 1) -> None:
        """See `Remote`."""
        with self._lock:
            try:
                self.again('listen', lambda: self._consume(queues, prefetch))
            except exceptions.ChannelError as error:
                self._lose_channel()
                raise UnknownQueueError('the broker has no such queue', queue=queues[0]) from error

    def _consume(self, queues: Sequence[str], prefetch: int) -> None:
        self._notifier = self._notifier or SelfPipe()
        channel = self._take_channel()
        channel.basic_qos(0, prefetch, False)
        self._prefetch = prefetch
        for queue in queues:
            if queue not in self._consumers:
                tag = f'switchboard.{queue}'
                self._consumers[queue] = tag
                channel.basic_consume(
                    queue, consumer_tag=tag, callback=lambda message, queue=queue: self._push(queue, message)
                )

    def _push(self, queue: str, message: Any) -> None:
        self._pushed.append(self._delivery(queue, message))

    def cancel(self) -> None:
        """See `Remote`."""
        with self._lock:
            consumers, self._consumers = self._consumers, {}
            if not consumers or not self._is_open():
                return
            with self._working('cancel'):
                for tag in consumers.values():
                    self._taking.basic_cancel(tag)
                # Of several queues, each may have pushed one: one is what there is time for.
                while len(self._pushed) > 1:
                    self._taking.basic_reject(self._pushed.pop().tag, requeue=True)

    def descriptors(self) -> list[int]:
        """See `Remote`."""
        with self._lock:
            # Not by its own `sock`, which connects anew when another thread has just found it broken.
            transport = getattr(self._connection, '_transport', None)
            if transport is None or transport.sock is None:
                return []
            return [
                transport.sock.fileno(),
                *([self._notifier.fileno()] if self._notifier is not None else []),
            ]

    def has_message(self) -> bool:
        """See `Remote`."""
        with self._lock:
            if self._notifier is not None:
                self._notifier.empty()
            if not self._is_open() or not self._consumers:
                return True  # or it was made anew meanwhile, and nothing is pushed to it
            with self._working('listen'):
                while not self._pushed and self._is_readable():
                    self._read()
            return bool(self._pushed)

    def restore(self, queue: str) -> list[tuple[str, int]]:
        """See `Remote`: RabbitMQ does so by itself, when a connection ends."""
        return []
