"""``switchboard queues``: how much is in every queue, counted by walking over directories, never by listing them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from switchboard.cli.counting import UNKNOWN, census_of
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.layout import Cell, Column
from switchboard.cli.tables import say, write_json, write_table
from switchboard.cli.wording import age, moment, number, one_line, size, visible
from switchboard.message.naming import NS, PRESERVED
from switchboard.operating.census import Census, walk
from switchboard.operating.summary import summarize
from switchboard.store.disk import Folder
from switchboard.store.layout import RUN

# To tell where dead messages came from, each must be opened.  So many take about a second.
MAX_OPENED = 20_000

COLUMNS = (
    Column('QUEUE', shrink_to=12),
    Column('WAITING', right=True),
    Column('DELAYED', right=True, drop=2),
    Column('HELD', right=True, drop=5),
    Column('CLAIMED', right=True),
    Column('BYTES', right=True, drop=3),
    Column('OLDEST', right=True),
    Column('NEXT', right=True, drop=4),
    Column('BAD', right=True),
    Column('FLAGS', drop=1),
)
FLAGS = ('paused', 'draining')


def origins(folder: Folder, queue: str, limit: int = MAX_OPENED) -> dict[str, int]:
    """:return: how many preserved entries came from which queue; what cannot be told, or is beyond `limit`, is under ``?``."""
    found: Counter[str] = Counter()
    for opened, (filebase, suffix) in enumerate(walk(folder, (PRESERVED,))):
        seen = summarize(folder, queue, filebase, suffix) if opened < limit else None
        found[seen.origin or '?' if seen else '?'] += 1
    return dict(found)


def census(installation: Installation, names: Iterable[str], *, sizes: bool = True) -> list[Census]:
    """:return: the count of each queue; that of the bad queue has ``origins``."""
    counts = []
    for name in installation.known(names):
        found = census_of(installation, name, sizes=sizes)
        if found.preserved:
            found.origins = origins(installation.folder(name), name)
        counts.append(found)
    return counts


def flags(directory: Path, queue: str) -> dict[str, dict[str, Any]]:
    """:return: what an operator has said to a queue, since when and why.  Nothing is made on the way, as `Flags` would."""
    found = {}
    for flag in FLAGS:
        try:
            content = json.loads((directory / RUN / flag / queue).read_bytes() or b'{}')
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            content = {}  # put up by hand, perhaps with `touch`
        found[flag] = content if isinstance(content, dict) else {}
    return found


def row(one: Census, dead: int, now_s: float, flagged: Iterable[str] = ()) -> list[Cell]:
    """:return: the cells of one queue.

    :param dead: how many entries of the bad queue came from it; the bad queue itself shows all of them.
    """
    waits_s = now_s - one.oldest_ns / NS
    return [
        (one.queue, 'bold'),
        str(one.waiting) if one.waiting != UNKNOWN else '?',
        str(one.delayed) if one.delayed else '',
        str(one.held) if one.held else '',
        str(one.claimed) if one.claimed else '',
        size(one.size_bytes),
        (age(waits_s), 'yellow' if waits_s > 3600 else '') if one.oldest_ns else '',
        age(now_s - one.next_ns / NS) if one.next_ns else '',
        (str(dead + one.preserved), 'red') if dead + one.preserved else '',
        (', '.join(flagged), 'yellow'),
    ]


def fields_of(one: Census, dead: int, now_s: float, flagged: Iterable[str]) -> dict[str, Any]:
    """:return: one queue for programs."""
    fields = dataclasses.asdict(one)
    for name in ('oldest_ns', 'next_ns', 'origins'):
        del fields[name]
    fields['waiting'] = None if one.waiting == UNKNOWN else one.waiting
    fields['oldest_age_s'] = round(now_s - one.oldest_ns / NS, 3) if one.oldest_ns else None
    fields['next_due_s'] = round(one.next_ns / NS - now_s, 3) if one.next_ns else None
    fields['in_bad'] = dead
    fields['flags'] = list(flagged)
    if one.origins:
        fields['origins'] = one.origins
    return fields


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@click.option('--fast', is_flag=True, help='Leave out the bytes: they cost one system call an entry.')
@json_option
def queues(installation: Installation, names: tuple[str, ...], fast: bool, as_json: bool) -> None:
    """Show how much is in every queue.

    \b
    WAITING  entries that could be taken now
    DELAYED  entries whose time has not come; NEXT is when the first is due
    HELD     entries that `switchboard hold` keeps until `release`
    CLAIMED  entries that a process is working on
    OLDEST   since when the oldest waiting entry could have been taken
    BAD      entries of the bad queue that came from here
    FLAGS    what `switchboard pause` and `drain` have said
    """
    wanted = names if not names or 'bad' in names else (*names, 'bad')
    counts = census(installation, wanted, sizes=not fast)
    origin = next((one.origins for one in counts if one.queue == 'bad'), {})
    counts = [one for one in counts if not names or one.queue in names]
    now_s = time.time()
    flagged = {one.queue: flags(installation.directory, one.queue) for one in counts}
    if as_json:
        for one in counts:
            write_json(fields_of(one, origin.get(one.queue, 0), now_s, flagged[one.queue]))
        return
    shown = [one for one in counts if one.queue != 'bad' or 'bad' in names]
    columns = [column for column in COLUMNS if not (fast and column.title == 'BYTES')]
    rows = [row(one, origin.get(one.queue, 0), now_s, flagged[one.queue]) for one in shown]
    if fast:
        rows = [[*cells[:5], *cells[6:]] for cells in rows]
    write_table(columns, rows)
    _tell_of_flags(flagged)
    _tell_of_bad(counts, origin)


def said_of(queue: str, flagged: dict[str, dict[str, Any]]) -> list[str]:
    """:return: a line for each thing that an operator has said to a queue."""
    lines = []
    for flag, fields in flagged.items():
        since, reason = fields.get('since'), str(fields.get('reason') or '')
        when = f' since {moment(since)}' if isinstance(since, int | float) else ''
        lines.append(f'{visible(queue)}: {flag}{when}' + (f': {one_line(reason)}' if reason else ''))
    return lines


def _tell_of_flags(flagged: dict[str, dict[str, dict[str, Any]]]) -> None:
    lines = [line for queue, said in flagged.items() for line in said_of(queue, said)]
    if lines:
        click.echo('\n' + '\n'.join(lines))


def _tell_of_bad(counts: list[Census], origin: dict[str, int]) -> None:
    bad = next((one for one in counts if one.queue == 'bad'), None)
    if bad is not None and bad.entries:
        where = ', '.join(
            f'{queue} {many}' for queue, many in sorted(origin.items(), key=lambda item: -item[1])
        )
        came = f' (from {where})' if where else ''
        click.echo(f'\nbad: {number(bad.entries, "entry", "entries")}, {size(bad.size_bytes)}{came}')
    for one in counts:
        if one.foreign:
            say(f'{one.queue}: {number(one.foreign, "name")} that are no entries; they are left alone')
