"""``switchboard stop``: asks the master to stop, and waits until it has."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from switchboard.cli.exits import Exit
from switchboard.cli.installation import Installation, verb
from switchboard.cli.progress import Progress
from switchboard.cli.selecting import DURATION
from switchboard.cli.snapshot import busy_s, take, take_or_none
from switchboard.cli.tables import say
from switchboard.cli.wording import duration, number
from switchboard.errors import BoardError, MasterError
from switchboard.master.control import ask, signal_master
from switchboard.master.directory import PID, own_directory
from switchboard.master.lock import master_alive, read_pid
from switchboard.status.scoreboard import Record

LOOK_EVERY_S = 0.1
# Where no line can change, a new one is written this often.
TELL_EVERY_S = 10.0
ANSWER_TIMEOUT_S = 2.0
# From the lock's release to the end of the process: a few milliseconds, unless the machine is very busy.
GONE_TIMEOUT_S = 10.0


def pid_of_master(directory: Path) -> int | None:
    """:return: the process that the board names, or else the pid file: to be waited for, not to be signalled."""
    with contextlib.suppress(BoardError):
        if pid := take(directory).master.pid:
            return pid
    return read_pid(own_directory(directory) / PID)


def ask_to_stop(directory: Path) -> None:
    """Tell the master to stop: over its socket, or by a signal if it does not answer.

    :raises PermissionError: this user may do neither.
    """
    try:
        ask(directory, {'do': 'shutdown'}, ANSWER_TIMEOUT_S)
    except (MasterError, TimeoutError):
        signal_master(directory, signal.SIGTERM)


@contextlib.contextmanager
def _end_of(pid: int | None) -> Iterator[list[int]]:
    """Yield what can be waited on for the end of a process; nothing where the system does not have it."""
    try:
        descriptor = os.pidfd_open(pid) if pid else None
    except (OSError, AttributeError):
        descriptor = None
    try:
        yield [] if descriptor is None else [descriptor]
    finally:
        if descriptor is not None:
            os.close(descriptor)


def left(directory: Path) -> Sequence[Record]:
    """:return: the slices that still have a process."""
    snapshot = take_or_none(directory)
    return [record for record in snapshot.records if record.pid] if snapshot is not None else ()


def describe(records: Sequence[Record]) -> str:
    """:return: how many are left, and what those that are busy are busy with."""
    text = f'{number(len(records), "runner")} left'
    busy = [record for record in records if record.current]
    parts = [f'{r.title} at {r.current.partition("+")[0]} for {duration(busy_s(r))}' for r in busy[:3]]
    if len(busy) > 3:
        parts.append(f'{len(busy) - 3} more at work')
    return f'{text}: {", ".join(parts)}' if parts else text


def wait_for_the_end(directory: Path, pid: int | None, timeout_s: float | None) -> bool:
    """Wait until no master holds the spool and its process has ended, and show for whom it waits.

    :return: False if the time ran out.
    """
    started_s = tell_s = time.monotonic()
    with Progress() as progress, _end_of(pid) as ends:
        while master_alive(directory):
            now_s = time.monotonic()
            if timeout_s is not None and now_s - started_s >= timeout_s:
                return False
            text = f'stopping, {duration(now_s - started_s)}; {describe(left(directory))}'
            if progress.is_shown:
                progress.update(text)
            elif now_s - tell_s >= TELL_EVERY_S:
                tell_s = now_s
                say(text)
            wait_s = LOOK_EVERY_S if timeout_s is None else min(LOOK_EVERY_S, timeout_s)
            if select.select(ends, [], [], wait_s)[0]:
                ends.clear()  # it is gone; the lock follows at once
        if ends:
            # The lock goes first.  Who asked for the stop may look for processes next, or take the directory away.
            spent_s = time.monotonic() - started_s
            select.select(
                ends, [], [], GONE_TIMEOUT_S if timeout_s is None else max(0.0, timeout_s - spent_s)
            )
    return True


def stop_master(directory: Path, timeout_s: float | None) -> bool:
    """Stop the master and wait until it has stopped.

    :return: False if the time ran out.
    """
    pid = pid_of_master(directory)
    ask_to_stop(directory)
    return wait_for_the_end(directory, pid, timeout_s)


@verb()
@click.option(
    '--timeout', 'timeout_s', type=DURATION, help='Wait no longer than this; the master stops all the same.'
)
@click.pass_context
def stop(context: click.Context, installation: Installation, timeout_s: float | None) -> None:
    """Stop the master when its runners have finished their messages.

    It waits until all have.  A runner that takes longer than its `stop_timeout` is killed by the master, and its message
    is recovered at the next start.  Exit status: 0 no master is running any more, also if there was none;
    75 the time ran out.
    """
    directory = installation.existing_directory()
    if not master_alive(directory):
        say('no master is running: nothing to stop')
        return
    started_s = time.monotonic()
    if stop_master(directory, timeout_s):
        click.echo(f'stopped in {duration(time.monotonic() - started_s)}')
        return
    say(
        f'switchboard: not stopped yet; {describe(left(directory))}; it goes on stopping, `switchboard stop` waits again'
    )
    context.exit(Exit.TEMPORARY)
