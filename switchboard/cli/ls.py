"""``switchboard ls``: the entries of a queue, the first fifty of however many."""

from __future__ import annotations

import heapq
import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from switchboard.cli.entries import QUEUE, WHOLE_NAMES_COLUMNS, columns_of, fields_of, row
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.layout import Cell
from switchboard.cli.owners import holders
from switchboard.cli.selecting import selection_options
from switchboard.cli.tables import is_terminal, say, write_json, write_table
from switchboard.cli.wording import number
from switchboard.operating.finding import Criteria, Found, select
from switchboard.operating.summary import EntrySummary
from switchboard.queue.ready_queue import order

LIMIT = 50

# What is compared, for orders that need a look into the file.
_BY_CONTENT: dict[str, Callable[[EntrySummary], Any]] = {
    'age': lambda seen: seen.since_ns,
    'size': lambda seen: -seen.body_bytes,
    'attempts': lambda seen: -(seen.attempts + seen.recoveries),
    'error': lambda seen: seen.last_error,
}


def _keyed(found: Iterable[Found], sort: str) -> Iterator[tuple[Any, Found]]:
    for each in found:
        if sort not in _BY_CONTENT:
            yield order(each.filebase), each
        elif (seen := each.look()) is not None:
            yield (_BY_CONTENT[sort](seen), order(each.filebase)), each


def choose(
    found: Iterable[Found], sort: str, limit: int, *, backwards: bool = False
) -> tuple[Iterable[Found], int]:
    """Take the first of many without keeping the others.

    :param sort: ``none`` keeps the order of the directory, and then nothing is kept in memory at all.
    :param limit: 0 for all of them.
    :return: the entries, and how many more there are.
    """
    if sort == 'none':
        if not limit:
            return found, 0
        found = iter(found)
        first = list(itertools.islice(found, limit))
        return first, sum(1 for _ in found)
    total = itertools.count()
    counted = (pair for pair in _keyed(found, sort) if next(total) >= 0)
    if limit:
        pick = heapq.nlargest if backwards else heapq.nsmallest
        pairs = pick(limit, counted, key=lambda pair: pair[0])
    else:
        pairs = sorted(counted, key=lambda pair: pair[0], reverse=backwards)
    return [each for _, each in pairs], next(total) - len(pairs)


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@click.option('-a', '--all', 'everywhere', is_flag=True, help='The entries of all queues.')
@selection_options
@click.option(
    '--sort',
    type=click.Choice(['order', *_BY_CONTENT, 'none']),
    default='order',
    show_default=True,
    help='order: as they are taken; none: as the directory has them, which needs no memory.',
)
@click.option('-r', '--reverse', 'backwards', is_flag=True, help='The last ones first.')
@click.option(
    '--limit',
    type=click.IntRange(min=0),
    metavar='N',
    default=LIMIT,
    show_default=True,
    help='How many; 0 for all of them.',
)
@json_option
def ls(
    installation: Installation,
    names: tuple[str, ...],
    everywhere: bool,
    criteria: Criteria,
    sort: str,
    backwards: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List the entries of a queue; without a name, those of the bad queue.

    The beginning of a name in the first column is enough for `show`, `retry`, `mv` and `rm`.  In a pipe names are whole.
    TRIES counts failures, and processes that died, since the entry was last sent back.
    """
    places = installation.places() if everywhere else installation.places(names or ('bad',))
    now_ns = time.time_ns()
    chosen, more = choose(select(places, criteria, now_ns), sort, limit, backwards=backwards)
    seen = (each.look() for each in chosen)
    owners = holders()
    if as_json:
        for each in seen:
            if each is not None:
                write_json(fields_of(each, now_ns, owners))
    else:
        queues = [name for name, _ in places]
        if not _write(seen, queues, now_ns, owners):
            where = queues[0] if len(queues) == 1 else number(len(queues), 'queue')
            say(f'no entries in {where}' if criteria == Criteria() else f'no entry in {where} fits')
    if more:
        say(f'... and {more} more; --limit 0 shows all')


def _write(
    seen: Iterable[EntrySummary | None], queues: list[str], now_ns: int, owners: dict[tuple[int, int], int]
) -> bool:
    """:return: whether there was anything to write."""
    whole = not is_terminal() or shutil.get_terminal_size().columns >= WHOLE_NAMES_COLUMNS
    one = queues[0] if len(queues) == 1 else ''
    columns = columns_of(one)
    if not one:
        columns = (columns[0], QUEUE, *columns[1:])

    def rows() -> Iterator[list[Cell]]:
        for each in seen:
            if each is not None:
                first, *others = row(each, one, now_ns, owners, whole_names=whole)
                yield [first, *others] if one else [first, each.queue, *others]

    return write_table(columns, rows())
