"""A log whose reader has stopped reading, or never began: nobody waits for it, and what was lost is counted.  Real pipes, sockets and terminals."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import socket
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from switchboard.status import log
from switchboard.status.log_writer import MAX_WAITING_BYTES, LogWriter, nonblocking_copy, write_nonblocking

Ends = tuple[int, int]
# More than anything here holds.
MANY = 2 * MAX_WAITING_BYTES // 1000


def a_pipe() -> Ends:
    return os.pipe()


def a_socket() -> Ends:
    reading, writing = socket.socketpair()
    return reading.detach(), writing.detach()


def a_terminal() -> Ends:
    reading, writing = pty.openpty()
    tty.setraw(writing)
    return reading, writing


@pytest.fixture(params=[a_pipe, a_socket, a_terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    make: Callable[[], Ends] = request.param
    reading, writing = make()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def read_all(reading: int) -> bytes:
    os.set_blocking(reading, False)
    content = b''
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(reading, 1 << 20):
            content += chunk
    return content


def note(number: int) -> bytes:
    return b'%d lost\n' % number


def drain(writer: LogWriter, descriptor: int, reading: int) -> bytes:
    content = b''
    while not writer.flush(descriptor):
        content += read_all(reading)
    return content + read_all(reading)


@pytest.mark.parametrize('anew', [True, False], ids=['opened anew', 'as it came'])
def test_nobody_waits_and_what_was_lost_is_counted(ends: Ends, *, anew: bool) -> None:
    reading, writing = ends
    descriptor = nonblocking_copy(writing) if anew else writing
    writer = LogWriter(note)
    for number in range(MANY):
        writer.write(descriptor, b'%0999d\n' % number)
    assert writer.is_behind
    *kept, last = drain(writer, descriptor, reading).splitlines()
    assert [int(line) for line in kept] == list(range(len(kept)))
    assert last == b'%d lost' % (MANY - len(kept))
    assert MAX_WAITING_BYTES // 1000 <= len(kept) < MANY
    assert not writer.is_behind
    # Whoever else writes there goes on waiting for the reader, as they expect.
    assert os.get_blocking(writing)
    if descriptor != writing:
        os.close(descriptor)


def test_what_waits_at_a_fork_is_written_once(ends: Ends) -> None:
    reading, writing = ends
    writer = LogWriter(note)
    for number in range(1000):
        writer.write(writing, b'%0999d\n' % number)
    assert writer.is_behind
    child = os.fork()
    if child == 0:
        is_silent = writer.flush(writing) and not writer.is_behind
        os._exit(0 if is_silent else 1)
    assert os.waitpid(child, 0)[1] == 0
    lines = drain(writer, writing, reading).splitlines()
    assert [int(line) for line in lines] == list(range(1000))


def test_a_reader_that_goes_away_in_a_line_leaves_the_next_ones_whole(tmp_path: Path) -> None:
    path = tmp_path / 'fifo'
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    writer = LogWriter(note)
    line = b'x' * 100_000 + b'\n'
    for _ in range(3):
        writer.write(descriptor, line)
    os.close(reading)
    writer.write(descriptor, b'nobody hears this\n')
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer.write(descriptor, b'whole\n')
    said = drain(writer, descriptor, reading)
    assert said.endswith(b'\nwhole\n4 lost\n')
    os.close(reading)
    os.close(descriptor)


def test_put_takes_no_more_than_there_is_room_for(ends: Ends) -> None:
    reading, writing = ends
    total = 0
    with contextlib.suppress(BlockingIOError):
        while total <= MAX_WAITING_BYTES:
            total += write_nonblocking(writing, b'y' * 10_000)
    assert 0 < total < MAX_WAITING_BYTES
    assert len(read_all(reading)) == total


@pytest.mark.parametrize('as_json', [False, True])
def test_the_note_is_a_line_as_the_others_are(*, as_json: bool) -> None:
    reading, writing = os.pipe()
    standard_error = os.dup(2)
    os.dup2(writing, 2)
    try:
        log_file = log.configure(as_json=as_json)
        for _ in range(MANY):
            log.logger('queue').info('z' * 1000)
        assert not log.flush()
        content = b''
        while not log.flush():
            content += read_all(reading)
        content += read_all(reading)
        assert log_file.fileno() != 2
    finally:
        os.dup2(standard_error, 2)
        log.configure()
        for each in (standard_error, reading, writing):
            os.close(each)
    last = content.splitlines()[-1]
    pattern = (
        rb'"event": "log lines lost", "number": \d+'
        if as_json
        else rb' warning master\[\d+\] log lines lost number=\d+$'
    )
    assert re.search(pattern, last), last
