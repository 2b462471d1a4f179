"""``start``, ``stop``, ``restart``, ``reload``, ``reopen`` and ``scale``: the master and how many work for it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from switchboard.cli.context import Installation, json_report_option, verb
from switchboard.cli.exits import Exit
from switchboard.cli.options import DURATION, no_wait_option, timeout_option
from switchboard.cli.output import LOOK_EVERY_S, Progress, is_json, print_note, report, write_line
from switchboard.errors import MasterError, NotRespondingError, NotRunningError, ScoreboardError
from switchboard.master.control import SHUTDOWN, ask, signal_master
from switchboard.operating.text import duration, escape_terminal, number, quoted
from switchboard.status.alive import master_alive, master_directory, read_pid
from switchboard.status.scoreboard import ProcessState, SliceRecord
from switchboard.status.snapshot import busy_s, read_status, read_status_or_none
from switchboard.store.layout import MASTER_LOG, MASTER_PID

if TYPE_CHECKING:
    from switchboard.config.config import Config


@verb()
@click.option('-f', '--foreground', is_flag=True, help='Stay in the foreground, and log to the terminal.')
@click.option(
    '--timeout', 'timeout_s', type=DURATION, help='Wait no longer than this; default: `ready_timeout`.'
)
@no_wait_option
@json_report_option
def start(installation: Installation, foreground: bool, timeout_s: float | None, no_wait: bool) -> int:
    """Start the master and its runners.

    It goes into the background and reports when the runners are ready.  Exit status: 0 all of them are; 1 the master runs,
    and a runner does not; 75 another master is running, or they are not ready yet after `ready_timeout`.
    """
    if foreground:
        from switchboard.master.programs import supervise

        installation.logs = True
        return supervise(installation.config_to_load)
    config = installation.config
    _prepare(installation)
    return start_in_background(config, timeout_s, no_wait=no_wait)


def _prepare(installation: Installation) -> None:
    """Make the spool, and warn of a master elsewhere and of a spool that is another user's."""
    _tell_of_master_elsewhere(installation)
    installation.spool(make=True)
    _tell_of_root(installation.directory)


def _tell_of_master_elsewhere(installation: Installation) -> None:
    if text := installation.master_elsewhere():
        print_note(text)


def _tell_of_root(spool: Path) -> None:
    owner = spool.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        print_note(
            f'{spool} belongs to user {owner}: its runners now run as root, and that user can start no master until '
            f'`chown -R --reference={quoted(spool)} {quoted(master_directory(spool))}`'
        )


def start_in_background(config: Config, timeout_s: float | None = None, *, no_wait: bool = False) -> Exit:
    """Start the master, wait until its runners are ready, and say how it went.

    :raises SwitchboardError: it could not be started.
    """
    from switchboard.cli.commands.status import AFTER_FATAL
    from switchboard.master.programs import background

    wanted = sum(options.instances for options in config.runners.values())
    started_s = time.monotonic()
    with Progress() as progress:
        outcome = background(
            config,
            lambda: progress.update(_starting(config.spool, wanted, started_s)),
            ASKED_S if no_wait else timeout_s,
        )
    took = duration(time.monotonic() - started_s)
    log_file = config.master.log_file or master_directory(config.spool) / MASTER_LOG
    fields = {
        'act': 'start',
        'pid': outcome.pid,
        'log_file': str(log_file),
        'ready': outcome.ready is not None,
    }
    if outcome.ready is None and no_wait:
        report(f'starting: master {outcome.pid}; log: {log_file}', **fields)
        return Exit.OK
    if outcome.ready is None:
        text = f'not all runners are ready after {took}; the master goes on, `switchboard status` shows how far it is'
        print_note(f'{text}; log: {log_file}')
        return Exit.TEMPORARY
    failed: list[dict[str, Any]] = outcome.report.get('failed', [])
    ready = number(outcome.report.get('slices', wanted) - len(failed), 'runner')
    report(
        f'started in {took}: master {outcome.pid}, {ready} ready; log: {log_file}', **fields, failed=failed
    )
    for each in failed:
        print_note(f'{each["title"]} is {each["state"]}: {each["reason"]}')
    if failed:
        print_note(AFTER_FATAL)
    return Exit.PARTIAL if failed else Exit.OK


def _starting(directory: Path, wanted: int, started_s: float) -> str:
    text = f'starting, {duration(time.monotonic() - started_s)}'
    snapshot = read_status_or_none(directory)
    # A scoreboard that is older than this start is the last master's.
    age_s = time.monotonic() - started_s
    if snapshot is None or snapshot.master.started_ns / 1e9 < time.time() - age_s:
        return text
    ready = sum(record.state is ProcessState.RUNNING for record in snapshot.records)
    waiting = [record.title for record in snapshot.records if record.state is ProcessState.STARTING]
    return f'{text}; {ready} of {number(wanted, "runner")} ready' + (
        f', not yet {", ".join(waiting[:3])}' if waiting else ''
    )


def report_failure(answer: dict[str, Any], status: Exit) -> Exit:
    """Say what the master could not do."""
    if answer.get('ok'):
        return Exit.OK
    for error in answer.get('errors', ['the master gave no reason']):
        for line in str(error).splitlines():
            print_note(line)
    return status


@verb()
@click.argument('runners', nargs=-1, metavar='[RUNNER]...')
@click.option(
    '--master',
    'whole',
    is_flag=True,
    help='Stop the master too, and start it again in the background: for new code of its own.',
)
@timeout_option
@no_wait_option
@json_report_option
def restart(
    installation: Installation, runners: tuple[str, ...], whole: bool, timeout_s: float | None, no_wait: bool
) -> Exit:
    """Restart runners, one slice at a time; without a name, all of them.

    The new process is prepared before the old one is asked to go, so that a mistake in new code stops nothing, and the
    queue is worked all the time.  A runner that is FATAL gets a new chance.
    """
    if whole:
        if runners:
            raise click.UsageError('--master restarts everything: name no runner with it')
        return _restart_master(installation, timeout_s)
    directory = installation.existing_directory()
    wanted = [_runner_and_slice(named) for named in runners] or [('', None)]
    for runner, _ in wanted if runners else ():
        installation.check_runner(runner)
    worst = Exit.OK
    for (runner, slice_number), named in zip(wanted, runners or ('all runners',), strict=True):
        started_s = time.monotonic()
        words = {'do': 'restart', 'runner': runner or None, 'slice': slice_number}
        request = {key: word for key, word in words.items() if word is not None}
        answer = ask_and_show(directory, request, f'restarting {named}', timeout_s, no_wait=no_wait)
        failed = report_failure(answer, Exit.UNAVAILABLE)
        if failed is Exit.OK:
            took = duration(time.monotonic() - started_s)
            text = f'restarting {named}' if no_wait else f'restarted {named} in {took}'
            report(text, act='restart', runner=runner or None, slice=slice_number)
        worst = failed or worst
    return worst


def _runner_and_slice(named: str) -> tuple[str, int | None]:
    """Take apart what `status` calls a slice: ``in 2/3``; ``in:2/3`` and ``in`` too."""
    match = re.fullmatch(r'(.+?)[ :]([0-9]{1,6})/([0-9]{1,6})', named)
    return (match[1], int(match[2])) if match else (named, None)


def _restart_master(installation: Installation, timeout_s: float | None) -> Exit:
    # Before anything is stopped: a broken file must not leave us without a master.
    config = installation.config
    _refuse_foreground(config.spool)
    if master_alive(config.spool) and not stop_master(config.spool, timeout_s):
        print_note('the old master has not stopped in time; nothing was started')
        return Exit.TEMPORARY
    _prepare(installation)
    return start_in_background(config)


def _refuse_foreground(directory: Path) -> None:
    """Leave a master alone that a service manager watches: a stop by somebody else is an end to it, and the next master would be none of its.

    :raises MasterError: the master runs in the foreground, or does not say where.
    """
    try:
        answer = ask(directory, {'do': 'status'}, ANSWER_TIMEOUT_S)
    except NotRunningError:
        if not master_alive(directory):
            return
        answer = {}
    except TimeoutError as error:
        raise NotRespondingError(pid_of_master(directory)) from error
    if 'is_foreground' not in answer:
        raise MasterError(
            'the master begins, ends or has too much to do, and does not say where it runs: nothing was stopped; try again'
        )
    if answer['is_foreground']:
        raise MasterError(
            f'the master (pid {pid_of_master(directory)}) runs in the foreground, of a service manager or a terminal: nothing was stopped; '
            'restart it there, as by `systemctl restart switchboard`'
        )


@verb()
@timeout_option
@no_wait_option
@json_report_option
def reload(installation: Installation, timeout_s: float | None, no_wait: bool) -> Exit:
    """Read the configuration again, and restart changed runners.

    With a mistake in it nothing changes, and every mistake is shown; exit status 78.
    """
    installation.warns = False
    started_s = time.monotonic()
    directory = installation.existing_directory()
    plan = ask_and_show(directory, {'do': 'plan'}, 'reading', timeout_s).get('plan', [])
    plan = plan if isinstance(plan, list) else []
    for each in plan if not is_json() else ():
        write_line(f'will {each["act"]} {escape_terminal(each["runner"])}: {escape_terminal(each["reason"])}')
    answer = ask_and_show(directory, {'do': 'reload'}, 'reloading', timeout_s, no_wait=no_wait)
    changes = answer.get('changes')
    if changes is None and not answer.get('asked'):
        return report_failure(answer, Exit.CONFIG if answer.get('has_mistakes') else Exit.UNAVAILABLE)
    found = str(changes).split('; ') if changes is not None else []
    # Where no section has changed, runners that had given up start again.
    for change in found if not is_json() and not (plan and changes == 'nothing changed') else ():
        write_line(escape_terminal(change))
    failed = report_failure(answer, Exit.UNAVAILABLE)
    if failed is Exit.OK:
        took = duration(time.monotonic() - started_s)
        report(
            'reloading' if answer.get('asked') else f'reloaded in {took}',
            act='reload',
            changes=found,
            plan=plan,
        )
    return failed


@verb()
@json_report_option
def reopen(installation: Installation) -> Exit:
    """Reopen the log files, after a rotation.

    \b
    In logrotate's configuration:
        postrotate
            switchboard -C /etc/switchboard/switchboard.cfg reopen
        endscript
    """
    answer = ask_and_show(installation.existing_directory(), {'do': 'reopen'}, 'reopening')
    return report_failure(answer, Exit.IO)


def _count_of(
    _context: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, int]]:
    counts = []
    for value in values:
        runner, equals, count = value.partition('=')
        if not equals or not runner or not re.fullmatch('[0-9]{1,9}', count):
            raise click.BadParameter(f'{value[:100]!r} is not RUNNER=NUMBER')
        counts.append((runner, int(count)))
    return counts


@verb()
@click.argument('counts', nargs=-1, required=True, metavar='RUNNER=NUMBER...', callback=_count_of)
@timeout_option
@no_wait_option
@json_report_option
def scale(
    installation: Installation, counts: list[tuple[str, int]], timeout_s: float | None, no_wait: bool
) -> Exit:
    """Give runners another number of processes, each with a slice of the queue, while they run.

    The new ones are prepared first, and begin when no old one shares a part of the queue with them: messages with one order key
    stay in order.  It holds until the configuration names another number, or the master is started anew.

    \b
    switchboard scale in=4
    switchboard scale in=4 out=2
    """
    directory = installation.existing_directory()
    for runner, _ in counts:
        installation.check_runner(runner)
    worst = Exit.OK
    for runner, count in counts:
        request = {'do': 'scale', 'runner': runner, 'instances': count}
        answer = ask_and_show(directory, request, f'scaling {runner} to {count}', timeout_s, no_wait=no_wait)
        failed = report_failure(answer, Exit.UNAVAILABLE)
        if failed is Exit.OK:
            report(
                f'{escape_terminal(runner)}: {number(count, "slice")}',
                act='scale',
                runner=runner,
                slices=count,
            )
        worst = failed or worst
    return worst


ANSWER_TIMEOUT_S = 2.0
# A refusal comes sooner.
ASKED_S = 0.5
# A master answers in milliseconds, whatever it is doing, also while it stops.  One that has left so many questions in a row without an answer is
# stopped by a signal, or hangs; so much time lies between them.
MOST_UNANSWERED, ASK_AGAIN_S = 6, 2.0
# From the lock's release to the end of the process: a few milliseconds, unless the machine is very busy.
GONE_TIMEOUT_S = 10.0


def pid_of_master(directory: Path) -> int | None:
    """:return: the process that the scoreboard names, or else the pid file: to be waited for, not to be signalled."""
    with contextlib.suppress(ScoreboardError):
        if pid := read_status(directory).master.pid:
            return pid
    return read_pid(master_directory(directory) / MASTER_PID)


def ask_to_stop(directory: Path) -> None:
    """Tell the master to stop: over its socket, or by a signal if it does not answer.

    :raises PermissionError: this user may do neither.
    :raises MasterError: neither is possible without ``/proc``.
    """
    with contextlib.suppress(MasterError, TimeoutError):
        if ask(directory, {'do': SHUTDOWN}, ANSWER_TIMEOUT_S).get('ok'):
            return
    signal_master(directory, signal.SIGTERM)


@contextlib.contextmanager
def _end_of(pid: int | None) -> Iterator[list[int]]:
    """Yield a descriptor to wait on for the end of a process; nothing where the system does not have it."""
    try:
        descriptor = os.pidfd_open(pid) if pid else None
    except (OSError, AttributeError):
        descriptor = None
    try:
        yield [] if descriptor is None else [descriptor]
    finally:
        if descriptor is not None:
            os.close(descriptor)


class AnswerWatch:
    """Asks a master that is waited for without a limit whether it still answers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._next_s = time.monotonic() + ASK_AGAIN_S
        self._unanswered = 0

    def check(self) -> None:
        """Ask, if it is time to.

        :raises NotRespondingError: it has left too many questions unanswered.
        """
        if time.monotonic() < self._next_s:
            return
        try:
            ask(self._directory, {'do': 'status'}, ANSWER_TIMEOUT_S)
            self._unanswered = 0
        except TimeoutError:
            self._unanswered += 1
        except MasterError:
            self._unanswered = 0  # it begins, or ends
        if self._unanswered >= MOST_UNANSWERED:
            raise NotRespondingError(pid_of_master(self._directory))
        self._next_s = time.monotonic() + ASK_AGAIN_S


def unfinished_slices(directory: Path) -> Sequence[SliceRecord]:
    """:return: the slices that still have a process."""
    snapshot = read_status_or_none(directory)
    return [record for record in snapshot.records if record.pid] if snapshot is not None else ()


def describe_remaining(records: Sequence[SliceRecord]) -> str:
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
    :raises NotRespondingError: there is no limit, and the master does not answer any more.
    """
    started_s = time.monotonic()
    watch = AnswerWatch(directory)
    with Progress() as progress, _end_of(pid) as ends:
        while master_alive(directory):
            now_s = time.monotonic()
            if timeout_s is not None and now_s - started_s >= timeout_s:
                return False
            text = (
                f'stopping, {duration(now_s - started_s)}; {describe_remaining(unfinished_slices(directory))}'
            )
            progress.update_or_print(text)
            wait_s = LOOK_EVERY_S if timeout_s is None else min(LOOK_EVERY_S, timeout_s)
            if select.select(ends, [], [], wait_s)[0]:
                ends.clear()  # it is gone; the lock follows at once
            elif timeout_s is None:
                watch.check()
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
    :raises NotRespondingError: there is no limit, and the master does not answer.
    """
    pid = pid_of_master(directory)
    ask_to_stop(directory)
    return wait_for_the_end(directory, pid, timeout_s)


@verb()
@click.option(
    '--timeout', 'timeout_s', type=DURATION, help='Wait no longer than this; the master stops all the same.'
)
@no_wait_option
@json_report_option
def stop(installation: Installation, timeout_s: float | None, no_wait: bool) -> Exit:
    """Stop the master when its runners have finished their messages.

    It waits until all have.  A runner that takes longer than its `stop_timeout` is killed by the master, and its message
    is recovered at the next start.  Exit status: 0 no master is running any more, also if there was none;
    75 the time ran out, or the master itself is stopped or hangs, and answers nothing.
    """
    directory = installation.existing_directory()
    if not master_alive(directory):
        print_note('no master is running: nothing to stop')
        _tell_of_master_elsewhere(installation)
        return Exit.OK
    started_s = time.monotonic()
    if no_wait:
        ask_to_stop(directory)
        report('stopping', act='stop', stopped=False)
        return Exit.OK
    if stop_master(directory, timeout_s):
        report(f'stopped in {duration(time.monotonic() - started_s)}', act='stop', stopped=True)
        return Exit.OK
    print_note(
        f'not stopped yet; {describe_remaining(unfinished_slices(directory))}; it goes on stopping, `switchboard stop` waits again'
    )
    return Exit.TEMPORARY


def ask_and_show(
    directory: Path,
    request: Mapping[str, object],
    what: str,
    timeout_s: float | None = None,
    *,
    no_wait: bool = False,
) -> dict[str, Any]:
    """Send a request to the master and wait for its reply.

    :param what: the act, in words.
    :param no_wait: a refusal comes at once; without one, the reply is that it was ``asked``.
    :raises NotRunningError: there is no master.
    :raises TimeoutError: it was not done in time; the master goes on with it all the same.
    :raises NotRespondingError: there is no limit, and the master does not answer any more.
    """
    if no_wait:
        try:
            return ask(directory, request, ASKED_S)
        except TimeoutError:
            return {'ok': True, 'asked': True}
    answer: dict[str, Any] = {}
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            answer.update(ask(directory, request, timeout_s))
        except BaseException as error:
            errors.append(error)

    started_s = time.monotonic()
    # A daemon thread, so that Ctrl-C ends the program and not only the waiting.
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    watch = AnswerWatch(directory)
    with Progress() as progress:
        while thread.is_alive():
            thread.join(LOOK_EVERY_S)
            if timeout_s is None:
                watch.check()
            progress.update(f'{what}, {duration(time.monotonic() - started_s)}{_how_far(directory)}')
    for error in errors:
        raise error
    return answer


def _how_far(directory: Path) -> str:
    snapshot = read_status_or_none(directory)
    if snapshot is None:
        return ''
    changing = [
        r.title for r in snapshot.records if r.state in (ProcessState.STARTING, ProcessState.STOPPING)
    ]
    return f': {", ".join(changing[:3])}' if changing else ''
