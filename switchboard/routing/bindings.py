"""The records that an exchange table is made of, and the check that they lead somewhere and never in a circle.

They say what the exchange file says, line by line, and no more: programs that need no file make them by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from switchboard.errors import RouteError, RouteLoopError, UnknownExchangeError
from switchboard.routing.headers import HeaderMatch

# Deeper nesting is a mistake, and routing recurses as deep.
MAX_NESTING = 100

# Before the name of an exchange where a queue's could stand.
EXCHANGE_PREFIX = 'exchange:'

ExchangeType = Literal['direct', 'fanout', 'topic', 'headers']


class Target(NamedTuple):
    """The target of a binding: a queue, or a further exchange."""

    name: str
    is_exchange: bool = False

    def __str__(self) -> str:
        return f'{EXCHANGE_PREFIX}{self.name}' if self.is_exchange else self.name


@dataclass(frozen=True, slots=True)
class Binding:
    """One line of an exchange: which messages (a key, a pattern, or conditions on the metadata) go where."""

    match: str | HeaderMatch
    targets: tuple[Target, ...]
    # Where it stands is for people: two tables that route alike are equal, wherever their lines are.
    line: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f'{self.match} -> {", ".join(map(str, self.targets))}'.lstrip()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A named set of bindings of one type.  `alternate` takes what they deliver nowhere."""

    name: str
    type: ExchangeType
    bindings: tuple[Binding, ...] = ()
    alternate: Target | None = None
    file: str | None = field(default=None, compare=False)
    line: int | None = field(default=None, compare=False)

    def targets(self) -> Iterable[Target]:
        """:return: all that messages can go to from here, by bindings or by the alternate."""
        for binding in self.bindings:
            yield from binding.targets
        if self.alternate is not None:
            yield self.alternate


def check_targets(exchanges: Mapping[str, Exchange]) -> None:
    """Check that exchanges lead to exchanges that exist, not in a circle, and not through more than a hundred.

    :raises UnknownExchangeError: a target or an alternate names no exchange.
    :raises RouteLoopError: there is a circle.
    :raises RouteError: the nesting is too deep.
    """
    ways = {
        name: [one.name for one in exchange.targets() if one.is_exchange]
        for name, exchange in exchanges.items()
    }
    if not ways:
        return
    for onward in ways.values():
        for name in onward:
            if name not in exchanges:
                raise UnknownExchangeError(name)
    import graphlib  # here, because most configurations have no exchanges

    try:
        # Those that lead nowhere come first, so each one's depth is known from what it leads to.
        ordered = list(graphlib.TopologicalSorter(ways).static_order())
    except graphlib.CycleError as error:
        raise RouteLoopError(list(reversed(error.args[1]))) from error
    depths: dict[str, int] = {}
    for name in ordered:
        depths[name] = 1 + max((depths[one] for one in ways[name]), default=0)
        if depths[name] > MAX_NESTING:
            raise RouteError(f'exchange {name!r} leads through more than {MAX_NESTING} exchanges')
