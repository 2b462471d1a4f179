"""``switchboard ls``, ``show`` and ``tail``: entries, and nothing is done to them."""

from __future__ import annotations

import base64
import heapq
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.exits import Exit, exit_of, exit_of_all
from switchboard.cli.layout import Cell, Column
from switchboard.cli.options import selection_options
from switchboard.cli.output import (
    complain,
    is_terminal,
    line_width,
    say,
    tell,
    write_bytes,
    write_json,
    write_table,
)
from switchboard.errors import CorruptEntryError, QueueError, UnknownEntryError
from switchboard.message.entry import Entry, differences
from switchboard.message.journal import Record
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import NS, PRESERVED, READY, is_filebase, is_held
from switchboard.message.typed_json import parse_json, tagged_or_text
from switchboard.operating.census import walk
from switchboard.operating.entry_fields import UNTELLABLE, describe_body, entry_fields
from switchboard.operating.finding import Found
from switchboard.operating.lock_holders import holders
from switchboard.operating.selection import Criteria, select
from switchboard.operating.spool_view import flags_of
from switchboard.operating.summary import EntrySummary, time_ns
from switchboard.operating.text import (
    age,
    body_text,
    duration,
    moment,
    number,
    one_line,
    said_of,
    size,
    visible,
)
from switchboard.queue.ready_queue import order
from switchboard.store.disk import Disk, Folder
from switchboard.store.reading import peek
from switchboard.store.watch import CREATIONS, POLL_S, RENAMES, DirectoryWatch

# Wide enough for whole names and some words beside them.
WHOLE_NAMES_COLUMNS = 150

STYLES = {'waiting': 'green', 'delayed': 'cyan', 'held': 'magenta', 'claimed': 'yellow', 'preserved': 'red'}

COLUMNS = {
    'entry': Column('ENTRY'),
    'queue': Column('QUEUE', shrink_to=8),
    'from': Column('FROM', shrink_to=6),
    'state': Column('STATE', drop=4),
    'age': Column('AGE', right=True),
    'size': Column('SIZE', right=True, drop=3),
    'kind': Column('KIND', drop=2),
    'tries': Column('TRIES', right=True, drop=1),
    'retried': Column('RETRIED', right=True, drop=5),
    'error': Column('LAST ERROR', shrink_to=16),
    'subject': Column('SUBJECT', shrink_to=16),
    'task': Column('TASK', shrink_to=16),
}
LIMIT = 50


def columns_of(queue: str) -> tuple[str, ...]:
    """:return: the columns of a list of `queue`, or of several; what was put aside came from somewhere."""
    where = ('from',) if queue in ('bad', 'trash') else ('state',) if queue else ('queue', 'state')
    return ('entry', *where, 'age', 'size', 'kind', 'tries', 'retried', 'error')


def short_name(filebase: str) -> str:
    """:return: the beginning of a name, which is enough to find the entry: no two are of one nanosecond, or hardly ever."""
    return filebase.partition('+')[0]


def age_text(entry: EntrySummary, now_ns: int) -> str:
    """:return: how long it is as it is; of a held one, since when it is held."""
    if is_held(entry.filebase):
        since_ns = entry.held_ns
        return f'held {duration((now_ns - since_ns) / NS)}' if since_ns is not None else 'held'
    return age(entry.age_s(now_ns))


def state_text(seen: EntrySummary, now_ns: int, owners: Mapping[tuple[int, int], int]) -> str:
    """:return: the state, and for a claimed entry the process that holds it, if it can be told."""
    state = seen.state(now_ns)
    owner = owners.get(seen.inode) if state == 'claimed' else None
    return f'{state} by {owner}' if owner else state


def error_text(seen: EntrySummary) -> str:
    """:return: what went wrong last, or what is wrong with the file."""
    kind, text = seen.last_error
    parts = [f'damaged: {seen.damage}'] if seen.damage else []
    if kind or text:
        parts.append(f'{kind}: {text}' if text else kind)
    return '; '.join(parts)


@dataclass
class Line:
    """One entry in a list."""

    found: Found
    entry: EntrySummary
    now_ns: int
    owners: Mapping[tuple[int, int], int]
    whole_names: bool
    _content: dict[str, str] | None = None

    def cell(self, name: str) -> Cell:
        """:return: what stands in a column; in one that is not known, what the metadata have under its name.

        Of an entry whose content makes nonsense, only that cell says so.
        """
        try:
            return self._cell(name)
        except UNTELLABLE as error:
            return (f'({type(error).__name__})', 'red')

    def _cell(self, name: str) -> Cell:
        entry = self.entry
        match name:
            case 'entry':
                return entry.filebase if self.whole_names else short_name(entry.filebase)
            case 'queue':
                return entry.queue
            case 'from':
                return (entry.removed_from if entry.queue == 'trash' else entry.origin) or ''
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
            case 'retried':
                return f'{entry.retried}x' if entry.retried else ''
            case 'error':
                return (error_text(entry), 'red')
        content = self._described()
        if name in content:
            return content[name]
        value = entry.metadata().get(name, '')
        return value if isinstance(value, str) else json.dumps(tagged_or_text(value), ensure_ascii=False)

    def _described(self) -> dict[str, str]:
        if self._content is None:
            whole = peek(self.found.folder, self.entry.filebase, self.entry.suffix)
            self._content = {} if whole is None else describe_body(whole.kind, whole.body)
        return self._content


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
        help='Which columns, with commas: entry, queue, state, age, size, kind, tries, retried, from, error, subject, task, '
        'or a metadata key.',
    ),
    click.option('--names', 'names_only', is_flag=True, help='Names only, as `retry -` takes them.'),
    click.option('--count', 'count_only', is_flag=True, help='Print how many there are, and nothing else.'),
    json_option,
)


def _list_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_LIST_OPTIONS):
        command = option(command)
    return command


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@click.option('-q', '--queue', 'queues', multiple=True, metavar='QUEUE', help='The same as QUEUE.')
@click.option('--all-queues', 'everywhere', is_flag=True, help='The entries of all queues.')
@click.option('-a', '--all', 'everywhere_too', is_flag=True, hidden=True)
@_list_options
def ls(
    installation: Installation,
    names: tuple[str, ...],
    queues: tuple[str, ...],
    everywhere: bool,
    everywhere_too: bool,
    criteria: Criteria,
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
    default = () if everywhere or everywhere_too else names + queues or ('bad',)
    _list(installation, installation.view.searched(criteria, default), criteria, **keys)


@verb()
@_list_options
def trash(installation: Installation, criteria: Criteria, **keys: Any) -> None:
    """List what was removed and can be restored; FROM is where it was.

    It is gone for good a week after it was removed, or after the `ttl` of a section [queue.trash].

    \b
    switchboard trash --younger 1h
    switchboard restore 1795317402.6748
    """
    _list(installation, [('trash', installation.view.folder('trash'))], criteria, **keys)


def _list(
    installation: Installation,
    places: Sequence[tuple[str, Folder]],
    criteria: Criteria,
    *,
    sort: str,
    backwards: bool,
    limit: int | None,
    columns: str | None,
    names_only: bool,
    count_only: bool,
    as_json: bool,
) -> None:
    now_ns = time.time_ns()
    selected = select(places, criteria, now_ns)
    if count_only:
        many = sum(1 for _ in selected)
        if as_json:
            write_json({'entries': many})
        else:
            tell(many)
        return
    if limit is None:
        limit = 0 if as_json or names_only else LIMIT
    chosen, more = choose(selected, sort, limit, backwards=backwards)
    queues = [name for name, _ in places]
    if names_only:
        for found in chosen:
            tell(f'{found.queue}/{found.filebase}')
    elif as_json:
        owners = holders()
        for found in chosen:
            entry = found.look()
            if entry is not None:
                write_json(entry_fields(entry, now_ns, owners))
    else:
        one = queues[0] if len(queues) == 1 else ''
        shown = columns.split(',') if columns else list(columns_of(one))
        if not _write_rows(chosen, shown, now_ns):
            where = one or number(len(queues), 'queue')
            say(f'no entries in {where}' if not criteria else f'no entry in {where} fits')
    if more:
        say(f'... and {more} more; --limit 0 shows all')


def _write_rows(chosen: Iterable[Found], names: Sequence[str], now_ns: int) -> bool:
    """:return: whether there was anything to write."""
    width = line_width()
    whole = width is None or width >= WHOLE_NAMES_COLUMNS
    owners = holders()

    def rows() -> Iterator[list[Cell]]:
        for found in chosen:
            entry = found.look()
            if entry is not None:
                line = Line(found, entry, now_ns, owners, whole_names=whole)
                yield [line.cell(name) for name in names]

    return write_table([COLUMNS.get(name) or Column(name.upper(), shrink_to=12) for name in names], rows())


# Of a long body, the beginning says what it is.
SHOWN_BODY_BYTES = 16 * 1024
# Fields of a record that are not shown as key=value.
_APART = frozenset(('event', 'time', 'traceback', 'message', 'error', 'before', 'after'))
_COLOURS = {'red': 'red', 'green': 'green', 'cyan': 'cyan', 'yellow': 'yellow'}


@verb()
@click.argument('names', nargs=-1, required=True, metavar='ENTRY|QUEUE...')
@click.option('-q', '--queue', 'queues', multiple=True, metavar='QUEUE', help='Look in this queue only.')
@click.option('--raw', is_flag=True, help="Write the body's bytes as they are, and nothing else.")
@click.option('--headers', is_flag=True, help='No body; of a mail, its header only.')
@click.option(
    '--full',
    is_flag=True,
    help=f'All of the body, not the first {size(SHOWN_BODY_BYTES)}; of a queue, all options.',
)
@json_option
@click.pass_context
def show(
    context: click.Context,
    installation: Installation,
    names: tuple[str, ...],
    queues: tuple[str, ...],
    raw: bool,
    headers: bool,
    full: bool,
    as_json: bool,
) -> None:
    """Show entries: what the header says, metadata, history with tracebacks, body.  Or queues: their options and who set them,
    their consumers, how much is in them.

    ENTRY is the beginning of its name, or of the digest in it; QUEUE/ENTRY looks in one queue only.  Whatever could act on a
    terminal is written out, as \\x1b.  An entry that is torn is shown as far as it can be read.
    """
    known = installation.view.queue_names()
    failed = []
    for number_, name in enumerate(names):
        if number_ and not (raw or as_json):
            tell('')
        try:
            if name in known:
                _show_queue(installation, name, everything=full, as_json=as_json)
            else:
                _show_entry(installation, name, queues, raw=raw, headers=headers, full=full, as_json=as_json)
        except (QueueError, *UNTELLABLE) as error:
            if len(names) == 1 and isinstance(error, QueueError):
                raise
            failed.append(exit_of(error) if isinstance(error, QueueError) else Exit.DATA)
            complain(error, name)
    context.exit(exit_of_all(failed, len(names) - len(failed)))


def _show_entry(
    installation: Installation,
    name: str,
    queues: Sequence[str],
    *,
    raw: bool,
    headers: bool,
    full: bool,
    as_json: bool,
) -> None:
    found = installation.view.find(name, queues)
    seen = found.look()
    whole = peek(found.folder, found.filebase, seen.suffix) if seen is not None else None
    if seen is None or whole is None:
        raise UnknownEntryError(f'{found.queue}/{found.filebase} has gone on a moment ago')
    if raw:
        write_bytes(whole.body)
        return
    said = flags_of(installation.directory, seen.queue)
    if as_json:
        write_json({**_whole_fields(seen, whole, headers=headers), 'queue_flags': said})
    else:
        tell('\n'.join(_lines(seen, whole, said, headers=headers, full=full)))


def _show_queue(installation: Installation, name: str, *, everything: bool, as_json: bool) -> None:
    from switchboard.cli.commands.queues import show_fields, show_lines

    if as_json:
        write_json(show_fields(installation, name))
        return
    first, *lines = show_lines(installation, name, everything=everything)
    tell('\n'.join([_title(first), *lines]))


def _metadata(entry: Entry) -> dict[str, Any] | None:
    """:return: the metadata as a runner gets them; None if they cannot be read.  Nothing is unpickled."""
    try:
        return entry.changed_metadata(load_metadata(entry.metadata))
    except (CorruptEntryError, *UNTELLABLE):
        return None


def _whole_fields(seen: EntrySummary, entry: Entry, *, headers: bool) -> dict[str, Any]:
    fields = entry_fields(seen, time.time_ns(), holders())
    fields['damage'] = entry.damage.reason if entry.damage else None
    fields['metadata'] = tagged_or_text(_metadata(entry))
    fields['history'] = tagged_or_text(list(entry.records))
    body = _mail_header(entry) if headers else entry.body
    try:
        fields['body'] = body.decode('utf-8')
    except UnicodeDecodeError:
        fields['body_base64'] = base64.b64encode(body).decode('ascii')
    return fields


def _mail_header(entry: Entry) -> bytes:
    """:return: the header of a mail; nothing of other kinds."""
    if entry.kind.partition('+')[0] != 'mail':
        return b''
    body = entry.body.replace(b'\r\n', b'\n')
    end = body.find(b'\n\n')
    return body if end < 0 else body[: end + 1]


def _title(text: str) -> str:
    return click.style(text, bold=True) if is_terminal() else text


def _lines(
    seen: EntrySummary, entry: Entry, said: dict[str, dict[str, Any]], *, headers: bool, full: bool
) -> Iterator[str]:
    now_ns = time.time_ns()
    state = state_text(seen, now_ns, holders())
    if is_terminal():
        state = click.style(state, fg=STYLES[seen.state(now_ns)])
    yield f'{_title(f"{seen.queue}/{seen.filebase}")}'
    yield f'  state     {state}, {age_text(seen, now_ns).removeprefix("held ")}'
    for line in said_of(seen.queue, said):
        yield f'  queue     {line}'
    yield f'  ready     {moment(seen.when_ns / NS)}' + (
        f', priority {seen.priority}' if seen.priority else ''
    )
    yield f'  kind      {one_line(entry.kind)}'
    yield f'  size      {len(entry.body)} bytes; {seen.size_bytes} in its file'
    for key, value in describe_body(entry.kind, entry.body).items():
        yield f'  {key:<9} {one_line(value)}'
    if seen.origin:
        yield f'  came from {one_line(seen.origin)}' + (
            f', sent back {seen.retried}x' if seen.retried else ''
        )
    if entry.damage is not None:
        text = f'{entry.damage.reason}'
        yield f'  damage    {click.style(one_line(text), fg="red") if is_terminal() else one_line(text)}'
    yield from _metadata_lines(entry)
    if entry.records:
        yield ''
        yield _title('history')
        before, edits = '', differences(entry)
        for place, record in enumerate(entry.records):
            yield from _record_lines(record, before)
            for line in edits.get(place, ()):
                colour = {'-': 'red', '+': 'green'}.get(line[:1])
                yield f'      {click.style(visible(line), fg=colour) if is_terminal() else visible(line)}'
            before = f'{record.get("error")}: {record.get("message")}'
    yield from _body_lines(entry, headers=headers, full=full)


def _metadata_lines(entry: Entry) -> Iterator[str]:
    metadata = _metadata(entry)
    yield ''
    if metadata is None:
        yield _title('metadata') + ' cannot be read:'
        yield '  ' + body_text(entry.metadata[:1000])
        return
    # What every entry has says nothing about this one.
    shown = {key: value for key, value in metadata.items() if key not in ('version', '_parsemsg')}
    yield _title('metadata') + ('' if shown else ' none')
    width = max((len(one_line(key)) for key in shown), default=0)
    for key, value in shown.items():
        yield f'  {one_line(key):<{width}}  {visible(json.dumps(tagged_or_text(value), ensure_ascii=False))}'


def _record_lines(record: Record, before: str) -> Iterator[str]:
    """:param before: what was said of the error just above: why an entry was put aside is mostly the same."""
    when = record.get('time')
    stamp = moment(float(when)) if when is not None and time_ns(when) is not None else '?'
    others = {key: value for key, value in record.items() if key not in _APART and value != before}
    pairs = ' '.join(f'{key}={_value(value)}' for key, value in others.items())
    event = one_line(str(record.get('event', '?')))
    error, message = record.get('error'), record.get('message')
    says = ': '.join(one_line(str(part)) for part in (error, message) if part)
    yield f'  {stamp}  {event:<9} {one_line(pairs)}'.rstrip()
    if says:
        yield f'      {click.style(says, fg="red") if is_terminal() else says}'
    traceback = record.get('traceback')
    if isinstance(traceback, str):
        for line in traceback.rstrip('\n').split('\n'):
            yield f'      | {visible(line)}'


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(tagged_or_text(value), ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if ' ' in text and isinstance(value, str) else text


def _body_lines(entry: Entry, *, headers: bool, full: bool) -> Iterator[str]:
    body = _mail_header(entry) if headers else entry.body
    if headers and not body:
        return
    yield ''
    cut = not full and len(body) > SHOWN_BODY_BYTES
    yield _title('mail header' if headers else 'body')
    text = body_text(body[:SHOWN_BODY_BYTES] if cut else body)
    if entry.kind == 'json' and not cut:
        try:
            text = visible(json.dumps(parse_json(body, 'body')[0], indent=2, ensure_ascii=False))
        except CorruptEntryError:
            pass  # shown as it is
    for line in text.removesuffix('\n').split('\n') if text else ():
        yield f'  {line}'
    if cut:
        yield f'  ... {len(body) - SHOWN_BODY_BYTES} bytes more; --full shows them, --raw writes all bytes as they are'


ARRIVED = (READY, PRESERVED)


class Arrivals:
    """Waits for new names in some directories, which may not be there yet, and may be replaced: nothing is made.

    :param root: the spool, in which they are.
    """

    def __init__(self, root: Path, places: list[tuple[str, Folder]]) -> None:
        self._places = dict(places)
        self._known: set[tuple[str, str]] = set()
        self._names = {folder.path: queue for queue, folder in places}
        self._root = os.fspath(root)
        self._watch = DirectoryWatch()
        self._is_told = self._watch.watch(self._root, CREATIONS | RENAMES) and all(
            self._watch.watch(path, RENAMES) or not os.path.lexists(path) for path in self._names
        )
        if not self._is_told:
            self._known = set(self._there(self._places))

    def _there(self, queues: Iterable[str]) -> Iterator[tuple[str, str]]:
        for queue in queues:
            for filebase, suffix in walk(Folder(self._places[queue].path, Disk()), ARRIVED):
                yield queue, filebase + suffix

    def wait(self) -> list[Found]:
        """:return: what has arrived since the last call."""
        self._watch.wait(None if self._is_told else POLL_S)
        if self._is_told:
            return [found for event in self._watch.events() for found in self._of_event(*event)]
        there = set(self._there(self._places))
        fresh, self._known = sorted(there - self._known), there
        return [self._found(queue, name) for queue, name in fresh]

    def _found(self, queue: str, name: str) -> Found:
        return Found(queue, Folder(self._places[queue].path, Disk()), name[:-4], name[-4:])

    def _of_event(self, directory: str, name: str, mask: int) -> Iterator[Found]:
        if directory == self._root and name in self._places:
            path = self._places[name].path
            self._watch.unwatch(path)  # of the directory that stood there before
            self._watch.watch(
                path, RENAMES
            )  # first, so that what comes while the directory is read is not missed
            yield from (self._found(*each) for each in sorted(self._there([name])))
        elif directory in self._names and name[-4:] in ARRIVED and is_filebase(name[:-4]):
            yield self._found(self._names[directory], name)


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@click.option('-q', '--queue', 'queues', multiple=True, metavar='QUEUE', help='The same as QUEUE.')
@click.option(
    '-n',
    '--limit',
    'lines',
    default=5,
    show_default=True,
    type=click.IntRange(min=0),
    metavar='N',
    help='How many that are there already.',
)
@click.option('--lines', 'lines_too', type=click.IntRange(min=0), hidden=True)
@click.option('--count', type=click.IntRange(min=1), metavar='N', help='Stop after so many arrivals.')
@json_option
def tail(
    installation: Installation,
    names: tuple[str, ...],
    queues: tuple[str, ...],
    lines: int,
    lines_too: int | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Follow what arrives in queues; without a name, in the bad queue.  Ctrl-C ends it.

    An entry that a retry or a recovery makes ready again arrives again.
    """
    lines = lines if lines_too is None else lines_too
    places = installation.view.places(names + queues or ('bad',))
    arrivals = Arrivals(
        installation.directory, places
    )  # before the look at what is there, so that nothing falls between the two
    told: set[tuple[str, str]] = set()
    if lines:
        now_ns = time.time_ns()
        latest, _ = choose(select(places, Criteria(), now_ns), 'age', lines, backwards=True)
        for found in reversed(list(latest)):
            told.add((found.queue, found.filebase + found.suffix))
            _say_arrival(found, found.look(), as_json=as_json, many=len(places) > 1)
    left = itertools.count(1)
    while True:
        for found in arrivals.wait():
            name = (found.queue, found.filebase + found.suffix)
            if name in told:  # it came while the latest ones were looked at
                told.discard(name)
                continue
            _say_arrival(found, found.look(), as_json=as_json, many=len(places) > 1)
            if count is not None and next(left) >= count:
                return


def _say_arrival(found: Found, seen: EntrySummary | None, *, as_json: bool, many: bool) -> None:
    try:
        _write_arrival(found, seen, as_json=as_json, many=many)
    except UNTELLABLE as error:
        complain(error, f'{found.queue}/{found.filebase}')


def _write_arrival(found: Found, seen: EntrySummary | None, *, as_json: bool, many: bool) -> None:
    now_ns = time.time_ns()
    if as_json:
        fields = {'filebase': found.filebase, 'queue': found.queue, 'state': 'gone'}
        write_json(fields if seen is None else entry_fields(seen, now_ns, {}))
        return
    parts = [moment(now_ns / NS if seen is None else seen.since_ns / NS), found.filebase]
    if many:
        parts.insert(1, found.queue)
    if seen is None:
        parts.append('gone already')
    else:
        parts += [seen.kind, size(seen.body_bytes)]
        if seen.suffix == PRESERVED:
            parts.append(f'from {seen.origin or "?"}')
        if text := error_text(seen):
            parts.append(one_line(text))
    tell('  '.join(parts))
