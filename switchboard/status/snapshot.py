"""The state of a master and its runners at one moment, by scoreboard and lock, for every face and for the commands that wait for a master.

The scoreboard is a file, so all of this works whether the master lives or not, and needs no answer from it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from switchboard.errors import ScoreboardError
from switchboard.status.alive import master_alive, master_directory
from switchboard.status.record import MasterRecord, ProcessState, SliceRecord
from switchboard.status.scoreboard import Scoreboard
from switchboard.store.layout import SCOREBOARD


class Snapshot(NamedTuple):
    """One moment.  Without a scoreboard, there never was a master here."""

    directory: Path
    alive: bool
    master: MasterRecord
    records: Sequence[SliceRecord]
    has_scoreboard: bool = True
    # Why nothing of this is known.
    trouble: str = ''

    @property
    def ended(self) -> str:
        """The end of the last master: ``stopped``, which it notes itself, ``died``, or ``not started``, where it never came to say who it is.

        Empty if there is none, or nobody knows.
        """
        if self.alive or self.trouble or not self.has_scoreboard:
            return ''
        if not self.master.pid:
            return 'not started'
        return 'stopped' if self.master.state is ProcessState.EXITED else 'died'


def read_status(directory: Path) -> Snapshot:
    """:return: how things stand.

    :raises ScoreboardError: the scoreboard is damaged, or of another version.
    """
    path = master_directory(directory) / SCOREBOARD
    alive = master_alive(directory)
    if not path.exists():
        return Snapshot(directory, alive, MasterRecord(), (), has_scoreboard=False)
    scoreboard = Scoreboard.open(path)
    try:
        return Snapshot(directory, alive, scoreboard.master(), scoreboard.records())
    finally:
        scoreboard.close()


def read_status_or_none(directory: Path) -> Snapshot | None:
    """:return: the same, or None where it is unknown: good enough for a progress line."""
    try:
        return read_status(directory)
    except (ScoreboardError, OSError):
        return None


def busy_s(record: SliceRecord) -> float:
    """:return: since when it is at its current entry.  Holds only on a scoreboard of this boot."""
    return (time.monotonic_ns() - record.current_since_ns) / 1e9


def runner_fields(record: SliceRecord) -> dict[str, Any]:
    """:return: the fields of one slice, for programs."""
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


def fields_without_process(runner: str) -> dict[str, Any]:
    """:return: for programs, a runner that has no slice: one that was scaled to 0."""
    return runner_fields(SliceRecord(runner, numslices=0)) | {'slice': None, 'state': 'NONE'}


def master_fields(snapshot: Snapshot, busy_with: Sequence[str] = ()) -> dict[str, Any]:
    """:return: the master for programs.

    :param busy_with: its own word for what it is doing.
    """
    master = snapshot.master
    return {
        'type': 'master',
        'running': snapshot.alive,
        'state': master.state.value if snapshot.alive else 'UNKNOWN' if snapshot.trouble else 'NOT RUNNING',
        'ended': snapshot.ended or None,
        'pid': master.pid if snapshot.alive else None,
        'spool': str(snapshot.directory),
        'started_at': master.started_ns / 1e9 or None,
        'ready_at': master.ready_ns / 1e9 or None,
        'reloaded_at': master.reloaded_ns / 1e9 or None,
        'reload_error': master.reload_error or None,
        'under_way': list(busy_with),
    }
