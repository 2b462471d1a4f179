"""The driver of a connection to RabbitMQ.

Two channels: by one, messages come and are acknowledged; the other publishes with confirms.  What may fail without harm (asking for a
queue that is not there) has a channel of its own, because AMQP closes a channel at each error, and all that is unacknowledged on it goes back.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from amqp import exceptions
from amqp.exceptions import ChannelError, RecoverableConnectionError
from kombu import Connection as KombuConnection

from switchboard.brokers.driver import AddressedMessage, Driver, QueueLimits
from switchboard.brokers.message import Delivery, OutgoingMessage
from switchboard.brokers.rabbitmq.alarm import ResourceAlarm
from switchboard.brokers.rabbitmq.channels import new_channel
from switchboard.brokers.rabbitmq.delays import DelayQueues
from switchboard.brokers.rabbitmq.frames import is_readable, read_frame, read_frames, tolerant_frame_handler
from switchboard.brokers.rabbitmq.publisher import RabbitPublisher, batches, refusal
from switchboard.brokers.url import BrokerUrl
from switchboard.errors import (
    BrokerDownError,
    ExchangeMismatchError,
    NoRouteError,
    QueueMismatchError,
    SwitchboardError,
    UnknownExchangeError,
    UnknownQueueError,
)
from switchboard.events import log_event
from switchboard.queue.watch import SelfPipe

log = logging.getLogger('switchboard.queue')

PRIORITIES = 9
# As a limit of deliveries; brokers know no word for none.
FOR_EVER = 1_000_000_000

_PROPERTIES = (
    'message_id content_type content_encoding priority expiration timestamp reply_to correlation_id type app_id user_id '
    'delivery_mode'
).split()

# What py-amqp raises when a connection is of no more use.
_CONNECTION_ERRORS = (OSError, exceptions.ConnectionError, RecoverableConnectionError, EOFError)


class RabbitDriver(Driver):
    """See `Driver`.

    :param connect_timeout_s: how long connecting may take.
    :param confirm_timeout_s: how long an answer may take.
    :ivar connection: py-amqp's; None while there is none.
    """

    has_leases = False

    def __init__(self, url: BrokerUrl, connect_timeout_s: float, confirm_timeout_s: float) -> None:
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._confirm_timeout_s = confirm_timeout_s
        self.heartbeat_interval_s = max(0.2, url.heartbeat_s / 4)
        self.connection_number = 0
        self._reset()

    def _reset(self) -> None:
        self.connection: Any = None
        self._alarm = ResourceAlarm(self._url.shown)
        self._delays = DelayQueues(self.declare_queue)
        # Queues that may not be on the broker's disk yet.
        self._unwritten: set[str] = set()
        self._publisher = RabbitPublisher(
            lambda: new_channel(self.connection), self._confirm_timeout_s, self.heartbeat_interval_s
        )
        self._client: Any = None  # kombu's, which knows the address and its alternates
        self._consuming: Any = None
        self._pushed: deque[Delivery] = deque()
        self._consumers: dict[str, str] = {}
        self._prefetch = 1
        # For who sleeps on the connection: what another thread has read of it, or that it is gone.
        self._notifier: SelfPipe | None = None

    # Out.

    def batches(self, messages: Sequence[AddressedMessage]) -> Iterator[list[int]]:
        """See `Driver`."""
        return batches(messages)

    def send(self, messages: Sequence[AddressedMessage], batch: Sequence[int], outcomes: list[Any]) -> None:
        """See `Driver`."""
        self._alarm.check(self.connection)
        self._publisher.send(messages, batch, outcomes)

    def delay(self, queue: str, outgoing: OutgoingMessage, delay_s: float) -> None:
        """See `Driver`."""
        self._alarm.check(self.connection)
        waiting = self._delays.declare(queue, delay_s)
        try:
            self._publisher.send_one(outgoing, waiting)
        except NoRouteError:  # somebody has deleted it since
            self._delays.declare(queue, delay_s, redeclare=True)
            self._publisher.send_one(outgoing, waiting)

    # The connection.

    def open(self) -> None:
        """See `Driver`."""
        self.connection_number += 1
        tls = self._url.tls
        if self._client is None:
            self._client = KombuConnection(
                self._url.address,
                connect_timeout=self._connect_timeout_s,
                heartbeat=self._url.heartbeat_s,
                transport_options={
                    'client_properties': {'connection_name': f'switchboard {os.getpid()}'},
                    'frame_handler': tolerant_frame_handler,
                },
            )
            self._secure()
        try:
            if tls is not None:
                tls.check_files()
            connection = self._client.transport.establish_connection()
        except Exception:
            # The next of a list of addresses.  A single one stays as it was secured: kombu has written another name of localhost down by now.
            if self._client.cycle is not None:
                self._client.maybe_switch_next()
                self._secure()
            raise
        self._alarm.watch(connection)
        self.connection = connection
        # A broker that stands still must not hold a runner for ever.
        self.connection.sock.settimeout(self._confirm_timeout_s)

    def _secure(self) -> None:
        if self._url.tls is not None:
            self._client.ssl = self._url.tls.for_rabbitmq(self._client.hostname or 'localhost')

    def is_open(self) -> bool:
        """See `Driver`."""
        return self.connection is not None

    def close(self) -> None:
        """See `Driver`."""
        is_blocked = self._alarm.connection is self.connection
        self._alarm.close()
        if self.connection is not None and not is_blocked:
            self.connection.close()

    def abort(self) -> None:
        """See `Driver`."""
        self._publisher.forget_channel()
        self._delays.forget_declared()
        connection, self.connection = self.connection, None
        self._forget_channel()
        self._wake_sleeper()
        if connection is not None and connection is not self._alarm.connection:
            connection.collect()

    def forget_after_fork(self) -> None:
        """See `Driver`."""
        for connection in (self.connection, self._alarm.connection):
            transport = getattr(connection, '_transport', None)
            if transport is not None and transport.sock is not None:
                # Not by its own close(), which would shut the connection down for the parent too.
                os.close(transport.sock.detach())
                transport.sock = None
        self.connection_number += 1
        self._reset()

    def is_connection_error(self, error: BaseException) -> bool:
        """See `Driver`."""
        # py-amqp stumbles over what it has thrown away itself when the connection broke.  Any other such error is a mistake of ours.
        is_collected = self.connection is not None and self.connection._transport is None
        return isinstance(error, _CONNECTION_ERRORS) or (
            is_collected and isinstance(error, AttributeError | TypeError)
        )

    def send_heartbeat(self, claimed: Collection[Delivery]) -> list[Any]:
        """See `Driver`."""
        self._alarm.update(self.connection)
        read_frames(self.connection)
        if self._pushed:
            self._wake_sleeper()
        self.connection.heartbeat_tick(rate=2)
        return []

    def _wake_sleeper(self) -> None:
        if self._notifier is not None:
            self._notifier.wake()

    # In.

    def get(self, queue: str) -> Delivery | None:
        """See `Driver`."""
        if queue in self._consumers and self._prefetch > 1:
            # Nothing is asked for beside it: RabbitMQ may answer with a later message than those that it is just pushing.
            read_frames(self.connection)
            return self._take_pushed(queue)
        if (pushed := self._take_pushed(queue)) is not None:
            return pushed
        if self._alarm.connection is self.connection:
            raise RecoverableConnectionError('the broker does not read from it')
        channel = self._open_consuming()
        try:
            message = channel.basic_get(queue)
        except ChannelError as error:
            self._lose_channel()
            raise _no_queue(error, queue, 'get') from error
        if message is not None:
            return self._delivery(queue, message)
        # Messages pushed before that answer, and those that TLS has read behind it, are no longer on the socket and would wake nobody.
        read_frames(self.connection)
        taken = self._take_pushed(queue)
        if self._pushed:
            self._wake_sleeper()
        return taken

    def _take_pushed(self, queue: str) -> Delivery | None:
        for pushed in self._pushed:
            if pushed.queue == queue:
                self._pushed.remove(pushed)
                return pushed
        return None

    def _open_consuming(self) -> Any:
        if self._consuming is None:
            self._consuming = new_channel(self.connection)
        return self._consuming

    def _lose_channel(self) -> None:
        """Go on without the channel that messages came by: what it held is the broker's again."""
        self.connection_number += 1
        self._forget_channel()

    def _forget_channel(self) -> None:
        self._consuming = None
        self._pushed.clear()
        self._consumers.clear()

    def _delivery(self, queue: str, message: Any) -> Delivery:
        body = message.body
        delivery_info = message.delivery_info
        headers = {
            key if isinstance(key, str) else bytes(key).decode('utf-8', 'backslashreplace'): value
            for key, value in (message.properties.get('application_headers') or {}).items()
        }
        deaths = headers.get('x-delivery-count')
        return Delivery(
            queue,
            body.encode() if isinstance(body, str) else bytes(body),
            headers,
            {key: message.properties[key] for key in _PROPERTIES if message.properties.get(key) is not None},
            delivery_info.get('exchange', ''),
            delivery_info.get('routing_key', ''),
            bool(delivery_info.get('redelivered')),
            deaths if isinstance(deaths, int) else None,
            delivery_info['delivery_tag'],
            self.connection_number,
        )

    def ack(self, delivery: Delivery) -> None:
        """See `Driver`."""
        # If the broker has taken it back meanwhile, it has said so, and says nothing more.
        read_frames(self.connection)
        if self._consuming is None:
            raise RecoverableConnectionError('the broker has closed the channel')
        self._consuming.basic_ack(delivery.tag)

    def requeue(self, delivery: Delivery, died: bool) -> None:
        """See `Driver`."""
        if self._consuming is None:
            raise RecoverableConnectionError('the broker has closed the channel')
        self._consuming.basic_reject(delivery.tag, requeue=True)

    # While idle, the broker pushes: one message, no more.

    def consume(self, queues: Sequence[str], prefetch: int) -> None:
        """See `Driver`."""
        self._notifier = self._notifier or SelfPipe()
        channel = self._open_consuming()
        queue = queues[0]
        try:
            channel.basic_qos(0, prefetch, False)
            self._prefetch = prefetch
            for queue in queues:
                if queue not in self._consumers:
                    tag = f'switchboard.{queue}'
                    self._consumers[queue] = tag
                    channel.basic_consume(
                        queue, consumer_tag=tag, callback=partial(self._push, channel, queue)
                    )
        except ChannelError as error:
            self._lose_channel()
            raise _no_queue(error, queue, 'listen') from error

    def _push(self, channel: Any, queue: str, message: Any) -> None:
        # What comes by a connection that is kept aside is the broker's again when that ends; here its tag is another message's.
        if channel is self._consuming:
            self._pushed.append(self._delivery(queue, message))

    def cancel(self) -> None:
        """See `Driver`."""
        consumers, self._consumers = self._consumers, {}
        for tag in consumers.values():
            self._consuming.basic_cancel(tag)
        # Of several queues, each may have pushed one: one is what there is time for.
        while consumers and len(self._pushed) > 1:
            self._consuming.basic_reject(self._pushed.pop().tag, requeue=True)

    def descriptors(self) -> list[int]:
        """See `Driver`."""
        # Not by its own `sock`, which connects anew when another thread has just found it broken.
        transport = getattr(self.connection, '_transport', None)
        if transport is None or transport.sock is None:
            return []
        return [transport.sock.fileno(), *([self._notifier.fileno()] if self._notifier is not None else [])]

    def has_message(self) -> bool:
        """See `Driver`."""
        if self._notifier is not None:
            self._notifier.empty()
        if self.connection is None or not self._consumers:
            return True  # or it was made anew meanwhile, and nothing is pushed to it
        while not self._pushed and is_readable(self.connection):
            read_frame(self.connection)
        return bool(self._pushed)

    # What there is.

    def declare_queue(
        self, queue: str, limits: QueueLimits | None, arguments: Mapping[str, Any] | None
    ) -> None:
        """See `Driver`."""
        wanted = {**(arguments or {}), **_arguments(limits, self._url.queue_type)}
        try:
            if self._declared(queue) is None:
                self._unwritten.add(queue)
            with self._separate_channel('declare', exceptions.PreconditionFailed) as channel:
                channel.queue_declare(queue, durable=True, auto_delete=False, arguments=wanted)
        except ChannelError as error:
            raise QueueMismatchError(
                f'the broker refuses it: {error.reply_text} (delete it there when it is empty, or take it as it is with declare=no)',
                queue=queue,
            ) from error
        if queue in self._unwritten:
            self._have_written(queue)
            self._unwritten.discard(queue)

    def _have_written(self, queue: str) -> None:
        """Have a new queue on the broker's disk before anything is put into it.

        RabbitMQ 3 says that a queue is declared before that is on its disk.  Killed in the next tenth of a second, it forgets the
        queue, and with it confirmed messages.  It confirms a new exchange only when everything declared before is on the disk.
        """
        exchange = f'{queue[:50]}.written.{uuid4().hex}'
        try:
            with self._separate_channel('declare') as channel:
                channel.exchange_declare(exchange, 'direct', durable=True, auto_delete=False)
                channel.exchange_delete(exchange)
        except BrokerDownError as error:
            log_event(log, logging.DEBUG, None, 'not declared durable', queue=queue, error=error)

    def declare_exchange(self, exchange: str, type: str) -> None:
        """See `Driver`."""
        try:
            with self._separate_channel('declare', exceptions.PreconditionFailed) as channel:
                channel.exchange_declare(exchange, type, durable=True, auto_delete=False)
        except ChannelError as error:
            raise ExchangeMismatchError(f'{exchange}: the broker refuses it: {error.reply_text}') from error

    def expect_exchange(self, exchange: str, type: str) -> None:
        """See `Driver`."""

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """See `Driver`."""
        try:
            with self._separate_channel('bind', exceptions.NotFound) as channel:
                channel.queue_bind(queue, exchange, routing_key)
        except ChannelError as error:
            raise UnknownExchangeError(exchange) from error

    def delete_queue(self, queue: str) -> None:
        """See `Driver`."""
        with self._separate_channel('delete') as channel:
            channel.queue_delete(queue)

    def count(self, queue: str) -> int:
        """See `Driver`."""
        declared = self._declared(queue)
        return 0 if declared is None else int(declared.message_count)

    def _declared(self, queue: str) -> Any:
        """:return: the broker's answer about a queue; None if it is not there."""
        try:
            with self._separate_channel('look', exceptions.NotFound) as channel:
                return channel.queue_declare(queue, passive=True)
        except exceptions.NotFound:
            return None

    @contextmanager
    def _separate_channel(self, step: str, fault: type[ChannelError] | tuple[()] = ()) -> Iterator[Any]:
        """Open a channel that nothing else depends on, for calls that may be refused.

        :param fault: a refusal that is raised as it is.
        :raises BrokerDownError: any other.
        """
        channel = new_channel(self.connection)
        try:
            yield channel
        except Exception as error:
            if not self.is_connection_error(error):  # then it goes with its connection
                channel.close()  # if the broker has not
            if isinstance(error, ChannelError) and not isinstance(error, fault):
                raise refusal(error, step) from error
            raise
        channel.close()


def _no_queue(error: ChannelError, queue: str, step: str) -> SwitchboardError:
    if isinstance(error, exceptions.NotFound):
        return UnknownQueueError('the broker has no such queue', queue=queue)
    return refusal(error, step)


def _arguments(limits: QueueLimits | None, queue_type: str) -> dict[str, Any]:
    if limits is None:
        return {}
    arguments: dict[str, Any] = {}
    if queue_type == 'quorum':
        arguments['x-queue-type'] = 'quorum'
        # We give back what waits for better times, and count deaths ourselves; from 4.0 on the broker would drop it after 20 times.
        arguments['x-delivery-limit'] = FOR_EVER
    else:
        arguments['x-max-priority'] = PRIORITIES
    if limits.max_messages is not None:
        arguments['x-max-length'] = limits.max_messages
    if limits.max_bytes is not None:
        arguments['x-max-length-bytes'] = limits.max_bytes
    if limits.max_messages is not None or limits.max_bytes is not None:
        arguments['x-overflow'] = 'reject-publish' if limits.overflow == 'reject' else 'drop-head'
    return arguments
