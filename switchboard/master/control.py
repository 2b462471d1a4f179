"""The control socket: how ``switchboard scale`` or ``reload`` asks the master for something, and gets its reply.

``<spool>/.run/master/control`` is a Unix stream socket that the spool's group may use.  One request and one reply a connection, each
one line of JSON::

    {"do": "scale", "runner": "in", "instances": 4}
    {"ok": true, "runner": "in", "instances": 4, "errors": []}

The reply comes when the thing is done, so that a script can go on; a signal can only ask.  Readers ignore members that they do
not know.  What the master is doing is not asked here but read from the scoreboard, which needs no master.

Nothing that is said here, and no number of callers, ends the master: a request has a largest size and a last moment, its members have
types, the callers that have said nothing yet give way to new ones when there are many, and those that wait for their reply are limited.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from switchboard.errors import CorruptEntryError, MasterError, NotRunningError
from switchboard.events import log_event
from switchboard.master.directory import MasterDirectory
from switchboard.message.typed_json import parse_json
from switchboard.status import log
from switchboard.status.alive import has_our_title, master_alive, master_directory, open_master_directory
from switchboard.store.disk import OPEN_FLAGS
from switchboard.store.layout import CONTROL

logger = log.logger('master')

# A request is a few words; a caller that sends more has something else in mind.
MAX_REQUEST_BYTES = 8192
MAX_WORD_CHARACTERS = 256
# A program says what it wants at once; one that does not holds a place that others need.
REQUEST_TIMEOUT_S = 10.0
# Callers that have not said what they want: the next one takes the place of the first of them.
MAX_SILENT = 64
# Callers whose request is under way: people and scripts, never this many.
MAX_WAITING = 64
# Answered at once, and never refused: however many others wait, the master can be stopped.
SHUTDOWN = 'shutdown'
# When no descriptor is left for a call, it waits in the kernel's queue for as long.
PAUSE_S = 1.0
Reply = Callable[[Mapping[str, object]], None]


class ControlRequest(NamedTuple):
    """A caller's request.  ``runner``, ``instances`` and ``slice`` are None where the request has no such member."""

    do: str
    runner: str | None = None
    instances: int | None = None
    slice: int | None = None

    @classmethod
    def parse(cls, line: bytes) -> ControlRequest:
        """Read one request.

        :raises MasterError: it is none.
        """
        try:
            members, _ = parse_json(line, 'not a request')
        except CorruptEntryError as error:
            raise MasterError(error.reason[:MAX_WORD_CHARACTERS]) from error
        if not isinstance(members, dict):
            raise MasterError('not a request: it has to be an object with a member "do"')
        do, runner, instances = (members.get(each) for each in ('do', 'runner', 'instances'))
        if not (isinstance(do, str) and _is_word(do)):
            raise MasterError('not a request: "do" must be a word')
        if runner is not None and not _is_word(runner):
            raise MasterError('not a request: "runner" must be a name')
        slice_number = members.get('slice')
        for name, value in (('instances', instances), ('slice', slice_number)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise MasterError(f'not a request: "{name}" must be a whole number')
        return cls(do, runner, instances, slice_number)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_WORD_CHARACTERS


Handler = Callable[[ControlRequest, Reply], None]


def _address(directory: int) -> str:
    """:return: a name that fits into a socket address, however deep the spool lies, and leads nowhere else if it is moved."""
    return f'/proc/self/fd/{directory}/{CONTROL}'


def _check_proc(error: OSError) -> None:
    """Look whether an address could not be found because it leads through ``/proc``.

    :raises MasterError: so it is.
    """
    if not os.path.isdir('/proc/self/fd'):
        raise MasterError(
            'the control socket of a master needs /proc: mount it, as `mount -t proc proc /proc` does'
        ) from error


class ControlSocket:
    """The master's end.  Assumes that its lock is held, so that a socket found here is nobody's.

    :param handle: called with each request and with the function that sends its reply, now or later; raises `MasterError` to refuse it.
    """

    def __init__(self, directory: MasterDirectory, selector: selectors.BaseSelector, handle: Handler) -> None:
        self._directory = directory
        self._selector = selector
        self._handle = handle
        # In the order in which they came.
        self._silent: dict[Call, None] = {}
        self._waiting: dict[Call, None] = {}
        self._open_again_s = math.inf
        directory.remove(CONTROL)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listen()
        except BaseException:
            self._listener.close()
            raise

    def _listen(self) -> None:
        directory = self._directory
        self._listener.setblocking(False)
        try:
            self._listener.bind(_address(directory.fileno()))
        except OSError as error:
            _check_proc(error)
            error.filename = str(directory.path / CONTROL)
            raise
        os.chmod(CONTROL, 0o660, dir_fd=directory.fileno())
        self._listener.listen(16)
        self._selector.register(self._listener, selectors.EVENT_READ, self)

    def descriptors(self) -> list[int]:
        """:return: the descriptors that a forked child closes at once."""
        calls = (*self._silent, *self._waiting)
        return [self._listener.fileno(), *(call.connection.fileno() for call in calls)]

    def on_readable(self, now_s: float) -> None:
        """Take a new call."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            self._pause(error, now_s)
            return
        if len(self._silent) >= MAX_SILENT:
            self.end(next(iter(self._silent)))
        connection.setblocking(False)
        call = Call(connection, self, now_s + REQUEST_TIMEOUT_S)
        try:
            self._selector.register(connection, selectors.EVENT_READ, call)
        except OSError as error:
            connection.close()
            self._pause(error, now_s)
            return
        self._silent[call] = None

    def _pause(self, error: OSError, now_s: float) -> None:
        log_event(logger, logging.ERROR, None, 'control socket pauses', error=error.strerror)
        self._selector.unregister(self._listener)
        self._open_again_s = now_s + PAUSE_S

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        first = next(iter(self._silent), None)
        return min(self._open_again_s, math.inf if first is None else first.until_s)

    def tick(self, now_s: float) -> None:
        """End the calls whose time is up, and take new ones again."""
        while self._silent and (call := next(iter(self._silent))).until_s <= now_s:
            self.end(call)
        if self._open_again_s <= now_s:
            self._open_again_s = now_s + PAUSE_S  # should this fail
            self._selector.register(self._listener, selectors.EVENT_READ, self)
            self._open_again_s = math.inf

    def close(self) -> None:
        """Take no more calls, and end those that are open."""
        if self._open_again_s == math.inf:
            self._selector.unregister(self._listener)
        self._listener.close()
        self._directory.remove(CONTROL)
        for call in (*self._silent, *self._waiting):
            call.reply({'ok': False, 'errors': ['the master has stopped']})

    def end(self, call: Call) -> None:
        """Hang up."""
        if call in self._silent:
            self._selector.unregister(call.connection)
        self._silent.pop(call, None)
        self._waiting.pop(call, None)
        call.connection.close()

    def answer(self, call: Call, line: bytes) -> None:
        """Hand one request on.  Whatever else the caller says, even that it hangs up, has no meaning: the reply ends the call."""
        self._selector.unregister(call.connection)
        del self._silent[call]
        self._waiting[call] = None
        try:
            request = ControlRequest.parse(line)
            if len(self._waiting) > MAX_WAITING and request.do != SHUTDOWN:
                raise MasterError('too many requests are under way; ask again later')
            self._handle(request, call.reply)
        except MasterError as error:
            call.reply({'ok': False, 'errors': [str(error)]})
        except Exception as error:
            log_event(logger, logging.ERROR, None, 'request failed', exc_info=True)
            call.reply({'ok': False, 'errors': [unexpected_error_text(error)]})


def unexpected_error_text(error: Exception) -> str:
    """:return: the line about an error that was not foreseen; the log has its traceback."""
    return f'{type(error).__name__}: {str(error)[:300]}; the log says more'


class Call:
    """One connection, from its request to its reply.

    :param until_s: when it has to have said what it wants, on the monotonic clock.
    """

    def __init__(self, connection: socket.socket, control: ControlSocket, until_s: float) -> None:
        self.connection = connection
        self.until_s = until_s
        self._control = control
        self._heard = b''

    def on_readable(self, _now_s: float) -> None:
        """Read a request; a caller that has hung up gets no reply, and its request is carried out all the same."""
        try:
            chunk = self.connection.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b''
        self._heard += chunk
        line, newline, _ = self._heard.partition(b'\n')
        if newline:
            self._control.answer(self, line)
        elif not chunk or len(self._heard) > MAX_REQUEST_BYTES:
            self._control.end(self)

    def reply(self, answer: Mapping[str, object]) -> None:
        """Send the reply and hang up; only the first one counts."""
        # A caller that has gone, or does not read, is not waited for.
        with contextlib.suppress(OSError):
            self.connection.send(json.dumps(answer).encode() + b'\n')
        self._control.end(self)


def ask(
    spool: str | os.PathLike[str], request: Mapping[str, object], timeout_s: float | None = None
) -> dict[str, Any]:
    """Send a request to the master of `spool` and wait for its reply.

    :raises NotRunningError: there is no master.
    :raises MasterError: nobody can be asked without ``/proc``.
    :raises TimeoutError: no reply within `timeout_s` seconds; the master goes on with it all the same.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        _call(connection, spool, timeout_s)
        try:
            connection.settimeout(timeout_s)
            connection.sendall(json.dumps(request).encode() + b'\n')
            with connection.makefile('rb') as stream:
                line = stream.readline()
        except TimeoutError:
            raise
        except OSError as error:
            raise NotRunningError(f'the master has gone: {error.strerror}') from error
    if not line:
        raise NotRunningError('the master has gone without an answer')
    reply: dict[str, Any] = json.loads(line)
    return reply


def signal_master(spool: str | os.PathLike[str], signum: signal.Signals) -> bool:
    """Send a signal to the master of `spool`, even if it answers no request.

    Which process it is, the kernel says: the one that listens at the control socket.  A number that was written into a file may be a
    stranger's by now, or in this process's view of the processes.

    :return: False if there is none that can be seen from here.
    :raises PermissionError: it is another user's.
    :raises MasterError: as of :func:`ask`.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        try:
            _call(connection, spool, 1.0)
        except (NotRunningError, TimeoutError):
            return False
        pid, _ = _listener_of(connection)
        if pid <= 0:  # it lives in another pid namespace
            return False
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            # While it holds the lock it has not ended, so the number was still its own when it was opened.
            if not master_alive(spool) or not has_our_title(pid):
                return False
            signal.pidfd_send_signal(descriptor, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
    return True


def _listener_of(connection: socket.socket) -> tuple[int, int]:
    """:return: the process that listens, as the kernel says, and its user."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize('3i'))
    pid, user, _ = struct.unpack('3i', raw)
    return pid, user


def _call(connection: socket.socket, spool: str | os.PathLike[str], timeout_s: float | None) -> None:
    """Connect to the master, and to nobody else.

    `.run` belongs to the group: a member may put another directory in the place of the master's, with a link to somebody's
    socket, who would be asked, or even signalled, with the caller's rights.
    """
    path = master_directory(spool)
    try:
        directory = open_master_directory(spool)
        try:
            owner = os.fstat(directory)
            called = os.open(CONTROL, os.O_PATH | OPEN_FLAGS, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            status = os.fstat(called)
            is_theirs = stat.S_ISSOCK(status.st_mode) and status.st_uid == owner.st_uid
            if not is_theirs or owner.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise NotRunningError(f'{path / CONTROL} is not the socket of a master')
            _connect(connection, f'/proc/self/fd/{called}', timeout_s)
        finally:
            os.close(called)
        if _listener_of(connection)[1] != owner.st_uid:
            raise NotRunningError(f'{path / CONTROL} is not the socket of a master')
    except TimeoutError:
        raise
    except OSError as error:
        raise NotRunningError(f'no master answers at {path / CONTROL}: {error.strerror}') from error


def _connect(connection: socket.socket, name: str, timeout_s: float | None) -> None:
    # A socket with a time-out of Python's own does not wait at all while many others call at once.
    if timeout_s is not None:
        whole_s, rest_s = divmod(max(timeout_s, 0.001), 1)
        limit = struct.pack('@ll', int(whole_s), int(rest_s * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    try:
        connection.connect(name)
    except BlockingIOError as error:
        raise TimeoutError('the master takes no calls') from error
    except FileNotFoundError as error:
        _check_proc(error)
        raise
