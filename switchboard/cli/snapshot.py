"""What the board and the lock say of a master and its runners at one moment, for `status`, `top`, `start` and `stop`.

The board is a file, so all of this works whether the master lives or not, and needs no answer from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switchboard.cli.layout import Cell, Column
from switchboard.cli.wording import age, duration, one_line
from switchboard.errors import BoardError
from switchboard.master.directory import SCOREBOARD, own_directory
from switchboard.master.lock import master_alive
from switchboard.status.scoreboard import MasterRecord, Record, Scoreboard, State

STYLES = {
    State.STARTING: 'cyan',
    State.RUNNING: 'green',
    State.BACKOFF: 'yellow',
    State.STOPPING: 'cyan',
    State.EXITED: 'bright_black',
    State.FATAL: 'bold red',
}

COLUMNS = (
    Column('RUNNER', shrink_to=8),
    Column('STATE'),
    Column('PID', right=True, drop=2),
    Column('UPTIME', right=True, drop=3),
    Column('DONE', right=True),
    Column('FAILED', right=True),
    Column('RETRIED', right=True, drop=4),
    Column('KEPT', right=True, drop=5),
    Column('RESTARTS', right=True, drop=1),
    Column('AT WORK ON', shrink_to=12, drop=6),
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment.  Without a board, there never was a master here."""

    directory: Path
    alive: bool
    master: MasterRecord
    records: Sequence[Record]
    has_board: bool = True

    @property
    def failing(self) -> list[Record]:
        """The slices that do not do their work."""
        return [record for record in self.records if record.state in (State.FATAL, State.BACKOFF)]


def take(directory: Path) -> Snapshot:
    """:return: how things stand.

    :raises BoardError: the board is damaged, or of another version.
    """
    path = own_directory(directory) / SCOREBOARD
    alive = master_alive(directory)
    if not path.exists():
        return Snapshot(directory, alive, MasterRecord(), (), has_board=False)
    board = Scoreboard.open(path)
    try:
        return Snapshot(directory, alive, board.master(), board.records())
    finally:
        board.close()


def take_or_none(directory: Path) -> Snapshot | None:
    """:return: the same, or None where it cannot be told: good enough for a progress line."""
    try:
        return take(directory)
    except BoardError:
        return None


def busy_s(record: Record) -> float:
    """:return: since when it is at its current entry.  Holds only on a board of this boot."""
    return (time.monotonic_ns() - record.current_since_ns) / 1e9


def row(record: Record, now_s: float, *, alive: bool) -> list[Cell]:
    """:return: the cells for `COLUMNS`."""
    lives = alive and record.pid
    work = ''
    if record.current:
        name = record.current.partition('+')[0]
        work = f'{name}, {duration(busy_s(record))}' if alive else f'was at {name}'
    state = record.state.value if alive else f'({record.state.value.lower()})'
    return [
        (record.title, 'bold'),
        (state, STYLES[record.state] if alive else 'bright_black'),
        str(record.pid) if lives else '',
        age(now_s - record.started_ns / 1e9) if lives and record.started_ns else '',
        str(record.done),
        (str(record.failed), 'red' if record.failed else ''),
        str(record.retried),
        str(record.kept),
        (str(record.restarts), 'yellow' if record.restarts else ''),
        work,
    ]


def troubles(records: Sequence[Record], now_s: float) -> Iterator[tuple[str, str]]:
    """:return: for each slice with something to tell of: its title, and why it is as it is or what went wrong last."""
    for record in records:
        reason = one_line(record.reason)
        if record.state is State.FATAL:
            yield record.title, f'FATAL: {reason or "it gave up"}'
        elif record.state is State.BACKOFF:
            wait_s = record.next_restart_ns / 1e9 - now_s
            yield record.title, f'starts again {age(-wait_s) if wait_s > 0 else "now"}: {reason}'
        elif reason:
            yield record.title, reason
        if record.last_error and one_line(record.last_error) != reason:
            when = age(now_s - record.last_error_ns / 1e9)
            yield record.title, f'last error {when} ago: {one_line(record.last_error)}'


def fields_of(record: Record) -> dict[str, Any]:
    """:return: one slice for programs."""
    return {
        'type': 'runner',
        'runner': record.runner,
        'slice': record.slice + 1,
        'slices': record.numslices,
        'state': record.state.value,
        'pid': record.pid or None,
        'started_at': record.started_ns / 1e9 or None,
        'done': record.done,
        'failed': record.failed,
        'retried': record.retried,
        'kept': record.kept,
        'restarts': record.restarts,
        'next_restart_at': record.next_restart_ns / 1e9 or None,
        'current': record.current or None,
        'current_s': round(busy_s(record), 3) if record.current else None,
        'reason': record.reason or None,
        'last_error': record.last_error or None,
        'last_error_at': record.last_error_ns / 1e9 or None,
    }
