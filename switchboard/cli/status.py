"""``switchboard status``: the master and every runner, from the board; also when the master is dead."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import click

from switchboard.cli.exits import Exit
from switchboard.cli.facts import Facts, facts
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.layout import Cell, Column
from switchboard.cli.queues import said_of
from switchboard.cli.snapshot import COLUMNS, Snapshot, fields_of, row, take, troubles
from switchboard.cli.tables import is_terminal, write_json, write_table
from switchboard.cli.wording import age, moment, one_line
from switchboard.errors import MasterError
from switchboard.master.control import ask
from switchboard.status.scoreboard import State

# The master answers between two things that it does; when it does not, what it is doing is left out.
ASK_TIMEOUT_S = 0.5

QUEUE_COLUMNS = (
    Column('QUEUE', shrink_to=12),
    Column('CONSUMERS', right=True, drop=1),
    Column('OPTIONS', shrink_to=20),
)


def under_way(snapshot: Snapshot) -> list[str]:
    """:return: what the master is busy with: a reload, a restart."""
    if snapshot.alive:
        with contextlib.suppress(MasterError, TimeoutError, ValueError):
            told = ask(snapshot.directory, {'do': 'status'}, ASK_TIMEOUT_S).get('under_way', [])
            return [str(each) for each in told]
    return []


def headline(snapshot: Snapshot, now_s: float) -> tuple[str, str]:
    """:return: one line about the master, and its colour."""
    master = snapshot.master
    if not snapshot.has_board:
        text = 'is starting' if snapshot.alive else 'not running; none was ever started here'
        return f'master: {text}', 'yellow'
    since = f'since {moment(master.started_ns / 1e9)}, {age(now_s - master.started_ns / 1e9)}'
    if snapshot.alive:
        return f'master: {master.state.value}, pid {master.pid}, {since}', 'green'
    if master.state is State.EXITED:
        return 'master: not running; it was stopped, and this is what it left', 'yellow'
    return f'master: NOT RUNNING; it died (pid {master.pid}), and this is what it left', 'red'


def status_of(snapshot: Snapshot) -> Exit:
    """:return: the exit status."""
    if not snapshot.alive:
        return Exit.UNAVAILABLE
    return Exit.PARTIAL if any(record.state is State.FATAL for record in snapshot.records) else Exit.OK


def _master_fields(snapshot: Snapshot, busy_with: list[str]) -> dict[str, Any]:
    master = snapshot.master
    return {
        'type': 'master',
        'running': snapshot.alive,
        'state': master.state.value if snapshot.alive else 'NOT RUNNING',
        'pid': master.pid if snapshot.alive else None,
        'spool': str(snapshot.directory),
        'started_at': master.started_ns / 1e9 or None,
        'ready_at': master.ready_ns / 1e9 or None,
        'reloaded_at': master.reloaded_ns / 1e9 or None,
        'reload_error': master.reload_error or None,
        'under_way': busy_with,
    }


@verb()
@json_option
@click.pass_context
def status(context: click.Context, installation: Installation, as_json: bool) -> None:
    """Show the master and every runner, and the queues that have options of their own.

    The counters are those of a slice for the life of the master, whatever processes it had.  Exit status: 0 all is well,
    1 a runner is FATAL, 69 no master is running.
    """
    snapshot = take(installation.existing_directory())
    busy_with = under_way(snapshot)
    if as_json:
        write_json(_master_fields(snapshot, busy_with))
        for record in snapshot.records:
            write_json(fields_of(record))
        for name in installation.queue_names():
            write_json(facts(installation, name).fields())
    else:
        _write(snapshot, busy_with)
        _write_queues([facts(installation, name) for name in installation.queue_names()])
    context.exit(status_of(snapshot))


def _write_queues(found: Sequence[Facts]) -> None:
    """Write the queues of which there is something to say: an option is set, a program declared them, they are paused or draining."""
    rows: list[list[Cell]] = [
        [
            (one.name, 'bold'),
            '?' if one.consumers is None else str(one.consumers),
            ', '.join([*_kind(one), *(f'{key} {text}' for key, text in one.own_options.items())]),
        ]
        for one in found
        if one.own_options or one.declaration is not None
    ]
    if rows:
        click.echo('')
        write_table(QUEUE_COLUMNS, rows)
    for one in found:
        for line in said_of(one.name, one.said):
            click.echo(click.style(line, fg='yellow') if is_terminal() else line)


def _kind(one: Facts) -> list[str]:
    return (
        [] if one.declaration is None else [text for text in one.where() if text.startswith('by a program')]
    )


def _write(snapshot: Snapshot, busy_with: list[str]) -> None:
    now_s = time.time()
    text, colour = headline(snapshot, now_s)
    click.echo(click.style(text, fg=colour) if is_terminal() else text)
    click.echo(f'spool:  {snapshot.directory}')
    master = snapshot.master
    if master.reload_error:
        when = age(now_s - master.reloaded_ns / 1e9)
        text = (
            f'reload: failed {when} ago, the old configuration is in force: {one_line(master.reload_error)}'
        )
        click.echo(click.style(text, fg='red') if is_terminal() else text)
    elif master.reloaded_ns:
        click.echo(f'reload: {age(now_s - master.reloaded_ns / 1e9)} ago')
    if busy_with:
        click.echo(f'busy:   {one_line("; ".join(busy_with))}')
    if snapshot.records:
        click.echo('')
        write_table(COLUMNS, [row(record, now_s, alive=snapshot.alive) for record in snapshot.records])
    told = list(troubles(snapshot.records, now_s))
    if told:
        click.echo('')
    for title, text in told:
        title = click.style(title, bold=True) if is_terminal() else title
        click.echo(f'{title}: {text}')
