"""The options that say which entries are meant: shared by all verbs that list or change entries."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, get_args

import click

from switchboard.config.units import duration_s
from switchboard.errors import CorruptEntryError
from switchboard.message.typed_json import load_json
from switchboard.operating.finding import Criteria
from switchboard.operating.summary import State

P = ParamSpec('P')
R = TypeVar('R')


class Duration(click.ParamType[float]):
    """A duration as the configuration writes it: ``250ms``, ``15m``, ``1h30m``."""

    name = 'duration'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return duration_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()


def read_pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``key=text`` and ``key:=JSON``.

    :raises click.BadParameter: one of them is neither.
    """
    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition('=')
        if not equals or not key.removesuffix(':'):
            raise click.BadParameter(f'{text!r} is neither key=text nor key:=JSON')
        if key.endswith(':'):
            try:
                pairs[key[:-1]] = load_json(value.encode('utf-8', 'surrogatepass'), value)
            except CorruptEntryError as error:
                raise click.BadParameter(f'{text!r}: {value!r} is no JSON: {error}') from error
        else:
            pairs[key] = value
    return pairs


def pairs_callback(
    _context: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> dict[str, Any]:
    """Read the values of an option that may be given several times."""
    return read_pairs(value)


_OPTIONS = (
    click.option(
        '--state',
        'states',
        multiple=True,
        type=click.Choice(get_args(State)),
        help='Only entries of this state; may be given several times.',
    ),
    click.option(
        '--error',
        default='',
        metavar='CLASS',
        help="Only those whose last error, or cause, is CLASS; may hold '*'.",
    ),
    click.option(
        '--older', 'older_s', type=DURATION, help='Only those that have been so for longer: 15m, 2d.'
    ),
    click.option('--origin', '--from', default='', metavar='QUEUE', help='Only those that came from QUEUE.'),
    click.option('--kind', default='', metavar='KIND', help='Only those of this kind: mail, json, ...'),
    click.option(
        '-m',
        '--metadata',
        multiple=True,
        metavar='KEY=VALUE',
        callback=pairs_callback,
        help='Only those with this in their metadata; KEY:=JSON for other than text.',
    ),
)


def selection_options(command: Callable[P, R]) -> Callable[..., R]:
    """Add the options; the command gets what they say as one argument, ``criteria``."""

    @functools.wraps(command)
    def call(
        *args: Any,
        states: tuple[State, ...],
        error: str,
        older_s: float | None,
        origin: str,
        kind: str,
        metadata: dict[str, Any],
        **keys: Any,
    ) -> R:
        criteria = Criteria(frozenset(states), older_s, error, origin, kind, metadata)
        return command(*args, criteria=criteria, **keys)  # type: ignore[arg-type]

    wrapped: Callable[..., R] = call
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
