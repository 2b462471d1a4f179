"""Hands each message to a program on its standard input; the exit status says what becomes of it.

::

    [runner.archive]
    class = command
    queue = archive
    command = /usr/local/bin/archive-mail --compress
    timeout = 30s

The program is started without a shell, so nothing in a message can be taken for a command.  It gets the bytes of the message, and the facts
known about it in the environment (see :func:`program_environment`).  What it writes on standard error, or without an ``output_queue``
on standard output, is kept for the case that it fails.  With ``output_queue = QUEUE``, what it writes on standard output is the message
that goes on, of the same kind, with the same metadata.

=============================  ==============================================================================
it ended with                  the message
=============================  ==============================================================================
0                              is finished
71 to 75                       is tried again later, as long as ``max_retry_time`` says (the system's trouble)
64 to 70, 76 to 78             goes to bad at once (the message's fault)
any other status               is tried as often as ``max_attempts`` says, and goes to bad then
a signal                       as 71 to 75: somebody killed it
no end within ``timeout``      as any other status; it is ended, with all it has started
=============================  ==============================================================================

The names of 64 to 78 are in ``sysexits.h``.  72, a missing system file, counts as the system's trouble.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import math
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from switchboard import Runner
from switchboard.errors import (
    ConfigError,
    DestinationDown,
    PermanentFailure,
    RunnerError,
    TemporaryFailure,
    UnknownQueueError,
)
from switchboard.runner.api import (
    ControlGroup,
    RunnerOptions,
    Serializers,
    Setting,
    TimeLimit,
    delegated_cgroup,
    duration_s,
    optional,
    plain_json,
    process_children,
    process_environment,
    process_has_ended,
    process_name,
    process_stat,
    remove_empty_cgroups,
    signal_name,
)

TEMPORARY = range(71, 76)
PERMANENT = (*range(64, 71), *range(76, 79))

# Of what a program writes as errors, the end is kept: it says what went wrong.
MAX_COMPLAINT_BYTES = 4096
# Of that, so much goes into the reason, which a list shows.
MAX_REASON_CHARACTERS = 900
MAX_OUTPUT_BYTES = 256 * 1024 * 1024
# Linux takes no string longer than 128 KiB into an environment.
MAX_VARIABLE_BYTES = 32 * 1024
# Between being asked to end and being killed.
GRACE_S = 2.0
# What no waiting mends: too much environment, and a file that is no program.
PERMANENT_START_ERRORS = (errno.E2BIG, errno.ENOEXEC)
# By which variable the processes of a message are known.
MARK = b'SWITCHBOARD_ID'
MAX_WATCHED = 64
# The largest number that a process can have for the kernel's calls.
MAX_PID = (1 << 31) - 1
# In the history: the processes that could not be ended.
LEFT_RUNNING = 'left_running'

_STATUS_NAMES = {getattr(os, name): name for name in dir(os) if name.startswith('EX_')}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_prctl = getattr(ctypes.CDLL(None), 'prctl', None) if sys.platform == 'linux' else None


class CommandError(RunnerError):
    """The program failed in a way that says nothing about another try."""


class LeftRunningError(DestinationDown):
    """Something that was begun for a message cannot be ended; ``processes`` are ids and times of start."""

    affects_every_message = False

    def __init__(self, reason: str, processes: list[list[int]]) -> None:
        self.processes = processes
        super().__init__(reason)


def _arguments(text: str) -> tuple[str, ...]:
    words = tuple(shlex.split(text))
    if not words:
        raise ValueError('names no program')
    return words


class Command(Runner):
    """Hands each message to a program."""

    settings = {  # noqa: RUF012  a mapping that nobody changes, as the base class says
        'command': Setting(_arguments, required=True),
        'timeout': Setting(optional(duration_s), 300.0),
        'output_queue': Setting(old_name='output'),
        'directory': Setting(),
    }

    @classmethod
    def message_time_limit_s(cls, values: Mapping[str, Any], options: RunnerOptions) -> float | None:
        """See `Runner`."""
        waits = [each for each in (values['timeout'], options.message_time_limit_s) if each is not None]
        return min(waits) if waits else math.inf

    def setup(self) -> None:
        """See `Runner`.

        :raises ConfigError: there is no such program or queue.
        """
        self._serializers = Serializers()
        # For which message a program was begun last.
        self._last = ''
        if _prctl is not None:
            # What a program leaves behind becomes this process's child, and so is found.
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        # Where there is one, each message has a control group: nothing that is begun for it escapes from that.
        self._groups_in = delegated_cgroup()
        if self._groups_in is not None:
            remove_empty_cgroups(self._groups_in)
        program = self.setting_values['command'][0]
        if shutil.which(program, path=os.environ.get('PATH')) is None:
            raise ConfigError(f'there is no program {program!r} that could be run', key='command')
        if self.setting_values['output_queue']:
            try:
                self.spool[self.setting_values['output_queue']]
            except UnknownQueueError as error:
                raise ConfigError(str(error), key='output_queue') from error

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """See `IRunner`.

        :raises RunnerError: the program did not do it.
        """
        assert self.queue is not None
        output_queue = self.setting_values['output_queue']
        serializer = self._serializers.for_message(msg)
        history = self.queue.history(self.filebase)
        if history or self._last == self.idempotency_key:
            # Tried before, perhaps by a process that was killed.
            ProcessTree(self.idempotency_key.encode()).end_earlier(history)
        group = self._new_group()
        self._last = self.idempotency_key
        with Program(
            self.setting_values['command'],
            program_environment(msgdata, QUEUE=self.queue.name, RUNNER=self.name, ID=self.idempotency_key),
            self.setting_values['directory'],
            serializer.dumps(msg),
            listens=bool(output_queue),
            group=group,
        ) as program:
            try:
                program.run(self.setting_values['timeout'])
                program.raise_for_status()
                if output_queue:
                    written = program.output()
                    if not written:
                        raise CommandError(
                            f'{program.name}: ended well, and wrote nothing that could go to {output_queue}'
                        )
                    self.emit(output_queue, serializer.loads(written), msgdata)
            except BaseException:
                # It is tried again: nothing of this time may still be at it then.
                try:
                    program.end()
                except LeftRunningError as error:
                    # For the next try, which may be another process's.
                    self.queue.annotate(self.filebase, {'event': 'noted', LEFT_RUNNING: error.processes})
                    raise
                raise

    def _new_group(self) -> ControlGroup | None:
        """:return: an empty control group for this message; None where there are none.

        :raises DestinationDown: the group of an earlier attempt is not empty, and its processes cannot be ended.
        """
        group = None if self._groups_in is None else ControlGroup(self._groups_in, self.idempotency_key)
        if group is not None:
            _end_group(group)
        return group if group is not None and group.make() else None


def _end_group(group: ControlGroup) -> None:
    if living := group.end(GRACE_S):
        raise _left_running(living)


def _left_running(living: Iterable[int]) -> LeftRunningError:
    names = ', '.join(f'{process_name(pid) or "a process"} (pid {pid})' for pid in sorted(living))
    return LeftRunningError(
        f'waits for processes of this message that cannot be ended: {names}',
        [[pid, _start_ticks(pid)] for pid in sorted(living)],
    )


def program_environment(msgdata: Mapping[str, Any], **names: str) -> dict[bytes, bytes]:
    """Make the environment of a program: the runner's own, and the facts about the message.

    ``SWITCHBOARD_QUEUE``, ``SWITCHBOARD_RUNNER`` and ``SWITCHBOARD_ID`` (the same each time the message is tried) are set
    always, ``SWITCHBOARD_METADATA`` is all of the metadata as JSON with types, and ``SWITCHBOARD_META_<KEY>`` one value each: the items
    of a list one a line.  Values longer than 32 KiB are left out.
    """
    variables = {'METADATA': json.dumps(plain_json(msgdata))}
    for key, value in msgdata.items():
        word = ''.join(char if char.isascii() and char.isalnum() else '_' for char in key).upper()
        if isinstance(value, list):
            value = '\n'.join(map(str, value))
        if isinstance(value, str | int | float):
            variables[f'META_{word}'] = str(value)
    made = {
        f'SWITCHBOARD_{name}'.encode(): value.replace('\0', '').encode('utf-8', 'backslashreplace')
        for name, value in (variables | names).items()
    }
    return {
        **os.environb,
        **{name: value for name, value in made.items() if len(value) <= MAX_VARIABLE_BYTES},
    }


def _in_child(group: ControlGroup | None) -> None:
    # The program leads a process group of its own, so who kills the runner with its group does not reach it.
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if group is not None:
        group.join()


class ProcessTree:
    """The processes that were begun for a message, whatever group or session they lead and whichever user they run as.

    Where a runner lives, its orphans come to it (it is their subreaper), so all of them are below it.  Those of a runner that was killed are
    found by the id of the message in their environment, or, where that was emptied or written over, by a file of the message that they have open.

    :param mark: the id of the message.
    """

    def __init__(self, mark: bytes) -> None:
        self._mark = b'%s=%s' % (MARK, mark)
        self._file = f'/{_file_prefix(mark)}'
        self._before = set(process_children(os.getpid()))

    def end(self) -> None:
        """End all that was begun since this was made.

        :raises DestinationDown: some of it cannot be ended.
        """
        self._end_all(self._descendants)

    def end_earlier(self, history: Iterable[Mapping[str, Any]]) -> None:
        """End what earlier tries have left: all that is marked, of whatever parents, and what the message's history says could not be ended.

        :raises DestinationDown: some of it cannot be.
        """
        known: set[int] = set()
        for record in history:
            processes = record.get(LEFT_RUNNING)
            for process in processes if isinstance(processes, list) else ():
                match process:
                    case [int(pid), int(started)] if 1 < pid <= MAX_PID and 0 < started == _start_ticks(pid):
                        known.add(pid)
        self._end_all(lambda: self._marked() | known)

    def _descendants(self) -> set[int]:
        found: set[int] = set()
        waiting = [pid for pid in process_children(os.getpid()) if pid not in self._before]
        while waiting:
            pid = waiting.pop()
            # A daemon that an earlier message has left comes here when its parent ends.
            mark = next(
                (one for one in process_environment(pid).split(b'\0') if one.startswith(MARK + b'=')),
                self._mark,
            )
            if pid not in found and mark == self._mark:
                found.add(pid)
                waiting += process_children(pid)
        return found

    def _marked(self) -> set[int]:
        pids = (int(name) for name in os.listdir('/proc') if name.isdecimal())
        return {pid for pid in pids if pid != os.getpid() and self._is_marked(pid)}

    def _is_marked(self, pid: int) -> bool:
        return self._mark in process_environment(pid).split(b'\0') or any(
            self._file in link for link in _open_files(pid)
        )

    def _end_all(self, look: Callable[[], set[int]]) -> None:
        ends_s = time.monotonic() + GRACE_S
        while living := {pid for pid in look() if not _reap(pid)}:
            for pid in living:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() >= ends_s:
                raise _left_running(living)
            _wait_for_one(living)


def _open_files(pid: int) -> Iterator[str]:
    """Yield the names of the files that a process has open; none if it has gone, or is another user's."""
    # It has gone, or is another user's.
    with contextlib.suppress(OSError), os.scandir(f'/proc/{pid}/fd') as descriptors:
        for descriptor in descriptors:
            with contextlib.suppress(OSError):  # closed meanwhile
                yield os.readlink(descriptor)


def _file_prefix(mark: bytes) -> str:
    return f'switchboard-{hashlib.sha1(mark, usedforsecurity=False).hexdigest()}-'


def _start_ticks(pid: int) -> int:
    """:return: when it was started, in ticks since the machine was; 0 if it has gone."""
    stat = process_stat(pid)
    return int(stat[19]) if stat else 0


def _reap(pid: int) -> bool:
    """:return: whether it has ended; if it is a child of this process, it is forgotten."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return process_has_ended(pid)  # somebody else's


def _wait_for_one(pids: Collection[int]) -> None:
    """Return when one of them has ended, or after a moment."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        poll = select.poll()
        for pid in list(pids)[:MAX_WATCHED]:
            descriptor = os.pidfd_open(pid)
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        poll.poll(100)


class Program:
    """One run of a program: fed from a file, listened to through files, and ended in time.

    Files and no pipes: a program that does not read, one that writes without end to a reader that is busy, and a grandchild that keeps a pipe
    open are no cases of their own.  The kernel knows a file that is gone by the name that it had: it says for which message a process was begun that
    has the file open.  An empty one is inherited beside the streams, which a program that is started in the background often lacks.

    :param listens: its standard output is kept apart from its standard error.
    :param group: where it and all that it starts is.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        variables: Mapping[bytes, bytes],
        directory: str | None,
        message: bytes,
        *,
        listens: bool,
        group: ControlGroup | None = None,
    ) -> None:
        self._group = group
        self.name = arguments[0]
        self.timeout_s: float | None = None
        self.is_late = False
        self._files = contextlib.ExitStack()
        mark = variables.get(MARK, b'')
        self.tree = ProcessTree(mark)
        self._prefix = _file_prefix(mark)
        try:
            stdin = self._file()
            stdin.write(message)
            stdin.seek(0)
            self._errors = self._file()
            self._outputs = self._file() if listens else self._errors
            self.process = subprocess.Popen(
                arguments,
                stdin=stdin,
                stdout=self._outputs,
                stderr=self._errors,
                cwd=directory or None,
                env=variables,
                process_group=0,
                pass_fds=(self._file().fileno(),),
                preexec_fn=functools.partial(_in_child, group),
            )
        except OSError as error:
            self._files.close()
            reason = f'{self.name}: could not be started: {error}'
            if error.errno in PERMANENT_START_ERRORS:
                raise PermanentFailure(reason) from error
            raise TemporaryFailure(reason) from error

    def _file(self) -> IO[bytes]:
        descriptor, path = tempfile.mkstemp(prefix=self._prefix)
        os.unlink(path)
        return self._files.enter_context(os.fdopen(descriptor, 'w+b'))

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the processes that still run: the runner is to go, or something went wrong."""
        self._end()
        if self._group is not None:
            self._group.remove()  # a daemon that it has left keeps it
        self._files.close()

    def run(self, timeout_s: float | None) -> None:
        """Wait until it ends, or end it.

        :raises CommandError: it writes without end.
        """
        self.timeout_s = timeout_s
        limit = TimeLimit(timeout_s)
        ended = os.pidfd_open(self.process.pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            while not poll.poll(int(limit.wait_s() * 1000) + 1):
                if limit.remaining_s() <= 0:
                    self.is_late = True
                    self._end()
                    return
                self._look_at_outputs()
        finally:
            os.close(ended)
        self.process.wait()
        self._look_at_outputs()

    def _look_at_outputs(self) -> None:
        for file in {self._outputs, self._errors}:
            if os.fstat(file.fileno()).st_size > MAX_OUTPUT_BYTES:
                raise CommandError(f'{self.name}: wrote more than {MAX_OUTPUT_BYTES} bytes')

    def output(self) -> bytes:
        """:return: its standard output."""
        self._outputs.seek(0)
        return self._outputs.read(MAX_OUTPUT_BYTES)

    def error_output(self) -> bytes:
        """:return: the end of its standard error."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), MAX_COMPLAINT_BYTES, max(0, size - MAX_COMPLAINT_BYTES))

    def end(self) -> None:
        """End it, and all that it has started.

        :raises DestinationDown: something cannot be ended.
        """
        self._end()
        if self._group is not None:
            _end_group(self._group)
        self.tree.end()

    def _end(self) -> None:
        """End it, if it has not ended, and all of its group: first politely."""
        if self.process.poll() is not None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        self._signal(signal.SIGKILL)
        # One that has become another user's cannot be ended: `end` says for whom the message waits.
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process.poll() is None and self._group is not None:
                self._group.kill()
            self.process.wait(GRACE_S)

    def _signal(self, signum: int) -> None:
        # All of them have gone, or are another user's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signum)

    def raise_for_status(self) -> None:
        """Say what its end means for the message.

        :raises RunnerError: anything but that all went well.
        """
        status = self.process.returncode
        if self.is_late:
            raise CommandError(self._failure(f'has not ended within {self.timeout_s:g} s'))
        if status < 0:
            raise TemporaryFailure(self._failure(f'killed by {signal_name(-status)}'))
        if status:
            reason = self._failure(f'exit status {status} {_STATUS_NAMES.get(status, "")}'.rstrip())
            if status in TEMPORARY:
                raise TemporaryFailure(reason)
            if status in PERMANENT:
                raise PermanentFailure(reason)
            raise CommandError(reason)

    def _failure(self, what: str) -> str:
        # The end of it, for only so much of a reason is kept.
        error_output = self.error_output().decode('utf-8', 'backslashreplace').strip()
        return f'{self.name}: {what}' + (f': {error_output[-MAX_REASON_CHARACTERS:]}' if error_output else '')
