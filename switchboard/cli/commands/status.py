"""``switchboard status``: the master and every runner, from the scoreboard; also when the master is dead."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

import click

from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.exits import Exit
from switchboard.cli.output import is_json, print_note, with_installation, write_json, write_line
from switchboard.cli.tables import Cell, Column, write_table
from switchboard.errors import MasterError
from switchboard.operating.health import (
    Alarm,
    flag_alarms,
    master_alarm,
    reload_alarm,
    runner_alarms,
    runners_without_process,
)
from switchboard.operating.queue_info import QueueInfo, queue_info
from switchboard.operating.text import duration, intcomma, one_line
from switchboard.status.alive import process_age_s
from switchboard.status.scoreboard import ProcessState, SliceRecord
from switchboard.status.snapshot import (
    Snapshot,
    busy_s,
    fields_without_process,
    master_fields,
    read_status,
    runner_fields,
)

STATE_STYLES = {
    ProcessState.STARTING: 'cyan',
    ProcessState.RUNNING: 'green',
    ProcessState.BACKOFF: 'yellow',
    ProcessState.STOPPING: 'cyan',
    ProcessState.EXITED: 'bright_black',
    ProcessState.FATAL: 'bold red',
}

RUNNER_COLUMNS = (
    Column('RUNNER', shrink_to=8),
    Column('STATE'),
    Column('PID', align_right=True, hide_rank=2),
    Column('UPTIME', align_right=True, hide_rank=3),
    Column('DONE', align_right=True),
    Column('FAILED', align_right=True),
    Column('RETRIED', align_right=True, hide_rank=4),
    Column('KEPT', align_right=True, hide_rank=5),
    Column('RESTARTS', align_right=True, hide_rank=1),
    Column('AT WORK ON', shrink_to=12, hide_rank=6),
)


def runner_row(record: SliceRecord, now_s: float, *, alive: bool) -> list[Cell]:
    """:return: the cells for `RUNNER_COLUMNS`."""
    lives = alive and record.pid
    work = ''
    if record.current:
        name = record.current.partition('+')[0]
        work = f'{name}, {duration(busy_s(record))}' if alive else f'was at {name}'
    state = record.state.value if alive else f'({record.state.value.lower()})'
    return [
        (record.title, 'bold'),
        (state, STATE_STYLES[record.state] if alive else 'bright_black'),
        str(record.pid) if lives else '',
        duration(process_age_s(record.pid, now_s - record.started_ns / 1e9))
        if lives and record.started_ns
        else '',
        intcomma(record.done),
        (intcomma(record.failed), 'red' if record.failed else ''),
        intcomma(record.retried),
        intcomma(record.kept),
        (intcomma(record.restarts), 'yellow' if record.restarts else ''),
        work,
    ]


COLOURS = {'warn': 'yellow', 'bad': 'red'}

# A reload starts the slices that have given up again, whether their section has changed or their program.
AFTER_FATAL = 'mend that, then `switchboard reload`'

# The master answers between two things that it does; when it does not, what it is doing is left out.
ASK_TIMEOUT_S = 0.5

OPTIONS_COLUMNS = (
    Column('QUEUE', shrink_to=12),
    Column('CONSUMERS', align_right=True, hide_rank=1),
    Column('OPTIONS', shrink_to=20),
)


def under_way(snapshot: Snapshot) -> list[str]:
    """:return: the master's work of this moment: a reload, a restart."""
    if snapshot.alive:
        from switchboard.master.control import ask

        # It is shown without: the master may be ending.
        with contextlib.suppress(MasterError, TimeoutError, ValueError):
            planned = ask(snapshot.directory, {'do': 'status'}, ASK_TIMEOUT_S).get('under_way', [])
            return [str(each) for each in planned]
    return []


def alarm_line(alarm: Alarm) -> str:
    """:return: an alarm, with commands that reach this installation."""
    return with_installation(str(alarm))


def status_of(snapshot: Snapshot) -> Exit:
    """:return: the exit status."""
    if not snapshot.alive:
        return Exit.UNAVAILABLE
    return Exit.PARTIAL if any(record.state is ProcessState.FATAL for record in snapshot.records) else Exit.OK


@verb()
@json_option
def status(installation: Installation) -> Exit:
    """Show the master and every runner, and the queues that have options of their own.

    The counters are those of a slice for the life of the master, whatever processes it had.  Exit status: 0 all is well,
    1 a runner is FATAL, 69 no master is running; where none ever was, and none is needed (-s, or no runners), 0.
    """
    snapshot = read_status(installation.existing_directory())
    busy_with = under_way(snapshot)
    missing = {} if busy_with else runners_without_process(snapshot, installation.config_or_none)
    if is_json():
        write_status_json(snapshot, busy_with, missing)
        for name in installation.view.queue_names():
            write_json(queue_info(installation.view, name).fields())
    else:
        _write_status(snapshot, busy_with, missing)
        _write_queues([queue_info(installation.view, name) for name in installation.view.queue_names()])
    if not snapshot.alive and (text := installation.master_elsewhere()):
        print_note(text)
    if not snapshot.has_scoreboard and not snapshot.alive and not _wants_master(installation):
        return Exit.OK
    return status_of(snapshot)


def _wants_master(installation: Installation) -> bool:
    """:return: whether the installation is one that a master has to work for: one with runners."""
    config = installation.config_or_none
    return installation.named_spool is None and (config is None or bool(config.runners))


def _write_queues(found: Sequence[QueueInfo]) -> None:
    """Write the queues of which there is something to say: an option is set, a program declared them, they are paused or draining."""
    rows: list[list[Cell]] = [
        [
            (one.name, 'bold'),
            '?' if one.consumers is None else str(one.consumers),
            ', '.join(
                [
                    *(text for text in one.declared_where() if text.startswith('by a program')),
                    *(f'{key} {text}' for key, text in one.own_options.items()),
                ]
            ),
        ]
        for one in found
        if one.own_options or one.declaration is not None
    ]
    if rows:
        write_line('')
        write_table(OPTIONS_COLUMNS, rows)
    for one in found:
        for alarm in flag_alarms(one.name, one.flags):
            write_line(_coloured(alarm))


def write_status_json(snapshot: Snapshot, busy_with: Sequence[str], missing: Mapping[str, str]) -> None:
    """Write the master and every runner for programs."""
    write_json(master_fields(snapshot, busy_with))
    for record in snapshot.records:
        write_json(runner_fields(record))
    for name in missing:
        write_json(fields_without_process(name))


def _write_status(snapshot: Snapshot, busy_with: Sequence[str], missing: Mapping[str, str]) -> None:
    now_s = time.time()
    master = master_alarm(snapshot, now_s)
    if snapshot.records and not snapshot.alive:
        master = master._replace(text=f'{master.text}; its last state follows')
    write_line(_coloured(master, fine='green'))
    write_line(f'spool:  {snapshot.directory}')
    if (reload := reload_alarm(snapshot, now_s)) is not None:
        write_line(_coloured(reload))
    if busy_with:
        write_line(f'busy:   {one_line("; ".join(busy_with))}')
    if snapshot.records:
        write_line('')
        write_table(
            RUNNER_COLUMNS, [runner_row(record, now_s, alive=snapshot.alive) for record in snapshot.records]
        )
    shown = [*runner_alarms(snapshot, missing, now_s)]
    if shown:
        write_line('')
    for alarm in shown:
        subject, text = click.style(alarm.subject, bold=True), with_installation(alarm.text)
        write_line(f'{subject}: {text}')
    if snapshot.alive and any(record.state is ProcessState.FATAL for record in snapshot.records):
        write_line(with_installation(AFTER_FATAL))


def _coloured(alarm: Alarm, fine: str | None = None) -> str:
    return click.style(alarm_line(alarm), fg=COLOURS.get(alarm.level, fine))
