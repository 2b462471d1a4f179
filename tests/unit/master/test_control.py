"""What is read from the control socket: nothing that is said there, and no number of callers, leaves the reader as an error of its own."""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.errors import MasterError
from switchboard.master import control
from switchboard.master.control import ControlRequest, ControlSocket, Reply
from switchboard.master.directory import MasterDirectory
from tests.helpers.processes import few_descriptors

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
MEMBERS = st.dictionaries(
    st.sampled_from(['do', 'runner', 'instances', 'more']),
    JSON | st.sampled_from(['stop', 'scale', 'reload', 'in']),
)


@given(
    st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | MEMBERS.map(lambda each: json.dumps(each).encode())
)
def test_a_line_is_a_request_or_an_error_in_words(line: bytes) -> None:
    try:
        request = ControlRequest.parse(line)
    except MasterError as error:
        refused = str(error)
        assert len(refused) < 2 * control.MAX_WORD_CHARACTERS
    else:
        assert isinstance(request.do, str)
        assert request.runner is None or isinstance(request.runner, str)
        assert type(request.instances) in (int, type(None))


@pytest.mark.parametrize(
    'line',
    [
        b'[' * 60_000,
        b'{"do":' * 10_000,
        b'{"do": "scale", "instances": ' + b'9' * 5_000 + b'}',
        b'{"do": "scale", "instances": Infinity}',
        b'{"do": "stop", "runner": []}',
        b'{"do": "stop", "runner": {}}',
        b'{"do": "' + b'x' * 5_000 + b'"}',
        b'{"do": "stop", "runner": "' + b'x' * 5_000 + b'"}',
        b'\xff\xfe',
        b'',
    ],
)
def test_what_is_too_deep_too_long_or_of_another_type_is_no_request(line: bytes) -> None:
    with pytest.raises(MasterError, match=r'^not a request: '):
        ControlRequest.parse(line)


class Office:
    """A control socket and its loop; `handle` does what the test says."""

    def __init__(self, spool: Path) -> None:
        self.own = MasterDirectory(spool)
        self.selector = selectors.DefaultSelector()
        self.handle: Callable[[ControlRequest, Reply], None] = lambda request, reply: reply(
            {'ok': True, 'did': request.do}
        )
        self.control = ControlSocket(
            self.own, self.selector, lambda request, reply: self.handle(request, reply)
        )
        self.callers: list[socket.socket] = []

    def call(self, said: bytes = b'') -> socket.socket:
        caller = socket.socket(socket.AF_UNIX)
        self.callers.append(caller)
        caller.settimeout(10)
        caller.connect(str(self.own.path / 'control'))
        caller.sendall(said)
        return caller

    def turn(self, now_s: float = 0.0) -> None:
        """Take all that has come."""
        self.control.tick(now_s)
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data.on_readable(now_s)
            if self.control.due_s() == now_s + control.PAUSE_S:
                return

    def close(self) -> None:
        self.control.close()
        for caller in self.callers:
            caller.close()
        self.selector.close()
        self.own.close()


def open_files() -> list[str]:
    return sorted(os.listdir('/proc/self/fd'))


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with contextlib.closing(Office(tmp_path)) as made:
        yield made


def answer(caller: socket.socket) -> dict[str, object]:
    with caller.makefile('rb') as stream:
        return dict(json.loads(stream.readline() or b'{}'))


@pytest.mark.parametrize('missing', ['its directory', 'its loop'])
def test_a_socket_that_cannot_be_made_leaves_nothing_open(missing: str, tmp_path: Path) -> None:
    with MasterDirectory(tmp_path) as own, selectors.DefaultSelector() as selector:
        if missing == 'its directory':
            own.path.rmdir()
        else:
            selector.close()
        before = open_files()
        with pytest.raises(Exception) as refused:  # a closed selector says it in its own way
            ControlSocket(own, selector, lambda request, reply: None)
        assert open_files() == before, refused.value
        assert missing == 'its loop' or refused.value.filename == str(own.path / 'control')


def test_callers_who_say_nothing_give_way_to_new_ones(office: Office) -> None:
    silent = []
    for _ in range(3 * control.MAX_SILENT):
        silent.append(office.call())
        office.turn()
    busy = office.call(b'{"do": "status"}\n')
    office.turn()
    assert answer(busy) == {'ok': True, 'did': 'status'}
    assert silent[0].recv(1) == b''
    assert (
        len(office.control.descriptors()) == 1 + control.MAX_SILENT - 1
    )  # the first gave way to the one who spoke


def test_a_caller_has_to_say_what_it_wants_in_time(office: Office) -> None:
    caller = office.call(b'{"do": ')
    office.turn()
    assert office.control.due_s() == control.REQUEST_TIMEOUT_S
    office.turn(control.REQUEST_TIMEOUT_S)
    assert caller.recv(1) == b''
    assert office.control.due_s() == math.inf


def test_those_who_wait_for_a_reply_are_limited_and_the_others_are_told(office: Office) -> None:
    replies: list[Reply] = []
    office.handle = lambda _request, reply: replies.append(reply)
    waiting = []
    for _ in range(control.MAX_WAITING):
        waiting.append(office.call(b'{"do": "reload"}\n'))
        office.turn()
    refused = office.call(b'{"do": "reload"}\n')
    office.turn()
    assert answer(refused) == {'ok': False, 'errors': ['too many requests are under way; ask again later']}
    stop = office.call(b'{"do": "shutdown"}\n')
    office.turn()
    replies[-1]({'ok': True})
    assert answer(stop) == {'ok': True}, 'a stop is always heard'
    replies[0]({'ok': True})
    assert answer(waiting[0]) == {'ok': True}


def test_what_fails_in_the_master_is_told_to_the_caller_and_ends_nobody(office: Office) -> None:
    def fail(_request: ControlRequest, _reply: Reply) -> None:
        raise RecursionError('too deep')

    office.handle = fail
    caller = office.call(b'{"do": "status"}\n')
    office.turn()
    assert answer(caller) == {'ok': False, 'errors': ['RecursionError: too deep; the log says more']}


def test_without_a_descriptor_calls_wait_and_are_answered_later(office: Office) -> None:
    caller = office.call(b'{"do": "status"}\n')
    with few_descriptors(0):
        office.turn(1.0)
        assert office.control.due_s() == 1.0 + control.PAUSE_S
        assert not office.selector.select(0)  # it does not turn in circles meanwhile
    office.turn(1.0 + control.PAUSE_S)
    assert answer(caller) == {'ok': True, 'did': 'status'}
