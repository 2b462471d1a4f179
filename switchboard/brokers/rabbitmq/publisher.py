"""Publishing on RabbitMQ: many messages are sent, and then their confirms are waited for.

Confirms are counted here and not by py-amqp, which waits for each before it sends the next.

An outcome, once known, is kept.  Only those messages are sent again, when a connection broke or the broker closed the channel, of which the
broker had said nothing yet.  It may have stored it all the same: then it is there twice, under the same message id.
RabbitMQ closes the channel because of one message (it is too large for it; there is no such exchange), and does not say which it
was, so those in doubt are sent one by one then.  To have none in doubt, a large message goes alone, and so does one that goes to
another exchange than those before it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import amqp
from amqp import exceptions

from switchboard.brokers.driver import UNCONFIRMED, AddressedMessage
from switchboard.brokers.encode import MAX_SHORT_BYTES
from switchboard.brokers.message import OutgoingMessage
from switchboard.errors import (
    BrokerDownError,
    MessageTooLargeError,
    NoRouteError,
    QueueError,
    QueueFullError,
    SwitchboardError,
    UnknownExchangeError,
    UnserializableError,
)

# What a frame has beside what it carries, and what a header frame has before the properties.
FRAME_BYTES = 8 + 12


class EncodedMessage(amqp.Message):
    """A message in AMQP's form, which it has before anything of it is sent: one that has no such form is found in time.

    :param frame_max_bytes: how long a frame may be; all properties are in one.
    :raises MessageTooLargeError: a number, a text or all properties together are larger than AMQP has room for.
    :raises UnserializableError: AMQP has no form for a property or a header.
    """

    def __init__(
        self, outgoing: OutgoingMessage, exchange: str, routing_key: str, frame_max_bytes: int
    ) -> None:
        super().__init__(outgoing.body, application_headers=outgoing.headers, **outgoing.properties)
        for text in (exchange, routing_key):
            if len(text.encode('utf-8', 'surrogatepass')) > MAX_SHORT_BYTES:
                raise MessageTooLargeError(f'no exchange and no key is so long: {text[:80]}...')
        try:
            self._packed: bytes = super()._serialize_properties()
        except struct.error as error:
            raise MessageTooLargeError(f'more than a property or a header of AMQP holds: {error}') from error
        except Exception as error:  # whatever py-amqp stumbles over
            raise UnserializableError(f'AMQP has no form for a property or a header: {error}') from error
        if len(self._packed) > frame_max_bytes - FRAME_BYTES:
            raise MessageTooLargeError(
                f'headers of {len(self._packed)} bytes are more than a frame of {frame_max_bytes} carries'
            )

    def _serialize_properties(self) -> bytes:
        return self._packed


class Confirms:
    """Publishes, and counts.

    RabbitMQ numbers the messages published on a channel from 1, and confirms by number, often many at once.  A message that no queue is
    for is returned first, and confirmed then.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._last = 0
        self._outcomes: dict[int, Any] = {}
        # Where each went and what it is called: what a return tells of it.
        self._sent: dict[int, tuple[str, str, Any]] = {}
        channel.confirm_select()
        channel.events['basic_ack'].add(self._on_ack)
        channel.events['basic_nack'].add(self._on_nack)
        channel.events['basic_return'].add(self._on_return)

    def send(self, outgoing: OutgoingMessage, exchange: str, routing_key: str) -> int:
        """Publish without waiting.

        :return: its number.
        :raises QueueError: AMQP cannot carry it; nothing was sent, and nothing counted.
        """
        message = EncodedMessage(outgoing, exchange, routing_key, self._channel.connection.frame_max)
        self._last += 1
        self._outcomes[self._last] = UNCONFIRMED
        self._sent[self._last] = (exchange, routing_key, outgoing.properties.get('message_id'))
        self._channel.basic_publish(message, exchange, routing_key, mandatory=True)
        return self._last

    def wait(self, timeout_s: float, heartbeat_interval_s: float) -> None:
        """Wait until there is an outcome for all that was sent.

        :param heartbeat_interval_s: how often the broker is to be shown that we live.
        :raises TimeoutError: the broker did not confirm in time.
        """
        give_up_s = time.monotonic() + timeout_s
        connection = self._channel.connection
        while self._sent:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f'no confirm within {timeout_s:.0f} s')
            try:
                connection.drain_events(timeout=min(left_s, heartbeat_interval_s))
            except TimeoutError:
                connection.heartbeat_tick(rate=2)

    def outcome(self, number: int) -> Any:
        """:return: None for a message that was stored, why not, or ``UNCONFIRMED``.  Forgotten when it was returned."""
        self._sent.pop(number, None)
        return self._outcomes.pop(number)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, None)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, QueueFullError('the broker refuses it: its queue takes no more'))

    def _settle(self, tag: int, multiple: bool, error: Exception | None) -> None:
        for number in [n for n in self._sent if n <= tag] if multiple else [tag]:
            if self._sent.pop(number, None) is not None and self._outcomes[number] is UNCONFIRMED:
                self._outcomes[number] = error

    def _on_return(self, _error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        sought = (exchange, routing_key, message.properties.get('message_id'))
        for number, sent in self._sent.items():
            if sent == sought and self._outcomes[number] is UNCONFIRMED:
                self._outcomes[number] = NoRouteError(exchange, routing_key)
                return


# Messages that are sent before the confirms of the first are waited for.
BATCH_MESSAGES = 200
# A message as large as this may be too large for the broker (its ``max_message_size`` is 128 MiB, or what an operator says), and a
# round trip is little for it.
LARGE_BYTES = 1 << 20


class RabbitPublisher:
    """The part of a driver of RabbitMQ that publishes.

    :param new_channel: opens a channel.
    :param heartbeat_interval_s: how often the broker is to be shown that we live, while it is waited for.
    """

    def __init__(
        self, new_channel: Callable[[], Any], confirm_timeout_s: float, heartbeat_interval_s: float
    ) -> None:
        self._new_channel = new_channel
        self._confirm_timeout_s = confirm_timeout_s
        self._heartbeat_interval_s = heartbeat_interval_s
        self._confirms: Confirms | None = None

    def forget_channel(self) -> None:
        """Forget a channel that went with its connection."""
        self._confirms = None

    def send_one(self, outgoing: OutgoingMessage, queue: str) -> None:
        """Publish one message, and wait for its confirm.

        :raises SwitchboardError: why it was not confirmed.
        """
        outcomes: list[Any] = [UNCONFIRMED]
        self.send([(outgoing, '', queue)], [0], outcomes)
        for error in outcomes:
            if error is not None:
                raise error

    def send(self, messages: Sequence[AddressedMessage], batch: Sequence[int], outcomes: list[Any]) -> None:
        """See `Driver`."""
        try:
            self._send(messages, batch, outcomes)
        except exceptions.ChannelError as error:
            doubtful = [number for number in batch if outcomes[number] is UNCONFIRMED]
            if len(doubtful) == 1:
                outcomes[doubtful[0]] = _refused(error, messages[doubtful[0]])
                return
            for number in doubtful:
                self.send(messages, [number], outcomes)

    def _send(self, messages: Sequence[AddressedMessage], batch: Sequence[int], outcomes: list[Any]) -> None:
        """Send the messages without an outcome, and wait; the outcomes known by then count also if this fails."""
        if self._confirms is None:
            self._confirms = Confirms(self._new_channel())
        confirms = self._confirms
        sent: dict[int, int] = {}
        try:
            for number in batch:
                if outcomes[number] is UNCONFIRMED:
                    try:
                        sent[number] = confirms.send(*messages[number])
                    except QueueError as error:
                        error.queue = messages[number][2]
                        outcomes[number] = error
            confirms.wait(self._confirm_timeout_s, self._heartbeat_interval_s)
        except exceptions.ChannelError:
            self._confirms = None
            raise
        finally:
            for number, tag in sent.items():
                outcomes[number] = confirms.outcome(tag)


def batches(messages: Sequence[AddressedMessage]) -> Iterator[list[int]]:
    """:return: the numbers of those that are sent together, in their order."""
    batch: list[int] = []
    for number, (outgoing, exchange, _) in enumerate(messages):
        is_large = len(outgoing.body) >= LARGE_BYTES
        if batch and (is_large or len(batch) == BATCH_MESSAGES or exchange != messages[batch[0]][1]):
            yield batch
            batch = []
        batch.append(number)
        if is_large:
            yield batch
            batch = []
    if batch:
        yield batch


def _refused(error: exceptions.ChannelError, message: AddressedMessage) -> SwitchboardError:
    _, exchange, routing_key = message
    if isinstance(error, exceptions.NotFound):
        return UnknownExchangeError(exchange)
    if isinstance(error, exceptions.ContentTooLarge) or 'larger than' in str(error):
        return MessageTooLargeError(f'the broker refuses it: {error}', queue=routing_key)
    if isinstance(error, exceptions.PreconditionFailed):
        return UnserializableError(f'the broker refuses a property: {error}', queue=routing_key)
    return refusal(error, 'publish')


def refusal(error: exceptions.ChannelError, step: str) -> BrokerDownError:
    """A refusal for which neither we nor the message are to blame: a right was taken away, a node is down, a queue is somebody else's for now."""
    hint = '; with declare=no, a queue or exchange is used as it is there' if step == 'declare' else ''
    return BrokerDownError(f'the broker refuses us: {error}{hint}', step=step)
