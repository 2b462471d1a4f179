"""A small directory is read at once without the accelerator, too, and what may be more is left to a walk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from switchboard.store.disk import Disk
from switchboard.store.folder import MOST_AT_ONCE, NAME_BYTES, Folder
from switchboard.testing.faults import FaultyDisk
from tests.helpers.descriptors import Opened

HERE = [
    '0000000001.5+' + 'a' * 40 + '.pck',
    'n' * 255,
    '.hidden',
    'x\ny',
    'ä',
    os.fsdecode(b'\xff\xfe.pck'),
    ' ',
]


def folder_with(path: Path, names: list[str]) -> Folder:
    for name in names:
        os.close(os.open(path / name, os.O_CREAT | os.O_WRONLY))
    return Folder(path, Disk())


@pytest.mark.parametrize(
    'names',
    [[], HERE[:1], HERE, [f'{number:04}' + 'm' * 40 for number in range(999)]],
    ids=['none', 'one', 'odd', 'many'],
)
def test_it_gives_what_the_directory_holds(tmp_path: Path, names: list[str]) -> None:
    folder = folder_with(tmp_path, names)
    (tmp_path / 'directory').mkdir()
    (tmp_path / 'link').symlink_to('nowhere')
    read = folder.names_and_size(4096)
    assert read is not None
    assert sorted(read[0]) == sorted(os.listdir(tmp_path)) == sorted([*names, 'directory', 'link'])
    assert read[1] == tmp_path.stat().st_size


def test_as_many_as_fit_are_never_taken_for_all(tmp_path: Path) -> None:
    names = [str(number) for number in range(200)]
    folder = folder_with(tmp_path, names)
    assert folder.names_and_size(200) is None
    assert folder.names_and_size(199) is None
    read = folder.names_and_size(201)
    assert read is not None
    assert sorted(read[0]) == sorted(names)


@pytest.mark.parametrize('number', [MOST_AT_ONCE - 1, MOST_AT_ONCE + 1], ids=['at once', 'walked over'])
def test_all_names_are_told_however_they_are_read(tmp_path: Path, number: int) -> None:
    names = [str(each) for each in range(number)]
    folder = folder_with(tmp_path, names)
    assert sorted(folder.names()) == sorted(names)
    assert len(folder.names(7)) == 7


def test_one_that_has_grown_is_walked_over_unread(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [])
    size = tmp_path.stat().st_size
    if size <= NAME_BYTES:
        pytest.skip('this file system makes no directory that large')
    assert folder.names_and_size((size - 1) // NAME_BYTES) is None


def test_one_that_was_removed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (place := tmp_path / 'in').mkdir()
    folder = Folder(place, Disk())
    folder.open()
    place.rmdir()
    assert folder.names_and_size(4096) is None
    with pytest.raises(FileNotFoundError):
        folder.scan()


@pytest.mark.parametrize('call', ['open', 'fstat', 'scandir', 'close'])
def test_a_disk_that_refuses_is_told_of_and_leaves_nothing_open(tmp_path: Path, call: str) -> None:
    folder_with(tmp_path, HERE)
    folder = Folder(tmp_path, disk := FaultyDisk(calls=(call,)))
    folder.open()
    opened = Opened()
    disk.fail_at, disk.error = disk.count + 1, errno.EIO
    if call == 'close':  # which says nothing of what was read
        assert folder.names_and_size(4096) is not None
    else:
        with pytest.raises(OSError, match='Input/output'):
            folder.names_and_size(4096)
    assert disk.failed_call
    assert opened() == []


def test_where_too_many_files_are_open_it_is_left_to_a_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_with(tmp_path, HERE)
    folder = Folder(tmp_path, disk := FaultyDisk(calls=('scandir',)))
    folder.open()
    monkeypatch.setattr(disk, 'can_open_more', lambda error: error.errno == errno.EMFILE)
    disk.fail_at, disk.error = disk.count + 1, errno.EMFILE
    assert folder.names_and_size(4096) is None
    assert len(folder.names()) == len(HERE)
