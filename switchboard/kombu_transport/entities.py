"""The part of a channel that declares, binds and deletes queues and exchanges, as AMQP 0-9-1 says it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from amqp.protocol import queue_declare_ok_t
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.utils.uuid import uuid

from switchboard.declared.exchangestore import DeclaredBinding, DeclaredExchange
from switchboard.errors import QueueMismatchError, UnknownQueueError
from switchboard.events import log_event
from switchboard.kombu_transport.arguments import (
    ALTERNATE,
    binding_match,
    normalized,
    queue_keys,
    same_arguments,
)
from switchboard.kombu_transport.errors import amqp_errors
from switchboard.kombu_transport.queue_names import directory_name
from switchboard.kombu_transport.spool_connection import PREDECLARED, SpoolConnection
from switchboard.routing.bindings import Target
from switchboard.spool.spool import Spool

log = logging.getLogger('switchboard.queue')


class Entities:
    """The methods of `Channel` about queues and exchanges."""

    spool_connection: SpoolConnection
    spool: Spool
    exchange_types: Any

    # Exchanges.

    def exchange_declare(
        self,
        exchange: str | None = None,
        type: str = 'direct',
        durable: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        nowait: bool = False,
        passive: bool = False,
    ) -> None:
        """Make an exchange, or make sure that it is there, and as asked for.

        :raises NotFound: it is not there, and `passive`.
        :raises PreconditionFailed: it is there, and another one.
        """
        kind: Any = type or 'direct'
        exchange = exchange or f'amq.{kind}'
        with self.spool_connection.lock, amqp_errors('Exchange.declare'):
            arguments = normalized(arguments)
            alternate = arguments.get(ALTERNATE)
            if passive:
                if exchange not in self.spool.exchanges and exchange not in PREDECLARED:
                    raise NotFound(f'NOT_FOUND - no exchange {exchange!r}', method_name='Exchange.declare')
                return
            if exchange in PREDECLARED:
                if kind != PREDECLARED[exchange]:
                    raise PreconditionFailed(f'{exchange} is of type {PREDECLARED[exchange]}, not {kind}')
                self._make_predeclared(exchange)
                return
            wanted = DeclaredExchange(
                exchange, kind, alternate, auto_delete, {**arguments, 'durable': durable}
            )
            self.spool.declared.exchanges.declare(wanted)

    def _make_predeclared(self, exchange: str) -> None:
        if exchange in PREDECLARED and exchange not in self.spool.exchanges:
            kind: Any = PREDECLARED[exchange]
            self.spool.declared.exchanges.declare(DeclaredExchange(exchange, kind))

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete an exchange, with its bindings.  One that is not there is deleted already.

        :raises PreconditionFailed: it has bindings, and `if_unused`.
        :raises AccessRefused: it is one that is always there.
        """
        if not exchange or exchange in PREDECLARED:
            raise AccessRefused(f'{exchange or "the default exchange"} is always there')
        with self.spool_connection.lock, amqp_errors('Exchange.delete'):
            self.spool.declared.exchanges.delete(exchange, if_unused=if_unused)

    def exchange_bind(
        self,
        destination: str,
        source: str = '',
        routing_key: str = '',
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Let an exchange deliver to another one.

        :raises PreconditionFailed: they would lead to each other in a circle.
        """
        self._make_predeclared(destination)
        self._bind(source, Target(destination, is_exchange=True), routing_key, arguments)

    def exchange_unbind(
        self,
        destination: str,
        source: str = '',
        routing_key: str = '',
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Undo `exchange_bind`."""
        self._unbind(source, Target(destination, is_exchange=True), routing_key, arguments)

    # Bindings of queues.

    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = '',
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Let an exchange deliver to a queue.

        :raises NotFound: one of the two is not there.
        :raises ResourceLocked: the queue is another process's alone.
        """
        self._bind(exchange or 'amq.direct', Target(directory_name(queue)), routing_key, arguments)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = '',
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Undo `queue_bind`.  A binding that is not there is undone already."""
        self._unbind(exchange or 'amq.direct', Target(directory_name(queue)), routing_key, arguments)

    def _bind(
        self, source: str, target: Target, routing_key: str, arguments: Mapping[str, Any] | None
    ) -> None:
        with self.spool_connection.lock, amqp_errors('Queue.bind'):
            if not source:
                raise AccessRefused('every queue is bound to the default exchange, and nothing else is')
            if not target.is_exchange:
                self.spool_connection.check_access(target.name)
            self._make_predeclared(source)
            self.spool.declared.bind(self._binding(source, target, routing_key, arguments))

    def _unbind(
        self, source: str, target: Target, routing_key: str, arguments: Mapping[str, Any] | None
    ) -> None:
        with self.spool_connection.lock, amqp_errors('Queue.unbind'):
            if not target.is_exchange:
                self.spool_connection.check_access(target.name)
            if source in self.spool.exchanges:
                self.spool.declared.exchanges.unbind(self._binding(source, target, routing_key, arguments))

    def _binding(
        self, source: str, target: Target, routing_key: str, arguments: Mapping[str, Any] | None
    ) -> DeclaredBinding:
        exchange = self.spool.exchanges.exchanges.get(source)
        kind = exchange.type if exchange is not None else 'direct'
        match = binding_match(kind, routing_key or '', arguments or {})
        return DeclaredBinding(source, target, match, routing_key or '', normalized(arguments))

    def list_bindings(self) -> list[tuple[str, str, str]]:
        """:return: ``(queue, exchange, routing key)`` of each binding that was declared."""
        with amqp_errors('Exchange.declare'):
            definitions = self.spool.declared.exchanges.load()
        return [
            (one.target.name, one.source, one.routing_key)
            for one in definitions.bindings
            if not one.target.is_exchange
        ]

    def typeof(self, exchange: str, default: str = 'direct') -> Any:
        """:return: kombu's own idea of an exchange's type, which the messages here are not routed by."""
        known = self.spool.exchanges.exchanges.get(exchange)
        return self.exchange_types[PREDECLARED.get(exchange, default) if known is None else known.type]

    def get_table(self, exchange: str) -> list[Any]:
        """:return: of each queue that is bound to an exchange, the routing key, kombu's pattern and the name."""
        prepare = self.typeof(exchange).prepare_bind
        return [
            prepare(queue, exchange, key, {})
            for queue, source, key in self.list_bindings()
            if source == exchange
        ]

    def get_exchanges(self) -> list[str]:
        """:return: the names of all exchanges."""
        return list(self.spool.exchanges.exchanges)

    # Queues.

    def prepare_queue_arguments(self, arguments: Mapping[str, Any], **kwargs: Any) -> Any:
        """Write kombu's words for a queue's limits as AMQP's arguments."""
        return to_rabbitmq_queue_arguments(arguments, **kwargs)

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> queue_declare_ok_t:
        """Make a queue, or make sure that it is there, and as asked for.

        :return: its name, the number of messages that wait in it, and of its consumers.
        :raises NotFound: it is not there, and `passive`.
        :raises ResourceLocked: it is another connection's alone.
        :raises PreconditionFailed: it is there, and another one.
        """
        queue = queue or f'amq.gen-{uuid()}'
        name = directory_name(queue)
        with self.spool_connection.lock, amqp_errors('Queue.declare'):
            if passive:
                self.spool_connection.check_access(name)
                self.spool_connection.check_known(name)
            else:
                keys = queue_keys(arguments or {}, durable=durable, directory=directory_name)
                owner = self.spool_connection.claim_exclusive(name) if exclusive else None
                self._declare(name, {**keys, 'owner': owner, 'auto_delete': auto_delete})
            return queue_declare_ok_t(queue, self._size(queue), self.spool.consumer_count(name))

    def _declare(self, name: str, keys: Mapping[str, Any]) -> None:
        try:
            self.spool.declared.declare(name, **keys)
        except QueueMismatchError as error:
            # kombu's simple queues contradict themselves on one connection; another one's word counts.
            known = self.spool.declared.records.get(name)
            if name not in self.spool_connection.declared_here or known is None:
                raise
            if not same_arguments(known.arguments, keys['arguments']):
                raise
            log_event(log, logging.WARNING, None, 'declared twice', queue=name, error=error)
        self.spool_connection.declared_here.add(name)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> int:
        """Delete a queue.  One that is not there is deleted already.

        :return: how many messages went with it.
        :raises PreconditionFailed: it has consumers, and `if_unused`; or messages, and `if_empty`.
        :raises ResourceLocked: it is another process's alone.
        """
        with self.spool_connection.lock, amqp_errors('Queue.delete'):
            self.spool_connection.check_access(directory_name(queue))
            try:
                return self.spool.delete(directory_name(queue), if_unused=if_unused, if_empty=if_empty)
            except UnknownQueueError:
                return 0

    def queue_purge(self, queue: str, **kwargs: Any) -> int:
        """Drop the messages that wait in a queue: not those that are being worked on.

        :return: how many.
        :raises ResourceLocked: it is another process's alone.
        """
        with self.spool_connection.lock, amqp_errors('Queue.purge'):
            self.spool_connection.check_access(directory_name(queue))
            self.spool_connection.check_known(directory_name(queue))
            return self.spool.purge(directory_name(queue))

    def _size(self, queue: str) -> int:
        return self.spool_connection.size(directory_name(queue))

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self.spool.declared.is_known(directory_name(queue))
