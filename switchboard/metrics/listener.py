"""An HTTP server that answers one question: ``GET /metrics``.

It listens on a loopback address, or on any other if the names by which it is asked for are configured: a page elsewhere whose name was pointed at this
machine must not read it through somebody's browser, so a ``Host`` that is not on the list is refused, whatever else is asked.  A name
stands there with its port, exactly.  Nothing of a message is ever sent.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from switchboard.config.units import is_loopback
from switchboard.errors import ConfigError
from switchboard.events import log_event
from switchboard.queue.watch import SelfPipe, wait_readable

log = logging.getLogger('switchboard.web')

LISTEN = '127.0.0.1:9736'
PATH = '/metrics'
# Who is slower is let go.  For one too many, the connection gives way that has said nothing for longest: a byte now and then keeps nobody out.
TIMEOUT_S = 10.0
MAX_AT_ONCE = 16
# Connections that may wait until they are taken.  Of one more the kernel drops the beginning, and its caller tries again after a second, or three, or
# seven: with the five of the library, a handful that come at once put a scrape off, or make it fail.
MAX_WAITING = 128
# By these a loopback address is asked for.
LOOPBACK_NAMES = ('127.0.0.1', '[::1]', 'localhost')

# Gives the text and its type, for an ``Accept``.
Render = Callable[[str], tuple[bytes, str]]


def read_host_port(text: str) -> tuple[str, int]:
    """:return: host and port of ``host:port`` or ``[address]:port``.

    :raises ValueError: it is none.
    """
    host, mark, port = text.rpartition(':')
    bare = host[1:-1] if host.startswith('[') and host.endswith(']') else host
    if not mark or not bare or (':' in bare and bare == host) or not port.isascii() or not port.isdigit():
        raise ValueError('give an address as 127.0.0.1:9736 or [::1]:9736')
    if int(port) > 65535:
        raise ValueError('a port is at most 65535')
    return bare, int(port)


class Listener:
    """See the module.

    :param address: ``host:port``; port 0 is any that is free.
    :param allowed_hosts: the values that ``Host`` may have, besides the names of a loopback address.
    :raises ConfigError: the address is none, or no loopback address and there are no names.
    :raises OSError: it cannot be listened on.
    """

    def __init__(self, render: Render, address: str = LISTEN, allowed_hosts: Sequence[str] = ()) -> None:
        try:
            host, port = read_host_port(address)
        except ValueError as error:
            raise ConfigError(f'{address}: {error}', key='listen') from error
        if not is_loopback(host) and not allowed_hosts:
            raise ConfigError(
                f'{address} can be reached from elsewhere: say by which names it is asked for, each with its port',
                key='allowed_hosts',
            )
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        handler = type('Handler', (_Handler,), {'render': staticmethod(render)})
        server = type('Server', (_Server,), {'address_family': family})
        self._server: _Server = server((host, port), handler)
        self.port: int = self._server.server_address[1]
        names = LOOPBACK_NAMES if is_loopback(host) else ()
        self._server.hosts = frozenset(
            [*(f'{name}:{self.port}' for name in names), *(each.lower() for each in allowed_hosts)]
        )
        self._server.socket.setblocking(False)  # who has called and hung up is not waited for
        self._thread: threading.Thread | None = None
        self._end = SelfPipe()
        self._is_ending = False

    def serve(self) -> None:
        """Answer until `close` is called."""
        while not self._is_ending:
            if self._server.fileno() in wait_readable([self._server.fileno(), self._end.fileno()], None):
                self._server.handle_request()

    def start(self) -> None:
        """Answer in a thread."""
        self._thread = threading.Thread(target=self.serve, name='metrics', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, and have the answers that are under way arrive whole."""
        self._is_ending = True
        self._end.wake()
        if self._thread is not None:
            self._thread.join()
        self._server.server_close()
        self._server.finish()
        self._end.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_WAITING
    hosts: frozenset[str] = frozenset()

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(MAX_AT_ONCE)
        # The connections whose request is not there yet, in the order of their arrival.
        self.unheard: OrderedDict[Any, None] = OrderedDict()
        super().__init__(*arguments)

    def server_bind(self) -> None:
        # Without the look at the name of this machine that the base class takes.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._has_room():
            self.unheard[request] = None
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def _has_room(self) -> bool:
        if self._free.acquire(blocking=False):
            return True
        try:
            oldest, _ = self.unheard.popitem(last=False)
            oldest.shutdown(socket.SHUT_RDWR)
        except (KeyError, OSError):
            return False  # all are being answered, or this one has just hung up
        return self._free.acquire(timeout=TIMEOUT_S)  # its thread reads the end, and ends

    def finish(self) -> None:
        """Wait for the answers that are under way: half of one is none, and the process ends soon."""
        for each in list(self.unheard):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RD)  # a request that has arrived is read all the same
        ends_s = time.monotonic() + TIMEOUT_S
        for _ in range(MAX_AT_ONCE):
            self._free.acquire(timeout=max(0.0, ends_s - time.monotonic()))

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.unheard.pop(request, None)
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log_event(log, logging.DEBUG, None, 'not answered', exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    render: Render
    timeout = TIMEOUT_S
    server_version, sys_version = 'switchboard', ''

    def parse_request(self) -> bool:
        """Read the first line and the headers, and refuse a request for another host, before anything else is looked at."""
        is_read = super().parse_request()
        self.server.unheard.pop(self.connection, None)
        if not is_read:
            return False
        hosts = self.headers.get_all('host') or []
        if len(hosts) != 1:
            self._say(400, b'one Host is needed\n')
        elif hosts[0].strip().lower() not in self.server.hosts:
            self._say(421, b'this exporter does not go by that name: see `--allowed-host`\n')
        elif self.command not in ('GET', 'HEAD'):
            self._say(405, b'there is no such method here\n')
        elif self.path.partition('?')[0] != PATH:
            self._say(404, b'only /metrics is here\n')
        else:
            return True
        return False

    def do_GET(self) -> None:
        try:
            text, kind = self.render(self.headers.get('accept', ''))
        except Exception:
            log_event(log, logging.ERROR, None, 'not answered', exc_info=True)
            self._say(500, b'the numbers could not be read; the log says why\n')
            return
        self._say(200, text, kind)

    do_HEAD = do_GET  # noqa: N815 - the same

    def _say(self, status: int, content: bytes, kind: str = 'text/plain; charset=utf-8') -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in (
            ('Content-Type', kind),
            ('Content-Length', str(len(content))),
            ('Connection', 'close'),
            ('Cache-Control', 'no-store'),
            ('X-Content-Type-Options', 'nosniff'),
            ('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'"),
            ('Cross-Origin-Resource-Policy', 'same-origin'),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: a line for each scrape is of no use."""
