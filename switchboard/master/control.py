"""The control socket: how ``switchboard scale`` or ``reload`` asks the master for something, and hears what came of it.

``<spool>/.run/control`` is a Unix stream socket that the spool's group may use.  One request and one reply a connection, each
one line of JSON::

    {"do": "scale", "runner": "in", "instances": 4}
    {"ok": true, "runner": "in", "instances": 4, "errors": []}

The reply comes when the thing is done, so that a script can go on; a signal can only ask.  Readers ignore members that they do
not know.  What the master is doing is not asked here but read from the board, which needs no master.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from switchboard.errors import NotRunningError
from switchboard.master.lock import CONTROL, run_directory
from switchboard.status import log

logger = log.logger('master')

# A request is a few words; whoever sends more has something else in mind.
MAX_REQUEST_BYTES = 65536
# The longest path that fits into a socket address on every system.
MAX_ADDRESS_BYTES = 100

Reply = Callable[[Mapping[str, object]], None]
Handler = Callable[[Mapping[str, Any], Reply], None]


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield a name for `path` that fits into a socket address, however deep the spool lies."""
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f'/proc/self/fd/{directory}/{path.name}'
    finally:
        os.close(directory)


class ControlSocket:
    """The master's end.  Assumes that its lock is held, so that a socket found here is nobody's.

    :param handle: called with each request and with the function that sends its reply, now or later.
    """

    def __init__(self, path: Path, selector: selectors.BaseSelector, handle: Handler) -> None:
        self.path = path
        self._selector = selector
        self._handle = handle
        self._calls: set[Call] = set()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        with address(path) as name:
            self._listener.bind(name)
        path.chmod(0o660)
        self._listener.listen(16)
        selector.register(self._listener, selectors.EVENT_READ, self)

    def descriptors(self) -> list[int]:
        """:return: what a forked child closes at once."""
        return [self._listener.fileno(), *(call.connection.fileno() for call in self._calls)]

    def hear(self, _now_s: float) -> None:
        """Take a new call."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._calls.add(Call(connection, self))

    def close(self) -> None:
        """Take no more calls, and end those that are open."""
        self._selector.unregister(self._listener)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        for call in tuple(self._calls):  # those that still wait
            call.reply({'ok': False, 'errors': ['the master has stopped']})

    def listen_to(self, call: Call) -> None:
        """Wait for what `call` has to say."""
        self._selector.register(call.connection, selectors.EVENT_READ, call)

    def ignore(self, call: Call) -> None:
        """Wait for nothing more from `call`."""
        self._selector.unregister(call.connection)

    def forget(self, call: Call) -> None:
        """`call` is over."""
        self._calls.discard(call)

    def answer(self, line: bytes, reply: Reply) -> None:
        """Hand one request on."""
        try:
            request = json.loads(line)
            if not (isinstance(request, dict) and isinstance(request.get('do'), str)):
                raise ValueError('a request is an object with a member "do"')
        except ValueError as error:
            reply({'ok': False, 'errors': [f'not a request: {error}']})
            return
        self._handle(request, reply)


class Call:
    """One connection, from its request to its reply."""

    def __init__(self, connection: socket.socket, control: ControlSocket) -> None:
        self.connection = connection
        self._control = control
        self._heard = b''
        self._listening = True
        control.listen_to(self)

    def hear(self, _now_s: float) -> None:
        """Take what was sent; a caller that has hung up gets no reply, and what it asked for is done all the same."""
        try:
            chunk = self.connection.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            chunk = b''
        self._heard += chunk
        line, newline, _ = self._heard.partition(b'\n')
        if newline:
            # Whatever else comes, even the end, has no meaning: the reply ends the call.
            self._listening = False
            self._control.ignore(self)
            self._control.answer(line, self.reply)
        elif not chunk or len(self._heard) > MAX_REQUEST_BYTES:
            self._end()

    def reply(self, answer: Mapping[str, object]) -> None:
        """Send the reply and hang up."""
        # A caller that has gone, or does not read, is not waited for.
        with contextlib.suppress(OSError):
            self.connection.send(json.dumps(answer).encode() + b'\n')
        self._end()

    def _end(self) -> None:
        if self._listening:
            self._control.ignore(self)
        self._control.forget(self)
        self.connection.close()


def ask(
    spool: str | os.PathLike[str], request: Mapping[str, object], timeout_s: float | None = None
) -> dict[str, Any]:
    """Send a request to the master of `spool` and wait for its reply.

    :raises NotRunningError: there is no master.
    :raises TimeoutError: no reply within `timeout_s` seconds; the master goes on with it all the same.
    """
    path = run_directory(spool) / CONTROL
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(timeout_s)
        try:
            with address(path) as name:
                connection.connect(name)
            connection.sendall(json.dumps(request).encode() + b'\n')
            with connection.makefile('rb') as stream:
                line = stream.readline()
        except TimeoutError:
            raise
        except OSError as error:
            raise NotRunningError(f'no master answers at {path}: {error.strerror}') from error
    if not line:
        raise NotRunningError('the master has gone without an answer')
    reply: dict[str, Any] = json.loads(line)
    return reply
