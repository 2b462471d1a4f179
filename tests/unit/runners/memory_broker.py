"""A broker in memory, and links to it, for tests of what talks to brokers."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from switchboard.brokers.message import Delivery, OutgoingMessage
from switchboard.errors import BrokerDownError, NoRouteError, UnknownExchangeError


class MemoryBroker:
    """Exchanges are fanouts here: what is routed how is not what is tested with it."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[Delivery]] = {}
        self.exchanges: dict[str, set[str]] = {}
        self.is_down = False
        # By message: what the broker says to it instead of a confirm.
        self.refusals: dict[bytes, Exception] = {}
        self.publications: list[list[bytes]] = []
        self.tags = itertools.count(1)

    def put(self, queue: str, letter: OutgoingMessage, exchange: str = '', routing_key: str = '') -> None:
        self.queues[queue].append(
            Delivery(queue, letter.body, letter.headers, letter.properties, exchange, routing_key)
        )

    def bodies(self, queue: str) -> list[bytes]:
        return [delivery.body for delivery in self.queues[queue]]


class MemoryConnection:
    """The part of `Connection` that bridges use."""

    url = 'memory://broker/'

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.connection_number = 0
        self.held: dict[Any, Delivery] = {}
        self.is_connected = False
        self.prefetch = 0
        self.is_closed = False
        self.calls: dict[str, int] = defaultdict(int)
        self.acks: list[Delivery] = []

    def break_off(self) -> None:
        """Lose the connection: the broker gives out again what was held."""
        self.is_connected = False
        for delivery in reversed(self.held.values()):
            self.broker.queues[delivery.queue].appendleft(replace(delivery, redelivered=True, tag=None))
        self.held.clear()

    def connect(self) -> None:
        if self.broker.is_down:
            self.break_off()
            raise BrokerDownError('away', step='connect', retry_after_s=0.5)
        if not self.is_connected:
            self.is_connected = True
            self.connection_number += 1

    def publish_many(self, messages: Sequence[tuple[OutgoingMessage, str, str]]) -> list[Exception | None]:
        self.connect()
        self.broker.publications.append([letter.body for letter, _, _ in messages])
        return [self._publish(*message) for message in messages]

    def _publish(self, letter: OutgoingMessage, exchange: str, routing_key: str) -> Exception | None:
        broker = self.broker
        if letter.body in broker.refusals:
            return broker.refusals[letter.body]
        if exchange and exchange not in broker.exchanges:
            return UnknownExchangeError(exchange)
        queues = broker.exchanges[exchange] if exchange else {routing_key} & broker.queues.keys()
        for queue in queues:
            broker.put(queue, letter, exchange, routing_key)
        return None if queues else NoRouteError(exchange, routing_key)

    def get(self, queue: str) -> Delivery | None:
        self.connect()
        if not self.broker.queues[queue]:
            return None
        delivery = replace(self.broker.queues[queue].popleft(), tag=next(self.broker.tags))
        self.held[delivery.tag] = delivery
        return delivery

    def ack_later(self, *deliveries: Delivery) -> None:
        self.acks += deliveries

    def flush_acks(self) -> None:
        deliveries, self.acks = self.acks, []
        self.calls['flush_acks'] += bool(deliveries)
        for delivery in deliveries:
            self.held.pop(delivery.tag, None)

    def is_ours(self, delivery: Delivery) -> bool:
        return delivery.tag in self.held

    def has_message(self) -> bool:
        return False

    def count(self, queue: str) -> int:
        return len(self.broker.queues[queue])

    def recover(self, queue: str) -> list[tuple[str, int]]:
        self.calls['restore'] += 1
        return []

    def consume(self, queues: Sequence[str], *, prefetch: int = 1) -> None:
        self.prefetch = prefetch

    def descriptors(self) -> list[int]:
        return []  # nothing to be woken by: asked to listen anew each time

    def declare_queue(self, queue: str, *, arguments: Mapping[str, Any] | None = None) -> None:
        self.calls[f'declare {queue} {arguments}'] += 1
        self.broker.queues.setdefault(queue, deque())

    def declare_exchange(self, exchange: str, type: str = 'topic') -> None:
        self.calls[f'declare {exchange} {type}'] += 1
        self.broker.exchanges.setdefault(exchange, set())

    def expect_exchange(self, exchange: str, type: str = 'topic') -> None:
        self.calls[f'expect {exchange} {type}'] += 1

    def bind(self, queue: str, exchange: str, routing_key: str = '') -> None:
        self.calls[f'bind {queue} {exchange} {routing_key}'] += 1
        self.broker.exchanges[exchange].add(queue)

    def close(self) -> None:
        self.is_closed = True
        self.break_off()
