"""Queues as a whole: how much is in them, how old it is, and what operators say to them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import click

from switchboard.cli.context import Installation, json_option, json_report_option, verb
from switchboard.cli.exits import Exit, exit_of, exit_of_all
from switchboard.cli.options import DURATION, ENTRIES, STATES, RenamedOption, confirm, counts_text, yes_option
from switchboard.cli.output import (
    LOOK_EVERY_S,
    Progress,
    is_json,
    print_error,
    print_note,
    report,
    write_json,
    write_line,
)
from switchboard.cli.tables import Cell, Column, write_table
from switchboard.errors import DurabilityError, SwitchboardError, UnknownQueueError
from switchboard.message.naming import NS_PER_S
from switchboard.operating.queue_counts import AGE_TITLES, AgeRow, QueueCounts, age_table, count
from switchboard.operating.queue_info import (
    UNKNOWN,
    QueueInfo,
    count_fields,
    count_queue,
    option_words,
    origins_of,
    queue_info,
    read_options,
)
from switchboard.operating.spool_view import read_flags
from switchboard.operating.text import (
    age,
    bytes_text,
    duration,
    escape_terminal,
    flag_lines,
    intcomma,
    number,
    one_line,
    size,
)
from switchboard.store.layout import BAD, TRASH

FOREIGN = ('name that is no entry', 'names that are no entries')
DROPPED = ('dropped file', 'dropped files')
QUEUE_COLUMNS = (
    Column('QUEUE', shrink_to=12),
    Column('WAITING', align_right=True),
    Column('DELAYED', align_right=True, hide_rank=2),
    Column('HELD', align_right=True, hide_rank=5),
    Column('CLAIMED', align_right=True),
    Column('BYTES', align_right=True, hide_rank=3),
    Column('OLDEST', align_right=True),
    Column('NEXT', align_right=True, hide_rank=4),
    Column('BAD', align_right=True),
    Column('FLAGS', hide_rank=1),
)


def count_one(installation: Installation, name: str, *, sizes: bool = True) -> QueueCounts:
    """:return: the count of one queue; that its broker is away is said on standard error."""
    view = installation.view
    found = count_queue(view, name, sizes=sizes, spool=installation.spool() if view.is_remote(name) else None)
    if found.trouble:
        print_note(found.trouble)
    return found


def count_queues(
    installation: Installation, names: Iterable[str], *, sizes: bool = True
) -> list[QueueCounts]:
    """:return: the count of each queue, and of the bad queue, which has ``origins``.  A queue that the disk does not give is named on standard error, unless it was asked for."""
    counts = []
    view, wanted = installation.view, tuple(names)
    for name in dict.fromkeys((*view.check_queues(wanted), BAD)):
        try:
            found = count_one(installation, name, sizes=sizes)
        except OSError as error:
            if name in wanted or isinstance(error, PermissionError):
                raise
            print_note(f'{name}: {error.strerror}')
            found = QueueCounts(name, waiting=UNKNOWN)
        if found.preserved and name != TRASH:
            found.origins = origins_of(view.folder(name), name)
        counts.append(found)
    return counts


def origins_in_bad(counts: Iterable[QueueCounts]) -> Mapping[str, int] | None:
    """:return: how many entries of the bad queue came from which queue; None if it could not be counted."""
    bad = next(one for one in counts if one.queue == BAD)
    return None if bad.waiting == UNKNOWN else defaultdict(int, bad.origins)


def queue_row(
    one: QueueCounts, origins: Mapping[str, int] | None, now_s: float, flagged: Iterable[str] = ()
) -> list[Cell]:
    """:return: the cells of one queue.

    :param origins: how many entries of the bad queue came from which queue; the bad queue itself shows all of them.
    """
    waits_s = now_s - one.oldest_ns / NS_PER_S
    is_known = one.waiting != UNKNOWN
    bad: Cell = '?'
    if origins is not None:
        dead = origins[one.queue] + one.preserved
        bad = (intcomma(dead), 'red') if dead else ''
    return [
        (one.queue, 'bold'),
        intcomma(one.waiting) if is_known else '?',
        intcomma(one.delayed) if one.delayed else '',
        intcomma(one.held) if one.held else '',
        intcomma(one.claimed) if one.claimed else '',
        size(one.size_bytes) if is_known else '?',
        (age(waits_s), 'yellow' if waits_s > 3600 else '') if one.oldest_ns else '',
        age(now_s - one.next_ns / NS_PER_S) if one.next_ns else '',
        bad,
        (', '.join(flagged), 'yellow'),
    ]


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@click.option(
    '--no-bytes',
    cls=RenamedOption,
    old=('--fast',),
    is_flag=True,
    help='Leave out the bytes: they cost one system call an entry.',
)
@json_option
def queues(installation: Installation, names: tuple[str, ...], no_bytes: bool) -> int:
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
    counts = count_queues(installation, names, sizes=not no_bytes)
    # A broker that is away is no part of this machine.
    is_partial = any(one.waiting == UNKNOWN and not one.trouble for one in counts)
    origins = origins_in_bad(counts)
    counts = [one for one in counts if not names or one.queue in names]
    status = Exit.PARTIAL if is_partial else Exit.OK
    now_s = time.time()
    flagged = {one.queue: read_flags(installation.directory, one.queue) for one in counts}
    if is_json():
        for one in counts:
            in_bad = None if origins is None or one.queue in (BAD, TRASH) else origins[one.queue]
            write_json(count_fields(one, flagged[one.queue], now_s, in_bad))
        return status
    shown = [one for one in counts if one.queue != BAD or BAD in names]
    columns = [column for column in QUEUE_COLUMNS if not (no_bytes and column.title == 'BYTES')]
    rows = [queue_row(one, origins, now_s, flagged[one.queue]) for one in shown]
    if no_bytes:
        rows = [[*cells[:5], *cells[6:]] for cells in rows]
    write_table(columns, rows)
    if not shown:
        print_note('no queues but bad')
    lines = [
        f'{escape_terminal(queue)}: {line}' for queue, said in flagged.items() for line in flag_lines(said)
    ]
    if lines:
        write_line('\n' + '\n'.join(lines))
    _print_bad(counts)
    return status


def _print_bad(counts: list[QueueCounts]) -> None:
    bad = next((one for one in counts if one.queue == BAD), None)
    if bad is not None and bad.entries:
        where = ', '.join(
            f'{queue} {many}' for queue, many in sorted(bad.origins.items(), key=lambda item: -item[1])
        )
        came = f' (from {where})' if where else ''
        write_line(f'\nbad: {number(bad.entries, "entry", "entries")}, {bytes_text(bad.size_bytes)}{came}')
    for one in counts:
        if one.dropped:
            print_note(
                f'{one.queue}: {number(one.dropped, *DROPPED)} not taken in yet: a consumer of the queue does that'
            )
        if one.foreign:
            print_note(f'{one.queue}: {number(one.foreign, *FOREIGN)}: left alone')
        if one.evicted:
            write_line(f'{escape_terminal(one.queue)}: {_made_room(one)} so far')


def queue_lines(installation: Installation, name: str, *, everything: bool) -> Iterator[str]:
    """:return: a queue with its contents, in lines.

    :param everything: also the options that are as in any queue.
    """
    found = queue_info(installation.view, name)
    counts = count_one(installation, name)
    yield escape_terminal(name)
    yield f'  declared   {"; ".join(map(one_line, found.declared_where())) or "nowhere: there is a directory of that name"}'
    yield f'  consumers  {"?" if found.consumers is None else found.consumers}'
    yield f'  entries    {_entries(counts)}'
    for line in flag_lines(found.flags):
        yield f'  said       {line}'
    words = option_words(found.options) if everything else found.changed_options
    yield '' if words else '  options    none set'
    width = max(map(len, words), default=0)
    values = max((len(one_line(text)) for text in words.values()), default=0)
    for key, text in words.items():
        notes = ', '.join(note for note in (found.set_by(key), _used(key, found, counts)) if note)
        yield f'  {key:<{width}}  {one_line(text):<{values}}  {notes}'.rstrip()


def _used(key: str, found: QueueInfo, counts: QueueCounts) -> str:
    if key == 'max_messages' and found.options.max_messages is not None:
        return f'{counts.entries} used'
    if key == 'max_bytes' and found.options.max_bytes is not None:
        return f'{bytes_text(counts.size_bytes)} used'
    return ''


def _entries(counts: QueueCounts) -> str:
    if counts.waiting == UNKNOWN:
        return 'the broker is away'
    text = ', '.join(_by_state(counts)) or 'none'
    now_s = time.time()
    if counts.size_bytes:
        text += f'; {bytes_text(counts.size_bytes)}'
    if counts.oldest_ns:
        text += f'; the oldest has waited for {duration(now_s - counts.oldest_ns / NS_PER_S)}'
    if counts.next_ns:
        text += f'; the next is due {age(now_s - counts.next_ns / NS_PER_S)}'
    if counts.dropped:
        text += f'; {number(counts.dropped, *DROPPED)} not taken in yet'
    if counts.foreign:
        text += f'; {number(counts.foreign, *FOREIGN)}'
    if counts.evicted:
        text += f'; {_made_room(counts)} so far'
    return text


def _by_state(counts: QueueCounts) -> list[str]:
    return [f'{intcomma(many)} {state}' for state in STATES if (many := getattr(counts, state))]


def _made_room(counts: QueueCounts) -> str:
    return f'{number(counts.evicted, "message")} made room for newer ones'


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@click.option(
    '--by',
    default='queue',
    show_default=True,
    metavar='WHAT',
    help='A row for each queue, kind, origin, error or frame, or for each value of the metadata key WHAT.',
)
@click.option('--domain', is_flag=True, help='Of addresses, take the part behind the @.')
@json_option
def shape(installation: Installation, names: tuple[str, ...], by: str, domain: bool) -> int:
    """Show how old the entries of each queue are, in minutes: Postfix's qshape.

    A column counts the entries younger than its heading and not younger than the one before; LATER are those that are
    not due yet.  The bad queue is left out unless it is named.  `--by` other than queue opens every entry.

    \b
    switchboard shape                          where are old messages waiting?
    switchboard shape out --by rcpt --domain   which receiver do they wait for?
    switchboard shape bad --by error           why did they fail, and when?
    """
    queue_folders = [
        each for each in installation.view.queue_folders(names) if names or each[0] not in (BAD, TRASH)
    ]
    from switchboard.operating.grouping import ages_by_group  # here, because it brings the selections with it

    unread: dict[str, OSError] = {}
    rows = age_table(ages_by_group(queue_folders, time.time_ns(), unread, by=by, domain=domain))
    for queue, error in unread.items():
        if names:
            raise error
        print_note(f'{queue}: {error.strerror}')
    status = Exit.PARTIAL if unread else Exit.OK
    if is_json():
        for one in rows:
            write_json(one.fields(by))
        return status
    if not rows:
        print_note('no entries')
        return status
    total = AgeRow('TOTAL')
    for one in rows:
        total.counts = [a + b for a, b in zip(total.counts, one.counts, strict=True)]
        total.later += one.later
    columns = [
        Column('', shrink_to=12),
        Column('T', align_right=True),
        *(Column(title, align_right=True) for title in AGE_TITLES),
    ]
    write_table(
        [*columns, Column('LATER', align_right=True)],
        (
            [one.name, *(intcomma(count) for count in (one.total, *one.counts, one.later))]
            for one in (total, *rows)
        ),
    )
    return status


_reason = click.option('--reason', default='', metavar='TEXT', help='The reason, for the next operator.')


def _note(installation: Installation, act: str, queue: str, reason: str = '') -> None:
    from switchboard.operating.audit import note_act  # here, because to look notes nothing

    note_act(installation.directory, installation.operator(reason), act, queue)


def _set_flag(installation: Installation, names: tuple[str, ...], reason: str, act: str, done: str) -> None:
    installation.view.check_queues(
        names
    )  # all of them or none: an unknown one is an error before anything is done
    for name in names:
        getattr(installation.spool(), act)(name, reason, installation.operator().by)
        _note(installation, act, name, reason)
        report(f'{escape_terminal(name)}: {done}', act=act, queue=name)


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@_reason
@json_report_option
def pause(installation: Installation, names: tuple[str, ...], reason: str) -> None:
    """Let nothing be taken out of queues: runners finish the message at work and wait.  What comes in is stored.

    It holds until `switchboard resume`, also over a restart.
    """
    _set_flag(installation, names, reason, 'pause', 'paused')


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@_reason
@click.option('--wait', 'waits', is_flag=True, help='Wait until they are empty, and show how much is left.')
@click.option('--timeout', 'timeout_s', type=DURATION, help='With --wait: wait no longer than this.')
@click.option('--no-wait', is_flag=True, hidden=True, expose_value=False)
@json_report_option
def drain(
    installation: Installation, names: tuple[str, ...], reason: str, waits: bool, timeout_s: float | None
) -> Exit:
    """Let nothing into queues: producers get an error that asks to try again later.  Runners go on until they are empty.

    It holds until `switchboard resume`, also over a restart.  Delayed and held entries are waited for like all others.
    Exit status: 75 if the time ran out; the queues go on draining.
    """
    _set_flag(installation, names, reason, 'drain', 'draining')
    return Exit.TEMPORARY if waits and not _wait_until_empty(installation, names, timeout_s) else Exit.OK


def _wait_until_empty(installation: Installation, names: Sequence[str], timeout_s: float | None) -> bool:
    """:return: False if the time ran out."""
    started_s = time.monotonic()
    flags = installation.spool().flags
    for name in names:
        if flags.is_set('paused', name):
            print_note(
                f'{escape_terminal(name)} is paused: nothing is taken out of it before `switchboard resume`'
            )
    with Progress() as progress:
        # A message can be missed that is taken or given back while its directory is read (see `Folder.reads_every_name`): empty is what two looks find so.
        while left := _filled(installation, names) or _filled(installation, names):
            now_s = time.monotonic()
            text = f'draining, {duration(now_s - started_s)}; {", ".join(map(_left, left))}'
            if timeout_s is not None and now_s - started_s >= timeout_s:
                print_note(f'not empty yet: {", ".join(map(_left, left))}')
                return False
            progress.update_or_print(text)
            # Counting a large queue takes its time, and is not all that there is to do.
            time.sleep(max(LOOK_EVERY_S, 10 * (time.monotonic() - now_s)))
    report(f'empty after {duration(time.monotonic() - started_s)}', act='drain', empty=True)
    return True


def _filled(installation: Installation, names: Sequence[str]) -> list[QueueCounts]:
    counts = (count_one(installation, name, sizes=False) for name in installation.view.check_queues(names))
    return [one for one in counts if one.entries]


def _left(one: QueueCounts) -> str:
    due = f', next {age(time.time() - one.next_ns / NS_PER_S)}' if one.next_ns and not one.waiting else ''
    return f'{escape_terminal(one.queue)}: {" and ".join(_by_state(one))}{due}'


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@_reason
@json_report_option
def resume(installation: Installation, names: tuple[str, ...], reason: str) -> None:
    """End `pause` and `drain`."""
    installation.view.check_queues(names)
    for name in names:
        was = installation.spool().resume(name)
        if was:
            _note(installation, 'resume', name, reason)
        text = 'resumed' if was else 'was not paused'
        report(f'{escape_terminal(name)}: {text}', act='resume', queue=name, was=was)


def _read_options(
    _context: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    words = {}
    for value in values:
        key, equals, text = value.partition('=')
        if not equals:
            raise click.BadParameter(f'{value!r} is not KEY=VALUE')
        words[key.strip()] = text.strip()
    try:
        return read_options(words)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@verb()
@click.argument('name', metavar='QUEUE')
@click.option(
    '-o',
    '--option',
    'options',
    multiple=True,
    metavar='KEY=VALUE',
    callback=_read_options,
    help="A queue's option, written as in the configuration: ttl=1h, max_messages=1000.",
)
@click.option('--auto-delete', is_flag=True, help='Delete it when its last consumer leaves.')
@click.option('--expires', 'expires_s', type=DURATION, help='Delete it when nobody has used it for so long.')
@json_report_option
def declare(
    installation: Installation, name: str, options: dict[str, Any], auto_delete: bool, expires_s: float | None
) -> None:
    """Make a queue that is not in the configuration, or make sure that it is there as asked for.

    It stands in the spool, in a small file of its own, and stays until `delete`.  The configuration file is not touched; sections
    like [queue.*] hold for it too, below the options given here.  One that is there otherwise is an error: nothing is changed.

    \b
    switchboard declare night-shift -o ttl=12h -o dead_letter=late
    """
    installation.spool().declare(name, options=options, auto_delete=auto_delete, expires_s=expires_s)
    _note(installation, 'declare', name)
    report(f'{escape_terminal(name)}: declared', act='declare', queue=name)


def _confirm_dropping(what: str, installation: Installation, names: Sequence[str], *, yes: bool) -> None:
    """Ask if there is anything that would be dropped."""
    counts = [count(folder, name, sizes=False) for name, folder in installation.view.queue_folders(names)]
    by_queue = [(one.queue, one.entries) for one in counts if one.entries]
    if by_queue:
        confirm(f'{what}, with {counts_text(by_queue)}', yes=yes)


def _each(installation: Installation, names: Sequence[str], drop: Callable[[str], int], act: str) -> Exit:
    failed = []
    for name in names:
        try:
            dropped = drop(name)
        except (SwitchboardError, OSError) as error:
            failed.append(exit_of(error))
            print_error(error)
        else:
            _note(installation, act, name)
            dropped_too = f', {number(dropped, *ENTRIES)} dropped' if dropped else ''
            report(f'{escape_terminal(name)}: {act}d{dropped_too}', act=act, queue=name, dropped=dropped)
    return exit_of_all(failed, len(names) - len(failed))


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@click.option('--if-empty', is_flag=True, help='Only if there is nothing in it.')
@click.option('--if-unused', is_flag=True, help='Only if nobody consumes it: no runner, and no program.')
@yes_option
@json_report_option
def delete(
    installation: Installation, names: tuple[str, ...], if_empty: bool, if_unused: bool, yes: bool
) -> Exit:
    """Delete queues that were declared by programs or with `declare`, or that only have a directory; asks if there is anything in them.

    Waiting entries are dropped, delayed and held ones too.  An entry that a process is working on may be finished.  Bindings to them go
    with them.  A queue of the configuration is deleted by taking it out there.
    """
    if not if_empty:
        _confirm_dropping('delete ' + ', '.join(map(escape_terminal, names)), installation, names, yes=yes)
    spool = installation.spool()
    drop = partial(spool.delete, if_empty=if_empty, if_unused=if_unused)
    return _each(installation, names, drop, 'delete')


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@yes_option
@json_report_option
def purge(installation: Installation, names: tuple[str, ...], yes: bool) -> Exit:
    """Drop all waiting entries of queues, delayed and held ones too; there is no way back, so it asks.

    What a process is working on stays; what a dead one has left goes.  To drop some of it: `switchboard rm --queue QUEUE --older 1d`.
    """
    if BAD in names:
        raise click.UsageError(
            'bad holds the failed entries of all queues: `switchboard rm --queue bad --all`'
        )
    _confirm_dropping('purge ' + ', '.join(map(escape_terminal, names)), installation, names, yes=yes)
    spool = installation.spool()

    def drop(name: str) -> int:
        failed: dict[str, Exception] = {}
        try:
            dropped = spool.purge(name, failed.__setitem__)
        except UnknownQueueError:  # its section was removed
            from switchboard.spool.spool import Spool

            dropped = Spool(installation.directory).purge(name, failed.__setitem__)
        for error in failed.values():
            _note(installation, 'purge', name)
            reason = f'{number(dropped, *ENTRIES)} dropped, {len(failed)} not: {error}'
            raise DurabilityError(reason, step='purge', queue=name)
        return dropped

    return _each(installation, names, drop, 'purge')
