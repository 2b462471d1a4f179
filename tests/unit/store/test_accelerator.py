"""The accelerator does a whole step, or has undone what it did of it and leaves the step to Python."""

from __future__ import annotations

import fcntl
import importlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.store import kernel
from switchboard.store.disk import FILE_MODE, OPEN_FLAGS, Disk
from switchboard.store.pool import COUNT_EVERY
from switchboard.testing.faults import FaultyDisk
from tests.helpers.accelerator import NAME, build_or_skip, steps
from tests.helpers.descriptors import open_files

NEW, OLD = b'a new message', b'an old message, which was longer'
PAGE = 16 * 1024


@pytest.fixture(scope='module')
def fast() -> Any:
    return steps()


class Room:
    """A directory by descriptor, and the files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def file(self, name: str, content: bytes = OLD, mode: int = FILE_MODE) -> Path:
        path = self.path / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def locked(self, name: str, content: bytes = OLD) -> int:
        """:return: a file that is open and locked, as those that a pool keeps."""
        self.file(name, content)
        fd = os.open(name, os.O_RDWR | OPEN_FLAGS, dir_fd=self.fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def content(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def is_locked(self, name: str) -> bool:
        with (self.path / name).open('rb+') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    # A test closes what a step has given it, and a step what it has not given.
    assert [name for name in open_files().values() if name.startswith(f'{tmp_path}/')] == []
    os.close(room.fd)


def end(fd: int) -> None:
    os.close(fd)


# Spare to draft.


def test_a_message_is_written_over_a_longer_one(fast: Any, room: Room) -> None:
    fd = room.locked('spare')
    assert fast.rewrite(fd, len(OLD), NEW) is True
    assert (room.content('spare'), room.is_locked('spare')) == (NEW, True)
    end(fd)


def test_a_message_is_written_over_a_shorter_one(fast: Any, room: Room) -> None:
    fd = room.locked('spare', b'x')
    assert fast.rewrite(fd, 1, NEW) is True
    assert room.content('spare') == NEW
    end(fd)


def test_a_spare_is_taken_by_its_name_and_stays_locked(fast: Any, room: Room) -> None:
    room.file('spare')
    fd = fast.take_spare(room.fd, 'spare', NEW)
    assert os.fstat(fd).st_ino == (room.path / 'spare').stat().st_ino
    assert (room.content('spare'), room.is_locked('spare')) == (NEW, True)
    assert os.get_inheritable(fd) is False
    end(fd)


def with_a_second_name(room: Room) -> None:
    os.link(room.path / 'spare', room.path / 'backup')


def with_another_mode(room: Room) -> None:
    (room.path / 'spare').chmod(0o600)


def with_a_users_bit(room: Room) -> None:
    (room.path / 'spare').chmod(0o4660)


@pytest.mark.parametrize('spoil', [with_a_second_name, with_another_mode, with_a_users_bit])
def test_a_file_that_may_not_be_written_is_left_as_it_is(fast: Any, room: Room, spoil: Any) -> None:
    fd = room.locked('spare')
    spoil(room)
    assert fast.rewrite(fd, len(OLD), NEW) is False
    assert room.content('spare') == OLD
    end(fd)
    assert fast.take_spare(room.fd, 'spare', NEW) is False
    assert (room.content('spare'), room.is_locked('spare')) == (OLD, False)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give a file away')
def test_another_users_file_is_left_to_python(fast: Any, room: Room) -> None:
    fd = room.locked('spare')
    os.chown(room.path / 'spare', 65534, -1)
    assert fast.rewrite(fd, len(OLD), NEW) is False
    end(fd)
    assert fast.take_spare(room.fd, 'spare', NEW) is False
    assert room.content('spare') == OLD


def test_a_spare_that_somebody_has_is_not_taken(fast: Any, room: Room) -> None:
    fd = room.locked('spare')
    assert fast.take_spare(room.fd, 'spare', NEW) is None
    assert room.content('spare') == OLD
    end(fd)


def test_a_spare_that_is_gone_is_not_taken(fast: Any, room: Room) -> None:
    assert fast.take_spare(room.fd, 'spare', NEW) is None


def test_what_cannot_be_written_whole_is_left_to_python(fast: Any, room: Room) -> None:
    room.file('spare')
    fd = os.open('spare', os.O_RDONLY, dir_fd=room.fd)
    assert fast.rewrite(fd, len(OLD), NEW) is False
    end(fd)


# Draft to ready, claimed to spare.


@pytest.fixture
def other(room: Room) -> Iterator[Room]:
    (room.path / 'other').mkdir()
    other = Room(room.path / 'other')
    yield other
    os.close(other.fd)


def test_a_file_is_renamed_and_then_unlocked(fast: Any, room: Room, other: Room) -> None:
    fd = room.locked('draft')
    assert fast.move(room.fd, 'draft', other.fd, 'entry', fd) is True
    assert (room.names(), other.names(), other.is_locked('entry')) == (['other'], ['entry'], False)


def test_a_file_is_renamed_and_kept(fast: Any, room: Room, other: Room) -> None:
    fd = room.locked('entry')
    assert fast.move(room.fd, 'entry', other.fd, 'spare', -1) is True
    assert other.is_locked('spare')
    end(fd)


def test_a_file_that_cannot_be_renamed_stays_open_and_locked(fast: Any, room: Room, other: Room) -> None:
    fd = room.locked('draft')
    other.path.rmdir()
    assert fast.move(room.fd, 'draft', other.fd, 'entry', fd) is False
    assert room.is_locked('draft')
    end(fd)


# Ready to claimed.


def test_an_entry_is_locked_renamed_and_read(fast: Any, room: Room) -> None:
    status = room.file('e.pck').stat()
    fd, *told = fast.claim(room.fd, 'e.pck', 'e.bak')
    assert told == [len(OLD), status.st_uid, status.st_mtime_ns, OLD]
    assert (room.names(), room.is_locked('e.bak'), os.get_inheritable(fd)) == (['e.bak'], True, False)
    os.pwrite(fd, NEW, 0)  # a history is written into it
    end(fd)


@pytest.mark.parametrize(('size', 'is_read'), [(0, True), (PAGE, True), (PAGE + 1, False)])
def test_an_entry_is_read_with_its_claim_if_it_is_small(
    fast: Any, room: Room, size: int, is_read: bool
) -> None:
    room.file('e.pck', b'x' * size)
    fd, told, _, _, content = fast.claim(room.fd, 'e.pck', 'e.bak')
    assert (told, content) == (size, b'x' * size if is_read else None)
    end(fd)


def test_an_entry_that_another_process_has_is_not_claimed(fast: Any, room: Room) -> None:
    fd = room.locked('e.pck')
    assert fast.claim(room.fd, 'e.pck', 'e.bak') is None
    assert room.names() == ['e.pck']
    end(fd)


def test_an_entry_that_is_gone_is_not_claimed(fast: Any, room: Room) -> None:
    assert fast.claim(room.fd, 'e.pck', 'e.bak') is None


def test_an_entry_with_a_second_name_is_left_to_python(fast: Any, room: Room) -> None:
    room.file('e.pck')
    os.link(room.path / 'e.pck', room.path / 'e.bak')
    assert fast.claim(room.fd, 'e.pck', 'e.bak') is False
    assert (room.names(), room.is_locked('e.pck')) == (['e.bak', 'e.pck'], False)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(path))


def make_link(path: Path) -> None:
    (path.parent / 'file').write_bytes(OLD)
    path.symlink_to('file')


@pytest.mark.parametrize('make', [make_fifo, make_directory, make_socket, make_link])
def test_what_is_no_file_is_left_to_python(
    fast: Any, room: Room, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room.path)
    make(room.path / 'e.pck')
    assert fast.claim(room.fd, 'e.pck', 'e.bak') is False
    assert fast.take_spare(room.fd, 'e.pck', NEW) is False
    assert 'e.pck' in room.names()


def test_an_entry_that_cannot_be_renamed_is_unlocked_again(fast: Any, room: Room) -> None:
    room.file('e.pck')
    (room.path / 'e.bak').mkdir()
    assert fast.claim(room.fd, 'e.pck', 'e.bak') is False
    assert not room.is_locked('e.pck')


def test_a_process_without_descriptors_leaves_the_step_to_python(fast: Any, room: Room) -> None:
    room.file('e.pck')
    program = (
        'import resource, os, sys\n'
        f'sys.path.insert(0, {str(room.path)!r})\n'
        f'import {NAME} as fast\n'
        f'fd = os.open({str(room.path)!r}, os.O_RDONLY)\n'
        'resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, fd + 1))\n'
        "print(fast.claim(fd, 'e.pck', 'e.bak'), fast.take_spare(fd, 'e.pck', b'x'), fast.names(fd, 10))\n"
    )
    build_or_skip(room.path)
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert done.stdout == 'False False False\n'


# The names in a directory.


def test_all_names_are_read_but_those_of_the_directory_and_the_one_above(fast: Any, room: Room) -> None:
    wanted = ['.hidden', 'a', 'a name with blanks', 'ü', os.fsdecode(b'\xff')]
    for name in wanted:
        room.file(name)
    names, size = fast.names(room.fd, 10)
    assert sorted(names) == sorted(wanted)
    assert size == room.path.stat().st_size
    assert sorted(fast.names(room.fd, 5)[0]) == sorted(wanted)


def test_a_directory_with_more_names_is_left_to_python(fast: Any, room: Room) -> None:
    for number in range(6):
        room.file(str(number))
    assert fast.names(room.fd, 5) is False


def test_an_empty_directory_has_no_names(fast: Any, room: Room) -> None:
    assert fast.names(room.fd, 5)[0] == []


def test_many_names_are_read(fast: Any, room: Room) -> None:
    wanted = {
        f'{number:0200d}' for number in range(1000)
    }  # more than one piece of memory, and more than one call
    for name in wanted:
        room.file(name, b'')
    assert set(fast.names(room.fd, 1000)[0]) == wanted


def test_a_directory_that_was_removed_is_left_to_python(fast: Any, room: Room, other: Room) -> None:
    other.path.rmdir()
    assert fast.names(other.fd, 5) is False


# Arguments.


@pytest.mark.parametrize('name', ['ü', 'a\0b', os.fsdecode(b'\xff'), '\udfff'])
def test_a_name_of_another_alphabet_is_left_to_python(fast: Any, room: Room, name: str) -> None:
    assert fast.claim(room.fd, name, 'e.bak') is False
    assert fast.claim(room.fd, 'e.pck', name) is False
    assert fast.take_spare(room.fd, name, NEW) is False
    assert fast.move(room.fd, name, room.fd, 'x', -1) is False
    assert fast.move(room.fd, 'x', room.fd, name, -1) is False


@pytest.mark.parametrize(
    ('step', 'arguments', 'error'),
    [
        ('rewrite', (0, 0), TypeError),
        ('rewrite', (0, 0, 'text'), TypeError),
        ('rewrite', (1 << 40, 0, b''), OverflowError),
        ('take_spare', (0, 'x', b'', 0), TypeError),
        ('take_spare', (0, 7, b''), TypeError),
        ('move', (0, 'x', 0, b'y', -1), TypeError),
        ('move', (0, 'x', 'y', 'y', -1), TypeError),
        ('claim', ('x', 'x', 'y'), TypeError),
        ('claim', (0, b'x', 'y'), TypeError),
        ('names', (0, None), TypeError),
    ],
)
def test_an_argument_of_another_kind_is_an_error(
    fast: Any, room: Room, step: str, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        getattr(fast, step)(*arguments)


@pytest.mark.parametrize(
    ('step', 'arguments'),
    [
        ('rewrite', (-1, 0, b'')),
        ('take_spare', (-1, 'x', b'')),
        ('move', (-1, 'x', -1, 'y', -1)),
        ('claim', (-1, 'x', 'y')),
        ('names', (-1, 5)),
    ],
)
def test_a_descriptor_that_is_none_leaves_the_step_to_python(
    fast: Any, room: Room, step: str, arguments: tuple[Any, ...]
) -> None:
    assert getattr(fast, step)(*arguments) is False


# With the rest of the house.


def test_a_disk_for_work_has_it_where_it_is_installed_and_not_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_or_skip(tmp_path)
    monkeypatch.delenv('SWITCHBOARD_ACCELERATOR', raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    importlib.invalidate_caches()
    accelerator = kernel.accelerator()
    assert accelerator is not None
    assert accelerator.claim is not None
    assert Disk.of_system().accelerator is accelerator
    monkeypatch.setenv('SWITCHBOARD_ACCELERATOR', '0')
    assert Disk.of_system().accelerator is None


def test_where_it_is_not_installed_or_broken_python_does_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f'{NAME}.abi3.so').write_bytes(b'no library')
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    importlib.invalidate_caches()
    assert kernel.accelerator() is None


def test_a_disk_whose_calls_are_to_be_seen_has_none() -> None:
    assert Disk().accelerator is None
    assert FaultyDisk().accelerator is None


@pytest.fixture
def spool(fast: Any, tmp_path: Path) -> Spool:
    disk = Disk()
    disk.accelerator = fast
    return Spool(tmp_path, 'lazy', disk=disk)


def test_a_mail_servers_pipe_finds_what_was_put_in(spool: Spool, tmp_path: Path) -> None:
    spool['in'].enqueue('a', {'to': 'b'})
    other = Spool(tmp_path, disk=Disk())
    taken = other['in'].take()
    assert taken is not None
    assert (taken.msg, taken.msgdata['to']) == ('a', 'b')


def test_the_pool_is_bounded_and_kept_for_those_who_put_as_without_it(spool: Spool, fast: Any) -> None:
    queue, pool = spool['in'], spool.pool
    pool.limit = 20
    for _ in range(2):
        for _ in range(2 * COUNT_EVERY):
            queue.enqueue(b'x')
        while (taken := queue.take()) is not None:
            queue.finish(taken.filebase)
    assert pool.count() <= 20 + COUNT_EVERY
    queue.enqueue_many([b'x'] * 10)
    disk = Disk()
    disk.accelerator = fast
    consumer = Spool(spool.directory, 'lazy', disk=disk)
    while (taken := consumer['in'].take()) is not None:
        consumer['in'].finish(taken.filebase)
    assert consumer.pool.kept_open == []
    consumer.close()


def test_modes_are_those_that_python_gives(spool: Spool) -> None:
    queue = spool['in']
    for _ in range(2):  # the second is written into the file of the first
        queue.enqueue('a')
        taken = queue.take()
        assert taken is not None
        path = Path(queue.queue_directory, f'{taken.filebase}.bak')
        assert stat.S_IMODE(path.stat().st_mode) == FILE_MODE
        queue.finish(taken.claim)


def test_a_child_that_was_forked_holds_nothing_of_its_parents(spool: Spool) -> None:
    queue = spool['in']
    queue.enqueue('a')
    taken = queue.take()
    assert taken is not None
    assert any(taken.filebase in name for name in open_files().values())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = int(any(taken.filebase in name for name in open_files().values()))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_two_who_take_at_once_never_have_the_same(spool: Spool, tmp_path: Path, fast: Any) -> None:
    for number in range(400):
        spool['in'].enqueue(number)
    taken: list[list[int]] = [[], []]

    def work(mine: list[int]) -> None:
        disk = Disk()
        disk.accelerator = fast
        queue = Spool(tmp_path, 'lazy', disk=disk)['in']
        while (found := queue.take()) is not None:
            mine.append(found.msg)
            queue.finish(found.claim)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work(taken[0])  # those that both of them deferred
    assert sorted(taken[0] + taken[1]) == list(range(400))
