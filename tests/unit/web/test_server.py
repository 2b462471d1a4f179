"""The socket that a service manager hands over, what is refused as one, and browsers that say nothing.  That it works is seen with systemd's own program in tests/servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import ConfigError
from switchboard.web.desk import Desk
from switchboard.web.server import MAX_CONNECTIONS, browser_address, listener, make_server, systemd_socket
from switchboard.web.settings import DeskSettings

HEAD = b'Host: localhost:8025\r\n'


def test_a_socket_that_is_handed_to_another_process_is_not_ours_and_the_variables_go() -> None:
    for pid in ('', str(os.getpid() + 1), 'x'):
        environ = {'LISTEN_PID': pid, 'LISTEN_FDS': '1', 'LISTEN_FDNAMES': 'desk', 'HOME': '/'}
        assert systemd_socket(environ) is None
        assert environ == {'HOME': '/'}


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({}, 'http://127.0.0.1:8025/'),
        ({'listen': '/run/desk'}, '/run/desk (ssh -L 8025:/run/desk '),
        (
            {'allowed_hosts': ('desk.test', 'desk.test:81')},
            '127.0.0.1:8025, for browsers that call it desk.test or desk.test:81',
        ),
        (
            {'listen': '/run/desk', 'allowed_hosts': ('desk.test',)},
            '/run/desk, for browsers that call it desk.test',
        ),
    ],
)
def test_an_address_is_told_that_is_answered(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    assert browser_address(Desk(tmp_path, None, DeskSettings(**settings))).startswith(said)


def test_several_sockets_are_refused() -> None:
    environ = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '2'}
    with pytest.raises(ConfigError, match='hands over 2 sockets'):
        systemd_socket(environ)
    assert environ == {}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    """A desk that listens, and has an entry that takes long to download."""
    with contextlib.closing(Spool(tmp_path / 'spool')) as spool:
        name = spool['in'].enqueue(b'x' * (8 << 20))
        desk = Desk(Path(spool.directory), None, DeskSettings(listen=str(tmp_path / 'desk')))
        server, taken = make_server(desk), listener(desk)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([taken])))
        thread.start()
        yield f'{desk.settings.listen} {name}'
        server.should_exit = True
        thread.join()


def call(path: str, said: bytes) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    made.settimeout(60)
    made.sendall(said)
    return made


@pytest.mark.parametrize(
    'said',
    [
        b'',
        b'GET /help HTTP/1.1\r\n' + HEAD,
        b'POST /act HTTP/1.1\r\nSec-Fetch-Site: none\r\nContent-Length: 9\r\n' + HEAD + b'\r\na',
        b'GET /entries/in/%s/download HTTP/1.1\r\n' + HEAD + b'\r\n',
    ],
    ids=['nothing', 'half a request', 'half a form', 'a download that is not taken'],
)
def test_browsers_that_leave_it_waiting_keep_nobody_out(place: str, said: bytes) -> None:
    path, name = place.split()
    with contextlib.ExitStack() as silent:
        for _ in range(MAX_CONNECTIONS + 20):
            silent.enter_context(call(path, said.replace(b'%s', name.encode())))
        for _ in range(3):
            with call(path, b'GET /help HTTP/1.1\r\nConnection: close\r\n' + HEAD + b'\r\n') as asks:
                assert asks.recv(65536).startswith(b'HTTP/1.1 200')
