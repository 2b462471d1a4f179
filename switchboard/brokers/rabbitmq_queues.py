"""Declaring on RabbitMQ: queues, exchanges, and queues for delays; and the channels for it.

**Channels.**  py-amqp reuses the number of a channel after the broker's Channel.Close, and opens it again without its consumers, confirms and unacknowledged
deliveries: all of them are lost silently.  Here a channel that the broker closed is gone, and its number is free.  A refused call raises
`amqp.exceptions.ChannelError`.  A channel that the broker closes of its own accord, as when a job takes longer than ``consumer_timeout``, counts as the end of
the connection: another one is made, and all that the old one held is the broker's again.

**Delays.**  A delay is a queue in which nobody reads, whose messages expire into the one they are for.  RabbitMQ lets only the first of a queue
expire, so there is one for each length of time, and lengths are rounded up.  It is a quorum queue with dead letters *at least once*:
the broker lets go of a message when the queue that it is for has confirmed it.  While that one is full, or deleted, or its node is away,
the message stays, and is offered again every three minutes.

A queue for delays stays for good, for nobody but the broker could delete it at the right time: AMQP does not tell how much of it is
expired and still refused, RabbitMQ deletes no quorum queue on condition that it is empty, and ``x-expires`` asks for nothing but time.  So
there must be few: eight in each doubling, and none below a tenth of a second apart.

Rejected: classic queues, whose dead letters are thrown away when they are refused, and may be when the broker dies.  ``x-expires``: after the broker was
away for longer, it deletes the queue with the messages that have expired meanwhile.  One ladder of powers of two for all queues of a broker, for then one that
is full holds up the others.

What may fail without harm (asking for a queue that is not there) has a channel of its own, because AMQP closes a channel at each error.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from amqp import exceptions, spec
from amqp.exceptions import ChannelError, RecoverableConnectionError, error_for_code

from switchboard.brokers.connection import QueueLimits
from switchboard.errors import (
    ExchangeMismatchError,
    QueueMismatchError,
    UnknownExchangeError,
)
from switchboard.events import event

# What we call, and somebody waits to hear of.
_CALLS = frozenset(
    (
        spec.Exchange.Declare,
        spec.Queue.Declare,
        spec.Queue.Bind,
        spec.Queue.Delete,
        spec.Basic.Consume,
        spec.Basic.Get,
        spec.Basic.Publish,
    )
)


def open_channel(connection: Any) -> Any:
    """:return: a new channel."""
    channel = connection.channel()
    channel.auto_decode = False
    channel._callbacks[spec.Channel.Close] = partial(_closed, channel)
    return channel


def _closed(channel: Any, code: int, text: str, class_id: int, method_id: int) -> None:
    """Hear that the broker has closed a channel."""
    channel.send_method(spec.Channel.CloseOk)
    if channel.is_closing:
        return  # by ourselves, too: the answer to that comes yet
    channel.collect()
    if (class_id, method_id) in _CALLS:
        raise error_for_code(code, text, (class_id, method_id), ChannelError)
    raise RecoverableConnectionError(f'the broker has closed a channel: {text}')


log = logging.getLogger('switchboard.queue')

# How far two lengths of a delay are apart at least, and in how many each doubling is divided.
SHORTEST_STEP_MS, STEPS = 100, 8
# RabbitMQ counts milliseconds in 32 bits.
LONGEST_HOP_MS = 40 * 86_400_000
PRIORITIES = 9
# As a limit of deliveries; brokers know no word for none.
FOR_EVER = 1_000_000_000


class RabbitDeclarer:
    """The part of a driver of RabbitMQ that declares.

    :param new_channel: opens a channel.
    :param is_trouble: see `Driver`.
    :param queue_type: of queues with limits, ``quorum`` or ``classic``.
    """

    def __init__(
        self, new_channel: Callable[[], Any], is_trouble: Callable[[BaseException], bool], queue_type: str
    ) -> None:
        self._new_channel = new_channel
        self._is_trouble = is_trouble
        self._queue_type = queue_type
        # The queues for delays that were declared by this connection, and queues that may not be on the broker's disk yet.
        self._waiting: set[str] = set()
        self._unwritten: set[str] = set()

    def drop(self) -> None:
        """Forget what a connection has declared."""
        self._waiting.clear()

    def have_waiting(self, queue: str, delay_s: float, *, anew: bool = False) -> str:
        """Make a queue for delays, if it is not there; once a connection.

        :return: its name.
        """
        waiting = waiting_queue(queue, delay_s)
        if anew or waiting not in self._waiting:
            arguments = {
                'x-queue-type': 'quorum',
                'x-message-ttl': rounded_ms(delay_s),
                'x-dead-letter-exchange': '',
                'x-dead-letter-routing-key': queue,
                'x-dead-letter-strategy': 'at-least-once',
                'x-overflow': 'reject-publish',  # without a limit; RabbitMQ wants it for `at-least-once`
            }
            self.declare_queue(waiting, None, arguments)
            self._waiting.add(waiting)
        return waiting

    def declare_queue(
        self, queue: str, limits: QueueLimits | None, arguments: Mapping[str, Any] | None
    ) -> None:
        """See `Driver`."""
        wanted = {**(arguments or {}), **_arguments(limits, self._queue_type)}
        try:
            if self._declared(queue) is None:
                self._unwritten.add(queue)
            self._apart(
                lambda channel: channel.queue_declare(
                    queue, durable=True, auto_delete=False, arguments=wanted
                )
            )
        except exceptions.ChannelError as error:
            raise QueueMismatchError(f'the broker refuses it: {error.reply_text}', queue=queue) from error
        if queue in self._unwritten:
            self._have_written(queue)
            self._unwritten.discard(queue)

    def _have_written(self, queue: str) -> None:
        """Have a new queue on the broker's disk before anything is put into it.

        RabbitMQ 3 says that a queue is declared before that is on its disk.  Killed in the next tenth of a second, it forgets the
        queue, and with it confirmed messages.  It confirms a new exchange only when everything declared before is on the disk.
        """
        exchange = f'{queue[:50]}.written.{uuid4().hex}'

        def write(channel: Any) -> None:
            channel.exchange_declare(exchange, 'direct', durable=True, auto_delete=False)
            channel.exchange_delete(exchange)

        try:
            self._apart(write)
        except exceptions.ChannelError as error:
            event(log, logging.DEBUG, None, 'not declared lasting', queue=queue, error=error)

    def declare_exchange(self, exchange: str, type: str) -> None:
        """See `Driver`."""
        try:
            self._apart(
                lambda channel: channel.exchange_declare(exchange, type, durable=True, auto_delete=False)
            )
        except exceptions.ChannelError as error:
            raise ExchangeMismatchError(f'{exchange}: the broker refuses it: {error.reply_text}') from error

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """See `Driver`."""
        try:
            self._apart(lambda channel: channel.queue_bind(queue, exchange, routing_key))
        except exceptions.ChannelError as error:
            raise UnknownExchangeError(exchange) from error

    def delete_queue(self, queue: str) -> None:
        """See `Driver`."""
        self._apart(lambda channel: channel.queue_delete(queue))

    def count(self, queue: str) -> int:
        """See `Driver`."""
        declared = self._declared(queue)
        return 0 if declared is None else int(declared.message_count)

    def _declared(self, queue: str) -> Any:
        """:return: the broker's answer about a queue; None if it is not there."""
        try:
            return self._apart(lambda channel: channel.queue_declare(queue, passive=True))
        except exceptions.NotFound:
            return None

    def _apart(self, work: Callable[[Any], Any]) -> Any:
        """Do what may be refused, on a channel that nothing else depends on."""
        channel = self._new_channel()
        try:
            found = work(channel)
        except Exception as error:
            if not self._is_trouble(error):  # then it goes with its connection
                channel.close()  # if the broker has not
            raise
        channel.close()
        return found


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
    """:return: the milliseconds of a delay, rounded up to one of few lengths."""
    wait_ms = max(1.0, min(delay_s * 1000, LONGEST_HOP_MS))
    step_ms = SHORTEST_STEP_MS
    while wait_ms > 2 * STEPS * step_ms:
        step_ms *= 2
    return math.ceil(wait_ms / step_ms) * step_ms


def waiting_queue(queue: str, delay_s: float) -> str:
    """:return: the queue in which a message waits that is delayed on its way to another one."""
    return f'{queue}.delay.{rounded_ms(delay_s)}'
