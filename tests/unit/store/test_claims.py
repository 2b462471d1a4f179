"""Claims: lock first, name after; what others hold, what this process holds, what a child inherits."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from switchboard import Switchboard
from switchboard.errors import CorruptEntryError, DurabilityError, EntryTakenError, ForeignFileError
from switchboard.message.naming import one_ns_later
from switchboard.options import QueueOptions
from switchboard.store.claims import OWN_CLAIMS, claim_of, claim_ready, open_claim
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.testing import Signal
from switchboard.testing.faults import FaultyDisk
from tests.helpers.descriptors import Opened
from tests.helpers.processes import NOBODY, Child, held_elsewhere, in_child

LAZY = QueueOptions(durability='lazy')


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class TestTaking:
    def test_a_claimed_file_is_locked_from_its_first_instant(self, tmp_path: Path) -> None:
        seen: list[bool] = []

        class AskingDisk(Disk):
            def rename(self, source: Any, target: Any, **keys: Any) -> None:
                os.rename(source, target, **keys)
                if str(target).endswith('.bak'):
                    seen.append(is_locked(tmp_path / 'in' / target))

        queue = Switchboard('in', tmp_path / 'in', disk=AskingDisk())
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        assert seen == [True]
        assert is_locked(tmp_path / 'in' / f'{filebase}.bak')
        queue.finish(filebase)

    def test_a_locked_entry_is_not_now(self, queue: Switchboard, tmp_path: Path) -> None:
        filebase = queue.enqueue('x')
        with (tmp_path / 'in' / f'{filebase}.pck').open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(EntryTakenError):
                queue.dequeue(filebase)
            assert queue.take() is None
            assert queue.files == [filebase]
        assert queue.dequeue(filebase)[0] == 'x'

    @pytest.mark.parametrize('error', [errno.EIO, errno.ENOSPC, errno.EROFS])
    def test_a_rename_that_fails_leaves_it_ready_and_unlocked(self, tmp_path: Path, error: int) -> None:
        filebase = Switchboard('in', tmp_path / 'in').enqueue('x')
        folder = Folder(tmp_path / 'in', FaultyDisk(1, error, calls=('rename',)))
        with pytest.raises(OSError, match=os.strerror(error)):
            claim_ready(folder, filebase)
        assert claim_of(folder, filebase) is None
        assert not is_locked(tmp_path / 'in' / f'{filebase}.pck')

    def test_one_entry_has_one_claim_however_its_queue_is_spelled(self, tmp_path: Path) -> None:
        (tmp_path / 'link').symlink_to(tmp_path)
        queue = Switchboard('in', tmp_path / 'in')
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        Switchboard('in', tmp_path / 'link' / 'in').finish(filebase)
        assert os.listdir(tmp_path / 'in') == []

    def test_a_hundred_claims_have_a_hundred_descriptors_and_give_them_back(self, queue: Switchboard) -> None:
        queue.enqueue('warms up')
        while (one := queue.take()) is not None:
            queue.finish(one.filebase)
        opened = Opened()
        queue.enqueue_many(range(100))
        taken = [queue.take() for _ in range(100)]
        assert len(opened()) == 100
        for one in taken:
            assert one is not None
            queue.finish(one.filebase)
        assert opened() == []


class TestOtherProcesses:
    def test_what_another_process_holds_cannot_be_dequeued_finished_released_or_recovered(
        self, queue: Switchboard, tmp_path: Path
    ) -> None:
        filebase = queue.enqueue('x')
        with held_elsewhere(queue, filebase):
            for call in (
                queue.dequeue,
                queue.finish,
                lambda name: queue.finish(name, preserve=True),
                queue.release,
                lambda name: queue.annotate(name, {}),
            ):
                with pytest.raises(EntryTakenError):
                    call(filebase)
            assert queue.recover() == []
            assert queue.get_files('.bak') == [filebase]
        assert os.listdir(tmp_path / 'in') == []
        assert not (tmp_path / 'bad').exists()

    def test_a_claim_ends_with_the_process_that_holds_it(self, queue: Switchboard) -> None:
        filebase = queue.enqueue('x')
        with held_elsewhere(queue, filebase) as child:
            child.kill()
        assert queue.recover() == [filebase]

    def test_a_child_does_not_keep_what_it_inherited_when_its_parent_dies(self, queue: Switchboard) -> None:
        filebase = queue.enqueue('x')
        forked, end = Signal(), Signal()

        def live() -> None:
            queue.dequeue(filebase)
            if os.fork() == 0:
                try:
                    assert OWN_CLAIMS == {}
                    forked.set()
                    end.wait_or_timeout()
                finally:
                    os._exit(0)
            Signal().wait_or_timeout()

        with Child(live) as child:
            forked.wait_or_timeout()
            assert queue.recover() == []
            child.kill()
            assert queue.recover() == [filebase]  # though the grandchild lives
        end.set()

    def test_a_child_cannot_finish_what_its_parent_holds(self, queue: Switchboard) -> None:
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)

        def try_to_finish() -> bool:
            with pytest.raises(EntryTakenError):
                queue.finish(filebase)
            return queue.recover() == []

        assert in_child(try_to_finish)
        queue.finish(filebase)


class TestOtherUsers:
    @pytest.fixture
    def dropped(self, open_path: Path) -> Path:
        """An entry of another user, in a queue that both may write to."""
        if os.geteuid() != 0:
            pytest.skip('needs root, to be two users')
        filebase = Switchboard('in', open_path / 'in', options=LAZY).enqueue('x')
        (open_path / 'bad').mkdir()
        for name in ('in', 'bad'):
            (open_path / name).chmod(0o777)
        return open_path / 'in' / f'{filebase}.pck'

    def test_what_may_only_be_read_is_worked_on_without_a_history(self, dropped: Path) -> None:
        dropped.chmod(0o644)

        def work() -> Any:
            queue = Switchboard('in', dropped.parent, options=LAZY)
            msg, _ = queue.dequeue(dropped.stem)
            queue.annotate(dropped.stem, {'event': 'seen'})
            queue.release(dropped.stem, delay_s=0.001)
            (filebase,) = queue.get_files()
            queue.dequeue(filebase)
            queue.finish(filebase)
            return msg, queue.get_files(), queue.get_files('.bak')

        assert in_child(work, NOBODY) == ('x', [], [])

    def test_what_may_not_be_read_goes_to_bad_unread(self, dropped: Path) -> None:
        dropped.chmod(0o000)

        def work() -> Any:
            queue = Switchboard('in', dropped.parent, options=LAZY)
            good = queue.enqueue('good')
            with pytest.raises(CorruptEntryError, match='unreadable'):
                queue.dequeue(dropped.stem)
            taken = queue.take()
            assert taken is not None
            return taken.filebase == good

        assert in_child(work, NOBODY)
        assert os.listdir(dropped.parent.parent / 'bad') == [f'{dropped.stem}.psv']

    def test_preserving_it_on_purpose_is_the_same(self, dropped: Path) -> None:
        dropped.chmod(0o000)
        in_child(lambda: Switchboard('in', dropped.parent).finish(dropped.stem, preserve=True), NOBODY)
        assert os.listdir(dropped.parent.parent / 'bad') == [f'{dropped.stem}.psv']

    def test_a_claim_that_may_not_be_read_is_not_recovered_for_ever(self, dropped: Path) -> None:
        dropped.chmod(0o000)
        dropped.rename(dropped.with_suffix('.bak'))
        recovered = in_child(lambda: Switchboard('in', dropped.parent).recover(), NOBODY)
        assert recovered == []
        assert os.listdir(dropped.parent.parent / 'bad') == [f'{dropped.stem}.psv']

    def test_a_fifo_that_may_not_be_opened_is_foreign_and_stays(self, dropped: Path) -> None:
        dropped.unlink()
        os.mkfifo(dropped, 0o000)

        def work() -> None:
            with pytest.raises(ForeignFileError):
                Switchboard('in', dropped.parent).dequeue(dropped.stem)

        in_child(work, NOBODY)
        assert dropped.is_fifo()

    def test_a_directory_that_may_not_be_written_to_is_trouble_with_the_disk(self, dropped: Path) -> None:
        dropped.chmod(0o666)
        dropped.parent.chmod(0o755)

        def work() -> None:
            queue = Switchboard('in', dropped.parent, options=LAZY)
            with pytest.raises(DurabilityError):
                queue.dequeue(dropped.stem)

        in_child(work, NOBODY)
        assert dropped.exists()
        assert os.listdir(dropped.parent.parent / 'bad') == []


class TestHistory:
    def test_a_half_written_record_is_cut_off_before_the_next(self, tmp_path: Path) -> None:
        class HalfDisk(Disk):
            writes_left = 10**6

            def pwrite(self, fd: int, content: bytes, offset: int) -> int:
                if self.writes_left == 0:
                    raise OSError(errno.ENOSPC, 'no space')
                self.writes_left -= 1
                return os.pwrite(fd, content[:100], offset)

        disk = HalfDisk()
        queue = Switchboard('in', tmp_path / 'in', options=LAZY, disk=disk)
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        disk.writes_left = 3
        queue.annotate(filebase, {'event': 'a long one', 'text': 'x' * 500})
        assert queue.history(filebase) == []
        disk.writes_left = 10
        queue.annotate(filebase, {'event': 'short'})
        queue.release(filebase)
        entry = Switchboard('in', tmp_path / 'in').peek(filebase)
        assert [record['event'] for record in entry.records] == ['short']
        assert entry.end == (tmp_path / 'in' / f'{filebase}.pck').stat().st_size

    def test_a_record_leaves_the_modification_time_alone(self, queue: Switchboard, tmp_path: Path) -> None:
        filebase = queue.enqueue('x')
        path = tmp_path / 'in' / f'{filebase}.pck'
        os.utime(path, ns=(10**18, 10**18))
        queue.dequeue(filebase)
        queue.release(filebase, record={'event': 'kept'})
        assert path.stat().st_mtime_ns == 10**18

    def test_a_name_cannot_be_taken_from_a_copy_made_by_hand(
        self, queue: Switchboard, tmp_path: Path
    ) -> None:
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        (tmp_path / 'in' / f'{filebase}.pck').write_text('a copy')
        released = queue.release(filebase)
        assert (tmp_path / 'in' / f'{filebase}.pck').read_text() == 'a copy'
        assert released == one_ns_later(filebase)
        assert queue.dequeue(released)[0] == 'x'


class TestTheTableOfOwnClaims:
    """A claim enters itself, follows its file's name, and strikes itself out: nobody else writes there."""

    def own(self) -> set[str]:
        return {name for _, name in OWN_CLAIMS}

    def test_a_claim_is_there_from_its_lock_to_its_end(self, queue: Switchboard) -> None:
        filebase = queue.enqueue('x')
        claim = open_claim(queue.folder, filebase, '.pck')
        assert claim is not None
        assert f'{filebase}.pck' in self.own()
        assert claim_of(queue.folder, filebase) is None  # it is locked, and not at work
        claim.rename(queue.folder, filebase, '.bak')
        assert claim_of(queue.folder, filebase) is claim
        assert f'{filebase}.pck' not in self.own()
        claim.close()
        assert not claim.is_own()
        assert claim_of(queue.folder, filebase) is None

    def test_a_finished_claim_is_not_there(self, queue: Switchboard) -> None:
        claim = claim_ready(queue.folder, queue.enqueue('x'))
        claim.finish(queue.pool)
        assert not claim.is_own()
        assert f'{claim.filebase}.bak' not in self.own()

    def test_one_that_could_not_be_finished_still_is(self, queue: Switchboard) -> None:
        claim = claim_ready(queue.folder, queue.enqueue('x'))
        os.unlink(os.path.join(queue.queue_directory, claim.name))
        with pytest.raises(FileNotFoundError):
            claim.finish(queue.pool)
        assert claim_of(queue.folder, claim.filebase) is claim
        claim.close()
