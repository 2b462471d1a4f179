"""Routing: from (exchange, routing key, metadata) to the queues that get a copy.  Pure: no files, no clock, no state.

A table is made once from plain records, checked, compiled, and never changed; a reload makes a new one.  A mistake
(an unknown exchange, a circle) is found when it is made, so that routing a message can fail in one way only: nobody wants it.

The words and the rules are AMQP 0-9-1's.  Where that leaves a choice:

- a queue gets one copy, however many bindings lead to it; queues come in the order in which they were first reached;
- ``alternate`` takes what an exchange could deliver to *no queue at all*, also when a binding led to a further
  exchange that had no use for it.  (RabbitMQ's manual says so; its code asks only whether a binding matched, and loses the rest.)
- the default exchange, whose name is empty, delivers to the queue that the routing key names.  Whether that queue exists
  is for the caller to say: a table knows exchanges.

Rejected: hooks for further exchange types.  Each type must be explained, drawn and checked too, and these four are what
AMQP's users know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from switchboard.errors import NoRouteError, RouteError, UnknownExchangeError
from switchboard.routing.bindings import Binding, Exchange, ExchangeType, Target, check_targets
from switchboard.routing.headers import HeaderIndex, HeaderMatch
from switchboard.routing.topics import TopicTrie, explain_mismatch

if TYPE_CHECKING:
    from switchboard.routing.topology import Edge, Graph, Node, NodeKind

__all__ = [
    'DEFAULT_EXCHANGE',
    'Binding',
    'Exchange',
    'ExchangeTable',
    'ExchangeType',
    'HeaderMatch',
    'RouteStep',
    'Target',
]

DEFAULT_EXCHANGE = ''

Matcher = Callable[[str, Mapping[str, object]], Sequence[int]]

# AMQP allows 255 bytes.  A longer key is accepted, for most keys never meet a broker, but a stranger's key must not keep
# a publisher busy: 64 KiB of words take some tens of milliseconds.
MAX_ROUTING_KEY_LENGTH = 65536


class ExchangeTable:
    """All exchanges of an installation, checked and compiled.

    :param exchanges: plain records, in the order of the file.
    :raises RouteError: two exchanges of one name, a binding that does not fit the type, or nesting deeper than 100.
    :raises UnknownExchangeError: a target or an alternate names no exchange.
    :raises RouteLoopError: exchanges lead to each other in a circle.
    """

    __slots__ = ('_matchers', 'exchanges')

    exchanges: Mapping[str, Exchange]
    _matchers: Mapping[str, Matcher]

    def __init__(self, exchanges: Iterable[Exchange] = ()) -> None:
        by_name: dict[str, Exchange] = {}
        for exchange in exchanges:
            if exchange.name in by_name or exchange.name == DEFAULT_EXCHANGE:
                raise RouteError(f'exchange {exchange.name!r} is declared twice')
            by_name[exchange.name] = exchange
        check_targets(by_name)
        object.__setattr__(self, 'exchanges', MappingProxyType(by_name))
        object.__setattr__(self, '_matchers', {name: _compile(one) for name, one in by_name.items()})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f'an exchange table is never changed: cannot set {name}')

    def __reduce__(self) -> tuple[type[ExchangeTable], tuple[list[Exchange]]]:
        # The records are smaller than the tables compiled from them, and compiling is quick.
        return ExchangeTable, (list(self.exchanges.values()),)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExchangeTable):
            return NotImplemented
        return list(self.exchanges.values()) == list(other.exchanges.values())

    def __hash__(self) -> int:
        return hash(tuple(self.exchanges.values()))

    def __repr__(self) -> str:
        return f'<ExchangeTable {" ".join(self.exchanges)}>'

    def __contains__(self, name: object) -> bool:
        return name == DEFAULT_EXCHANGE or name in self.exchanges

    def route(
        self, exchange: str, routing_key: str, headers: Mapping[str, object] | None = None
    ) -> tuple[str, ...]:
        """Say which queues get a copy.

        :param headers: the message's metadata; only headers exchanges look at it.
        :return: at least one queue, each once, in the order in which bindings lead to them.
        :raises UnknownExchangeError: no exchange is called so.
        :raises NoRouteError: no binding and no alternate takes the message.
        :raises RouteError: the routing key is longer than 64 KiB.
        """
        self._check(exchange, routing_key)
        if exchange == DEFAULT_EXCHANGE:
            queues: tuple[str, ...] = (routing_key,) if routing_key else ()
        else:
            queues = self._queues(exchange, routing_key, headers or {}, {})
        if not queues:
            raise NoRouteError(exchange, routing_key)
        return queues

    def explain(
        self, exchange: str, routing_key: str, headers: Mapping[str, object] | None = None
    ) -> tuple[RouteStep, ...]:
        """Say why :meth:`route` decides as it does: each binding that is looked at, in order, and what came of it.

        A message that nobody takes is no error here: the last step says so.

        :raises UnknownExchangeError: no exchange is called so.
        :raises RouteError: the routing key is longer than 64 KiB.
        """
        self._check(exchange, routing_key)
        return tuple(_Explainer(self, routing_key, headers or {}).steps_from(exchange))

    def graph(self) -> Graph:
        """:return: the exchanges and the queues they lead to, to be drawn."""
        from switchboard.routing.topology import Edge, Graph, Node  # only to draw it

        nodes: list[Node] = []
        edges: list[Edge] = []
        for exchange in self.exchanges.values():
            nodes.append(Node('exchange', exchange.name, exchange.type))
            source: tuple[NodeKind, str] = ('exchange', exchange.name)
            for binding in exchange.bindings:
                label = str(binding.match) or ('(all)' if exchange.type == 'fanout' else '(empty key)')
                edges += [Edge(source, _end(one), 'binding', label) for one in binding.targets]
            if exchange.alternate is not None:
                edges.append(Edge(source, _end(exchange.alternate), 'alternate'))
        queues = [Node(*edge.target) for edge in edges if edge.target[0] == 'queue']
        return Graph(tuple(nodes)).with_more(queues, edges)

    def _check(self, exchange: str, routing_key: str) -> None:
        if exchange not in self:
            raise UnknownExchangeError(exchange)
        if len(routing_key) > MAX_ROUTING_KEY_LENGTH:
            raise RouteError(
                f'a routing key of {len(routing_key)} characters; {MAX_ROUTING_KEY_LENGTH} are allowed'
            )

    def _queues(
        self, name: str, key: str, headers: Mapping[str, object], known: dict[str, tuple[str, ...]]
    ) -> tuple[str, ...]:
        if name in known:
            return known[name]
        exchange = self.exchanges[name]
        found: dict[str, None] = {}
        for number in self._matchers[name](key, headers):
            for target in exchange.bindings[number].targets:
                found.update(dict.fromkeys(self._reached(target, key, headers, known)))
        if not found and exchange.alternate is not None:
            found.update(dict.fromkeys(self._reached(exchange.alternate, key, headers, known)))
        known[name] = tuple(found)
        return known[name]

    def _reached(
        self, target: Target, key: str, headers: Mapping[str, object], known: dict[str, tuple[str, ...]]
    ) -> tuple[str, ...]:
        return self._queues(target.name, key, headers, known) if target.is_exchange else (target.name,)


def _compile(exchange: Exchange) -> Matcher:
    """:return: for a routing key and metadata, the numbers of the exchange's bindings that match, in ascending order."""
    matches = [binding.match for binding in exchange.bindings]
    keys = [match for match in matches if isinstance(match, str)]
    conditions = [match for match in matches if isinstance(match, HeaderMatch)]
    if (keys and exchange.type == 'headers') or (conditions and exchange.type != 'headers'):
        raise RouteError(
            f'exchange {exchange.name!r}: a binding does not fit an exchange of type {exchange.type}'
        )
    if exchange.type == 'topic':
        match_key = TopicTrie(keys).match
        return lambda key, _headers: match_key(key)
    if exchange.type == 'headers':
        match_headers = HeaderIndex(conditions).match
        return lambda _key, headers: match_headers(headers)
    everywhere = range(len(matches)) if exchange.type == 'fanout' else ()
    direct: dict[str, list[int]] = {}
    for number, key in enumerate(keys if exchange.type == 'direct' else ()):
        direct.setdefault(key, []).append(number)
    return lambda key, _headers: direct.get(key, everywhere)


class RouteStep(NamedTuple):
    """One step of a decision: a binding that was looked at, an alternate that was taken, or the end of the road."""

    exchange: str
    matched: bool
    reason: str
    binding: Binding | None = None
    delivered: tuple[str, ...] = ()
    depth: int = 0
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        name = self.exchange or 'default exchange'
        place = f'{name}, line {self.line}' if self.line is not None else name
        what = f': {self.binding}' if self.binding is not None else ''
        got = f' [{", ".join(self.delivered)}]' if self.delivered else ''
        return f'{"    " * self.depth}{"+" if self.matched else "-"} {place}{what}: {self.reason}{got}'


class _Explainer:
    """Walks as :meth:`ExchangeTable.route` does, by the same matchers, and notes each step."""

    def __init__(self, table: ExchangeTable, key: str, headers: Mapping[str, object]) -> None:
        self._table = table
        self._key = key
        self._headers = headers
        self._steps: list[RouteStep] = []
        self._delivered: dict[str, None] = {}
        self._walked: dict[str, bool] = {}

    def steps_from(self, name: str) -> list[RouteStep]:
        if name == DEFAULT_EXCHANGE:
            queues = (self._key,) if self._key else ()
            reason = (
                'delivers to the queue that the routing key names' if queues else 'the routing key is empty'
            )
            return [RouteStep(name, bool(queues), reason, delivered=queues)]
        if not self._walk(name, 0):
            self._steps.append(RouteStep(name, False, 'nobody takes the message: publishing it is an error'))
        return self._steps

    def _walk(self, name: str, depth: int) -> bool:
        """:return: whether the message came to at least one queue from here."""
        exchange = self._table.exchanges[name]
        if name in self._walked:
            self._steps.append(RouteStep(name, self._walked[name], 'was walked through above', depth=depth))
            return self._walked[name]
        matched = set(self._table._matchers[name](self._key, self._headers))
        arrived = False
        for number, binding in enumerate(exchange.bindings):
            if number in matched:
                arrived |= self._note(exchange, binding, binding.targets, 'matches', depth)
            else:
                self._note(exchange, binding, (), self._mismatch(exchange, binding.match), depth)
        if not arrived and exchange.alternate is not None:
            reason = f'no queue was reached, so the alternate {exchange.alternate} takes it'
            arrived = self._note(exchange, None, (exchange.alternate,), reason, depth)
        self._walked[name] = arrived
        return arrived

    def _note(
        self, exchange: Exchange, binding: Binding | None, targets: Sequence[Target], reason: str, depth: int
    ) -> bool:
        queues = dict.fromkeys(target.name for target in targets if not target.is_exchange)
        again = [queue for queue in queues if queue in self._delivered]
        if again:
            reason += f' ({", ".join(again)} has its copy already)'
        self._steps.append(
            RouteStep(
                exchange.name,
                bool(targets),
                reason,
                binding,
                tuple(queue for queue in queues if queue not in self._delivered),
                depth,
                exchange.file,
                binding.line if binding is not None else exchange.line,
            )
        )
        self._delivered.update(queues)
        onward = [self._walk(target.name, depth + 1) for target in targets if target.is_exchange]
        return bool(queues) or any(onward)

    def _mismatch(self, exchange: Exchange, match: str | HeaderMatch) -> str:
        if isinstance(match, HeaderMatch):
            return match.explain_mismatch(self._headers)
        return (
            explain_mismatch(match, self._key) if exchange.type == 'topic' else 'the routing key is another'
        )


def _end(target: Target) -> tuple[NodeKind, str]:
    return ('exchange' if target.is_exchange else 'queue'), target.name
