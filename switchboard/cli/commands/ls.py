"""``switchboard ls`` and ``trash``: lists of entries."""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import click

from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.options import RenamedOption, queues_option, selection_options, with_options
from switchboard.cli.output import (
    is_json,
    print_note,
    report,
    write_json,
    write_line,
)
from switchboard.cli.tables import Cell, Column, cell_text, line_width, write_table
from switchboard.message.naming import NS_PER_S, is_on_hold, sort_key
from switchboard.message.typed_json import plain_json
from switchboard.operating.entry_fields import HISTORY_ERRORS, LockHolders, describe_body, entry_fields
from switchboard.operating.finding import FoundEntry
from switchboard.operating.selection import METADATA_PREFIX, Selection, select
from switchboard.operating.summary import EntrySummary
from switchboard.operating.text import age, duration, number, size
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD, TRASH
from switchboard.store.reading import peek
from switchboard.suggestions import did_you_mean

# Wide enough for whole names and some words beside them.
WHOLE_NAMES_COLUMNS = 150

STYLES = {'waiting': 'green', 'delayed': 'cyan', 'held': 'magenta', 'claimed': 'yellow', 'preserved': 'red'}

COLUMNS = {
    'entry': Column('ENTRY'),
    'queue': Column('QUEUE', shrink_to=8),
    'from': Column('FROM', shrink_to=6),
    'state': Column('STATE', hide_rank=4),
    'age': Column('AGE', align_right=True),
    'size': Column('SIZE', align_right=True, hide_rank=3),
    'kind': Column('KIND', hide_rank=2),
    'tries': Column('TRIES', align_right=True, hide_rank=1),
    'sent_back': Column('SENT BACK', align_right=True, hide_rank=5),
    'retried': Column('RETRIED', align_right=True, hide_rank=5),  # its name before
    'error': Column('LAST ERROR', shrink_to=16),
    'subject': Column('SUBJECT', shrink_to=16),
    'task': Column('TASK', shrink_to=16),
}
# What a Celery message has besides its task.
CONTENT = frozenset(('id', 'args', 'kwargs'))
LIMIT = 50


def default_columns(queue: str) -> tuple[str, ...]:
    """:return: the columns of a list of `queue`, or of several; preserved entries have an origin, too."""
    where = ('from',) if queue in (BAD, TRASH) else ('state',) if queue else ('queue', 'state')
    return ('entry', *where, 'age', 'size', 'kind', 'tries', 'sent_back', 'error')


def age_text(entry: EntrySummary, now_ns: int) -> str:
    """:return: how long it is as it is; of a held one, since when it is held."""
    if is_on_hold(entry.filebase):
        since_ns = entry.held_ns
        return f'held {duration((now_ns - since_ns) / NS_PER_S)}' if since_ns is not None else 'held'
    return age(entry.age_s(now_ns))


def state_text(summary: EntrySummary, now_ns: int, owners: Mapping[tuple[int, int], int]) -> str:
    """:return: the state, and for a claimed entry the process that holds it, if it is known."""
    state = summary.state(now_ns)
    owner = owners.get(summary.inode) if state == 'claimed' else None
    return f'{state} by {owner}' if owner else state


def error_text(summary: EntrySummary) -> str:
    """:return: the last error, or the damage of the file."""
    kind, text = summary.last_error
    parts = [f'damaged: {summary.damage}'] if summary.damage else []
    if kind or text:
        parts.append(f'{kind}: {text}' if text else kind)
    return '; '.join(parts)


@dataclass
class EntryRow:
    """One entry in a list."""

    found: FoundEntry
    entry: EntrySummary
    now_ns: int
    owners: Mapping[tuple[int, int], int]
    whole_names: bool

    def cell(self, name: str) -> Cell:
        """:return: the text in a column; in one that is not known, the metadata's value under its name.

        Of an entry whose content makes nonsense, only that cell says so.
        """
        try:
            return self._cell(name)
        except HISTORY_ERRORS as error:
            return (f'({type(error).__name__})', 'red')

    def _cell(self, name: str) -> Cell:
        entry = self.entry
        match name:
            case 'entry':
                return entry.filebase if self.whole_names else entry.filebase.partition('+')[0]
            case 'queue':
                return entry.queue
            case 'from':
                return (entry.removed_from if entry.queue == TRASH else entry.origin) or ''
            case 'state':
                state = entry.state(self.now_ns)
                return (state_text(entry, self.now_ns, self.owners), STYLES[state])
            case 'age':
                return age_text(entry, self.now_ns)
            case 'size':
                return size(entry.body_bytes)
            case 'kind':
                return entry.kind
            case 'tries':
                return str(entry.attempts + entry.recoveries) if entry.attempts + entry.recoveries else ''
            case 'sent_back' | 'retried':
                return f'{entry.sent_back}x' if entry.sent_back else ''
            case 'error':
                return (error_text(entry), 'red')
        if name in self._described:
            return self._described[name]
        value = entry.metadata().get(name.removeprefix(METADATA_PREFIX), '')
        return value if isinstance(value, str) else json.dumps(plain_json(value), ensure_ascii=False)

    @cached_property
    def _described(self) -> dict[str, str]:
        whole = peek(self.found.folder, self.entry.filebase, self.entry.suffix)
        return {} if whole is None else describe_body(whole.kind, whole.body)


# The values to compare, for orders that need a look into the file.
_BY_CONTENT: dict[str, Callable[[EntrySummary], Any]] = {
    'age': lambda summary: summary.since_ns,
    'size': lambda summary: -summary.body_bytes,
    'attempts': lambda summary: -(summary.attempts + summary.recoveries),
    'error': lambda summary: summary.last_error,
}


def _keyed(found: Iterable[FoundEntry], sort: str) -> Iterator[tuple[Any, FoundEntry]]:
    for each in found:
        if sort not in _BY_CONTENT:
            yield sort_key(each.filebase), each
        elif (summary := each.look()) is not None:
            yield (_BY_CONTENT[sort](summary), sort_key(each.filebase)), each


def choose_sorted(
    found: Iterable[FoundEntry], sort: str, limit: int, *, backwards: bool = False
) -> tuple[Iterable[FoundEntry], int]:
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
        # Of many, no more is kept than where they are; they are read again when they are shown.
        light = ((key, each._replace(summary=None)) for key, each in counted)
        pairs = sorted(light, key=lambda pair: pair[0], reverse=backwards)
    return [each for _, each in pairs], next(total) - len(pairs)


_LIST_OPTIONS = (
    selection_options,
    click.option(
        '--sort',
        type=click.Choice(['order', *_BY_CONTENT, 'none']),
        default='order',
        show_default=True,
        help='order: as they are taken; none: as the directory has them, which needs no memory.',
    ),
    click.option('-r', '--reverse', 'backwards', is_flag=True, help='The last ones first.'),
    click.option(
        '--limit',
        type=click.IntRange(min=0),
        metavar='N',
        help=f'How many; 0 for all of them.  Default: {LIMIT} in a table, all as JSON and as names.',
    ),
    click.option(
        '--columns',
        metavar='NAMES',
        help='Which columns, with commas: entry, queue, state, age, size, kind, tries, sent_back, from, error, subject, task, '
        'or a metadata key (or metadata.KEY, where it has the name of one of these).',
    ),
    click.option('--names', 'names_only', is_flag=True, help='Names only, as `retry -` takes them.'),
    click.option('--count', 'count_only', is_flag=True, help='Print how many there are, and nothing else.'),
    json_option,
)

_list_options = partial(with_options, options=_LIST_OPTIONS)


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@queues_option('The same as QUEUE.')
@click.option(
    '--all-queues',
    'everywhere',
    cls=RenamedOption,
    old=('-a', '--all'),
    is_flag=True,
    help='The entries of all queues.',
)
@_list_options
def ls(
    installation: Installation,
    names: tuple[str, ...],
    queues: tuple[str, ...],
    everywhere: bool,
    selection: Selection,
    **keys: Any,
) -> None:
    """List the entries of a queue; without a name, those of the bad queue.

    The beginning of a name in the first column is enough for `show`, `retry`, `mv` and `rm`.  In a pipe names are whole.
    TRIES counts failures, and processes that died, since the entry was last sent back.

    \b
    switchboard ls --where 'error:Timeout* older:1d -kind:mail'
    switchboard ls in --columns entry,age,subject,sender
    switchboard ls --names --error SpamError | switchboard rm - --yes
    """
    default = () if everywhere else names + queues or (BAD,)
    _list(installation.view.folders_to_search(selection, default), selection, **keys)


@verb()
@_list_options
def trash(installation: Installation, selection: Selection, **keys: Any) -> None:
    """List removed entries that can be restored; FROM is where each was.

    It is gone for good a week after it was removed, or after the `ttl` of a section [queue.trash].

    \b
    switchboard trash --younger 1h
    switchboard restore 1795317402.6748
    """
    _list([(TRASH, installation.view.folder(TRASH))], selection, **keys)


def _list(
    queue_folders: Sequence[tuple[str, Folder]],
    selection: Selection,
    *,
    sort: str,
    backwards: bool,
    limit: int | None,
    columns: str | None,
    names_only: bool,
    count_only: bool,
) -> None:
    now_ns = time.time_ns()
    selected = select(queue_folders, selection, now_ns)
    if count_only:
        many = sum(1 for _ in selected)
        report(str(many), entries=many)
        return
    if limit is None:
        limit = 0 if is_json() or names_only else LIMIT
    if columns and names_only:
        raise click.UsageError('--names writes names and nothing else: leave --columns out')
    chosen, more = choose_sorted(selected, sort, limit, backwards=backwards)
    queues = [name for name, _ in queue_folders]
    wanted = _named_columns(columns or '')
    if names_only:
        for found in chosen:
            write_line(f'{found.queue}/{found.filebase}')
    elif is_json():
        _write_objects(chosen, wanted, now_ns)
    else:
        one = queues[0] if len(queues) == 1 else ''
        if not _write_rows(chosen, wanted or default_columns(one), now_ns):
            where = one or number(len(queues), 'queue')
            hint = '; `switchboard ls --all-queues` lists those of all queues' if one == BAD else ''
            print_note(
                f'no entry in {where} fits{selection.hint_if_nothing_matches()}'
                if selection
                else f'no entries in {where}{hint}'
            )
    if more:
        print_note(f'... and {more} more; --limit 0 shows all')


def _write_objects(chosen: Iterable[FoundEntry], names: Sequence[str], now_ns: int) -> None:
    owners = LockHolders()
    for found in chosen:
        entry = found.look()
        if entry is None:
            continue
        fields = entry_fields(entry, now_ns, owners)
        if names:
            line = EntryRow(found, entry, now_ns, owners, whole_names=True)
            fields['columns'] = {name: cell_text(line.cell(name)) or None for name in names}
        write_json(fields)


def _named_columns(text: str) -> list[str]:
    """:return: the names of columns; those of ours as people see them above a table, too."""
    names = [name.strip() for name in text.split(',') if name.strip()]
    titles = {column.title: name for name, column in COLUMNS.items()}
    return [titles.get(name.upper(), name) for name in names]


def _write_rows(chosen: Iterable[FoundEntry], names: Sequence[str], now_ns: int) -> bool:
    """:return: whether there was anything to write."""
    width = line_width()
    whole = width is None or width >= WHOLE_NAMES_COLUMNS
    owners = LockHolders()
    empty = set(names) - COLUMNS.keys() - CONTENT

    def rows() -> Iterator[list[Cell]]:
        for found in chosen:
            entry = found.look()
            if entry is not None:
                line = EntryRow(found, entry, now_ns, owners, whole_names=whole)
                cells = [line.cell(name) for name in names]
                empty.difference_update(name for name, cell in zip(names, cells, strict=True) if cell)
                yield cells

    columns = [COLUMNS.get(name) or Column(name.upper(), shrink_to=12) for name in names]
    written = write_table(columns, rows())
    for name in sorted(empty) if written else ():
        print_note(f'none of these has {name!r} in its metadata{did_you_mean(name, COLUMNS)}')
    return written
