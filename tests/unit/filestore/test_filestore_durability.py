"""The file store keeps its word to the disk: in which order it syncs, what a failure leaves, who gets a file."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from switchboard.errors import DurabilityError
from switchboard.filestore import FileStore
from switchboard.store.disk import Disk
from switchboard.testing import FaultyDisk
from switchboard.testing.faults import Killed
from tests.helpers.descriptors import Opened
from tests.unit.filestore.filestores import put


class RecordingDisk(Disk):
    """Writes down the calls that matter for the order of things."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._paths: dict[int, str] = {}

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
        self._paths[fd] = os.path.basename(path)
        return fd

    def fsync(self, fd: int) -> None:
        self.calls.append(f'fsync {self._paths[fd]}')
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self.calls.append(f'fdatasync {self._paths[fd]}')
        os.fdatasync(fd)

    def rename(self, source: str, target: str) -> None:
        self.calls.append(f'rename to {os.path.basename(os.path.dirname(target))}')
        os.rename(source, target)


def test_the_content_is_on_the_disk_before_the_name_is_and_the_new_name_before_the_old_is_gone(
    tmp_path: Path,
) -> None:
    disk = RecordingDisk()
    store = FileStore(tmp_path, disk=disk)
    store.prepare()
    disk.calls.clear()
    put(store, 'a-file')
    assert disk.calls == ['fdatasync a-file', 'rename to new', 'fsync new', 'fsync tmp']
    del disk.calls[:]
    store.move('a-file', 'new', 'cur')
    assert disk.calls == ['rename to cur', 'fsync cur', 'fsync new']
    del disk.calls[:]
    store.remove('a-file', 'cur')
    assert disk.calls == ['fsync cur']


def test_a_copy_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    disk = RecordingDisk()
    store = FileStore(tmp_path, disk=disk)
    store.prepare()
    disk.calls.clear()
    put(store, 'a-file')
    del disk.calls[:]
    store.copy('a-file', 'new', 'cur')
    sync, *others = disk.calls
    assert sync.startswith('fdatasync .')
    assert others == ['rename to cur', 'fsync cur']


def test_directories_whose_maker_died_before_they_were_on_the_disk_are_there_when_the_next_one_returns(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'store'
    with pytest.raises(Killed):
        FileStore(path, disk=FaultyDisk(1, kill='simulated', calls=('fsync',))).prepare()
    assert path.exists()
    disk = RecordingDisk()
    FileStore(path, disk=disk).prepare()
    assert disk.calls == [f'fsync {tmp_path.name}', *['fsync store'] * 3]


def test_a_store_below_a_directory_that_may_not_be_read_is_prepared(tmp_path: Path) -> None:
    class Shut(Disk):
        def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == str(tmp_path):
                raise PermissionError(errno.EACCES, 'Permission denied', path)
            return os.open(path, flags, mode, dir_fd=dir_fd)

    store = FileStore(tmp_path / 'store', disk=Shut())
    store.prepare()
    put(store, 'a-file')
    assert len(store.list('new')) == 1


def test_a_lazy_store_syncs_nothing(tmp_path: Path) -> None:
    disk = RecordingDisk()
    store = FileStore(tmp_path, durability='lazy', disk=disk)
    store.prepare()
    disk.calls.clear()
    put(store, 'a-file')
    store.copy('a-file', 'new', 'cur')
    store.remove('a-file', 'new')
    assert [call for call in disk.calls if 'sync' in call] == []


def test_a_failed_sync_leaves_the_file_in_tmp_and_names_the_step(tmp_path: Path) -> None:
    class FailingDisk(Disk):
        def fdatasync(self, fd: int) -> None:
            raise OSError(errno.EIO, 'Input/output error')

    store = FileStore(tmp_path, disk=FailingDisk())
    store.prepare()
    with pytest.raises(DurabilityError, match='Input/output error') as caught:
        put(store, 'a-file')
    assert caught.value.step == 'fdatasync'
    assert len(store.list('tmp')) == 1
    assert store.list('new') == []


@pytest.mark.parametrize('call', ['pwrite', 'fchmod', 'fdatasync', 'rename'])
def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path, call: str) -> None:
    store = FileStore(tmp_path)
    store.prepare()
    put(store, 'a-file')

    def fail(*_arguments: object, **_keys: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    failing = type('FailingDisk', (Disk,), {call: staticmethod(fail)})
    with pytest.raises((OSError, DurabilityError), match='No space left'):
        FileStore(tmp_path, disk=failing()).copy('a-file', 'new', 'cur')
    assert os.listdir(tmp_path / 'tmp') == []
    assert os.listdir(tmp_path / 'cur') == []


def test_a_copy_is_equal_to_the_last_byte_and_keeps_its_permissions(store: FileStore) -> None:
    content = os.urandom(3 * 1024 * 1024 + 17)
    with store.create('large', 'wb') as file:
        file.write(content)
    os.chmod(file.name, 0o600)
    store.copy('large', 'tmp', 'new')
    (path,) = store.list('new')
    assert Path(path).read_bytes() == content
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_only_a_regular_file_is_copied(store: FileStore, tmp_path: Path) -> None:
    secret = tmp_path / 'secret'
    secret.write_text('not to be read')
    Path(store.path, 'new', 'symlink').symlink_to(secret)
    os.mkfifo(Path(store.path, 'new', 'fifo'))
    Path(store.path, 'new', 'directory').mkdir()
    for name in ('symlink', 'fifo', 'directory'):
        with pytest.raises(OSError):
            store.copy(name, 'new', 'cur')
    assert os.listdir(os.path.join(store.path, 'cur')) == []
    assert os.listdir(os.path.join(store.path, 'tmp')) == []


def test_of_two_readers_exactly_one_gets_a_file(store: FileStore) -> None:
    names = [f'{number:03}' for number in range(50)]
    for name in names:
        put(store, name)
    taken: list[list[str]] = [[], []]
    gate = threading.Barrier(2)

    def read(mine: list[str]) -> None:
        gate.wait()
        for path in store.list('new'):
            try:
                store.move(path, 'new', 'cur')
            except FileNotFoundError:
                continue
            mine.append(os.path.basename(path))

    readers = [threading.Thread(target=read, args=(mine,)) for mine in taken]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(taken[0] + taken[1]) == names


def test_no_descriptor_is_left_open(store: FileStore) -> None:
    opened = Opened()
    for number in range(5):
        put(store, f'{number}')
        store.copy(f'{number}', 'new', 'cur')
        store.remove(f'{number}', 'new')
    assert opened() == []
