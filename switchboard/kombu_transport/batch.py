"""Many messages, one flush: what `kombu.Producer.batch` collects in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from switchboard.handoff.transaction import Transaction
from switchboard.kombu_transport.broker import Routed
from switchboard.kombu_transport.faults import amqp_errors
from switchboard.store.publishing import BATCH_LIMIT, PreparedEntry

if TYPE_CHECKING:
    from switchboard.kombu_transport.channel import Channel


class PublishBatch:
    """Messages that are written and not yet visible.

    :param max_size: of messages, before it is flushed by itself; never more than 256, for each keeps a descriptor open.
    """

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = min(max_size, BATCH_LIMIT)
        self._items: list[PreparedEntry] = []
        self._transactions: list[Transaction] = []
        self._sync = False

    def publish(
        self,
        message: dict[str, Any],
        exchange: str = '',
        routing_key: str = '',
        mandatory: bool = False,
        **kwargs: Any,
    ) -> None:
        """Add a message.  Where it goes is decided now.

        :raises NotFound: there is no such exchange.
        """
        broker = self.channel.broker
        with broker.lock, amqp_errors('Basic.publish'):
            routed = broker.route(message, exchange or '', routing_key or '')
            self._add(broker.prepare(routed), routed, message, mandatory)
            if len(self._items) + len(self._transactions) >= self._max_size:
                self.flush()

    def _add(
        self,
        prepared: PreparedEntry | Transaction | None,
        routed: Routed,
        message: Mapping[str, Any],
        mandatory: bool,
    ) -> None:
        if prepared is None:
            self.channel.unroutable(routed, message, mandatory)
        elif isinstance(prepared, Transaction):
            self._transactions.append(prepared)
        else:
            self._items.append(prepared)
            self._sync |= any(board.options.durability == 'full' for board in routed.boards)

    def flush(self) -> None:
        """Make all visible.

        :raises DiskFault: none of those to one queue was stored.
        """
        items, self._items = self._items, []
        transactions, self._transactions = self._transactions, []
        sync, self._sync = self._sync, False
        broker = self.channel.broker
        with broker.lock, amqp_errors('Basic.publish'):
            try:
                broker.flush(items, transactions, sync=sync)
            except BaseException:
                for transaction in transactions:
                    transaction.discard()
                raise

    def discard(self) -> None:
        """Throw away what is not yet visible."""
        with self.channel.broker.lock:
            for item in self._items:
                self.channel.broker.spool.spares.abandon(item.draft)
            for transaction in self._transactions:
                transaction.discard()
        self._items, self._transactions = [], []

    def close(self) -> None:
        """See `kombu.Producer.batch`: what was neither flushed nor discarded is discarded."""
        self.discard()
