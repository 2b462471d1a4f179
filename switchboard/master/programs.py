"""Ways to start a master or a single runner: in the foreground, in the background, or once by hand.

The command line and the low-level programs ``bin/master`` and ``bin/runner`` come together here, so that all of them log, fail and stop alike.
The two programs are for service managers, for debugging and for tests: they do one thing each, in the foreground.  People use ``switchboard``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click

from switchboard.config.config import Config
from switchboard.config.inifile import Problems, parse_ini, read_config_file
from switchboard.config.spool_place import why_not_alone
from switchboard.daemonize import Report, StartReport, daemonize
from switchboard.errors import AlreadyRunningError, ConfigError, MasterError, SwitchboardError
from switchboard.events import log_event
from switchboard.master.directory import MasterDirectory
from switchboard.master.loading import exit_refused, extend_path, make_runner, python_path
from switchboard.master.master import Master
from switchboard.master.signals import exiting_on_signal
from switchboard.operating.text import system_advice, system_status, system_words
from switchboard.status import log
from switchboard.status.scoreboard import NullSlot, ProcessState, SliceRecord
from switchboard.store.layout import MASTER_LOG

STOPPED_EARLY = 'the master was stopped while it started'


def foreground(config: Config) -> int:
    """Be the master in this process, until a stop is requested.

    Logs go to standard error, unless the configuration names a file.

    :return: the exit status.
    """
    _configure_log(config, config.master.log_file)
    _warn_if_not_alone(config)
    with exiting_on_signal():
        return Master(config).run()


def background(
    config: Config, while_waiting: Callable[[], object] | None = None, timeout_s: float | None = None
) -> StartReport:
    """Start a master in the background, and wait until its runners are ready.

    Logs go to ``.run/master/master.log`` in the spool, unless the configuration names a file.

    :param while_waiting: called ten times a second meanwhile, in this process.
    :param timeout_s: wait no longer than this; by default ``ready_timeout``.
    :return: its report: ``slices``, the number of runner processes, and ``failed``, those that are not running, each with
        ``title``, ``state`` and ``reason``.  Its ``ready`` is None if they were not ready within ``ready_timeout``; the master
        goes on all the same.
    :raises AlreadyRunningError: another master holds the spool.
    :raises ConfigError: a module of ``preload`` cannot be imported.
    :raises OSError: the disk, or the system, refuses what it needs.
    :raises MasterError: it could not start for another reason.
    """
    outcome = daemonize(
        lambda report: _be_daemon(config, report),
        timeout_s=config.master.ready_timeout_s if timeout_s is None else timeout_s,
        while_waiting=while_waiting,
    )
    if outcome.ready is False:
        raise _failure(outcome)
    return outcome


def _why(record: SliceRecord) -> str:
    """:return: why a slice does not run, with the error that its last process ended with."""
    is_told = record.last_error_ns < record.started_ns or record.last_error in record.reason
    return record.reason if is_told else f'{record.reason}: {record.last_error}'


def _failure(outcome: StartReport) -> Exception:
    """:return: the error of a start, as the process that goes on in the background has met it."""
    kind = outcome.report.get('type')
    if kind == AlreadyRunningError.__name__:
        return AlreadyRunningError(outcome.report.get('holder'))
    if kind == OSError.__name__:
        return OSError(*outcome.report['arguments'])
    if kind == ConfigError.__name__:
        return ConfigError(outcome.error)
    error = MasterError(outcome.error)
    error.__cause__ = OSError(*cause) if (cause := outcome.report.get('cause')) else None
    return error


def _be_daemon(config: Config, report: Report) -> int:
    def tell(records: list[SliceRecord]) -> None:
        failed = [
            {'title': each.title, 'state': each.state, 'reason': _why(each)}
            for each in records
            if each.state not in (ProcessState.RUNNING, ProcessState.STARTING)
        ]
        report.ready(slices=len(records), failed=failed)

    def own_descriptors() -> list[int]:
        return [report.fileno()] if report.fileno() >= 0 else []

    try:
        with exiting_on_signal():
            with MasterDirectory(config.spool) as own:
                if config.master.log_file is not None:
                    _configure_log(config, config.master.log_file, takes_stderr=True)
                else:
                    _configure_log(config, own.path / MASTER_LOG, directory=own.fileno(), takes_stderr=True)
            _warn_if_not_alone(config)
            status = Master(config, on_ready=tell, own_descriptors=own_descriptors).run()
        report.failed(STOPPED_EARLY)
        return status
    except SystemExit:
        report.failed(STOPPED_EARLY)
        return os.EX_OK
    except AlreadyRunningError as error:
        report.failed(str(error), type=type(error).__name__, holder=error.pid)
    except ConfigError as error:
        report.failed(str(error), type=ConfigError.__name__)
    except MasterError as error:
        report.failed(str(error), cause=_arguments(error.__cause__))
    except Exception as error:
        log_event(log.logger('master'), logging.ERROR, None, 'master failed', exc_info=True)
        if arguments := _arguments(error):
            report.failed(str(error), type=OSError.__name__, arguments=arguments)
        else:
            report.failed(f'{type(error).__name__}: {error}')
    return 1


def _arguments(error: BaseException | None) -> tuple[int, str, str | None] | None:
    """:return: the arguments of an error of the system, to make it again in another process; None of any other."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    return error.errno, error.strerror or '', _path_of(error)


def _configure_log(
    config: Config, path: Path | None, *, directory: int | None = None, takes_stderr: bool = False
) -> None:
    log.configure(
        path,
        directory=directory,
        level=config.master.log_level,
        as_json=config.master.log_format == 'json',
        takes_stderr=takes_stderr,
    )


def _warn_if_not_alone(config: Config) -> None:
    """Log that the directory which becomes a spool now holds others."""
    if reason := why_not_alone(config.spool, config.queue_names()):
        log_event(log.logger('master'), logging.WARNING, None, 'spool not alone', reason=reason)


def one_runner(
    config: Config,
    name: str,
    slice_index: int = 0,
    count: int = 1,
    *,
    once: bool = False,
    until_empty: bool = False,
) -> int:
    """Run one slice of one runner in this process, without a master.

    TERM and INT let it finish its message and stop.  It may run beside a master: claims keep them apart.

    :return: the exit status: not 0 after an error that the runner's class has raised, which is in the log then.
    :raises ConfigError: there is no such runner, or it cannot be made.
    :raises SwitchboardError: the spool, or a queue, is in trouble.
    :raises OSError: likewise.
    """
    options = config.runners.get(name)
    if options is None:
        known = ', '.join(config.runners) or 'none'
        raise ConfigError(f'there is no runner {name!r}; there are: {known}', file=str(config.path))
    _configure_log(config, None)
    log.capture_other_loggers()
    log.set_process_name(f'{name} {slice_index + 1}/{count}')
    _warn_if_not_alone(config)
    extend_path(python_path(config.path, config.master.python_path))
    try:
        with exit_refused(options):
            runner = make_runner(config, options, slice_index, count, NullSlot())

        def stop(_signum: int, _frame: FrameType | None) -> None:
            runner.stop()

        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, stop)
        return runner.run(once=once, until_empty=until_empty)
    except Exception as error:
        if isinstance(error, SwitchboardError) or _is_about(error, config.spool):
            raise
        # An error of the class, and no trouble of this program: logged as under a master.
        log_event(log.logger('runner'), logging.ERROR, None, 'runner failed', runner=name, exc_info=True)
        return os.EX_SOFTWARE


def _is_about(error: Exception, spool: Path) -> bool:
    """Does an error of the system name a place in the spool?"""
    path = _path_of(error) if isinstance(error, OSError) else None
    return path is not None and Path(path).is_relative_to(spool)


def _path_of(error: OSError) -> str | None:
    named: object = error.filename  # where it is not the system's, whatever a program has put there
    return os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else None


RUNNER_ARGUMENT = re.compile(r'(?P<name>[^:]+)(?::(?P<slice>[0-9]{1,6})/(?P<count>[0-9]{1,6}))?')

config_option = click.option(
    '-C',
    '--config',
    'path',
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    envvar='SWITCHBOARD_CONFIG',
    default='etc/switchboard.cfg',
    show_default=True,
    help='The configuration file.',
)


once_option = click.option('--once', is_flag=True, help='One pass over the queue, then stop.')
until_empty_option = click.option('--until-empty', is_flag=True, help='Stop when nothing is ready any more.')


def slice_of(_context: click.Context, _param: click.Parameter, value: str) -> tuple[str, int, int]:
    """:return: name, slice counted from 0, and number of slices; they are written from 1, as `status` and `ps` show them."""
    match = RUNNER_ARGUMENT.fullmatch(value)
    if match is None:
        raise click.BadParameter(f'{value!r} is not of the form RUNNER or RUNNER:SLICE/COUNT')
    slice_number, count = int(match['slice'] or 1), int(match['count'] or 1)
    if not 1 <= slice_number <= count:
        raise click.BadParameter(f'{value!r}: slices are counted from 1 to {count}')
    return match['name'], slice_number - 1, count


@click.command()
@config_option
def master(path: Path) -> None:
    """Supervise the runners of one installation, in the foreground: for service managers.

    Exit status: 0 stopped; 66 its spool, or the directory .run/master, was removed; 69 stopped, and a runner had
    given up; 75 another master is running, or there is no room; 73, 74, 77 the disk or its permissions; 78 the
    configuration cannot be used; 70 any other error.
    """
    sys.exit(supervise(path))


@click.command()
@click.argument('runner', callback=slice_of, metavar='RUNNER[:SLICE/COUNT]')
@config_option
@once_option
@until_empty_option
def runner(runner: tuple[str, int, int], path: Path, once: bool, until_empty: bool) -> None:
    """Run one slice of one runner, in the foreground and without a master."""
    name, slice_index, count = runner
    sys.exit(
        _guarded(
            path,
            lambda config: one_runner(config, name, slice_index, count, once=once, until_empty=until_empty),
        )
    )


def supervise(path: Path) -> int:
    """Be the master of the installation of a configuration file, as `foreground` does.

    :return: the exit status; an error is written to standard error, in the form of the log.
    """
    with exiting_on_signal():
        return _guarded(path, foreground)


def _guarded(path: Path, run: Callable[[Config], int]) -> int:
    """:return: the exit status of `run`, or the one that its error means, after a line about it."""
    try:
        return run(Config.load(path))
    except ConfigError as error:
        code, errors = os.EX_CONFIG, getattr(error, 'errors', (error,))
    except AlreadyRunningError as error:
        code, errors = os.EX_TEMPFAIL, (error,)
    except (SwitchboardError, OSError) as error:
        code, errors = system_status(error) or os.EX_SOFTWARE, (error,)
    except Exception:
        log.configure(as_json=_asks_for_json(path), waits=True)
        log_event(log.logger('master'), logging.ERROR, None, 'master failed', exc_info=True)
        return os.EX_SOFTWARE
    if _asks_for_json(path):
        log.configure(as_json=True, waits=True)
        for each in errors:
            place = each.fields() if isinstance(each, ConfigError) else {}
            log_event(
                log.logger('master'), logging.ERROR, None, 'cannot start', **{'reason': _words(each), **place}
            )
    else:
        with contextlib.suppress(OSError):  # the status says it as well
            _echo('\n'.join(map(_words, errors)), logging.ERROR)
    return code


def _words(error: Exception) -> str:
    """:return: an error in words, with what to do about it where it is the disk's or the machine's."""
    text, advice = system_words(error) if isinstance(error, OSError) else str(error), system_advice(error)
    return f'{text}; {advice}' if advice else text


def _echo(text: str, level: int) -> None:
    click.echo(log.with_priority(text, level) if log.is_journal(2) else text, err=True)


def log_to_stderr(path: Path, text: str) -> None:
    """Write a line to standard error, in the form of the log that a configuration wants."""
    if _asks_for_json(path):
        log.configure(as_json=True, waits=True)
        log_event(log.logger('master'), logging.WARNING, None, 'hidden configuration', reason=text)
    else:
        _echo(f'switchboard: {text}', logging.WARNING)


def _asks_for_json(path: Path) -> bool:
    """:return: whether a configuration wants the log as JSON, also one that has mistakes."""
    with contextlib.suppress(ConfigError):
        for section in parse_ini(read_config_file(path), str(path), Problems()):
            if section.name == 'master' and 'log_format' in section.options:
                return section.options['log_format'].value == 'json'
    return False
