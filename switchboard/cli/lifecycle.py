"""``start``, ``restart``, ``reload`` and ``reopen``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from switchboard.cli.exits import Exit
from switchboard.cli.installation import Installation, verb
from switchboard.cli.progress import Progress
from switchboard.cli.selecting import DURATION
from switchboard.cli.tables import say
from switchboard.cli.wording import duration, number, visible

if TYPE_CHECKING:
    from switchboard.config.config import Config

timeout_option = click.option(
    '--timeout',
    'timeout_s',
    type=DURATION,
    help='Wait no longer than this; the master goes on with it all the same.',
)


@verb()
@click.option('-f', '--foreground', is_flag=True, help='Stay in the foreground, and log to the terminal.')
@click.pass_context
def start(context: click.Context, installation: Installation, foreground: bool) -> None:
    """Start the master and its runners.

    It goes into the background and reports when the runners are ready.  Exit status: 0 all of them are; 1 the master runs,
    and a runner does not; 75 another master is running, or they are not ready yet after `ready_timeout`.
    """
    config = installation.config
    installation.spool(make=True)
    if foreground:
        from switchboard.master.launch import foreground as run_in_foreground

        context.exit(run_in_foreground(config))
    context.exit(start_in_background(config))


def start_in_background(config: Config) -> Exit:
    """Start the master, wait until its runners are ready, and say how it went.

    :raises SwitchboardError: it could not be started.
    """
    from switchboard.master.directory import LOG, own_directory
    from switchboard.master.launch import background

    wanted = sum(options.instances for options in config.runners.values())
    started_s = time.monotonic()
    with Progress() as progress:
        outcome = background(config, lambda: progress.update(_starting(config.spool, wanted, started_s)))
    took = duration(time.monotonic() - started_s)
    log_file = config.master.log_file or own_directory(config.spool) / LOG
    if outcome.ready is None:
        text = f'not all runners are ready after {took}; the master goes on, `switchboard status` shows how far it is'
        say(f'switchboard: {text}; log: {log_file}')
        return Exit.TEMPORARY
    failed: list[dict[str, Any]] = outcome.told.get('failed', [])
    ready = number(outcome.told.get('slices', wanted) - len(failed), 'runner')
    click.echo(f'started in {took}: master {outcome.pid}, {ready} ready; log: {log_file}')
    for each in failed:
        say(f'switchboard: {each["title"]} is {each["state"]}: {visible(each["reason"])}')
    return Exit.PARTIAL if failed else Exit.OK


def _starting(directory: Path, wanted: int, started_s: float) -> str:
    from switchboard.cli.snapshot import take_or_none
    from switchboard.status.scoreboard import State

    text = f'starting, {duration(time.monotonic() - started_s)}'
    snapshot = take_or_none(directory)
    # A board that is older than this start is the last master's.
    age_s = time.monotonic() - started_s
    if snapshot is None or snapshot.master.started_ns / 1e9 < time.time() - age_s:
        return text
    ready = sum(record.state is State.RUNNING for record in snapshot.records)
    waiting = [record.title for record in snapshot.records if record.state is State.STARTING]
    return f'{text}; {ready} of {number(wanted, "runner")} ready' + (
        f', not yet {", ".join(waiting[:3])}' if waiting else ''
    )


def tell_failure(answer: dict[str, Any], status: Exit) -> Exit:
    """Say what the master could not do."""
    if answer.get('ok'):
        return Exit.OK
    for error in answer.get('errors', ['the master gave no reason']):
        for line in str(error).splitlines():
            say(f'switchboard: {visible(line)}')
    return status


@verb()
@click.argument('runners', nargs=-1, metavar='[RUNNER]...')
@click.option(
    '--master',
    'whole',
    is_flag=True,
    help='Stop the master too, and start it again: for new code of its own.',
)
@timeout_option
@click.pass_context
def restart(
    context: click.Context,
    installation: Installation,
    runners: tuple[str, ...],
    whole: bool,
    timeout_s: float | None,
) -> None:
    """Restart runners, one slice at a time; without a name, all of them.

    The new process is prepared before the old one is asked to go, so that a mistake in new code stops nothing, and the
    queue is worked all the time.  A runner that is FATAL gets a new chance.
    """
    if whole:
        if runners:
            raise click.UsageError('--master restarts everything: name no runner with it')
        context.exit(_restart_master(installation, timeout_s))
    from switchboard.cli.asking import ask_and_show

    directory = installation.existing_directory()
    for named in runners:
        installation.check_runner(named)
    worst = Exit.OK
    for runner in runners or (None,):
        started_s = time.monotonic()
        request = {'do': 'restart'} if runner is None else {'do': 'restart', 'runner': runner}
        what = f'restarting {runner or "all runners"}'
        answer = ask_and_show(directory, request, what, timeout_s)
        failed = tell_failure(answer, Exit.UNAVAILABLE)
        if failed is Exit.OK:
            click.echo(f'restarted {runner or "all runners"} in {duration(time.monotonic() - started_s)}')
        worst = failed or worst
    context.exit(worst)


def _restart_master(installation: Installation, timeout_s: float | None) -> Exit:
    from switchboard.cli.stopping import stop_master
    from switchboard.master.lock import master_alive

    config = (
        installation.config
    )  # before anything is stopped: a broken file must not leave us without a master
    if master_alive(config.spool) and not stop_master(config.spool, timeout_s):
        say('switchboard: the old master has not stopped in time; nothing was started')
        return Exit.TEMPORARY
    return start_in_background(config)


@verb()
@timeout_option
@click.pass_context
def reload(context: click.Context, installation: Installation, timeout_s: float | None) -> None:
    """Read the configuration again, and restart what changed.

    With a mistake in it nothing changes, and every mistake is shown; exit status 78.
    """
    from switchboard.cli.asking import ask_and_show

    installation.warns = False
    started_s = time.monotonic()
    answer = ask_and_show(installation.existing_directory(), {'do': 'reload'}, 'reloading', timeout_s)
    changes = answer.get('changes')
    if changes is None:
        context.exit(tell_failure(answer, Exit.CONFIG))
    _tell(str(changes).split('; '))
    failed = tell_failure(answer, Exit.UNAVAILABLE)
    if failed is Exit.OK:
        click.echo(f'reloaded in {duration(time.monotonic() - started_s)}')
    context.exit(failed)


def _tell(changes: Sequence[str]) -> None:
    for change in changes:
        click.echo(visible(change))


@verb()
@click.pass_context
def reopen(context: click.Context, installation: Installation) -> None:
    """Reopen the log files, after a rotation.

    \b
    In logrotate's configuration:
        postrotate
            switchboard -C /etc/switchboard/switchboard.cfg reopen
        endscript
    """
    from switchboard.master.control import ask

    context.exit(tell_failure(ask(installation.existing_directory(), {'do': 'reopen'}, 10.0), Exit.IO))
