"""A file that is being made belongs to its maker, or to whoever was faster: never to both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchboard.store.disk import Disk
from switchboard.store.folder import Folder


class Overtaken(Disk):
    """Between making a file and locking it, another process has taken it, published it, and let it go."""

    overtake = True

    def lock(self, fd: int) -> bool:
        """See `Disk`."""
        if self.overtake:
            self.overtake = False
            [name] = os.listdir(self.place)
            other = Disk()
            folder = Folder(self.place, other)
            taken = other.open_locked(name, folder.fd)
            assert taken is not None
            other.write_all(taken[0], b'a message')
            other.rename(name, f'{name}.pck', src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
            other.unlock_and_close(taken[0])
        return super().lock(fd)

    def __init__(self, place: Path) -> None:
        self.place = place


def test_a_file_that_another_process_took_and_published_is_no_draft_of_its_maker(tmp_path: Path) -> None:
    disk = Overtaken(tmp_path)
    folder = Folder(tmp_path, disk)
    with pytest.raises(FileExistsError):
        disk.create_locked('draft', folder.fd)
    assert (tmp_path / 'draft.pck').read_bytes() == b'a message'
    fd = disk.create_locked('draft', folder.fd)
    disk.unlock_and_close(fd)
