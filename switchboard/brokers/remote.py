"""What a queue or a bridge asks of a connection to a broker.  ``linking`` is what RabbitMQ and Redis share of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from switchboard.brokers.wire import Delivery, Letter

# A message, its exchange and its routing key.
Posting = tuple[Letter, str, str]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much a queue of the broker may hold; ``overflow`` is ``reject`` or ``drop-oldest``."""

    max_messages: int | None = None
    max_bytes: int | None = None
    overflow: str = 'reject'
    priorities: bool = True


class Remote(ABC):
    """The operations of one broker.  Any of them raises `BrokerDownError` while the broker is away.

    ``kind`` is ``rabbitmq`` or ``redis``.
    """

    kind = ''
    # Does it count how often holders of a message have died, or given it up?
    counts_deaths = False

    @abstractmethod
    def publish_many(self, postings: Sequence[Posting], *, mandatory: bool = True) -> list[Exception | None]:
        """Publish many messages, and wait once.  What cannot go does not hold up the others.

        :return: for each, None if the broker has confirmed it, or why not.
        """

    @abstractmethod
    def get(self, queue: str) -> Delivery | None:
        """Take the next message of a queue, and hold it until it is acknowledged or given back.

        :return: None if there is none.
        :raises UnknownQueueError: the broker has no such queue.
        :raises BrokerDownError: the broker is away.
        """

    @abstractmethod
    def _ack(self, delivery: Delivery) -> None:
        """Tell the broker that it is done."""

    @abstractmethod
    def _requeue(self, delivery: Delivery) -> None:
        """Give it back to the broker."""

    @abstractmethod
    def declare_queue(
        self, queue: str, *, limits: QueueLimits | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Make a durable queue, if it is not there.

        :param arguments: RabbitMQ's.
        :raises QueueMismatchError: it is there with other arguments.
        """

    @abstractmethod
    def declare_exchange(self, exchange: str, type: str = 'topic') -> None:
        """Make a durable exchange, if it is not there.

        :raises ExchangeMismatchError: it is there, and is another one.
        """

    def expect_exchange(self, exchange: str, type: str = 'topic') -> None:
        """Say of which type an exchange is that others have made.

        A broker that keeps the types of its exchanges needs not be told; Redis does not keep them.
        """
        return

    @abstractmethod
    def bind(self, queue: str, exchange: str, routing_key: str = '') -> None:
        """Have an exchange deliver to a queue.

        :raises UnknownExchangeError: one of them is not there.
        """

    @abstractmethod
    def delete_queue(self, queue: str) -> None:
        """Delete a queue with all that is in it."""

    @abstractmethod
    def count(self, queue: str) -> int:
        """:return: how many messages are ready; 0 for a queue that is not there."""

    @abstractmethod
    def delay(self, queue: str, letter: Letter, delay_s: float) -> None:
        """Put a message into a queue when a time has passed; the broker keeps it until then.

        :raises BrokerDownError: it was not confirmed.
        """

    @abstractmethod
    def listen(self, queues: Sequence[str], *, prefetch: int = 1) -> None:
        """Be told when something comes into a queue: one of :meth:`descriptors` is then readable.

        :param prefetch: how many messages RabbitMQ sends ahead of their acknowledgement; Redis sends none.
        """

    @abstractmethod
    def unlisten(self) -> None:
        """Be told no longer."""

    @abstractmethod
    def descriptors(self) -> list[int]:
        """:return: what to poll after :meth:`listen`."""

    def next_due_s(self, queue: str) -> float | None:
        """:return: seconds until a delayed message is due, where the broker does not tell by itself."""
        return None

    @abstractmethod
    def hears(self) -> bool:
        """Is there something, or is the connection gone?  A descriptor may be readable for a mere sign of life."""

    def is_same(self, one: Delivery, other: Delivery) -> bool:
        """Is the second a redelivery of the first, and the first void by that?  Else it is a copy of the message."""
        return False

    @abstractmethod
    def restore(self, queue: str) -> list[tuple[str, int]]:
        """Give out anew what dead holders had, where the broker does not do that by itself.

        :return: the message id of each, and how often that has happened to it.
        """
