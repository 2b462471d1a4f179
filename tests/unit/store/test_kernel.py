"""What is known of the file system that a file is on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from switchboard.message.naming import join_names
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.kernel import (
    CONTENT_ONLY,
    WITH_ALL_NAMES,
    WITH_NAME,
    directory_read_bytes,
    fsync_scope,
)


def mounted_type(path: Path) -> str:
    return subprocess.run(
        ['findmnt', '-n', '-o', 'FSTYPE', '-T', str(path)], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_file_system_in_memory_keeps_no_order() -> None:
    fd = os.open('/dev/shm', os.O_RDONLY)
    try:
        assert fsync_scope(fd) == CONTENT_ONLY
    finally:
        os.close(fd)


def test_a_file_system_is_known_by_its_type(tmp_path: Path) -> None:
    allowed = {'ext4': (WITH_NAME, WITH_ALL_NAMES), 'xfs': (WITH_ALL_NAMES,), 'btrfs': (WITH_NAME,)}
    assert Folder(tmp_path, Disk()).fsync_scope in allowed.get(mounted_type(tmp_path), (CONTENT_ONLY,))


def test_what_cannot_be_told_is_taken_for_the_worst() -> None:
    read_end, write_end = os.pipe()
    try:
        assert fsync_scope(read_end) == CONTENT_ONLY
    finally:
        os.close(read_end)
        os.close(write_end)
    assert fsync_scope(read_end) == CONTENT_ONLY  # not even open


def test_a_folder_asks_once(tmp_path: Path) -> None:
    class CountingDisk(Disk):
        asked = 0

        def fsync_scope(self, fd: int) -> int:
            self.asked += 1
            return WITH_ALL_NAMES

    disk = CountingDisk()
    folder = Folder(tmp_path, disk)
    assert (folder.fsync_scope, folder.fsync_scope, disk.asked) == (WITH_ALL_NAMES, WITH_ALL_NAMES, 1)


@pytest.mark.parametrize('name_length', [65, 100, 255])
def test_so_many_names_are_read_while_nobody_changes_the_directory(tmp_path: Path, name_length: int) -> None:
    folder = Folder(tmp_path, Disk())
    names = [f'{number:0{name_length}d}' for number in range(1000)]
    number = sum(folder.is_read_in_one_call(count, join_names(names[:count])) for count in range(1, 1000))
    if not number:
        pytest.skip(f'not known of {mounted_type(tmp_path)} and this C library')
    assert number in {65: range(340, 356), 100: range(250, 266), 255: range(110, 118)}[name_length]
    # Each rename takes the first name away and adds one behind the last, so at any one time they are a row without a hole.
    (tmp_path / names[0]).touch()
    for name in names[1:number]:
        os.link(tmp_path / names[0], tmp_path / name)
    writer = subprocess.Popen(
        [sys.executable, '-c', RENAMES, str(tmp_path), str(number), str(name_length)], stdin=subprocess.PIPE
    )
    found = []
    try:
        for _ in range(2000):
            there = sorted(map(int, os.listdir(tmp_path)))
            assert there == [*range(there[0], there[0] + number)]
            found.append(there[0])
            if len(set(found)) > 100:
                break
    finally:
        writer.communicate()
    assert len(set(found)) > 1  # it was changed all the time


RENAMES = """
import os, select, sys
directory, number, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.chdir(directory)
first = 0
while not select.select([0], [], [], 0)[0]:
    os.rename(f'{first:0{length}d}', f'{first + number:0{length}d}')
    first += 1
"""


def test_of_a_name_that_is_not_plain_nothing_is_known(tmp_path: Path) -> None:
    folder = Folder(tmp_path, Disk())
    assert not folder.is_read_in_one_call(1, join_names(['ö' * 21]))


def test_of_what_is_not_there_no_reading_is_in_one() -> None:
    assert directory_read_bytes(-1) == 0
