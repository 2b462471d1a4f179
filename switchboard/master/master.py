"""The master: one process, one thread, one loop, that forks the runners and keeps them running.

It imports no class of a runner (unless ``preload`` asks for it), so nothing that a user wrote can end it, and a restarted runner
gets the newest code.  It holds its lock for life.  Everything else is waited for in one place: signals (as bytes in a pipe), the
runners' first words, requests over the control socket, and the next thing that is due.  What follows from an end is decided in
`policy`, carried out in `supervision`; what operators ask for is in `requests`.

==========  ==========================================================================================================
TERM, INT   stop: runners finish their message and go, are killed after ``stop_timeout``; a second INT kills at once
HUP         read the configuration again and restart what changed
USR1        restart the runners one by one
USR2        reopen the logs, here and in the runners
TTIN, TTOU  one slice more, one slice less, of ``[master] scale_runner`` or of the first runner that has a queue
QUIT        write to the log where the master is
==========  ==========================================================================================================

Exit status: 0 all went well; 69 (EX_UNAVAILABLE) a runner was FATAL when the master stopped.  Errors before that
are raised: `AlreadyRunningError`, `ConfigError`, `OSError`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import resource
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import setproctitle

from switchboard.config.config import Config
from switchboard.errors import ConfigError, MasterError
from switchboard.events import log_event
from switchboard.master import child, orphans
from switchboard.master.control import ControlSocket
from switchboard.master.directory import MasterDirectory, MasterLock
from switchboard.master.housekeeping import Housekeeping
from switchboard.master.loading import extend_path, prepare_before_fork, python_path, work_as_runner
from switchboard.master.requests import Requests
from switchboard.master.service_manager import ServiceManager
from switchboard.master.signals import SignalPipe, StackDump
from switchboard.master.slices import Slices
from switchboard.operating.text import escape_terminal, number
from switchboard.spool.active_config import activate
from switchboard.status import captured_output, log
from switchboard.status.alerts import Alerts
from switchboard.status.alive import master_title
from switchboard.status.scoreboard import DEFAULT_SLOTS, MasterRecord, ProcessState, Scoreboard, SliceRecord
from switchboard.store.layout import SCOREBOARD

logger = log.logger('master')

EXIT_RUNNER_FATAL = os.EX_UNAVAILABLE
HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
    signal.SIGQUIT,
)


# A turn of the loop that comes this much after its time says that the master was stopped, or frozen with the machine.
LATE_S = 1.0
# So that a freeze is noticed for what it was, the loop turns at least this often.
LOOK_S = 10.0
# Lines of the log that wait for their reader are tried again so soon.
LOG_AGAIN_S = 0.25
# What fails at once each time must not take a whole processor.
MISTAKE_PAUSE_S = 0.1


class Master:
    """Supervises the runners of one installation, from `run` to its end.

    :param on_ready: called once, with all records, when every slice has begun its loop or failed to.
    :param own_descriptors: gives further descriptors that a runner has to close.
    """

    def __init__(
        self,
        config: Config,
        *,
        on_ready: Callable[[list[SliceRecord]], object] | None = None,
        own_descriptors: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        self.config = config
        self._on_ready = on_ready
        self._own_descriptors = own_descriptors
        self._stopping = False
        self._is_removed = False
        # When the last turn of the loop began and ended, until when it was to sleep, and when it woke.
        self._turned_at_s, self._slept_at_s, self._expected_s, self._woke_at_s = 0.0, 0.0, math.inf, math.inf
        self._record = MasterRecord()
        self._manager = ServiceManager()

    def run(self) -> int:
        """Be the master until a stop is requested.

        :return: the exit status.
        :raises AlreadyRunningError: another master holds the spool.
        :raises ConfigError: a module of ``preload`` cannot be imported.
        """
        os.umask(self.config.master.umask)
        self._manager.tick(time.monotonic())
        with contextlib.ExitStack() as stack:
            self._directory = stack.enter_context(MasterDirectory(self.config.spool))
            self._lock = stack.enter_context(MasterLock(self._directory, self.config.master.pid_file))
            self._preload()
            self._lock.note_pid()
            stack.callback(self._lock.forget_pid)
            self._open(stack)
            return self._loop()

    def _preload(self) -> None:
        extend_path(python_path(self.config.path, self.config.master.python_path))
        with captured_output.output_as_events('master', raw=self._has_only_events()):
            for name in self.config.master.preload:
                try:
                    importlib.import_module(name)
                except Exception as error:
                    reason = f'cannot import {name}: {type(error).__name__}: {error}'
                    raise ConfigError(
                        reason, file=str(self.config.path), section='master', key='preload'
                    ) from error

    def _has_only_events(self) -> bool:
        """Is the log for programs, so that nothing but events may get into it?"""
        return self.config.master.log_format == 'json' and hasattr(os, 'memfd_create')

    def _open(self, stack: contextlib.ExitStack) -> None:
        named = (escape_terminal(str(each)) for each in (self.config.spool, self.config.path))
        setproctitle.setproctitle(master_title(*named))
        wanted = sum(each.instances for each in self.config.runners.values())
        path = self._directory.path / SCOREBOARD
        try:
            self._scoreboard = Scoreboard.create(
                path, max(DEFAULT_SLOTS, 4 * wanted), used=wanted, directory=self._directory.fileno()
            )
        except OSError as error:
            raise MasterError(f'no room for {path}, in which runners report: {error.strerror}') from error
        _allow_descriptors(self._scoreboard.slots)
        stack.callback(self._scoreboard.close)
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._signals = SignalPipe(HANDLED)
        stack.callback(self._signals.close)
        self._selector.register(self._signals.fileno(), selectors.EVENT_READ, self)
        self._dump = StackDump(None if self._has_only_events() else log.descriptor())
        stack.callback(self._dump.close)
        self._slices = Slices(
            self.config,
            self._scoreboard,
            self._selector,
            work=work_as_runner,
            own_descriptors=self._descriptors,
            other_children=lambda: {*self._own_children, self._housekeeping.pid, self._alerts.pid},
        )
        self._requests = Requests(
            self._slices,
            on_reload=self._note_reload,
            around_reload=(self._manager.reloading, lambda: self._manager.ready(self._describe())),
            shut_down=self.stop,
            reopen=self._reopen,
            # One in the background reports to the command that has started it.
            is_foreground=self._on_ready is None,
        )
        self._alerts = Alerts(
            lambda: self._slices.config.alert_command,
            {'spool': self.config.spool, 'config': self.config.path},
            child.fork_helper,
            child.die_with_parent,
        )
        stack.callback(self._alerts.close)
        self._housekeeping = Housekeeping(
            lambda: self._slices.config,
            self.config.master.maintenance_interval_s,
            time.monotonic(),
            deadline_s=self.config.master.maintenance_timeout_s,
            on_report=self._note_report,
        )
        stack.callback(self._housekeeping.close)
        self._control = ControlSocket(self._directory, self._selector, self._requests.handle)
        stack.callback(self._control.close)
        log.capture_other_loggers()  # once for all children: it looks at each logger
        self._own_children = orphans.children()  # a module of `preload` may have made some
        child.set_subreaper()
        if ended := orphans.kill_orphans_of_spool(str(self.config.spool)):
            log_event(logger, logging.WARNING, None, 'orphans killed', number=len(ended))
        self._update_record(pid=os.getpid(), started_ns=time.time_ns())
        activate(self.config)
        # After that, so that the spool made here goes by the configuration in force.
        self._slices.prefork = prepare_before_fork(self.config)

    def _descriptors(self) -> list[int]:
        own = [
            self._directory.fileno(),
            self._lock.fileno(),
            *self._signals.descriptors(),
            *self._dump.descriptors(),
            *self._control.descriptors(),
            *self._housekeeping.descriptors(),
            *self._alerts.descriptors(),
        ]
        fileno = getattr(self._selector, 'fileno', None)  # epoll and kqueue have one, select has not
        return [*own, *([fileno()] if fileno else []), *self._own_descriptors()]

    def _update_record(self, **fields: Any) -> None:
        self._record = self._record._replace(**fields)
        self._scoreboard.write_master_record(self._record)

    def _describe(self) -> str:
        """:return: how it looks, in a line."""
        counts = Counter(each.state for each in self._slices)
        parts = [f'{number} {state.value.lower()}' for state, number in sorted(counts.items())]
        if self._record.reload_error:
            parts.append(f'reload failed: {self._record.reload_error}')
        return f'{len(self._slices)} runners: {", ".join(parts)}'

    def _note_reload(self, error: str) -> None:
        self._update_record(reloaded_ns=time.time_ns(), reload_error=error)

    def _note_report(self, report: Mapping[str, Any]) -> None:
        bad = report.get('bad', 0)
        self._alerts.note(
            'bad-grew',
            {'bad': (f'{number(bad, "message has", "messages have")} failed for good', bad)} if bad else {},
        )
        self._alerts.note('disk-reserve', report.get('full', {}))

    def _note_own_state(self, _now_s: float) -> None:
        fatal = {each.title: each.reason for each in self._slices if each.state is ProcessState.FATAL}
        self._alerts.note('runner-fatal', fatal)
        error = self._record.reload_error
        self._alerts.note('reload-failed', {'': error} if error else {})

    def _loop(self) -> int:
        log_event(
            logger,
            logging.INFO,
            None,
            'started',
            pid=os.getpid(),
            spool=self.config.spool,
            config=self.config.path,
        )
        try:
            self._slices.start_all()
            while self._slices.any_alive or not self._stopping:
                self._turn()
        except BaseException:
            # Nobody may be left behind, whatever it was.
            for each in self._slices:
                each.kill()
            raise
        failed = [each.title for each in self._slices if each.state is ProcessState.FATAL]
        self._update_record(state=ProcessState.EXITED)
        log_event(logger, logging.INFO, None, 'stopped', fatal=', '.join(failed) or None)
        self._guard(self._look_whether_removed, time.monotonic())
        if self._is_removed:
            return os.EX_NOINPUT
        return EXIT_RUNNER_FATAL if failed else os.EX_OK

    def _turn(self) -> None:
        now_s = time.monotonic()
        # How much of it the master was frozen for it cannot know, so all of a sleep, or of a turn, that took too long counts for nobody.
        worked_s = self._slept_at_s - self._turned_at_s + max(0.0, now_s - self._woke_at_s)
        lost_s = worked_s if worked_s > LATE_S else 0.0
        if self._woke_at_s - self._expected_s > LATE_S:
            lost_s += self._woke_at_s - self._slept_at_s
        self._turned_at_s = now_s
        if lost_s:
            log_event(logger, logging.WARNING, None, 'master stalled', lost_s=lost_s)
            for one in (self._slices, self._housekeeping, self._alerts):
                one.extend_deadlines(lost_s, now_s)
        parts = (
            (self._slices, self._control, self._requests)
            if self._stopping
            else (self._slices, self._control, self._housekeeping, self._alerts, self._requests)
        )
        self._guard(self._note_own_state, now_s)
        for each in parts:
            self._guard(each.tick, now_s)
        self._guard(self._mend_scoreboard, now_s)
        self._guard(self._look_whether_removed, now_s)
        self._manager.tick(now_s, self._describe())
        self._look_whether_ready()
        if self._stopping and not self._slices.any_alive:
            return
        due_s = min(each.due_s() for each in (*parts, self._manager))
        longest_s = LOOK_S if log.flush() else LOG_AGAIN_S
        wait_s = min(longest_s, max(0.0, due_s - time.monotonic()))
        self._slept_at_s = time.monotonic()
        self._expected_s = self._slept_at_s + wait_s
        events = self._selector.select(wait_s)
        self._woke_at_s = time.monotonic()
        for key, _ in events:
            # The owner of the descriptor reads all that has come in, without waiting.
            self._guard(key.data.on_readable, time.monotonic())

    def _guard(self, do: Callable[[float], object], now_s: float) -> None:
        """Do one thing of the loop.  A mistake of ours in it ends no runner: it is logged, and the loop goes on a little slower."""
        try:
            do(now_s)
        except Exception:
            log_event(logger, logging.ERROR, None, 'internal error', exc_info=True)
            time.sleep(MISTAKE_PAUSE_S)

    def _mend_scoreboard(self, _now_s: float) -> None:
        if self._scoreboard.repair():
            log_event(logger, logging.ERROR, None, 'scoreboard mended', path=self._scoreboard.path)
            self._update_record()
            for each in self._slices:
                each.rewrite_record()

    def _look_whether_removed(self, _now_s: float) -> None:
        # Without its directory no command finds it, and the next start would be of a second master beside it.
        if not self._is_removed and self._directory.is_removed():
            self._is_removed = True
            log_event(logger, logging.ERROR, None, 'directory removed', path=self._directory.path)
            self.stop()

    def _look_whether_ready(self) -> None:
        if self._record.state is ProcessState.STARTING and all(each.start_is_over for each in self._slices):
            self._slices.prefork = None
            self._update_record(state=ProcessState.RUNNING, ready_ns=time.time_ns())
            log_event(logger, logging.INFO, None, 'ready', slices=len(self._slices))
            self._manager.ready(self._describe())
            if self._on_ready is not None:
                self._on_ready(self._scoreboard.records())

    def on_readable(self, now_s: float) -> None:
        """Take the signals that have come."""
        for signum in self._signals.take():
            if signum is signal.SIGCHLD:
                self._slices.reap(now_s)
            elif signum is signal.SIGINT and self._stopping:
                for each in self._slices:
                    each.kill_on_request(now_s)
            elif signum in (signal.SIGTERM, signal.SIGINT):
                log_event(logger, logging.INFO, None, 'stop requested', signal=signum.name)
                self.stop()
            elif signum is signal.SIGQUIT:
                for line in self._dump.taken():
                    captured_output.log_printed_line(log.logger('master'), 'stderr', line)
            elif not self._stopping:
                self._obey(signum)

    def _obey(self, signum: signal.Signals) -> None:
        log_event(logger, logging.INFO, None, 'signal received', signal=signum.name)
        requests = self._requests
        actions: dict[signal.Signals, Callable[[], object]] = {
            signal.SIGHUP: requests.reload,
            signal.SIGUSR1: requests.restart_all,
            signal.SIGUSR2: self._reopen,
            signal.SIGTTIN: lambda: requests.scale_by(1),
            signal.SIGTTOU: lambda: requests.scale_by(-1),
        }
        actions[signum]()

    def _reopen(self) -> list[str]:
        errors = log.reopen()
        for error in errors:
            log_event(logger, logging.ERROR, None, 'log not reopened', error=error)
        for each in self._slices:
            each.signal(signal.SIGUSR2)
        return errors

    def stop(self) -> None:
        """Let every runner finish its message and go; then `run` returns."""
        if not self._stopping:
            self._stopping = True
            self._update_record(state=ProcessState.STOPPING)
            self._manager.stopping()
            self._requests.cancel()
            for each in self._slices:
                each.stop(time.monotonic())


def _allow_descriptors(slots: int) -> None:
    """Raise the soft limit of open files, if need be: four for each runner, and some for everything else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * slots + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
