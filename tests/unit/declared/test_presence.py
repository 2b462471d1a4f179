"""Tickets: a count of them is a count of living processes, whatever they died of."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from switchboard.declared.presence import ConsumerCount, Presence
from switchboard.message.naming import SYSTEM_NAME_GENERATOR
from switchboard.store.disk import Disk


@pytest.fixture
def presence(tmp_path: Path) -> Presence:
    return Presence(str(tmp_path), Disk(), SYSTEM_NAME_GENERATOR)


def in_child(do: Callable[[], object]) -> int:
    """Run `do` in a forked child, which then waits to be killed.

    :return: its pid, once it has done it.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            keep = do()
            os.write(writer, b'1')
            signal.pause()
            del keep
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b'1'
    os.close(reader)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_place_that_nobody_entered_has_no_attendance(presence):
    assert presence.count('x') is None


def test_a_place_that_was_prepared_has_nobody_in_it_and_is_entered_without_another_look(presence, tmp_path):
    folder = presence.prepare('x')
    assert presence.count('x') == ConsumerCount(present=0, gone=0)
    ticket = presence.register('x')
    assert ticket.folder is folder
    assert presence.count('x') == ConsumerCount(present=1, gone=0)


def test_a_place_that_was_taken_away_after_it_was_prepared_is_made_anew(presence, tmp_path):
    presence.prepare('x')
    (tmp_path / 'x').rmdir()
    with_ticket = presence.register('x')
    assert os.listdir(tmp_path / 'x') == [with_ticket.name]


def test_those_of_this_process_and_of_others_are_counted(presence, tmp_path):
    ticket = presence.register('x')
    pid = in_child(lambda: Presence(str(tmp_path), Disk(), SYSTEM_NAME_GENERATOR).register('x'))
    try:
        assert presence.count('x') == ConsumerCount(2, 0)
        assert presence.count('y') is None
    finally:
        kill(pid)
    ticket.close()
    assert presence.count('x') == ConsumerCount(0, 1)


def test_who_is_killed_is_no_longer_there_and_is_cleared_away(presence, tmp_path):
    pid = in_child(lambda: presence.register('x'))
    assert presence.count('x') == ConsumerCount(1, 0)
    kill(pid)
    assert presence.count('x') == ConsumerCount(0, 1)
    assert list((tmp_path / 'x').iterdir()) == []


def test_a_forked_child_does_not_keep_its_parents_place(presence):
    ticket = presence.register('x')
    pid = in_child(lambda: None)
    try:
        ticket.close()
        assert presence.count('x') == ConsumerCount(0, 0)
    finally:
        kill(pid)


def test_leaving_twice_is_leaving_once(presence):
    left = []
    ticket = presence.register('x', lambda: left.append(1))
    ticket.close()
    ticket.close()
    assert left == [1]
    assert not ticket.is_active


def test_a_ticket_that_is_forgotten_is_no_presence(presence):
    ticket = presence.register('x')
    name = ticket.name
    assert presence.is_active('x', name)
    del ticket
    assert not presence.is_active('x', name)


def test_a_place_is_closed_only_when_nobody_is_there(presence):
    ticket = presence.register('x')
    assert not presence.remove('x')
    ticket.close()
    assert presence.remove('x')
    assert presence.remove('x')
    assert presence.count('x') is None
    assert presence.register('x').is_active


def test_a_ticket_says_whose_it_is_to_people(presence, tmp_path):
    ticket = presence.register('x')
    content = (tmp_path / 'x' / ticket.name).read_text()
    assert f'"pid": {os.getpid()}' in content


def test_a_full_disk_keeps_nobody_out(tmp_path, monkeypatch):
    disk = Disk()

    def full(fd, content, offset):
        raise OSError(errno.ENOSPC, 'no room')

    monkeypatch.setattr(disk, 'pwrite', full)
    presence = Presence(str(tmp_path), disk, SYSTEM_NAME_GENERATOR)
    ticket = presence.register('x')
    assert presence.count('x') == ConsumerCount(1, 0)
    ticket.close()
