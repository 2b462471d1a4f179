"""What a service manager hears of a master: a real socket, a real master, and nobody who speaks in its name."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.master.service_manager import VARIABLES
from tests.acceptance.installation import Installation
from tests.helpers.waiting import PATIENCE_S


class Manager:
    """The manager's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(PATIENCE_S)
        self.heard: list[dict[str, str]] = []

    def wait_for(self, key: str, value: str | None = None) -> dict[str, str]:
        """:return: the next message in which `key` is said."""
        while True:
            said = dict(line.split('=', 1) for line in self.socket.recv(65536).decode().split('\n'))
            self.heard.append(said)
            if key in said and value in (None, said[key]):
                return said

    def falls_silent(self) -> bool:
        """:return: whether nothing is said any more for five times as long as the watchdog waits."""
        self.socket.settimeout(1)
        try:
            for _ in range(1000):
                self.wait_for('WATCHDOG')
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)
        return False


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path / 'notify')
    monkeypatch.setenv('NOTIFY_SOCKET', str(tmp_path / 'notify'))
    yield manager
    manager.socket.close()


def test_it_hears_of_the_start_of_each_reload_and_of_the_end(site: Installation, manager: Manager) -> None:
    site.configure({'in': {}, 'out': {'instances': 2}})
    master = site.start(ready=False)
    assert manager.wait_for('READY') == {'READY': '1', 'STATUS': '3 runners: 3 running'}
    assert {each.state.value for each in site.records()} == {'RUNNING'}
    before_us = time.monotonic_ns() // 1000
    master.send_signal(signal.SIGHUP)
    said = manager.wait_for('RELOADING')
    assert before_us <= int(said['MONOTONIC_USEC']) <= time.monotonic_ns() // 1000
    manager.wait_for('READY')
    with site.config.open('a') as configuration:
        configuration.write('nonsense\n')
    assert not site.ask('reload')['ok']
    manager.wait_for('RELOADING')
    assert 'reload failed: ' in manager.wait_for('READY')['STATUS']
    master.terminate()
    manager.wait_for('STOPPING')
    assert master.wait(PATIENCE_S) == 0


def test_a_start_and_a_stop_that_take_long_ask_for_more_time(site: Installation, manager: Manager) -> None:
    site.configure({'in': {'class': 'jobs:SlowStart'}})
    master = site.start(ready=False)
    manager.wait_for('EXTEND_TIMEOUT_USEC')
    site.open_gate()
    manager.wait_for('READY')
    site.put('in', 'wait')
    site.told.wait_for('begin in .* wait')
    master.terminate()
    manager.wait_for('STOPPING')
    manager.wait_for('EXTEND_TIMEOUT_USEC')
    site.open_gate()
    assert master.wait(PATIENCE_S) == 0


def test_the_loop_feeds_the_watchdog_and_a_loop_that_stands_still_does_not(
    site: Installation, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('WATCHDOG_USEC', '200000')
    site.configure({'in': {}})
    master = site.start(ready=False)
    manager.wait_for('READY')
    for _ in range(3):
        manager.wait_for('WATCHDOG', '1')
    master.send_signal(signal.SIGSTOP)
    assert manager.falls_silent()
    master.send_signal(signal.SIGCONT)
    manager.wait_for('WATCHDOG')
    assert site.stop() == 0


def test_a_watchdog_that_is_another_processs_is_not_fed(
    site: Installation, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('WATCHDOG_USEC', '1000')
    monkeypatch.setenv('WATCHDOG_PID', str(os.getpid()))
    site.configure({'in': {}})
    master = site.start(ready=False)
    manager.wait_for('READY')
    master.terminate()
    manager.wait_for('STOPPING')
    assert master.wait(PATIENCE_S) == 0
    assert not any('WATCHDOG' in each for each in manager.heard)


def test_no_runner_and_no_program_of_it_can_speak_for_the_master(
    site: Installation, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES[1:]:
        monkeypatch.setenv(name, '1')
    site.configure({'in': {}})
    site.start(ready=False)
    manager.wait_for('READY')
    site.put('in', 'environment')
    names = site.told.wait_for('environment (.*)')[1].split()
    assert 'PATH' in names
    assert not set(VARIABLES) & set(names)
    assert site.stop() == 0


def test_a_manager_that_has_gone_or_does_not_listen_holds_nobody_up(
    site: Installation, manager: Manager, tmp_path: Path
) -> None:
    manager.socket.close()
    (tmp_path / 'notify').unlink()
    site.configure({'in': {}})
    site.start()
    assert site.stop() == 0
