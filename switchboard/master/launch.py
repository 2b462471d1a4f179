"""Ways to start a master or a single runner: in the foreground, in the background, or once by hand.

The command line and the programs in ``bin/`` come together here, so that all of them log, fail and stop alike.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from switchboard.config.config import Config
from switchboard.errors import AlreadyRunningError, ConfigError, MasterError
from switchboard.events import event
from switchboard.master.daemon import Outcome, Report, daemonize
from switchboard.master.directory import OwnDirectory
from switchboard.master.loading import extend_path, make_runner, python_path
from switchboard.master.master import Master
from switchboard.master.signals import leaving_when_told
from switchboard.status import log
from switchboard.status.alive import LOG
from switchboard.status.scoreboard import NullSlot, Record, State


def foreground(config: Config) -> int:
    """Be the master in this process, until it is told to stop.

    Logs go to standard error, unless the configuration names a file.

    :return: the exit status.
    """
    _configure_log(config, config.master.log_file)
    with leaving_when_told():
        return Master(config).run()


def background(
    config: Config, while_waiting: Callable[[], object] | None = None, timeout_s: float | None = None
) -> Outcome:
    """Start a master in the background, and wait until its runners are ready.

    Logs go to ``.run/master/master.log`` in the spool, unless the configuration names a file.

    :param while_waiting: called ten times a second meanwhile, in this process.
    :param timeout_s: wait no longer than this; by default ``ready_timeout``.
    :return: what it told: ``slices``, the number of runner processes, and ``failed``, those that are not running, each with
        ``title``, ``state`` and ``reason``.  Its ``ready`` is None if they were not ready within ``ready_timeout``; the master
        goes on all the same.
    :raises AlreadyRunningError: another master holds the spool.
    :raises ConfigError: a module of ``preload`` cannot be imported.
    :raises MasterError: it could not start for another reason.
    """
    outcome = daemonize(
        lambda report: _be_daemon(config, report),
        timeout_s=config.master.ready_timeout_s if timeout_s is None else timeout_s,
        while_waiting=while_waiting,
    )
    if outcome.ready is False:
        kind = outcome.told.get('type')
        if kind == AlreadyRunningError.__name__:
            raise AlreadyRunningError(outcome.told.get('holder'))
        raise (ConfigError if kind == ConfigError.__name__ else MasterError)(outcome.error)
    return outcome


def _be_daemon(config: Config, report: Report) -> int:
    def tell(records: list[Record]) -> None:
        failed = [
            {'title': each.title, 'state': each.state, 'reason': each.reason}
            for each in records
            if each.state not in (State.RUNNING, State.STARTING)
        ]
        report.ready(slices=len(records), failed=failed)

    def own_descriptors() -> list[int]:
        return [report.fileno()] if report.fileno() >= 0 else []

    try:
        with leaving_when_told(), OwnDirectory(config.spool) as own:
            if config.master.log_file is not None:
                _configure_log(config, config.master.log_file, takes_stderr=True)
            else:
                _configure_log(config, own.path / LOG, directory=own.fileno(), takes_stderr=True)
        return Master(config, on_ready=tell, own_descriptors=own_descriptors).run()
    except SystemExit:
        report.failed('it was told to stop while it started')
        return os.EX_OK
    except AlreadyRunningError as error:
        report.failed(str(error), type=type(error).__name__, holder=error.pid)
    except ConfigError as error:
        report.failed(str(error), type=ConfigError.__name__)
    except Exception as error:
        event(log.logger('master'), logging.ERROR, None, 'master failed', exc_info=True)
        report.failed(f'{type(error).__name__}: {error}')
    return 1


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


def one_runner(
    config: Config, name: str, part: int = 0, count: int = 1, *, once: bool = False, until_empty: bool = False
) -> int:
    """Run one slice of one runner in this process, without a master.

    TERM and INT let it finish its message and stop.  It may run beside a master: claims keep them apart.

    :return: the exit status.
    :raises ConfigError: there is no such runner, or it cannot be made.
    """
    options = config.runners.get(name)
    if options is None:
        known = ', '.join(config.runners) or 'none'
        raise ConfigError(f'there is no runner {name!r}; there are: {known}', file=str(config.path))
    _configure_log(config, None)
    log.speak_as(f'{name} {part + 1}/{count}')
    extend_path(python_path(config.path, config.master.python_path))
    runner = make_runner(config, options, part, count, NullSlot())

    def stop(_signum: int, _frame: FrameType | None) -> None:
        runner.stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    return runner.run(once=once, until_empty=until_empty)
