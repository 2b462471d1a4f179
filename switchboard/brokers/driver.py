"""The driver of a connection: one try at each operation of a broker, by its library.  The rooms ``rabbitmq`` and ``redis`` have one each.

A driver knows nothing of its connection: it works under the connection's lock, and raises what its library raises.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from switchboard.brokers.message import Delivery, OutgoingMessage

# A message, its exchange and its routing key.
AddressedMessage = tuple[OutgoingMessage, str, str]
# Of a message: published, and without an outcome yet.
UNCONFIRMED: Any = object()


class QueueLimits(NamedTuple):
    """The most that a queue of the broker may hold; ``overflow`` is ``reject`` or ``drop-oldest``."""

    max_messages: int | None = None
    max_bytes: int | None = None
    overflow: str = 'reject'


class Driver(Protocol):
    """One try at each operation of a broker, by its library.

    :ivar has_leases: a delivery stays ours when its connection is made anew, for as long as its lease is renewed.  So the broker counts the deaths
        of holders, and is asked for their messages (:meth:`recover`), and for delayed ones that are due.
    :ivar connection_number: another number after each time by which all deliveries became void, or the connection was made anew.
    :ivar heartbeat_interval_s: how often :meth:`send_heartbeat` is to be called.
    """

    has_leases: bool
    connection_number: int
    heartbeat_interval_s: float

    def open(self) -> None:
        """Connect.  Raises what the library raises."""

    def is_open(self) -> bool:
        """Is there a connection, as far as is known?"""

    def close(self) -> None:
        """Close the connection politely, if there is one."""

    def abort(self) -> None:
        """Forget the connection, and then throw it away; that may fail."""

    def forget_after_fork(self) -> None:
        """Forget a connection that a fork has copied; the parent must not notice."""

    def is_connection_error(self, error: BaseException) -> bool:
        """Does an error say that the connection is of no more use?"""

    def send_heartbeat(self, claimed: Collection[Delivery]) -> list[Any]:
        """Show the broker that this process lives, and holds messages.

        :return: the tags of those that are lost.
        """

    def batches(self, messages: Sequence[AddressedMessage]) -> Iterator[list[int]]:
        """:return: the numbers of those that are sent together, in their order."""

    def send(self, messages: Sequence[AddressedMessage], batch: Sequence[int], outcomes: list[Any]) -> None:
        """Publish those of a batch that are `UNCONFIRMED`, and note the outcome of each: None, or why not.

        :raises SwitchboardError: why not, for all that are unsettled still.
        """

    def delay(self, queue: str, outgoing: OutgoingMessage, delay_s: float) -> None:
        """See `Connection`."""

    def get(self, queue: str) -> Delivery | None:
        """See `Connection`."""

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge a message.

        :raises EntryTakenError: another one has it.
        """

    def requeue(self, delivery: Delivery, died: bool) -> None:
        """Give a message back.

        :param died: count that as a death.
        :raises EntryTakenError: another one has it.
        """

    def consume(self, queues: Sequence[str], prefetch: int) -> None:
        """See `Connection`."""

    def cancel(self) -> None:
        """See `Connection`."""

    def descriptors(self) -> list[int]:
        """See `Connection`."""

    def has_message(self) -> bool:
        """See `Connection`."""

    def declare_queue(
        self, queue: str, limits: QueueLimits | None, arguments: Mapping[str, Any] | None
    ) -> None:
        """See `Connection`."""

    def declare_exchange(self, exchange: str, type: str) -> None:
        """See `Connection`."""

    def expect_exchange(self, exchange: str, type: str) -> None:
        """See `Connection`."""

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """See `Connection`."""

    def delete_queue(self, queue: str) -> None:
        """See `Connection`."""

    def count(self, queue: str) -> int:
        """See `Connection`."""

    # Where there are leases.  Other brokers give out anew the messages of a broken connection, and put due ones into their queue, by themselves.

    def is_redelivery(self, first: Delivery, second: Delivery) -> bool:
        """See `Connection`."""
        return False

    def recover(self, queue: str) -> list[tuple[str, int]]:
        """See `Connection`."""
        return []

    def requeue_uncounted(self, queue: str, keys: Collection[str]) -> None:
        """See `Connection`."""

    def next_due_s(self, queue: str) -> float | None:
        """See `Connection`."""
        return None
