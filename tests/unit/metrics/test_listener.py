"""The exporter's own server: whoever asks for somebody else is refused, whatever he asks."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from switchboard.errors import ConfigError
from switchboard.metrics.listener import MAX_AT_ONCE, Listener, read_host_port
from tests.helpers.descriptors import Opened
from tests.helpers.waiting import PATIENCE_S, eventually


def render(accept: str) -> tuple[bytes, str]:
    if accept == 'trouble':
        raise OSError(5, 'trouble')
    return b'x 1\n', 'text/plain'


@pytest.fixture
def server() -> Iterator[Listener]:
    listener = Listener(render, '127.0.0.1:0', ['metrics.test:80'])
    listener.start()
    yield listener
    listener.close()


def test_it_ends_when_it_is_told_and_keeps_nothing() -> None:
    opened = Opened()
    listener = Listener(render, '127.0.0.1:0')
    listener.start()
    assert status(listener, 'GET', f'Host: 127.0.0.1:{listener.port}') == 200
    listener.close()
    # The thread of a request closes its connection a moment after the answer's end has arrived.
    eventually(lambda: not opened(), 'all closed')
    listener = Listener(render, '127.0.0.1:0')
    listener.close()
    listener.serve()  # it ends at once: nobody has to look now and then whether it is to


def test_those_who_say_nothing_keep_nobody_out(server: Listener) -> None:
    silent = [socket.create_connection(('127.0.0.1', server.port), 60) for _ in range(3 * MAX_AT_ONCE)]
    for each in silent[::2]:
        with contextlib.suppress(OSError):  # it is let go already
            each.sendall(b'GET /met')
    for _ in range(3):
        assert status(server, 'GET', f'Host: 127.0.0.1:{server.port}') == 200
    for each in silent:
        each.close()


def test_many_that_come_at_once_need_not_come_again() -> None:
    with contextlib.ExitStack() as stack:
        listener = Listener(render, '127.0.0.1:0')
        stack.callback(listener.close)
        # Nobody takes them yet, as when the machine is busy.
        for _ in range(100):
            stack.enter_context(socket.create_connection(('127.0.0.1', listener.port), 20))
        listener.start()
        assert status(listener, 'GET', f'Host: 127.0.0.1:{listener.port}') == 200


def test_its_end_waits_for_an_answer_that_is_under_way_and_not_for_those_who_say_nothing() -> None:
    asked, goes_on = threading.Event(), threading.Event()

    def render_slowly(_accept: str) -> tuple[bytes, str]:
        asked.set()
        assert goes_on.wait(PATIENCE_S)
        return b'x 1\n', 'text/plain'

    listener = Listener(render_slowly, '127.0.0.1:0')
    listener.start()
    with ThreadPoolExecutor() as pool, socket.create_connection(('127.0.0.1', listener.port), 60) as silent:
        answer = pool.submit(ask, listener, f'GET /metrics HTTP/1.1\nHost: 127.0.0.1:{listener.port}\n\n')
        assert asked.wait(PATIENCE_S)
        end = pool.submit(listener.close)
        assert silent.recv(1) == b''
        assert not end.done()
        goes_on.set()
        assert answer.result(PATIENCE_S).endswith('x 1\n')
        end.result(PATIENCE_S)


def ask(server: Listener, request: str) -> str:
    """:return: the answer to a request that is sent as it is."""
    with socket.create_connection(('127.0.0.1', server.port), 60) as connection:
        connection.sendall(request.replace('\n', '\r\n').encode())
        return b''.join(iter(lambda: connection.recv(65536), b'')).decode()


def status(server: Listener, method: str, *headers: str, path: str = '/metrics') -> int:
    lines = '\n'.join([f'{method} {path} HTTP/1.1', *headers, '', ''])
    return int(ask(server, lines).split(' ', 2)[1])


@pytest.mark.parametrize(
    'name', ['127.0.0.1:{port}', 'localhost:{port}', 'LOCALHOST:{port}', 'metrics.test:80']
)
def test_by_its_names_it_can_be_asked(server: Listener, name: str) -> None:
    answer = ask(server, f'GET /metrics HTTP/1.1\nHost: {name.format(port=server.port)}\n\n')
    assert answer.startswith('HTTP/1.0 200')
    assert answer.endswith('\r\n\r\nx 1\n')
    assert 'nosniff' in answer
    assert "default-src 'none'" in answer


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST', 'DELETE', 'OPTIONS', 'BREW'])
@pytest.mark.parametrize(
    'name', ['evil.test', '127.0.0.1.evil.test:{port}', '127.0.0.1', '127.0.0.1:1', 'metrics.test', '', '*']
)
def test_by_another_name_it_is_not_there(server: Listener, method: str, name: str) -> None:
    assert status(server, method, f'Host: {name.format(port=server.port)}') == 421


@pytest.mark.parametrize('method', ['GET', 'POST'])
@pytest.mark.parametrize('number', [0, 2])
def test_one_name_is_said(server: Listener, method: str, number: int) -> None:
    assert status(server, method, *[f'Host: 127.0.0.1:{server.port}'] * number) == 400


def test_it_answers_one_question(server: Listener) -> None:
    host = f'Host: 127.0.0.1:{server.port}'
    assert status(server, 'GET', host, path='/') == 404
    assert status(server, 'POST', host) == 405
    assert status(server, 'GET', host, path='/metrics?x=1') == 200
    assert status(server, 'GET', host, 'Accept: trouble') == 500
    assert ask(server, f'HEAD /metrics HTTP/1.1\n{host}\n\n').endswith('\r\n\r\n')


def test_who_says_nothing_does_not_keep_it_from_the_others(server: Listener) -> None:
    with socket.create_connection(('127.0.0.1', server.port), 60):
        assert status(server, 'GET', f'Host: 127.0.0.1:{server.port}') == 200


def test_a_place_that_others_reach_needs_names() -> None:
    with pytest.raises(ConfigError, match='names'):
        Listener(render, '0.0.0.0:0')
    Listener(render, '0.0.0.0:0', ['box.test:9736']).close()


@pytest.mark.parametrize('text', ['', '9736', 'x', ':1', '::1:9', '[]:1', 'x:', 'x:y', 'x:65536', 'x:\u0661'])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'address|port'):
        read_host_port(text)
    with pytest.raises(ConfigError):
        Listener(render, text)
