"""A channel of RabbitMQ's that publishes, and knows which messages the broker has confirmed, refused or returned."""

from __future__ import annotations

import time
from typing import Any

from switchboard.errors import NoRouteError, QueueFullError

# Without an outcome yet.
_PENDING = object()


class Confirms:
    """Publishes, and counts.

    RabbitMQ numbers what is published on a channel from 1, and confirms by number, often many at once.  A message that no queue is
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

    def send(self, message: Any, exchange: str, routing_key: str, *, mandatory: bool) -> int:
        """Publish without waiting.

        :return: its number.
        """
        self._last += 1
        self._outcomes[self._last] = _PENDING
        self._sent[self._last] = (exchange, routing_key, message.properties.get('message_id'))
        self._channel.basic_publish(message, exchange, routing_key, mandatory=mandatory)
        return self._last

    def wait(self, connection: Any, timeout_s: float, beat_s: float) -> None:
        """Wait until there is an outcome for all that was sent.

        :param beat_s: how often the broker is to be shown that we live.
        :raises TimeoutError: the broker did not confirm in time.
        """
        give_up_s = time.monotonic() + timeout_s
        while self._sent:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f'no confirm within {timeout_s:.0f} s')
            try:
                connection.drain_events(timeout=min(left_s, beat_s))
            except TimeoutError:
                connection.heartbeat_tick(rate=2)

    def outcome(self, number: int) -> Exception | None:
        """:return: why a message was not stored; None if it was.  Forgotten when told."""
        found: Exception | None = self._outcomes.pop(number)
        return found

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, None)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, QueueFullError('the broker refuses it: its queue takes no more'))

    def _settle(self, tag: int, multiple: bool, error: Exception | None) -> None:
        for number in [n for n in self._sent if n <= tag] if multiple else [tag]:
            if self._sent.pop(number, None) is not None and self._outcomes[number] is _PENDING:
                self._outcomes[number] = error

    def _on_return(self, _error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        sought = (exchange, routing_key, message.properties.get('message_id'))
        for number, sent in self._sent.items():
            if sent == sought and self._outcomes[number] is _PENDING:
                self._outcomes[number] = NoRouteError(exchange, routing_key)
                return
