"""From bytes to an entry that others can see: in which order, and what is left when a step fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from switchboard.errors import DurabilityError, QueueError, QueueFullError
from switchboard.options import QueueOptions
from switchboard.queue.switchboard import Switchboard
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.kernel import CONTENT_ONLY, WITH_ALL_NAMES, WITH_NAME
from switchboard.store.pool import FilePool
from switchboard.store.publishing import (
    PreparedEntry,
    as_queue_error,
    is_too_many_open_files,
    publish,
    raise_queue_error,
    write_draft,
)
from switchboard.testing.faults import FaultyDisk


class Scene:
    """A directory for entries and one for spares, with a disk of their own."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.disk = disk
        self.queue = Folder(path / 'in', Disk())
        self.queue.make()
        self.queue.disk = disk
        spare = Folder(path / '.spare', Disk())
        spare.make()
        spare.disk = disk
        self.pool = FilePool(spare)

    def prepare(self, name: str, content: bytes = b'content') -> PreparedEntry:
        return PreparedEntry(write_draft(self.pool, (content,), 'in'), self.queue, 'in', name)

    def entries(self) -> list[str]:
        return sorted(self.queue.names())

    def spares(self) -> int:
        return len(self.pool.folder.names())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, Disk())


class RecordingDisk(Disk):
    """Remembers the calls that make a message last."""

    def __init__(self, fsync_scope: int = CONTENT_ONLY) -> None:
        self.calls: list[str] = []
        self._fsync_scope = fsync_scope

    def fsync_scope(self, fd: int) -> int:
        return self._fsync_scope

    def fdatasync(self, fd: int) -> None:
        self.calls.append('fdatasync')

    def fsync(self, fd: int) -> None:
        self.calls.append('fsync')

    def rename(self, source: Any, target: Any, **keys: Any) -> None:
        self.calls.append('rename')
        os.rename(source, target, **keys)


class TestWriting:
    def test_a_file_that_was_longer_is_cut(self, scene: Scene) -> None:
        publish([scene.prepare('long', b'x' * 1000)], scene.pool, sync=False)
        opened = scene.disk.open_locked('long.pck', scene.queue.fd)
        assert opened is not None
        fd, status = opened
        scene.pool.recycle(fd, scene.queue, 'long.pck', 1000)
        publish([scene.prepare('short', b'y')], scene.pool, sync=False)
        path = Path(scene.queue.path) / 'short.pck'
        assert path.read_bytes() == b'y'
        assert path.stat().st_ino == status.st_ino
        assert scene.spares() == 0

    def test_a_modification_time_can_be_given(self, scene: Scene) -> None:
        draft = write_draft(scene.pool, (b'x',), 'in', modified_ns=123_456_789_000)
        assert os.fstat(draft.fd).st_mtime_ns == 123_456_789_000
        scene.pool.discard(draft)

    @pytest.mark.parametrize(
        ('error', 'raised'),
        [(errno.ENOSPC, QueueFullError), (errno.EDQUOT, QueueFullError), (errno.EIO, DurabilityError)],
    )
    def test_a_failed_write_leaves_no_entry_and_says_what_failed(
        self, tmp_path: Path, error: int, raised: type[QueueError]
    ) -> None:
        scene = Scene(tmp_path, FaultyDisk(1, error, calls=('pwrite',)))
        with pytest.raises(raised, match='write') as caught:
            scene.prepare('x')
        assert caught.value.queue == 'in'
        assert scene.entries() == []
        assert scene.prepare('y').filebase == 'y'  # and the next one is not hindered


@pytest.mark.parametrize('step', ['write', 'rename', 'read'])
def test_a_full_disk_says_the_same_at_steps_of_producers_and_of_others(step: str) -> None:
    full = OSError(errno.ENOSPC, 'No space left on device')
    assert str(as_queue_error(full, step, 'in', '/spool/in/x.pck')) == (
        f"in: {step}: No space left on device: '/spool/in/x.pck'; nothing was stored or lost"
    )


class TestOrder:
    def test_full_is_bytes_then_names_then_the_directory_once(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        scene = Scene(tmp_path, disk)
        items = [scene.prepare(name) for name in 'abc']
        publish(items, scene.pool, sync=True)
        assert disk.calls == ['fdatasync'] * 3 + ['rename'] * 3 + ['fsync']
        assert scene.entries() == ['a.pck', 'b.pck', 'c.pck']

    @pytest.mark.parametrize('fsync_scope', [WITH_NAME, WITH_ALL_NAMES])
    def test_one_flush_is_names_and_then_the_files(self, fsync_scope: int, tmp_path: Path) -> None:
        disk = RecordingDisk(fsync_scope)
        scene = Scene(tmp_path, disk)
        publish([scene.prepare(name) for name in 'abc'], scene.pool, sync=True)
        assert disk.calls == ['rename'] * 3 + ['fsync'] * 3
        assert scene.entries() == ['a.pck', 'b.pck', 'c.pck']

    def test_two_flushes_can_be_asked_for(self, tmp_path: Path) -> None:
        disk = RecordingDisk(WITH_ALL_NAMES)
        scene = Scene(tmp_path, disk)
        publish([scene.prepare('a')], scene.pool, sync=True, directory_sync='always')
        assert disk.calls == ['fdatasync', 'rename', 'fsync']

    def test_two_flushes_are_both_of_the_file_where_one_of_a_directory_leaves_old_names(
        self, tmp_path: Path
    ) -> None:
        disk = RecordingDisk(WITH_NAME)
        scene = Scene(tmp_path, disk)
        publish([scene.prepare(name) for name in 'ab'], scene.pool, sync=True, directory_sync='always')
        assert disk.calls == ['fdatasync'] * 2 + ['rename'] * 2 + ['fsync'] * 2

    def test_a_queue_asks_for_two_flushes_by_its_options(self, tmp_path: Path) -> None:
        disk = RecordingDisk(WITH_ALL_NAMES)
        queue = Switchboard('in', tmp_path / 'in', disk=disk, options=QueueOptions(directory_sync='always'))
        disk.calls.clear()
        queue.enqueue('x')
        assert disk.calls == ['fdatasync', 'rename', 'fsync']

    def test_lazy_waits_for_nothing(self, tmp_path: Path) -> None:
        disk = RecordingDisk()
        scene = Scene(tmp_path, disk)
        publish([scene.prepare('a')], scene.pool, sync=False)
        assert disk.calls == ['rename']

    def test_the_lock_is_held_until_all_is_done(self, tmp_path: Path) -> None:
        locked = []

        class AskingDisk(RecordingDisk):
            def fsync(self, fd: int) -> None:
                locked.append(Disk().open_locked('a.pck', scene.queue.fd) is None)

        scene = Scene(tmp_path, AskingDisk())
        publish([scene.prepare('a')], scene.pool, sync=True)
        assert locked == [True]
        opened = Disk().open_locked('a.pck', scene.queue.fd)
        assert opened is not None
        os.close(opened[0])


class TestFailure:
    @pytest.mark.parametrize(
        ('fsync_scope', 'call', 'which'),
        [
            *((CONTENT_ONLY, call, which) for call in ('fdatasync', 'rename') for which in (1, 2)),
            (CONTENT_ONLY, 'fsync', 1),
            *((WITH_NAME, call, which) for call in ('rename', 'fsync') for which in (1, 2)),
        ],
    )
    def test_a_step_that_fails_takes_all_back(
        self, tmp_path: Path, fsync_scope: int, call: str, which: int
    ) -> None:
        disk = FaultyDisk(which, errno.EIO, calls=(call,), fsync_scope=fsync_scope)
        scene = Scene(tmp_path, disk)
        items = [scene.prepare(name) for name in 'ab']
        with pytest.raises(DurabilityError) as caught:
            publish(items, scene.pool, sync=True)
        assert caught.value.step.startswith(call)
        assert scene.entries() == []

    @pytest.mark.parametrize('fsync_scope', [CONTENT_ONLY, WITH_NAME])
    def test_pages_that_a_failed_sync_left_are_not_used_again(self, fsync_scope: int, tmp_path: Path) -> None:
        disk = FaultyDisk(1, errno.EIO, calls=('fdatasync', 'fsync'), fsync_scope=fsync_scope)
        scene = Scene(tmp_path, disk)
        with pytest.raises(DurabilityError):
            publish([scene.prepare('a')], scene.pool, sync=True)
        assert scene.spares() == 0

    def test_a_sync_that_failed_is_not_tried_again(self, tmp_path: Path) -> None:
        disk = FaultyDisk(1, errno.EIO, calls=('fdatasync', 'fsync'))
        scene = Scene(tmp_path, disk)
        with pytest.raises(DurabilityError):
            publish([scene.prepare('a')], scene.pool, sync=True)
        assert disk.count == 1


def test_errors_of_the_system_become_errors_of_the_tree() -> None:
    for number, expected in ((errno.EFBIG, QueueFullError), (errno.EROFS, DurabilityError)):
        with pytest.raises(expected) as caught:
            raise_queue_error(OSError(number, 'why', 'name'), 'step', 'in', '/spool/in/name')
        assert isinstance(caught.value.__cause__, OSError)
        assert "why: '/spool/in/name'" in str(caught.value)
        assert not is_too_many_open_files(caught.value)
    with pytest.raises(DurabilityError) as caught_too:
        raise_queue_error(OSError(errno.EMFILE, 'why', '/spool/out'), 'open', 'in', '/spool/in')
    assert is_too_many_open_files(caught_too.value)
    assert str(caught_too.value).endswith("why: '/spool/out'")  # it knows better
    assert as_queue_error(caught_too.value, 'step', 'out', '') is caught_too.value


class Filling(Disk):
    """Has no room for the tail of a file as long as there are spares."""

    def __init__(self, spare: Path) -> None:
        self.spare = spare

    def pwrite(self, fd: int, content: Any, offset: int) -> int:
        if offset and len(list(self.spare.iterdir())) > 1:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return os.pwrite(fd, content, offset)


def test_a_large_file_is_written_into_the_room_that_spares_have_held(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Filling(tmp_path / '.spare'))
    scene.pool.fill(3)
    draft = write_draft(scene.pool, (b'head', memoryview(b'and body')), 'in')
    assert (draft.size, scene.spares()) == (12, 1)
    assert os.pread(draft.fd, 100, 0) == b'headand body'
