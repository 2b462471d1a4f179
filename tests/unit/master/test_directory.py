"""The master's own files: where others can write, or have put a link, nothing is opened and nothing outside is touched; and its lock."""

from __future__ import annotations

import errno
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.errors import AlreadyRunningError, MasterError, NotRunningError, ScoreboardError
from switchboard.master.control import ControlSocket, ask, signal_master
from switchboard.master.directory import MasterDirectory, MasterLock, replace_file
from switchboard.status import log
from switchboard.status.alive import master_alive, master_directory, read_pid
from switchboard.status.scoreboard import Scoreboard
from switchboard.store.layout import CONTROL, MASTER_LOCK, MASTER_LOG, MASTER_PID, SCOREBOARD
from tests.helpers.processes import NOBODY, in_child

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='only root can be two users')


@pytest.fixture
def open_spool() -> Iterator[Path]:
    """A spool that other users can reach: pytest's own directories are closed to them."""
    with tempfile.TemporaryDirectory(prefix='open-', dir='/tmp') as name:
        Path(name).chmod(0o2777)
        yield Path(name)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / 'precious'
    path.write_text('not to be touched')
    return path


@pytest.fixture
def own(tmp_path: Path) -> Iterator[MasterDirectory]:
    with MasterDirectory(tmp_path) as directory:
        yield directory


def test_only_its_user_may_write_there_and_the_group_may_read(tmp_path: Path) -> None:
    for umask in (0o000, 0o022, 0o077):
        spool = tmp_path / f'{umask}'
        before = os.umask(umask)
        try:
            with MasterDirectory(spool) as own, MasterLock(own) as lock:
                log.LogFile(own.path / MASTER_LOG, directory=own.fileno()).close()
                Scoreboard.create(own.path / SCOREBOARD, 1, directory=own.fileno()).close()
                lock.note_pid()
                modes = {name: os.stat(own.path / name).st_mode & 0o777 for name in os.listdir(own.path)}
        finally:
            os.umask(before)
        assert os.stat(own.path.parent).st_mode & 0o777 == 0o770
        assert os.stat(own.path).st_mode & 0o777 == 0o750
        assert modes == dict.fromkeys((MASTER_LOCK, MASTER_LOG, MASTER_PID, SCOREBOARD), 0o640)


@pytest.mark.parametrize('call', ['fstat', 'fchmod'])
def test_a_failing_disk_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    opened = os.listdir('/proc/self/fd')

    def fails(*_given: object, **_named: object) -> None:
        raise OSError(errno.EIO, 'the disk fails')

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match='the disk fails'):
        MasterDirectory(tmp_path)
    monkeypatch.undo()
    assert os.listdir('/proc/self/fd') == opened


def test_permissions_that_somebody_has_changed_stay(tmp_path: Path) -> None:
    for _ in range(2):
        with MasterDirectory(tmp_path) as own:
            os.close(own.open(MASTER_LOG, os.O_WRONLY))
            log.LogFile(own.path / MASTER_LOG, directory=own.fileno()).close()
            (own.path / MASTER_LOG).chmod(0o600)
            own.path.chmod(0o700)
    assert (os.stat(own.path).st_mode & 0o777, os.stat(own.path / MASTER_LOG).st_mode & 0o777) == (
        0o700,
        0o600,
    )


@pytest.mark.parametrize('mode', [0o770, 0o757, 0o777])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    MasterDirectory(tmp_path).close()
    master_directory(tmp_path).chmod(mode)
    with pytest.raises(MasterError, match='chmod go-w'):
        MasterDirectory(tmp_path)


def test_an_advised_command_quotes_its_paths(tmp_path: Path) -> None:
    spool = tmp_path / 'two words'
    MasterDirectory(spool).close()
    master_directory(spool).chmod(0o777)
    with pytest.raises(MasterError) as caught:
        MasterDirectory(spool)
    [command] = re.findall('`(.*)`', str(caught.value))
    subprocess.run(command, shell=True, timeout=60, check=True)
    MasterDirectory(spool).close()


@needs_root
def test_the_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    master_directory(tmp_path).mkdir(parents=True)
    for path in (master_directory(tmp_path), tmp_path):
        os.chown(path, NOBODY, NOBODY)
    with pytest.raises(MasterError, match='start the master as the user of the spool'):
        MasterDirectory(tmp_path)


@needs_root
def test_the_owner_of_the_spool_is_told_how_to_get_the_directory_back(open_spool: Path) -> None:
    os.chown(open_spool, -1, NOBODY)
    open_spool.chmod(0o2770)
    MasterDirectory(open_spool).close()  # as root
    for path in (open_spool, master_directory(open_spool).parent):
        os.chown(path, NOBODY, NOBODY)

    def start() -> str:
        with pytest.raises(MasterError) as caught:
            MasterDirectory(open_spool)
        return str(caught.value)

    own = master_directory(open_spool)
    assert f'as root: `chown -R --reference={open_spool} {own}`' in in_child(start, NOBODY)
    os.chown(own, NOBODY, NOBODY)
    in_child(lambda: MasterDirectory(open_spool).close(), NOBODY)


@pytest.mark.parametrize('name', ['.run', '.run/master'])
def test_no_link_is_followed_on_the_way(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    spool = tmp_path / 'spool'
    (spool / name).parent.mkdir(parents=True)
    (spool / name).symlink_to(elsewhere)
    with pytest.raises(MasterError, match='cannot open'):
        MasterDirectory(spool)
    assert list(elsewhere.iterdir()) == []


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path, precious: Path) -> None:
    with MasterDirectory(tmp_path) as own:
        (own.path / MASTER_LOCK).symlink_to(precious)
        with pytest.raises(OSError, match='symbolic link'):
            MasterLock(own)
        with pytest.raises(OSError, match='symbolic link'):
            master_alive(tmp_path)


@pytest.mark.parametrize('elsewhere', [False, True])
def test_a_link_in_the_place_of_the_pid_file_is_replaced(
    tmp_path: Path, precious: Path, *, elsewhere: bool
) -> None:
    with MasterDirectory(tmp_path) as own:
        path = tmp_path / 'other.pid' if elsewhere else own.path / MASTER_PID
        path.symlink_to(precious)
        (path.parent / f'{path.name}.new').symlink_to(precious)
        assert read_pid(path) is None
        with MasterLock(own, path if elsewhere else None) as lock:
            lock.note_pid()
            assert read_pid(path) == os.getpid()
            lock.forget_pid()
    assert precious.read_text() == 'not to be touched'


def test_a_link_in_the_place_of_the_scoreboard_is_replaced_and_not_read(
    tmp_path: Path, precious: Path
) -> None:
    with MasterDirectory(tmp_path) as own:
        for name in (SCOREBOARD, f'{SCOREBOARD}.new'):
            (own.path / name).symlink_to(precious)
        with pytest.raises(ScoreboardError, match='symbolic link'):
            Scoreboard.open(own.path / SCOREBOARD)
        Scoreboard.create(own.path / SCOREBOARD, 1, directory=own.fileno()).close()
        Scoreboard.open(own.path / SCOREBOARD).close()
    assert precious.read_text() == 'not to be touched'


def test_a_link_in_the_place_of_the_log_is_not_followed_when_opened_or_reopened(
    tmp_path: Path, precious: Path
) -> None:
    with MasterDirectory(tmp_path) as own:
        path = own.path / MASTER_LOG
        path.symlink_to(precious)
        with pytest.raises(OSError, match='symbolic link'):
            log.LogFile(path, directory=own.fileno())
        path.unlink()
        log_file = log.LogFile(path, directory=own.fileno())
        path.unlink()
        path.symlink_to(precious)
        with pytest.raises(OSError, match='symbolic link'):
            log_file.reopen()
        log_file.close()
    assert precious.read_text() == 'not to be touched'


def test_a_link_in_the_place_of_the_control_socket_is_replaced(tmp_path: Path, precious: Path) -> None:
    with MasterDirectory(tmp_path) as own, selectors.DefaultSelector() as selector:
        (own.path / CONTROL).symlink_to(precious)
        mode = precious.stat().st_mode
        ControlSocket(own, selector, lambda _request, reply: reply({})).close()
        assert precious.stat().st_mode == mode
        assert not (own.path / CONTROL).exists()


def test_whoever_puts_another_directory_in_its_place_changes_only_a_name(tmp_path: Path) -> None:
    with MasterDirectory(tmp_path) as own, MasterLock(own) as lock:
        own.path.rename(tmp_path / 'moved')
        own.path.mkdir()
        lock.note_pid()
        assert (tmp_path / 'moved' / MASTER_PID).exists()
        assert list(own.path.iterdir()) == []


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_RDONLY)
    try:
        replace_file('one', b'first', place)
        (tmp_path / 'two').mkdir()
        with pytest.raises(OSError, match='directory'):
            replace_file('two', b'second', place)
    finally:
        os.close(place)
    assert (tmp_path / 'one').read_bytes() == b'first'
    assert sorted(os.listdir(tmp_path)) == ['one', 'two']


@needs_root
def test_a_member_of_the_group_reads_what_the_master_says_and_cannot_write_it(tmp_path: Path) -> None:
    spool = Path(tempfile.mkdtemp(dir='/tmp'))  # pytest's own directories are closed to other users
    try:
        spool.chmod(0o2770)
        os.chown(spool, 0, NOBODY)
        before = os.umask(0o007)
        try:
            with MasterDirectory(spool) as own, MasterLock(own):
                Scoreboard.create(own.path / SCOREBOARD, 1, directory=own.fileno()).close()

                def as_member() -> tuple[bool, int, list[str]]:
                    refused = []
                    for name in (MASTER_LOCK, SCOREBOARD):
                        try:
                            os.close(os.open(own.path / name, os.O_WRONLY))
                        except PermissionError:
                            refused.append(name)
                    scoreboard = Scoreboard.open(own.path / SCOREBOARD)
                    return master_alive(spool), scoreboard.slots, refused

                assert in_child(as_member, NOBODY) == (True, 1, [MASTER_LOCK, SCOREBOARD])
        finally:
            os.umask(before)
    finally:
        shutil.rmtree(spool)


@pytest.mark.parametrize('place', ['.run', '.run/master', '.run/master/control'])
def test_a_link_to_the_socket_of_somebody_else_is_no_way_to_be_asked_or_signalled(
    tmp_path: Path, place: str
) -> None:
    other = tmp_path / 'other'
    (other / 'master').mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(other / 'master' / CONTROL))
        listener.listen(5)
        listener.setblocking(False)
        lie = tmp_path / 'spool' / place
        lie.parent.mkdir(parents=True)
        lie.symlink_to(other / Path(place).relative_to('.run'))
        with pytest.raises(NotRunningError):
            ask(tmp_path / 'spool', {'do': 'shutdown'}, 0.1)
        assert not signal_master(tmp_path / 'spool', signal.SIGTERM)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize('is_writable', [True, False])
def test_a_process_that_is_no_master_of_ours_is_not_signalled(tmp_path: Path, *, is_writable: bool) -> None:
    with MasterDirectory(tmp_path) as own, MasterLock(own), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own.path / CONTROL))
        listener.listen(5)
        if is_writable:
            own.path.chmod(0o770)
            with pytest.raises(NotRunningError, match='not the socket of a master'):
                ask(tmp_path, {'do': 'shutdown'}, 0.1)
        # It would end this process, which holds the lock and listens, but is called otherwise.
        assert not signal_master(tmp_path, signal.SIGTERM)


@needs_root
def test_the_socket_of_another_user_is_no_masters(tmp_path: Path) -> None:
    with MasterDirectory(tmp_path) as own, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own.path / CONTROL))
        listener.listen(5)
        os.chown(own.path, NOBODY, NOBODY)  # as a member of the group would have put it there
        for owner in (0, NOBODY):
            os.chown(own.path / CONTROL, owner, NOBODY)
            with pytest.raises(NotRunningError, match='not the socket of a master'):
                ask(tmp_path, {'do': 'shutdown'}, 0.1)


def test_whoever_asks_where_no_master_is_learns_it(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match='no master answers'):
        ask(tmp_path, {'do': 'status'})


# The lock: one holder, dropped by the kernel, and nothing else counts.


def test_only_one_may_hold_it_and_the_other_learns_who(own: MasterDirectory) -> None:
    first = MasterLock(own).acquire()
    first.note_pid()
    with pytest.raises(AlreadyRunningError, match=f'pid {os.getpid()}') as caught:
        MasterLock(own).acquire()
    assert caught.value.pid == os.getpid()
    first.close()
    MasterLock(own).acquire().close()


def test_whether_a_master_lives_is_asked_of_the_lock_and_not_of_the_pid_file(
    own: MasterDirectory, tmp_path: Path
) -> None:
    assert not master_alive(tmp_path / 'nowhere')
    assert not master_alive(tmp_path)
    lock = MasterLock(own).acquire()
    assert master_alive(tmp_path)
    lock.note_pid()
    lock.close()
    assert lock.pid_file.exists()
    assert not master_alive(tmp_path)


def test_a_holder_whose_pid_nobody_knows_is_refused_without_a_number(own: MasterDirectory) -> None:
    lock = MasterLock(own).acquire()
    with pytest.raises(AlreadyRunningError, match=r'^a master is already running$') as caught:
        MasterLock(own).acquire()
    assert caught.value.pid is None
    lock.close()


def test_the_pid_file_may_lie_elsewhere_and_is_taken_away(own: MasterDirectory, tmp_path: Path) -> None:
    pid_file = tmp_path / 'elsewhere.pid'
    lock = MasterLock(own, pid_file).acquire()
    lock.note_pid()
    assert read_pid(pid_file) == os.getpid()
    lock.forget_pid()
    assert read_pid(pid_file) is None
    lock.forget_pid()
    lock.close()


def test_a_pid_file_full_of_nonsense_names_nobody(tmp_path: Path) -> None:
    (tmp_path / 'pid').write_text('me\n')
    assert read_pid(tmp_path / 'pid') is None
