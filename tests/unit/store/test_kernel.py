"""What is known of the file system that a file is on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.kernel import APART, IN_ORDER, WITH_FILE, rename_order


def mounted_type(path: Path) -> str:
    return subprocess.run(
        ['findmnt', '-n', '-o', 'FSTYPE', '-T', str(path)], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_file_system_in_memory_keeps_no_order() -> None:
    fd = os.open('/dev/shm', os.O_RDONLY)
    try:
        assert rename_order(fd) == APART
    finally:
        os.close(fd)


def test_a_file_system_is_known_by_its_type(tmp_path: Path) -> None:
    allowed = {'ext4': (WITH_FILE, IN_ORDER), 'xfs': (IN_ORDER,), 'btrfs': (WITH_FILE,)}
    assert Folder(tmp_path, Disk()).order in allowed.get(mounted_type(tmp_path), (APART,))


def test_what_cannot_be_told_is_taken_for_the_worst() -> None:
    read_end, write_end = os.pipe()
    try:
        assert rename_order(read_end) == APART
    finally:
        os.close(read_end)
        os.close(write_end)
    assert rename_order(read_end) == APART  # not even open


def test_a_folder_asks_once(tmp_path: Path) -> None:
    class CountingDisk(Disk):
        asked = 0

        def rename_order(self, fd: int) -> int:
            self.asked += 1
            return IN_ORDER

    disk = CountingDisk()
    folder = Folder(tmp_path, disk)
    assert (folder.order, folder.order, disk.asked) == (IN_ORDER, IN_ORDER, 1)
