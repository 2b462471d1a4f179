"""Listening: one desk on one socket, in this process, until a stop is requested."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator, MutableMapping

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from switchboard.errors import ConfigError
from switchboard.runner.unix_socket import listen_at_unix_socket
from switchboard.web.app import make_app
from switchboard.web.desk import Desk
from switchboard.web.identity import PEER

# People, and their tabs.  For one more, that which has waited longest for its browser gives way: nobody keeps others out by saying nothing.
MAX_CONNECTIONS = 200
STOP_S = 5
# The first descriptor that a service manager hands over.
FIRST_PASSED = 3


class PeerProtocol(H11Protocol):
    """HTTP, where the other end of a Unix socket is known by the kernel's word, and a browser that is waited for gives way."""

    since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # the stubs of uvicorn and asyncio differ
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.since_s = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, PeerProtocol) and one is not self]
            if waiting := [one for one in others if one.is_waiting]:
                min(waiting, key=lambda one: one.since_s).transport.abort()
        connection = transport.get_extra_info('socket')
        if connection is not None and connection.family == socket.AF_UNIX:
            _, uid, _ = struct.unpack('3i', connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            self.client = (PEER, uid)

    @property
    def is_waiting(self) -> bool:
        """Has the browser its turn: to send the rest of a request, or to take more of an answer?"""
        if self.transport.is_closing():
            return False
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY) or self.flow.write_paused

    def on_response_complete(self) -> None:
        """See `H11Protocol`."""
        self.since_s = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.since_s = self.loop.time()
        super().pause_writing()


class DeskServer(uvicorn.Server):
    """Leaves signals to the program around it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


def make_server(desk: Desk) -> DeskServer:
    """:return: a server, not listening yet."""
    config = uvicorn.Config(
        make_app(desk),
        http=PeerProtocol,
        ws='none',
        lifespan='off',
        loop='asyncio',
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # It counts requests as well, whose connections may have given way.
        limit_concurrency=2 * MAX_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=STOP_S,
        h11_max_incomplete_event_size=64 << 10,
    )
    return DeskServer(config)


def listener(desk: Desk) -> socket.socket:
    """Listen.

    :raises ConfigError: the place is taken, or cannot be used.
    """
    settings = desk.settings
    try:
        if settings.is_unix:
            return listen_at_unix_socket(settings.listen, settings.socket_mode)
        return _tcp(*settings.address)
    except OSError as error:
        raise ConfigError(f'{settings.listen}: {error.strerror or error}', key='listen') from error


def systemd_socket(environ: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """Take over the socket that a service manager listens at for this process (``sd_listen_fds``).

    :param environ: the environment, from which its variables are taken away: a program that is started from here has no such socket.
    :raises ConfigError: there are several, or it is none to listen at.
    """
    pid, many = environ.pop('LISTEN_PID', ''), environ.pop('LISTEN_FDS', '')
    environ.pop('LISTEN_FDNAMES', '')
    if pid != str(os.getpid()) or many in ('', '0'):
        return None
    if many != '1':
        raise ConfigError(
            f'the service manager hands over {many[:20]} sockets, and the desk listens at one', key='listen'
        )
    try:
        os.set_inheritable(FIRST_PASSED, False)
        found = socket.socket(fileno=FIRST_PASSED)
        is_listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(
            f'the service manager hands over no socket: {error.strerror}', key='listen'
        ) from error
    if not is_listening or found.type != socket.SOCK_STREAM:
        raise ConfigError('the service manager hands over a socket that nobody listens at', key='listen')
    return found


def listening_address(listening: socket.socket) -> str:
    """:return: where it listens, as `DeskSettings.listen` says it.

    :raises ConfigError: at a Unix socket that has no path.
    """
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        if not isinstance(name, str) or '/' not in name:
            raise ConfigError('the desk wants a Unix socket with a path', key='listen')
        return name
    host = f'[{name[0]}]' if listening.family == socket.AF_INET6 else name[0]
    return f'{host}:{name[1]}'


def _tcp(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def browser_address(desk: Desk) -> str:
    """:return: the address to open in a browser, or the way there."""
    settings = desk.settings
    if settings.allowed_hosts:
        return f'{settings.listen}, for browsers that call it {" or ".join(settings.allowed_hosts)}'
    if not settings.is_unix:
        return f'http://{settings.listen}/'
    return f'{settings.listen} (ssh -L 8025:{settings.listen} {socket.gethostname()}, then http://localhost:8025/)'
