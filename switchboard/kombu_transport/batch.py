"""Many messages, one flush: what `kombu.Producer.batch` collects in."""

from __future__ import annotations

from typing import Any

from switchboard.handoff.transaction import Transaction
from switchboard.kombu_transport.errors import amqp_errors
from switchboard.kombu_transport.spool_connection import SpoolConnection
from switchboard.queue.switchboard import Switchboard
from switchboard.store.publishing import BATCH_LIMIT, PreparedEntry


class PublishBatch:
    """Messages that are written and not yet visible.

    :param channel: the `Channel`; kombu compares it with its producer's.
    :param max_size: of messages, before it is flushed by itself; never more than 256, for each keeps a descriptor open.
    """

    def __init__(self, channel: Any, max_size: int) -> None:
        self.channel = channel
        self._spool_connection: SpoolConnection = channel.spool_connection
        self._max_size = min(max_size, BATCH_LIMIT)
        # Each for one queue.
        self._items: list[tuple[Switchboard, PreparedEntry]] = []
        self._transactions: list[Transaction] = []

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
        spool_connection = self._spool_connection
        with spool_connection.lock, amqp_errors('Basic.publish'):
            routed = spool_connection.route(message, exchange or '', routing_key or '')
            prepared = spool_connection.prepare(routed)
            if prepared is None:
                self.channel.unroutable(routed, message, mandatory)
            elif isinstance(prepared, Transaction):
                self._transactions.append(prepared)
            else:
                self._items.append((routed.queues[0], prepared))
            if len(self._items) + len(self._transactions) >= self._max_size:
                self.flush()

    def flush(self) -> None:
        """Make all visible.

        :raises DiskFault: none of those to one queue was stored.
        """
        items, self._items = self._items, []
        transactions, self._transactions = self._transactions, []
        spool_connection = self._spool_connection
        with spool_connection.lock, amqp_errors('Basic.publish'):
            try:
                spool_connection.flush(items, transactions)
            except BaseException:
                for transaction in transactions:
                    transaction.discard()
                raise

    def discard(self) -> None:
        """Throw away the messages that are not yet visible."""
        with self._spool_connection.lock:
            for _, item in self._items:
                item.discard(self._spool_connection.spool.pool)
            for transaction in self._transactions:
                transaction.discard()
        self._items, self._transactions = [], []

    def close(self) -> None:
        """See `kombu.Producer.batch`: messages neither flushed nor discarded are discarded."""
        self.discard()
