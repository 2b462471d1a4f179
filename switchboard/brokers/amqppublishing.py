"""The way to RabbitMQ: many messages are sent, and then their confirms are waited for.

Confirms are counted here and not by py-amqp, which waits for each before it sends the next.

An outcome, once known, is kept.  What is sent again, when a connection broke or the broker closed the channel, is only that of which the
broker had said nothing yet.  It may have stored it all the same: then it is there twice, under the same message id.
RabbitMQ closes the channel because of one message (it is too large for it; there is no such exchange), and does not say which it
was, so those in doubt are sent one by one then.  To have none in doubt, what is large goes alone, and so does what goes to
another exchange than those before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from amqp import exceptions

from switchboard.brokers.amqpqueues import AmqpQueues
from switchboard.brokers.confirms import UNSETTLED, Confirms
from switchboard.brokers.remote import Posting
from switchboard.errors import (
    MessageTooLargeError,
    QueueError,
    QueueMismatchError,
    SwitchboardError,
    UnknownExchangeError,
    UnserializableError,
)

# Messages that are sent before the confirms of the first are waited for.
WINDOW = 200
# What is as large as this may be too large for the broker (its ``max_message_size`` is 128 MiB, or what an operator says), and a
# round trip is little for it.
LARGE_BYTES = 1 << 20


class AmqpPublishing(AmqpQueues):
    """The part of a connection to RabbitMQ that publishes.  See `Remote`."""

    def _begin(self) -> None:
        super()._begin()
        self._confirms: Confirms | None = None

    def _drop(self) -> None:
        super()._drop()
        self._confirms = None

    def publish_many(self, postings: Sequence[Posting], *, mandatory: bool = True) -> list[Exception | None]:
        """See `Remote`."""
        outcomes: list[Any] = [UNSETTLED] * len(postings)
        with self._lock:
            for window in _windows(postings):
                self._publish(postings, window, outcomes, mandatory)
        return outcomes

    def _publish(
        self, postings: Sequence[Posting], window: Sequence[int], outcomes: list[Any], mandatory: bool
    ) -> None:
        """Publish some of the messages until there is an outcome for each."""
        try:
            self._again('publish', lambda: self._send(postings, window, outcomes, mandatory))
        except exceptions.ChannelError as error:
            doubtful = [number for number in window if outcomes[number] is UNSETTLED]
            if len(doubtful) == 1:
                outcomes[doubtful[0]] = _refused(error, postings[doubtful[0]])
            else:
                for number in doubtful:
                    self._publish(postings, [number], outcomes, mandatory)
        except SwitchboardError as error:
            for number in window:
                if outcomes[number] is UNSETTLED:
                    outcomes[number] = error

    def _send(
        self, postings: Sequence[Posting], window: Sequence[int], outcomes: list[Any], mandatory: bool
    ) -> None:
        """Send what has no outcome yet, and wait; what is known by then counts also if this fails."""
        if self._confirms is None:
            self._confirms = Confirms(self._channel())
        confirms = self._confirms
        sent: dict[int, int] = {}
        try:
            for number in window:
                if outcomes[number] is UNSETTLED:
                    try:
                        sent[number] = confirms.send(*postings[number], mandatory=mandatory)
                    except QueueError as error:
                        error.queue = postings[number][2]
                        outcomes[number] = error
            confirms.wait(self._connection, self.confirm_timeout_s, self._beat_s())
        except exceptions.ChannelError:
            self._confirms = None
            raise
        finally:
            for number, tag in sent.items():
                outcomes[number] = confirms.outcome(tag)


def _windows(postings: Sequence[Posting]) -> Iterator[list[int]]:
    """:return: the numbers of those that are sent together, in their order."""
    window: list[int] = []
    for number, (letter, exchange, _) in enumerate(postings):
        is_large = len(letter.body) >= LARGE_BYTES
        if window and (is_large or len(window) == WINDOW or exchange != postings[window[0]][1]):
            yield window
            window = []
        window.append(number)
        if is_large:
            yield window
            window = []
    if window:
        yield window


def _refused(error: exceptions.ChannelError, posting: Posting) -> SwitchboardError:
    _, exchange, routing_key = posting
    if isinstance(error, exceptions.NotFound):
        return UnknownExchangeError(exchange)
    if isinstance(error, exceptions.ContentTooLarge) or 'larger than' in str(error):
        return MessageTooLargeError(f'the broker refuses it: {error}', queue=routing_key)
    if isinstance(error, exceptions.PreconditionFailed):
        return UnserializableError(f'the broker refuses a property: {error}', queue=routing_key)
    return QueueMismatchError(f'the broker refuses it: {error}', queue=routing_key)
