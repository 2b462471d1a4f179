"""The variables of a service manager, which anybody may have set to anything."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import pytest

from switchboard.master.service_manager import VARIABLES, ServiceManager


@pytest.fixture
def heard(tmp_path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / 'notify'))
    listening.setblocking(False)
    yield listening
    listening.close()


def watched(heard: socket.socket, usec: str, pid: str = '') -> float:
    """:return: when the watchdog is fed next, once the master is ready."""
    manager = ServiceManager(
        {'NOTIFY_SOCKET': heard.getsockname(), 'WATCHDOG_USEC': usec, 'WATCHDOG_PID': pid}
    )
    manager.ready('at work')
    assert heard.recv(100) == b'READY=1\nSTATUS=at work'
    manager.tick(1.0)
    return manager.due_s()


def test_the_watchdog_is_fed_twice_in_its_time(heard: socket.socket) -> None:
    assert watched(heard, '30000000', str(os.getpid())) == 16.0
    assert heard.recv(100) == b'WATCHDOG=1'


@pytest.mark.parametrize(
    'usec', ['', '0', '-1', '1.5', '1e9', ' 30', 'x', '²', '٣', '9' * 20, '9' * 400, '9' * 5000]
)
def test_a_number_that_is_none_is_no_watchdog(heard: socket.socket, usec: str) -> None:
    assert watched(heard, usec) == math.inf


@pytest.mark.parametrize('pid', ['1', 'x', '9' * 5000])
def test_another_process_is_not_watched_by_this_one(heard: socket.socket, pid: str) -> None:
    assert watched(heard, '30000000', pid) == math.inf


@pytest.mark.parametrize(
    'path', ['', 'x', '@', '@' + 'x' * 500, '/' + 'x' * 500, '/nowhere', '/\udce4', 'vsock:2:1']
)
def test_a_socket_that_is_none_is_told_nothing(path: str) -> None:
    manager = ServiceManager({'NOTIFY_SOCKET': path, 'WATCHDOG_USEC': '30000000'})
    manager.ready('x')
    manager.tick(1.0, 'y')


def test_the_variables_are_taken_away() -> None:
    environ = dict.fromkeys((*VARIABLES, 'PATH'), '1')
    ServiceManager(environ)
    assert environ == {'PATH': '1'}
