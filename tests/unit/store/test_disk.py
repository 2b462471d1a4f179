"""The door to the file system: whole reads and writes, locks that are checked, modes that hold whatever the umask."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from switchboard.store.disk import FILE_MODE, Disk
from switchboard.store.folder import DIRECTORY_MODE, Folder
from switchboard.store.kernel import WITH_NAME
from switchboard.store.layout import DRAFT_PREFIX
from switchboard.testing.faults import FaultyDisk
from tests.helpers.descriptors import Opened


def walk(folder: Folder) -> None:
    with folder.scan() as entries:
        list(entries)


CALLS_NOTHING = ('close', 'is_read_in_one_call', 'path_in_errors', 'open', 'path_of')
# All that can be done with a directory: a new method without parameters is among them, and one with some is missed until it stands here.
ACTS: dict[str, Callable[[Folder], object]] = {
    name: method for name, method in vars(Folder).items() if callable(method) and name[0] != '_'
} | {
    'is_read_in_one_call': lambda folder: folder.is_read_in_one_call(1, 'x'),
    'path_in_errors': lambda folder: folder.path_in_errors('x'),
    'open_lock_file': lambda folder: folder.open_lock_file('lock'),
    'path_of': lambda folder: folder.path_of('x'),
    'replace_locked': lambda folder: folder.replace_locked('file', b'x', sync=True),
    'read': lambda folder: folder.read('file', 10),
    'rename_from': lambda folder: folder.rename_from(folder, 'file', 'other'),
    'rename_from_exclusive': lambda folder: folder.rename_from_exclusive(folder, 'file', 'other'),
    'replace': lambda folder: folder.replace('file', b'x', sync=True, modified_ns=1),
    'has': lambda folder: folder.has('file'),
    'scan': walk,
    'trusts': lambda folder: folder.trusts(1),
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / 'folder', Disk())
    made.make()
    return made


@pytest.fixture(params=[0o000, 0o027, 0o077], ids='{:03o}'.format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


class MiserlyDisk(Disk):
    """Reads and writes three bytes at a time."""

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, min(size, 3), offset)

    def pwrite(self, fd: int, content: bytes, offset: int) -> int:
        return os.pwrite(fd, content[:3], offset)


class TestReadingAndWriting:
    def test_a_write_that_is_cut_short_goes_on(self, tmp_path: Path) -> None:
        path = tmp_path / 'file'
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        MiserlyDisk().write_all(fd, b'0123456789', 2)
        assert path.read_bytes() == b'\0\0' + b'0123456789'
        assert MiserlyDisk().read_all(fd, 12) == b'\0\0' + b'0123456789'
        assert MiserlyDisk().read_all(fd, 5, 4) == b'23456'
        os.close(fd)

    def test_a_read_beyond_the_end_gives_what_there_is(self, tmp_path: Path) -> None:
        fd = os.open(tmp_path / 'file', os.O_RDWR | os.O_CREAT)
        os.write(fd, b'01234')
        assert MiserlyDisk().read_all(fd, 100) == Disk().read_all(fd, 100) == b'01234'
        assert Disk().read_all(fd, 100, 50) == b''
        os.close(fd)


class TestLocks:
    def test_a_lock_is_refused_and_not_waited_for(self, folder: Folder) -> None:
        disk = folder.disk
        fd = disk.create_locked('file', folder.fd)
        assert disk.open_locked('file', folder.fd) is None
        disk.unlock_and_close(fd)
        opened = disk.open_locked('file', folder.fd)
        assert opened is not None
        disk.unlock_and_close(opened[0])

    def test_unlocking_frees_the_lock_though_a_child_has_the_descriptor_too(self, folder: Folder) -> None:
        disk = folder.disk
        fd = disk.create_locked('file', folder.fd)
        copy = os.dup(fd)  # shares the lock as an inherited descriptor does
        disk.unlock_and_close(fd)
        opened = disk.open_locked('file', folder.fd)
        assert opened is not None
        disk.unlock_and_close(opened[0])
        os.close(copy)

    def test_a_name_that_leads_elsewhere_by_now_is_not_opened(self, folder: Folder) -> None:
        class RenamingDisk(Disk):
            def flock(self, fd: int, operation: int) -> None:
                path = Path(folder.path)
                (path / 'file').rename(path / 'elsewhere')
                (path / 'file').write_text('another file')
                fcntl.flock(fd, operation)

        (Path(folder.path) / 'file').write_text('the first one')
        opened = Opened()
        assert RenamingDisk().open_locked('file', folder.fd) is None
        assert opened() == []

    def test_a_name_that_is_not_there_is_not_opened(self, folder: Folder) -> None:
        assert folder.disk.open_locked('nothing', folder.fd) is None

    @pytest.mark.parametrize('kind', ['directory', 'fifo', 'symlink', 'socket'])
    def test_what_is_no_regular_file_is_an_error_at_once(self, folder: Folder, kind: str) -> None:
        path = Path(folder.path) / 'thing'
        match kind:
            case 'directory':
                path.mkdir()
            case 'fifo':
                os.mkfifo(path)
            case 'symlink':
                path.symlink_to('elsewhere')
            case 'socket':
                os.mknod(path, stat.S_IFSOCK | 0o600)
        with pytest.raises(OSError) as caught:
            folder.disk.open_locked('thing', folder.fd)
        assert caught.value.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO)

    def test_a_new_file_does_not_take_a_name_that_is_there(self, folder: Folder) -> None:
        os.close(folder.disk.create_locked('file', folder.fd))
        with pytest.raises(FileExistsError):
            folder.disk.create_locked('file', folder.fd)

    def test_a_new_file_that_a_recovery_has_locked_first_is_left_to_it(self, folder: Folder) -> None:
        others: list[int] = []

        class SlowDisk(Disk):
            def flock(self, fd: int, operation: int) -> None:
                if not others:
                    others.append(os.open(Path(folder.path) / 'file', os.O_RDWR))
                    fcntl.flock(others[0], fcntl.LOCK_EX)
                fcntl.flock(fd, operation)

        with pytest.raises(FileExistsError, match='recovery'):
            SlowDisk().create_locked('file', folder.fd)
        os.close(others[0])

    def test_a_new_file_that_another_process_has_used_first_is_empty(self, folder: Folder) -> None:
        path = Path(folder.path) / 'file'

        class SlowDisk(Disk):
            def flock(self, fd: int, operation: int) -> None:
                path.write_text('it was killed then, or threw that away')
                fcntl.flock(fd, operation)

        fd = SlowDisk().create_locked('file', folder.fd)
        assert path.read_bytes() == b''
        os.close(fd)

    def test_the_lock_of_a_file_is_not_waited_for_when_it_has_lost_its_name(self, folder: Folder) -> None:
        path = Path(folder.path) / 'file'
        path.touch()
        holder = os.open(path, os.O_RDWR)
        fcntl.flock(holder, fcntl.LOCK_EX)

        class RenamingDisk(Disk):
            def lock(self, fd: int, *, shared: bool = False) -> bool:
                if path.exists():
                    path.rename(path.with_name('kept for the next message'))
                return super().lock(fd, shared=shared)

        assert RenamingDisk().open_locked('file', folder.fd, waits_for='it') is None
        os.close(holder)


class TestModes:
    def test_files_are_0660_whatever_the_umask(self, tmp_path: Path, umask: int) -> None:
        folder = Folder(tmp_path, Disk())
        fd = folder.disk.create_locked('file', folder.fd)
        assert stat.S_IMODE(os.fstat(fd).st_mode) == FILE_MODE == 0o660
        os.close(fd)

    def test_directories_are_0770_whatever_the_umask(self, tmp_path: Path, umask: int) -> None:
        Folder(tmp_path / 'a' / 'b', Disk()).make()
        for path in (tmp_path / 'a', tmp_path / 'a' / 'b'):
            assert stat.S_IMODE(path.stat().st_mode) == DIRECTORY_MODE == 0o770

    def test_a_set_group_id_bit_is_inherited_and_stays(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o2750)
        Folder(tmp_path / 'a' / 'b', Disk()).make()
        assert stat.S_IMODE((tmp_path / 'a' / 'b').stat().st_mode) == 0o2770

    def test_a_directory_that_is_there_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / 'a').mkdir()
        (tmp_path / 'a').chmod(0o755)
        Folder(tmp_path / 'a', Disk()).make()
        assert stat.S_IMODE((tmp_path / 'a').stat().st_mode) == 0o755


class TestRenaming:
    @pytest.fixture(params=[True, False], ids=['in one call', 'in two'])
    def disk(self, request: pytest.FixtureRequest) -> Disk:
        if request.param:
            return Disk()

        class OldDisk(Disk):
            renameat2 = staticmethod(lambda: None)

        return OldDisk()

    def test_nothing_is_replaced(self, tmp_path: Path, disk: Disk) -> None:
        folder = Folder(tmp_path, disk)
        (tmp_path / 'a').write_text('a')
        (tmp_path / 'b').write_text('b')
        with pytest.raises(FileExistsError):
            disk.rename_exclusive('a', 'b', src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        disk.rename_exclusive('a', 'c', src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {'b': 'b', 'c': 'a'}

    def test_what_is_not_there_cannot_be_renamed(self, tmp_path: Path, disk: Disk) -> None:
        folder = Folder(tmp_path, disk)
        with pytest.raises(FileNotFoundError):
            disk.rename_exclusive('a', 'b', src_dir_fd=folder.fd, dst_dir_fd=folder.fd)


class TestOpenFiles:
    def test_where_what_raises_the_limit_cannot_be_loaded_any_more_it_stays(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, 'resource', None)
        assert not folder.disk.can_open_more(OSError(errno.EMFILE, 'too many open files'))

    def test_the_soft_limit_is_raised_when_it_is_met_and_not_before(self, folder: Folder) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir('/proc/self/fd')))
        soft = used + 10
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, limits[1]))
        fds = []
        try:
            fds += [folder.disk.create_locked(f'early {number}', folder.fd) for number in range(2)]
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft
            fds += [folder.disk.create_locked(f'late {number}', folder.fd) for number in range(soft)]
            assert soft < resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= limits[1]
            assert len(folder.names()) == soft + 2
        finally:
            for fd in fds:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_the_kernel_tells_whether_a_file_is_being_written(self, tmp_path: Path) -> None:
        path = tmp_path / 'file'
        path.write_text('x')
        reader = os.open(path, os.O_RDONLY)
        assert Disk().is_being_written(reader) is False
        with path.open('a'):
            assert Disk().is_being_written(reader) is True
        os.close(reader)


class TestFolder:
    def test_one_directory_is_one_however_its_path_is_spelled(self, tmp_path: Path) -> None:
        (tmp_path / 'link').symlink_to(tmp_path)
        keys = {Folder(path, Disk()).key for path in (tmp_path, f'{tmp_path}/.', tmp_path / 'link')}
        assert len(keys) == 1
        assert Folder('/', Disk()).key not in keys

    def test_names_are_those_that_are_in_it(self, folder: Folder) -> None:
        for name in 'abc':
            (Path(folder.path) / name).touch()
        assert sorted(folder.names()) == ['a', 'b', 'c']
        assert len(folder.names(2)) == 2

    def test_its_descriptor_is_closed_with_it_and_not_passed_on(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path, Disk())
        fd = folder.fd
        assert not os.get_inheritable(fd)
        del folder
        with pytest.raises(OSError, match='Bad file'):
            os.fstat(fd)

    @pytest.mark.parametrize('name', sorted(ACTS))
    def test_what_fails_in_it_names_the_whole_path(self, name: str, tmp_path: Path) -> None:
        for number in count(1):
            place = tmp_path / str(number)
            disk = FaultyDisk(fsync_scope=WITH_NAME)
            folder = Folder(place / 'folder', disk)
            folder.make()
            for each in ('file', f'{DRAFT_PREFIX}x'):
                Path(folder.path, each).touch()
            disk.arm(number)
            refused = None
            try:
                ACTS[name](folder)
            except OSError as error:
                refused = error
            assert refused is None or str(refused.filename).startswith(str(place)), (
                disk.failed_call,
                refused,
            )
            if not disk.failed_call:
                assert number > 1 or name in CALLS_NOTHING
                break
