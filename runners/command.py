"""Hands each message to a program on its standard input; the exit status says what becomes of it.

::

    [runner.archive]
    class = command
    queue = archive
    command = /usr/local/bin/archive-mail --compress
    timeout = 30s

The program is started without a shell, so nothing in a message can be taken for a command.  It gets the bytes of the message, and what is
known about it in the environment (see :func:`environment`).  What it writes on standard error, or without an ``output``
on standard output, is kept for the case that it fails.  With ``output = QUEUE``, what it writes on standard output is the message
that goes on, of the same kind, with the same metadata.

=============================  ==============================================================================
it ended with                  the message
=============================  ==============================================================================
0                              is finished
71 to 75                       is tried again later, as long as ``give_up`` says (the system's trouble)
64 to 70, 76 to 78             goes to bad at once (the message's fault)
any other status               is tried as often as ``max_attempts`` says, and goes to bad then
a signal                       as 71 to 75: somebody killed it
no end within ``timeout``      as any other status; it is ended, with all it has started
=============================  ==============================================================================

The names of 64 to 78 are in ``sysexits.h``.  72, a missing system file, counts as the system's trouble.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from switchboard import Runner
from switchboard.errors import ConfigError, PermanentFailure, RunnerError, TemporaryFailure, UnknownQueueError
from switchboard.runner.api import Serializers, Setting, duration_s, optional, tagged_or_text

TEMPORARY = range(71, 76)
PERMANENT = (*range(64, 71), *range(76, 79))

# Of what a program complains about, the end is kept: it says what went wrong.
MAX_COMPLAINT_BYTES = 4096
# Of that, so much goes into the reason, which a list shows.
MAX_REASON_CHARACTERS = 900
MAX_OUTPUT_BYTES = 256 * 1024 * 1024
# Linux takes no string longer than 128 KiB into an environment.
MAX_VARIABLE_BYTES = 32 * 1024
# Between being asked to end and being killed.
GRACE_S = 2.0
READ_BYTES = 64 * 1024

_STATUS_NAMES = {getattr(os, name): name for name in dir(os) if name.startswith('EX_')}
_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), 'prctl', None) if sys.platform == 'linux' else None


class CommandError(RunnerError):
    """The program failed in a way that says nothing about another try."""


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
        'output': Setting(),
        'directory': Setting(),
    }

    def setup(self) -> None:
        """See `Runner`.

        :raises ConfigError: there is no such program or queue.
        """
        self._serializers = Serializers()
        program = self.setting['command'][0]
        if shutil.which(program, path=os.environ.get('PATH')) is None:
            raise ConfigError(
                f'there is no program {program!r} that could be run',
                section=f'runner.{self.name}',
                key='command',
            )
        if self.setting['output']:
            try:
                self.spool[self.setting['output']]
            except UnknownQueueError as error:
                raise ConfigError(str(error), section=f'runner.{self.name}', key='output') from error

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """See `IRunner`.

        :raises RunnerError: the program did not do it.
        """
        assert self.queue is not None
        output = self.setting['output']
        serializer = self._serializers.for_message(msg)
        with Program(
            self.setting['command'],
            environment(msgdata, QUEUE=self.queue.name, RUNNER=self.name, ID=self.idempotency_key),
            self.setting['directory'],
            listens=bool(output),
        ) as program:
            program.run(serializer.dumps(msg), self.setting['timeout'])
        program.judge()
        if output:
            if not program.output:
                raise CommandError(f'{program.name}: ended well, and wrote nothing that could go to {output}')
            self.emit(output, serializer.loads(bytes(program.output)), msgdata)


def environment(msgdata: Mapping[str, Any], **names: str) -> dict[bytes, bytes]:
    """Make the environment of a program: the runner's own, and what is known of the message.

    ``SWITCHBOARD_QUEUE``, ``SWITCHBOARD_RUNNER`` and ``SWITCHBOARD_ID`` (the same each time the message is tried) are set
    always, ``SWITCHBOARD_METADATA`` is all of the metadata as JSON with types, and ``SWITCHBOARD_META_<KEY>`` one value each: the items
    of a list one a line.  Values longer than 32 KiB are left out.
    """
    variables = {'METADATA': json.dumps(tagged_or_text(msgdata))}
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


def _die_with_parent() -> None:
    # The program leads a group of its own, so who kills the runner with its group does not reach it.
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Program:
    """One run of a program: fed, listened to, and ended in time.

    :param listens: its standard output is kept apart from its complaints.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        variables: Mapping[bytes, bytes],
        directory: str | None,
        *,
        listens: bool,
    ) -> None:
        self.name = arguments[0]
        self.output = bytearray()
        self.complaint = b''
        self.timeout_s: float | None = None
        self.is_late = False
        self._listens = listens
        self._ahead = memoryview(b'')
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if listens else subprocess.STDOUT,
                cwd=directory or None,
                env=variables,
                process_group=0,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise TemporaryFailure(f'{self.name}: could not be started: {error}') from error

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_exception: object) -> None:
        """End what still runs: the runner is told to go, or something went wrong."""
        if self._process.poll() is None:
            self._end()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                _close(pipe)

    def run(self, message: bytes, timeout_s: float | None) -> None:
        """Feed it, listen to it, and wait until it ends, or end it.

        :raises CommandError: it writes without end.
        """
        self.timeout_s = timeout_s
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._ahead = memoryview(message)
        ended = os.pidfd_open(self._process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(ended, selectors.EVENT_READ)
                for pipe in self._pipes():
                    os.set_blocking(pipe.fileno(), False)
                    is_input = pipe is self._process.stdin
                    selector.register(pipe, selectors.EVENT_WRITE if is_input else selectors.EVENT_READ, pipe)
                while self._turn(selector, ends_s):
                    pass
        finally:
            os.close(ended)
        self._process.wait()

    def _turn(self, selector: selectors.BaseSelector, ends_s: float | None) -> bool:
        """Wait for something to happen, and deal with it.

        :return: False when the program has ended.
        """
        events = selector.select(None if ends_s is None else max(0.0, ends_s - time.monotonic()))
        if not events:
            self.is_late = True
            self._end()
            return False
        goes_on = True
        for key, _ in events:
            if key.data is None:
                goes_on = False
            elif key.events == selectors.EVENT_WRITE:
                self._feed(key.data, selector)
            else:
                self._listen(key.data, selector)
        if not goes_on:
            # What it has left in the pipes is taken; what else holds them open is not waited for.
            for pipe in self._pipes():
                while pipe is not self._process.stdin and not pipe.closed and self._listen(pipe, selector):
                    pass
        return goes_on

    def _feed(self, pipe: IO[bytes], selector: selectors.BaseSelector) -> None:
        try:
            self._ahead = self._ahead[os.write(pipe.fileno(), self._ahead[:READ_BYTES]) :]
        except BrokenPipeError:  # it has read what it wants
            self._ahead = memoryview(b'')
        except BlockingIOError:
            return
        if not self._ahead:
            selector.unregister(pipe)
            _close(pipe)

    def _listen(self, pipe: IO[bytes], selector: selectors.BaseSelector) -> bool:
        """:return: False if there is nothing to hear now, or any more."""
        try:
            heard = os.read(pipe.fileno(), READ_BYTES)
        except BlockingIOError:
            return False
        if not heard:
            selector.unregister(pipe)
            _close(pipe)
        elif self._listens and pipe is self._process.stdout:
            self.output += heard
            if len(self.output) > MAX_OUTPUT_BYTES:
                raise CommandError(f'{self.name}: wrote more than {MAX_OUTPUT_BYTES} bytes')
        else:
            self.complaint = (self.complaint + heard)[-MAX_COMPLAINT_BYTES:]
        return bool(heard)

    def _pipes(self) -> list[IO[bytes]]:
        process = self._process
        return [pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe is not None]

    def _end(self) -> None:
        """End it, and all of its group: first politely."""
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, signum: int) -> None:
        try:
            os.killpg(self._process.pid, signum)
        except ProcessLookupError:
            pass  # all of them have gone

    def judge(self) -> None:
        """Say what its end means for the message.

        :raises RunnerError: anything but that all went well.
        """
        status = self._process.returncode
        if self.is_late:
            raise CommandError(self._because(f'has not ended within {self.timeout_s:g} s'))
        if status < 0:
            raise TemporaryFailure(self._because(f'killed by {signal.Signals(-status).name}'))
        if status:
            reason = self._because(
                ' '.join(filter(None, (f'exit status {status}', _STATUS_NAMES.get(status))))
            )
            if status in TEMPORARY:
                raise TemporaryFailure(reason)
            if status in PERMANENT:
                raise PermanentFailure(reason)
            raise CommandError(reason)

    def _because(self, what: str) -> str:
        # The end of the complaint, for only so much of a reason is kept.
        complaint = self.complaint.decode('utf-8', 'backslashreplace').strip()
        return f'{self.name}: {what}' + (f': {complaint[-MAX_REASON_CHARACTERS:]}' if complaint else '')


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        pass
