"""The control socket: what it refuses, what it survives, and when it answers."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from tests.acceptance.installation import Installation, installation
from tests.helpers.waiting import PATIENCE_S


@pytest.mark.parametrize(
    ('request_', 'reason'),
    [
        ({'do': 'dance'}, "unknown request 'dance'"),
        ({'do': 'scale', 'runner': 'nobody', 'instances': 1}, "no such runner 'nobody'; there are: in"),
        ({'do': 'scale', 'runner': 'in', 'instances': -1}, 'instances must be a number from 0 to 256'),
        ({'do': 'scale', 'runner': 'in'}, 'instances must be a number from 0 to 256'),
        (
            {'do': 'scale', 'runner': 'in', 'instances': True},
            'not a request: "instances" must be a whole number',
        ),
        (
            {'do': 'scale', 'runner': 'in', 'instances': '2'},
            'not a request: "instances" must be a whole number',
        ),
        ({'do': 'stop', 'runner': []}, 'not a request: "runner" must be a name'),
        ({'do': 'stop'}, 'no such runner None; there are: in'),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_words(
    site: Installation, request_: dict[str, object], reason: str
) -> None:
    site.configure({'in': {}})
    site.start()
    do = str(request_.pop('do'))
    assert site.ask(do, **request_) == {'ok': False, 'errors': [reason]}


@pytest.mark.parametrize(
    'said',
    [
        b'\n',
        b'hello\n',
        b'[1]\n',
        b'{"do": 3}\n',
        b'\xff\n',
        b'{}' * 40000,
        b'[' * 60_000 + b'\n',
        b'[' * 8000 + b'\n',
    ],
)
def test_noise_on_the_control_socket_harms_nobody(site: Installation, said: bytes) -> None:
    site.configure({'in': {}})
    site.start()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(site.run / 'control'))
        caller.settimeout(PATIENCE_S)
        try:
            caller.sendall(said)
            answer = caller.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            answer = b''
    assert answer == b'' or b'not a request' in answer
    assert site.ask('status')['ok']


def test_a_caller_who_hangs_up_or_says_nothing_holds_nobody_up(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as hasty:
        silent.connect(str(site.run / 'control'))
        hasty.connect(str(site.run / 'control'))
        hasty.sendall(b'{"do": "scale", "runner": "in", "instances": 2}\n')
        hasty.close()
        site.log.wait_for('request finished request="scale in=2"')
        assert site.ask('status')['ok']
        assert site.stop() == 0


def test_a_thousand_callers_who_say_nothing_end_nobody(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    pids = site.pids()
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(str(site.run / 'control'))
        assert site.ask('status')['ok']
    assert site.pids() == pids
    assert site.stop() == 0


def test_a_lack_of_descriptors_ends_nobody(site: Installation) -> None:
    site.configure({'in': {}}, maintenance_interval='1s')
    master = site.start()
    pids = site.pids()
    before = resource.prlimit(master.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(master.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(PATIENCE_S)
        caller.connect(str(site.run / 'control'))
        caller.sendall(b'{"do": "status"}\n')
        site.log.wait_for('control socket pauses error="Too many open files"')
        site.log.wait_for('janitor not started error=.*Too many open files')
        os.kill(pids['in 1/1'], signal.SIGKILL)
        site.log.wait_for('not started runner="in 1/1" error="Too many open files"')
        resource.prlimit(master.pid, resource.RLIMIT_NOFILE, before)
        assert b'"ok": true' in caller.recv(4096)
    site.log.wait_for('running runner="in 1/1"')
    assert site.stop() == 0


def test_what_is_under_way_when_the_master_stops_is_answered(site: Installation) -> None:
    site.configure({'in': {}})
    master = site.start()
    site.put('in', 'wait')
    site.told.wait_for('begin in .* wait')
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(PATIENCE_S)
        caller.connect(str(site.run / 'control'))
        caller.sendall(b'{"do": "restart", "runner": "in"}\n')
        site.log.wait_for('stopping')
        assert site.ask('status')['under_way'] == ['restart in']
        assert site.ask('shutdown')['ok']
        assert b'the master is stopping' in caller.recv(4096)
    assert site.ask('reload') == {'ok': False, 'errors': ['the master is stopping']}
    site.open_gate()
    assert master.wait(PATIENCE_S) == 0
    assert site.told.said('end in .* wait')


def test_a_spool_that_lies_very_deep_has_a_control_socket_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ('d' * 100) / ('e' * 100)
    deep.mkdir(parents=True)
    with installation(deep) as site:
        site.configure({'in': {}})
        site.start()
        assert site.ask('status')['ok']
        assert site.stop() == 0
