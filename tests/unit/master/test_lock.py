"""The master's lock: one holder, dropped by the kernel, and nothing else counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.errors import AlreadyRunningError
from switchboard.master.directory import MasterLock, OwnDirectory
from switchboard.status.alive import master_alive, read_pid


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnDirectory]:
    with OwnDirectory(tmp_path) as directory:
        yield directory


def test_only_one_may_hold_it_and_the_other_learns_who(own: OwnDirectory) -> None:
    first = MasterLock(own).acquire()
    first.note_pid()
    with pytest.raises(AlreadyRunningError, match=f'pid {os.getpid()}') as caught:
        MasterLock(own).acquire()
    assert caught.value.pid == os.getpid()
    first.close()
    MasterLock(own).acquire().close()


def test_whether_a_master_lives_is_asked_of_the_lock_and_not_of_the_pid_file(
    own: OwnDirectory, tmp_path: Path
) -> None:
    assert not master_alive(tmp_path / 'nowhere')
    assert not master_alive(tmp_path)
    lock = MasterLock(own).acquire()
    assert master_alive(tmp_path)
    lock.note_pid()
    lock.close()
    assert lock.pid_file.exists()
    assert not master_alive(tmp_path)


def test_a_holder_whose_pid_nobody_knows_is_refused_without_a_number(own: OwnDirectory) -> None:
    lock = MasterLock(own).acquire()
    with pytest.raises(AlreadyRunningError, match=r'^a master is already running$') as caught:
        MasterLock(own).acquire()
    assert caught.value.pid is None
    lock.close()


def test_the_pid_file_may_lie_elsewhere_and_is_taken_away(own: OwnDirectory, tmp_path: Path) -> None:
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
