"""``switchboard shape``: how old the entries are, a row for each queue, or for each value of something they have.

The table is that of Postfix's qshape: its columns are minutes, and a row that is full at the right is where mail is stuck.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import click

from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.layout import Cell, Column
from switchboard.cli.tables import say, write_json, write_table
from switchboard.message.naming import CLAIMED, READY
from switchboard.operating.census import AGE_MINUTES, Shape, age_s, shapes, walk
from switchboard.operating.summary import SUFFIXES, EntrySummary, summarize
from switchboard.store.disk import Folder


def _ages_by_name(places: Iterable[tuple[str, Folder]], now_ns: int) -> Iterator[tuple[str, float]]:
    for queue, folder in places:
        for filebase, _ in walk(folder, (READY, CLAIMED)):
            yield queue, age_s(filebase, now_ns)


def _values(key: str, *, domain: bool) -> Callable[[EntrySummary], list[str]]:
    """:return: a function that says to which rows an entry belongs."""

    def read(seen: EntrySummary) -> list[str]:
        if key in ('queue', 'kind', 'origin'):
            found: object = getattr(seen, key)
        elif key == 'error':
            found = seen.last_error[0]
        else:
            found = seen.metadata().get(key)
        values = [str(one) for one in found] if isinstance(found, list) else [str(found)] if found else []
        if domain:
            values = [value.rpartition('@')[2].rstrip('> ').lower() for value in values]
        return list(dict.fromkeys(values)) or ['(none)']

    return read


def _ages_by_content(
    places: Iterable[tuple[str, Folder]], now_ns: int, values: Callable[[EntrySummary], list[str]]
) -> Iterator[tuple[str, float]]:
    for queue, folder in places:
        for filebase, suffix in walk(folder, SUFFIXES):
            seen = summarize(folder, queue, filebase, suffix)
            if seen is not None:
                for value in values(seen):
                    yield value, seen.age_s(now_ns)


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@click.option(
    '--by',
    default='queue',
    show_default=True,
    metavar='WHAT',
    help='A row for each queue, kind, origin or error, or for each value of the metadata key WHAT.',
)
@click.option('--domain', is_flag=True, help='Of addresses, take what is behind the @.')
@json_option
def shape(installation: Installation, names: tuple[str, ...], by: str, domain: bool, as_json: bool) -> None:
    """Show how old the entries of each queue are, in minutes: Postfix's qshape.

    A column counts the entries younger than its heading and not younger than the one before; LATER are those that are
    not due yet.  The bad queue is left out unless it is named.  `--by` other than queue opens every entry.

    \b
    switchboard shape                          where are old messages waiting?
    switchboard shape out --by rcpt --domain   which receiver do they wait for?
    switchboard shape bad --by error           why did they fail, and when?
    """
    places = [place for place in installation.places(names) if names or place[0] != 'bad']
    now_ns = time.time_ns()
    if by == 'queue' and all(name != 'bad' for name, _ in places):
        rows = shapes(_ages_by_name(places, now_ns))
    else:
        rows = shapes(_ages_by_content(places, now_ns, _values(by, domain=domain)))
    titles = [*map(str, AGE_MINUTES), f'{AGE_MINUTES[-1]}+']
    if as_json:
        for one in rows:
            write_json(
                {
                    by: one.name,
                    'total': one.total,
                    **dict(zip(titles, one.counts, strict=True)),
                    'later': one.later,
                }
            )
        return
    if not rows:
        say('no entries')
        return
    total = Shape('TOTAL')
    for one in rows:
        total.counts = [a + b for a, b in zip(total.counts, one.counts, strict=True)]
        total.later += one.later
    columns = [
        Column('', shrink_to=12),
        Column('T', right=True),
        *(Column(title, right=True) for title in titles),
    ]
    write_table([*columns, Column('LATER', right=True)], map(_row, [total, *rows]))


def _row(one: Shape) -> list[Cell]:
    return [one.name, *(str(number) for number in (one.total, *one.counts, one.later))]
