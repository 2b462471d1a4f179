"""Exchanges and bindings that programs declare while they run: one file, ``.run/declared/.exchanges``.

They stand beside those of the exchange file, and may bind queues to them.  Every publisher sees a change at its next publish:
one ``stat`` tells that the file is another one, and only then it is read and compiled.  Changes are made under the
lock of the declarations, so that a queue goes together with its bindings.

Where AMQP leaves a choice, RabbitMQ decides, but for circles of exchanges, which are refused here (see ``exchange``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

from switchboard.declared.declarations import Declarations, first_difference
from switchboard.errors import (
    CorruptEntryError,
    ExchangeInUseError,
    ExchangeMismatchError,
    RouteError,
    UnknownExchangeError,
    UnknownQueueError,
)
from switchboard.events import log_event
from switchboard.message.typed_json import parse_json
from switchboard.routing.bindings import Binding, Exchange, ExchangeType, Target
from switchboard.routing.exchange import DEFAULT_EXCHANGE, ExchangeTable
from switchboard.routing.headers import HeaderMatch
from switchboard.store.layout import DECLARED_EXCHANGES

log = logging.getLogger('switchboard.exchange')


# What makes a file another one.
_Mark = tuple[int, int, int] | None


class DeclaredExchange(NamedTuple):
    """The declaration of an exchange by a program.

    :param alternate: the exchange that takes what this one delivers nowhere; it need not be there.
    :param auto_delete: deleted with its last binding.
    :param arguments: the program's own words, to compare with a later declaration's.
    """

    name: str
    type: ExchangeType = 'direct'
    alternate: str | None = None
    auto_delete: bool = False
    arguments: Mapping[str, Any] = {}


class DeclaredBinding(NamedTuple):
    """A way from an exchange to a queue or a further exchange.

    :param match: the routing key or pattern, or for a headers exchange what it asks of them.
    :param arguments: the program's own words; two bindings that differ in them are two.
    """

    source: str
    target: Target
    match: str | HeaderMatch = ''
    routing_key: str = ''
    arguments: Mapping[str, Any] = {}


@dataclass(slots=True)
class Definitions:
    """All that was declared."""

    exchanges: dict[str, DeclaredExchange] = field(default_factory=dict)
    bindings: list[DeclaredBinding] = field(default_factory=list)

    def dump(self) -> bytes:
        """Write it as JSON."""
        exchanges = [one._asdict() for one in self.exchanges.values()]
        bindings = [_fields(one) for one in self.bindings]
        content = {'exchanges': exchanges, 'bindings': bindings}
        return json.dumps(content, separators=(',', ':'), allow_nan=False).encode()

    @classmethod
    def load(cls, content: bytes) -> Definitions:
        """:raises ValueError: it is not what :meth:`dump` writes."""
        try:
            fields = parse_json(content, 'exchanges')[0]
            exchanges = [DeclaredExchange(**one) for one in fields['exchanges']]
            bindings = [_binding(one) for one in fields['bindings']]
        except (CorruptEntryError, TypeError, KeyError, AttributeError, RouteError) as error:
            raise ValueError(f'the declared exchanges cannot be read: {error!r}') from error
        return cls({one.name: one for one in exchanges}, bindings)

    def merged_into(self, base: ExchangeTable) -> ExchangeTable:
        """:return: `base` with the declared exchanges and bindings added to it.

        :raises RouteError: together they are no table.
        """
        known = base.exchanges.keys() | self.exchanges.keys()
        ways: dict[str, list[Binding]] = {name: [] for name in known}
        for one in self.bindings:
            if one.source in known and (not one.target.is_exchange or one.target.name in known):
                ways[one.source].append(Binding(one.match, (one.target,)))
        table = [replace(one, bindings=(*one.bindings, *ways[one.name])) for one in base.exchanges.values()]
        for new in self.exchanges.values():
            alternate = Target(new.alternate, is_exchange=True) if new.alternate in known else None
            if new.name not in base.exchanges:
                table.append(Exchange(new.name, new.type, tuple(ways[new.name]), alternate))
        return ExchangeTable(table)

    def remove(self, is_removed: Callable[[DeclaredBinding], bool]) -> bool:
        """Take bindings away, and the exchanges that go with their last one.

        :return: whether there were any.
        """
        doomed = [one for one in self.bindings if is_removed(one)]
        self.bindings = [one for one in self.bindings if not is_removed(one)]
        for name in dict.fromkeys(one.source for one in doomed):
            exchange = self.exchanges.get(name)
            if exchange is not None and exchange.auto_delete and not self.bindings_from(name):
                self.drop(name)
        return bool(doomed)

    def drop(self, name: str) -> None:
        """Take an exchange away with all bindings that begin or end there."""
        self.exchanges.pop(name, None)
        self.remove(lambda one: one.source == name or one.target == Target(name, is_exchange=True))

    def bindings_from(self, name: str) -> list[DeclaredBinding]:
        """:return: the bindings that begin at an exchange."""
        return [one for one in self.bindings if one.source == name]


def _fields(binding: DeclaredBinding) -> dict[str, Any]:
    match = binding.match if isinstance(binding.match, str) else binding.match._asdict()
    return binding._asdict() | {'target': binding.target._asdict(), 'match': match}


def _binding(fields: dict[str, Any]) -> DeclaredBinding:
    fields['target'] = Target(**fields['target'])
    if isinstance(fields['match'], dict):
        conditions = tuple((key, value) for key, value in fields['match']['conditions'])
        fields['match'] = HeaderMatch(fields['match']['mode'], conditions)
    return DeclaredBinding(**fields)


class ExchangeStore:
    """Reads and changes the file.

    :param declarations: the records of queues, whose lock guards the file.
    :param base: the table of the exchange file, as it is now.
    """

    def __init__(self, declarations: Declarations, base: Callable[[], ExchangeTable]) -> None:
        self._declarations = declarations
        self._base = base
        self._known: tuple[_Mark, ExchangeTable, ExchangeTable] | None = None

    @property
    def table(self) -> ExchangeTable:
        """The exchange file's table and the declared exchanges, as one."""
        mark, base = self._mark(), self._base()
        if self._known is None or self._known[0] != mark or self._known[1] is not base:
            self._known = mark, base, self._compiled(base)
        return self._known[2]

    def _compiled(self, base: ExchangeTable) -> ExchangeTable:
        try:
            return self.load().merged_into(base)
        except RouteError as error:
            # A changed exchange file and what programs declared do not go together: the operator's word counts.
            log_event(log, logging.ERROR, None, 'exchanges unreadable', error=error)
            return base

    def _mark(self) -> _Mark:
        declarations = self._declarations
        try:
            status = declarations.disk.stat(declarations.path(DECLARED_EXCHANGES))
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def load(self) -> Definitions:
        """:return: the declared exchanges.

        :raises RouteError: the file cannot be read.
        """
        content = self._declarations.read_bytes(DECLARED_EXCHANGES)
        try:
            return Definitions.load(content) if content else Definitions()
        except ValueError as error:
            raise RouteError(
                f'{self._declarations.path(DECLARED_EXCHANGES)} is damaged: put back a copy of it, or remove it and start the programs anew,'
                f' which then declare their exchanges and bindings again ({error})'
            ) from error

    def _save(self, definitions: Definitions) -> None:
        definitions.merged_into(self._base())  # raises, and nothing is written, if that is no table
        declarations = self._declarations
        declarations.disk.unlock_and_close(
            declarations.write_bytes(DECLARED_EXCHANGES, definitions.dump(), sync=True)
        )

    def declare(self, exchange: DeclaredExchange) -> None:
        """Make an exchange, or make sure that it is as asked for.

        :raises ExchangeMismatchError: it is another one.
        """
        if exchange.type not in get_args(ExchangeType):
            raise ExchangeMismatchError(f'there is no exchange type {exchange.type!r}')
        if exchange.name == DEFAULT_EXCHANGE:
            raise ExchangeMismatchError('the default exchange is always there, and cannot be declared')
        if self._is_same(self.load(), exchange):
            return
        with self._declarations.lock():
            definitions = self.load()
            if not self._is_same(definitions, exchange):
                definitions.exchanges[exchange.name] = exchange
                self._save(definitions)

    def _is_same(self, definitions: Definitions, exchange: DeclaredExchange) -> bool:
        fixed = self._base().exchanges.get(exchange.name)
        if fixed is not None:
            if fixed.type != exchange.type:
                raise ExchangeMismatchError(
                    f'exchange {exchange.name!r} is of type {fixed.type}, not {exchange.type}: the exchange file says so'
                )
            return True
        known = definitions.exchanges.get(exchange.name)
        if known is None:
            return False
        if reason := first_difference(known, exchange):
            raise ExchangeMismatchError(f'exchange {known.name!r} {reason}')
        return True

    def delete(self, name: str, *, if_unused: bool = False) -> bool:
        """Take an exchange away, with its bindings.

        :return: False if there is none.
        :raises ExchangeInUseError: it has bindings, and `if_unused`; or the exchange file declares it.
        """
        if name in self._base().exchanges:
            raise ExchangeInUseError(f'exchange {name!r} is declared by the exchange file')
        with self._declarations.lock():
            definitions = self.load()
            if name not in definitions.exchanges:
                return False
            if if_unused and definitions.bindings_from(name):
                raise ExchangeInUseError(
                    f'exchange {name!r} has {len(definitions.bindings_from(name))} bindings'
                )
            definitions.drop(name)
            self._save(definitions)
            return True

    def bind(self, binding: DeclaredBinding, is_target: Callable[[], bool]) -> None:
        """Add a binding; one that is there already is not added again.

        :param is_target: asked under the lock: is what it leads to there?
        :raises UnknownQueueError: it leads to a queue that is not.
        :raises UnknownExchangeError: an exchange is not there.
        :raises RouteError: it does not fit the exchange's type, or exchanges would lead to each other in a circle.
        """
        if binding in self.load().bindings:
            return
        with self._declarations.lock():
            definitions = self.load()
            self._check_ends(definitions, binding)
            if not is_target():
                raise UnknownQueueError('no such queue', queue=binding.target.name)
            if binding not in definitions.bindings:
                definitions.bindings.append(binding)
                self._save(definitions)

    def _check_ends(self, definitions: Definitions, binding: DeclaredBinding) -> None:
        ends: Iterable[str] = (
            (binding.source, binding.target.name) if binding.target.is_exchange else (binding.source,)
        )
        for name in ends:
            if name not in definitions.exchanges and name not in self._base().exchanges:
                raise UnknownExchangeError(name)

    def unbind(self, binding: DeclaredBinding) -> bool:
        """Take a binding away.

        :return: False if there is no such one.
        """
        with self._declarations.lock():
            definitions = self.load()
            removed = definitions.remove(lambda one: one == binding)
            if removed:
                self._save(definitions)
            return removed

    def forget_queue(self, name: str) -> None:
        """Take away the bindings of a queue that is being deleted.  Assumes that the lock is held."""
        if self._mark() is None:
            return
        try:
            definitions = self.load()
        except RouteError as error:
            log_event(log, logging.ERROR, None, 'not removed', queue=name, error=error)
            return
        if definitions.remove(lambda one: one.target == Target(name)):
            self._save(definitions)
