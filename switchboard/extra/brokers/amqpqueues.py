"""What there is on a RabbitMQ: queues, exchanges, and queues for delays.

A delay is a queue in which nobody reads, whose messages expire into the one they are for.  RabbitMQ lets only the first of a queue
expire, so there is one for each length of time: lengths are rounded up by an eighth at most, and an unused one deletes itself.

What may fail without harm (asking for a queue that is not there) has a channel of its own, because AMQP closes a channel at each error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from amqp import exceptions

from switchboard.errors import ExchangeMismatchError, QueueMismatchError, UnknownExchangeError
from switchboard.extra.brokers.linking import Link
from switchboard.extra.brokers.remote import QueueLimits
from switchboard.extra.brokers.wire import Letter

# A queue for delays is deleted when nobody has used it for as long as its messages wait and this much more.
UNUSED_MS = 60_000
# RabbitMQ counts milliseconds in 32 bits.
LONGEST_HOP_MS = 40 * 86_400_000
PRIORITIES = 9
# As a limit of deliveries; brokers know no word for none.
FOR_EVER = 1_000_000_000


class AmqpQueues(Link):
    """The part of a connection to RabbitMQ that declares.  See `Remote`."""

    def _begin(self) -> None:
        super()._begin()
        self._connection: Any = None

    def _channel(self) -> Any:
        channel = self._connection.channel()
        channel.auto_decode = False
        return channel

    def delay(self, queue: str, letter: Letter, delay_s: float) -> None:
        """See `Remote`."""
        wait_ms = min(LONGEST_HOP_MS, rounded_ms(delay_s))
        waiting = f'{queue}.wait.{wait_ms}'
        arguments = {
            'x-message-ttl': wait_ms,
            'x-expires': wait_ms + UNUSED_MS,
            'x-dead-letter-exchange': '',
            'x-dead-letter-routing-key': queue,
        }
        # Each time, for this also tells the broker that it is used.
        self.declare_queue(waiting, arguments=arguments)
        self.publish(letter, routing_key=waiting)

    def declare_queue(
        self, queue: str, *, limits: QueueLimits | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """See `Remote`."""
        wanted = {**(arguments or {}), **_arguments(limits, self.broker.queue_type)}
        try:
            self._apart(
                'declare',
                lambda channel: channel.queue_declare(
                    queue, durable=True, auto_delete=False, arguments=wanted
                ),
            )
        except exceptions.ChannelError as error:
            raise QueueMismatchError(f'the broker refuses it: {error.reply_text}', queue=queue) from error

    def declare_exchange(self, exchange: str, type: str = 'topic') -> None:
        """See `Remote`."""
        try:
            self._apart(
                'declare',
                lambda channel: channel.exchange_declare(exchange, type, durable=True, auto_delete=False),
            )
        except exceptions.ChannelError as error:
            raise ExchangeMismatchError(f'{exchange}: the broker refuses it: {error.reply_text}') from error

    def bind(self, queue: str, exchange: str, routing_key: str = '') -> None:
        """See `Remote`."""
        try:
            self._apart('bind', lambda channel: channel.queue_bind(queue, exchange, routing_key))
        except exceptions.ChannelError as error:
            raise UnknownExchangeError(exchange) from error

    def delete_queue(self, queue: str) -> None:
        """See `Remote`."""
        self._apart('delete', lambda channel: channel.queue_delete(queue))

    def count(self, queue: str) -> int:
        """See `Remote`."""
        try:
            declared = self._apart('count', lambda channel: channel.queue_declare(queue, passive=True))
        except exceptions.NotFound:
            return 0
        return int(declared.message_count)

    def _apart(self, step: str, work: Any) -> Any:
        """Do what may be refused, on a channel that nothing else depends on."""

        def on_a_channel() -> Any:
            channel = self._channel()
            found = work(channel)
            channel.close()
            return found

        return self._again(step, on_a_channel)


def _arguments(limits: QueueLimits | None, queue_type: str) -> dict[str, Any]:
    if limits is None:
        return {}
    arguments: dict[str, Any] = {}
    if queue_type == 'quorum':
        arguments['x-queue-type'] = 'quorum'
        # We give back what waits for better times, and count deaths ourselves; from 4.0 on the broker would drop it after 20 times.
        arguments['x-delivery-limit'] = FOR_EVER
    elif limits.priorities:
        arguments['x-max-priority'] = PRIORITIES
    if limits.max_messages is not None:
        arguments['x-max-length'] = limits.max_messages
    if limits.max_bytes is not None:
        arguments['x-max-length-bytes'] = limits.max_bytes
    if limits.max_messages is not None or limits.max_bytes is not None:
        arguments['x-overflow'] = 'reject-publish' if limits.overflow == 'reject' else 'drop-head'
    return arguments


def rounded_ms(delay_s: float) -> int:
    """:return: the milliseconds of a delay, rounded up to one of eight lengths in each octave."""
    wait_ms = max(1.0, min(delay_s, 1e9) * 1000)
    step = 2.0 ** max(0, math.floor(math.log2(wait_ms)) - 3)
    return int(math.ceil(wait_ms / step) * step)
