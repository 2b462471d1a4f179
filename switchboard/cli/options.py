"""The options that verbs share: which entries are meant, whether to ask, for how long to wait."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from switchboard.errors import SelectionError
from switchboard.operating.text import escape_terminal, number

if TYPE_CHECKING:
    from switchboard.operating.selection import Selection

# Written out, so that no verb has to load what knows them only to show its help; a test compares them.
STATES = ('waiting', 'delayed', 'held', 'claimed', 'preserved')

P = ParamSpec('P')
R = TypeVar('R')

ENTRIES = ('entry', 'entries')

yes_option = click.option('-y', '--yes', is_flag=True, help='Do not ask; needed where there is no terminal.')


class Duration(click.ParamType[float]):
    """A duration as the configuration writes it: ``250ms``, ``15m``, ``1h30m``."""

    name = 'duration'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, int | float):
            return float(value)
        from switchboard.config.units import duration_s

        try:
            return duration_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()


class RenamedOption(click.Option):
    """An option that had other names before: these are understood, and shown nowhere.

    :param old: the names of before.
    """

    def __init__(self, *args: Any, old: Sequence[str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.old = old

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Teach the parser all names."""
        shown = self.opts
        self.opts = [*shown, *self.old]
        super().add_to_parser(parser, ctx)
        self.opts = shown


def with_new_names(names: Iterable[str], params: Iterable[click.Parameter]) -> list[str]:
    """:return: names of options, each once, by those that are shown."""
    new = {old: each.opts[-1] for each in params if isinstance(each, RenamedOption) for old in each.old}
    return list(dict.fromkeys(new.get(name, name) for name in names))


reason_option = click.option('--reason', default='', metavar='TEXT', help='Why; it stands in the history.')


def queues_option(text: str) -> Callable[..., Any]:
    """:return: the option ``--queue``, which may be given several times."""
    return click.option('-q', '--queue', 'queues', multiple=True, metavar='QUEUE', help=text)


timeout_option = click.option(
    '--timeout',
    'timeout_s',
    type=DURATION,
    help='Wait no longer than this; the master goes on with it all the same.',
)


no_wait_option = click.option(
    '--no-wait', is_flag=True, help='Do not wait until it is done; `switchboard status` shows how far it is.'
)


def read_pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``key=text`` and ``key:=JSON``.

    :raises click.BadParameter: one of them is neither.
    """
    from switchboard.errors import CorruptEntryError
    from switchboard.message.typed_json import load_json

    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition('=')
        if not equals or not key.removesuffix(':'):
            raise click.BadParameter(f'{text!r} is neither key=text nor key:=JSON')
        if key.endswith(':'):
            try:
                pairs[key[:-1]] = load_json(value.encode('utf-8', 'surrogatepass'), value, unique=True)
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


def read_metadata(pairs: dict[str, Any]) -> dict[str, Any]:
    """Read the pairs of an option that sets metadata: what means something to the queue as its own option would read it, ``priority=9``.

    :raises click.UsageError: a value would not be stored, or do nothing.
    """
    from switchboard.message.metadata import find_mistake
    from switchboard.message.naming import HIGHEST_PRIORITY

    types: dict[str, click.ParamType[Any]] = {
        'priority': click.IntRange(0, HIGHEST_PRIORITY),
        'delay': DURATION,
        'ttl': DURATION,
        'not_before': click.FLOAT,
        'expires': click.FLOAT,
    }
    found = {}
    for key, value in pairs.items():
        try:
            found[key] = (
                types[key].convert(value, None, None) if key in types and isinstance(value, str) else value
            )
        except click.BadParameter as error:
            raise click.UsageError(f'{key}: {error.message}') from error
    if wrong := find_mistake(found):
        raise click.UsageError(wrong)
    return found


_OPTIONS = (
    click.option(
        '--where',
        multiple=True,
        metavar='SELECTION',
        help="Only those that fit: 'error:Timeout* older:1d -kind:mail tries:>3'.",
    ),
    click.option(
        '--not', 'without', multiple=True, metavar='SELECTION', help='Only those that fit none of its words.'
    ),
    click.option(
        '--state',
        multiple=True,
        type=click.Choice(STATES),
        help='Only entries of this state; may be given several times.',
    ),
    click.option(
        '--error', metavar='CLASS', help="Only those whose last error, or cause, is CLASS; may hold '*'."
    ),
    click.option('--match', metavar='TEXT', help='Only those that have TEXT in their last error.'),
    click.option(
        '--older', metavar='DURATION', help='Only those that have been so for as long, or longer: 15m, 2d.'
    ),
    click.option(
        '--younger', '--newer', metavar='DURATION', help='Only those that have not been so for as long.'
    ),
    click.option('--larger', metavar='SIZE', help='Only those with a larger body: 100K, 2M.'),
    click.option('--smaller', metavar='SIZE', help='Only those with a smaller body.'),
    click.option(
        '--origin',
        cls=RenamedOption,
        old=('--from',),
        metavar='QUEUE',
        help='Only those that came from QUEUE.',
    ),
    click.option('--kind', metavar='KIND', help='Only those of this kind: mail, json, ...'),
    click.option(
        '-m',
        '--metadata',
        multiple=True,
        metavar='KEY=VALUE',
        callback=pairs_callback,
        help='Only those with this in their metadata; KEY:=JSON for other than text.',
    ),
)


# The options that are words of the language by themselves, and those that are made into some.
_WORDS = ('state', 'error', 'match', 'older', 'younger', 'kind', 'metadata')
_NAMES = ('where', 'without', 'larger', 'smaller', 'origin', *_WORDS)


def _selection(
    where: Sequence[str],
    without: Sequence[str],
    larger: str | None,
    smaller: str | None,
    origin: str | None,
    **words: Any,
) -> Selection:
    from switchboard.operating.selection import Selection

    try:
        selection = Selection.of(origin=origin, **words)
        for comparison, text in (('>', larger), ('<', smaller)):
            if text is not None:
                selection &= Selection.of(size=comparison + text)
        for text in where:
            selection &= Selection.parse(text)
        for text in without:
            selection &= Selection.parse(text).negated()
    except SelectionError as wrong:
        raise click.UsageError(str(wrong)) from wrong
    return selection


def with_options(command: Callable[..., R], options: Sequence[Callable[..., Any]]) -> Callable[..., R]:
    """:return: the command with some options, the first of them first in its help."""
    for option in reversed(options):
        command = option(command)
    return command


def selection_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options; the command gets what they say as one argument, ``selection``."""

    @functools.wraps(command)
    def call(*args: Any, **keys: Any) -> R:
        own = {name: keys.pop(name) for name in _NAMES}
        return command(*args, selection=_selection(**own), **keys)

    return with_options(call, _OPTIONS)


def counts_text(by_queue: Iterable[tuple[str, int]]) -> str:
    """:return: how many entries there are, and in which queues."""
    counts = list(by_queue)
    where = ', '.join(f'{escape_terminal(queue)} {many}' for queue, many in counts)
    return f'{number(sum(many for _, many in counts), *ENTRIES)} ({where})'


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless the command line has answered.

    :raises click.UsageError: there is nobody to ask.
    :raises click.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f'{question}: nobody is there to ask; say --yes')
    if not click.confirm(f'{question}?', err=True):
        raise click.Abort
