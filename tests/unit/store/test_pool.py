"""The pool: which file is written again, which never is, and that a finished message cannot come back as a new one."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool, Switchboard
from switchboard.message.naming import NameGenerator
from switchboard.options import QueueOptions
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.pool import (
    ALWAYS_KEPT,
    BLOCK_BYTES,
    COUNT_EVERY,
    COUNT_SHARE,
    KEPT_BYTES,
    KEPT_OPEN,
    KEPT_OPEN_BYTES,
    MISSES_BEFORE_LOOK,
    SHRINKS_BY,
    UNUSED_NS,
    FilePool,
    PoolFile,
    delete_unfinished,
)
from switchboard.testing.faults import FaultyDisk
from tests.helpers.descriptors import Opened
from tests.helpers.processes import NOBODY, Child, in_child
from tests.large_directories import GrowingDisk, Grown


@pytest.fixture
def spares(tmp_path: Path) -> FilePool:
    folder = Folder(tmp_path / '.spare', Disk())
    folder.make()
    return FilePool(folder)


def inode(draft: PoolFile) -> int:
    return os.fstat(draft.fd).st_ino


def files(spares: FilePool) -> list[Path]:
    return sorted(Path(spares.folder.path).iterdir())


def cycle(queue: Switchboard, msg: object = 'x') -> int:
    """Put a message through its whole life.

    :return: the inode of its file.
    """
    filebase = queue.enqueue(msg)
    number = (Path(queue.queue_directory) / f'{filebase}.pck').stat().st_ino
    queue.dequeue(filebase)
    queue.finish(filebase)
    return number


class TestRecycling:
    def test_the_file_of_a_finished_message_is_that_of_the_next(self, spool: Spool) -> None:
        assert len({cycle(spool['in'], number) for number in range(20)}) == 1
        assert spool.pool.count() == 1

    def test_the_next_message_may_be_in_another_queue_and_of_another_size(self, spool: Spool) -> None:
        first = cycle(spool['in'], b'x' * 5000)
        filebase = spool['out'].enqueue(b'short')
        path = Path(spool.path('out', f'{filebase}.pck'))
        assert path.stat().st_ino == first
        assert path.read_bytes().endswith(b'{}short')

    def test_a_longer_body_gives_its_blocks_back(self, spool: Spool) -> None:
        cycle(spool['in'], b'x' * (KEPT_OPEN_BYTES + 1))
        (path,) = files(spool.pool)
        assert path.stat().st_size == 0

    def test_only_the_files_that_are_kept_open_may_be_large(self, spool: Spool) -> None:
        queue = spool['in']
        for number in range(KEPT_OPEN + 1):
            queue.enqueue(b'%d' % number + b'x' * KEPT_BYTES)
        for filebase in queue.files:
            queue.dequeue(filebase)
            queue.finish(filebase)
        sizes = sorted(path.stat().st_size for path in files(spool.pool))
        assert sizes[0] == 0
        assert all(KEPT_BYTES < size <= KEPT_OPEN_BYTES for size in sizes[1:])
        assert len(sizes) == KEPT_OPEN + 1

    def test_with_scrub_nothing_of_a_finished_message_stays_on_the_disk(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / '.spare', Disk())
        folder.make()
        scrubbing = FilePool(folder, scrub=True)
        queue = Switchboard('in', tmp_path / 'in', pool=scrubbing)
        cycle(queue, 'secret')
        (path,) = files(scrubbing)
        assert path.read_bytes() == b''

    def test_what_an_older_message_left_in_a_file_is_never_taken_for_history(self, spool: Spool) -> None:
        queue = spool['in']
        first = queue.enqueue('x' * 50)
        queue.dequeue(first)
        for _ in range(5):
            queue.annotate(first, {'event': 'old', 'text': 'y' * 100})
        queue.finish(first)
        second = queue.enqueue('x' * 50)
        assert queue.history(second) == []
        assert queue.dequeue(second)[0] == 'x' * 50
        queue.annotate(second, {'event': 'new'})
        assert [record['event'] for record in queue.history(second)] == ['new']

    def test_a_spare_that_another_process_left_is_found(self, spool: Spool) -> None:
        number = in_child(lambda: cycle(Spool(spool.directory, 'lazy')['in']))
        assert cycle(spool['in']) == number

    def test_what_another_process_keeps_open_is_left_alone(self, spares: FilePool) -> None:
        others = FilePool(spares.folder)
        draft = others.acquire()
        kept = inode(draft)
        others.discard(draft)
        assert inode(spares.acquire()) != kept
        others.close()
        found = FilePool(spares.folder).acquire()
        assert inode(found) == kept


class TestWhatIsNotUsedAgain:
    def test_a_file_with_another_link_to_it(self, spool: Spool, tmp_path: Path) -> None:
        first = cycle(spool['in'], 'to be kept')
        (path,) = files(spool.pool)
        os.link(path, tmp_path / 'backup')
        assert cycle(spool['in'], 'another message') != first
        assert (tmp_path / 'backup').read_bytes().endswith(b'to be kept')
        assert (tmp_path / 'backup').stat().st_nlink == 1

    def test_a_message_that_was_linked_while_it_waited(self, spool: Spool, tmp_path: Path) -> None:
        queue = spool['in']
        filebase = queue.enqueue('to be kept')
        os.link(Path(queue.queue_directory) / f'{filebase}.pck', tmp_path / 'backup')
        queue.finish(filebase)
        for number in range(3):
            cycle(queue, f'message {number}')
        assert (tmp_path / 'backup').read_bytes().endswith(b'to be kept')

    @pytest.mark.skipif(os.geteuid() != 0, reason='needs root, to be two users')
    def test_another_users_file(self, spool: Spool) -> None:
        queue = spool['in']
        filebase = queue.enqueue('theirs')
        path = Path(queue.queue_directory) / f'{filebase}.pck'
        os.chown(path, NOBODY, NOBODY)
        theirs = path.stat().st_ino
        with path.open('rb') as reader:
            queue.dequeue(filebase)
            queue.finish(filebase)
            assert cycle(queue, 'ours') != theirs
            assert reader.read().endswith(b'theirs')

    @pytest.mark.skipif(os.geteuid() != 0, reason='needs root, to be two users')
    def test_another_users_spare_is_left_to_him(self, spares: FilePool) -> None:
        draft = spares.acquire()
        os.chown(draft.fd, NOBODY, NOBODY)
        spares.discard(draft)
        spares.close()
        (path,) = files(spares)
        again = FilePool(spares.folder)
        assert inode(again.acquire()) != path.stat().st_ino
        assert path.exists()

    def test_what_is_no_regular_file(self, spares: FilePool) -> None:
        place = Path(spares.folder.path)
        os.mkfifo(place / 'fifo')
        (place / 'directory').mkdir()
        (place / 'link').symlink_to('/etc/passwd')
        draft = spares.acquire()
        assert stat.S_ISREG(os.fstat(draft.fd).st_mode)
        assert draft.name not in ('fifo', 'directory', 'link')

    def test_a_file_that_somebody_has_deleted(self, spool: Spool) -> None:
        cycle(spool['in'])
        for path in files(spool.pool):
            path.unlink()
        filebase = spool['in'].enqueue('x')
        assert spool['in'].dequeue(filebase)[0] == 'x'

    def test_pages_that_a_failed_sync_left_behind(self, spares: FilePool) -> None:
        draft = spares.acquire()
        spares.discard(draft, reusable=False)
        assert files(spares) == []


class TestModes:
    def test_a_spare_whose_maker_died_before_it_had_its_mode_gets_it(self, spares: FilePool) -> None:
        path = Path(spares.folder.path) / NameGenerator().digest('00000000')
        path.touch(mode=0o600)
        path.chmod(0o600)
        draft = spares.acquire()
        assert inode(draft) == path.stat().st_ino
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


class TestPool:
    def test_it_keeps_a_bounded_number_of_files_open(self, spares: FilePool) -> None:
        spares.discard(spares.acquire())
        spares.close()
        opened = Opened()
        drafts = [spares.acquire() for _ in range(KEPT_OPEN + 10)]
        assert len(opened()) == KEPT_OPEN + 10
        for draft in drafts:
            spares.discard(draft)
        assert len(opened()) == KEPT_OPEN
        assert spares.count() == KEPT_OPEN + 10
        spares.close()
        assert opened() == []

    def test_after_a_burst_the_next_one_is_written_into_the_same_files(self, spool: Spool) -> None:
        for _ in range(3):
            spool['in'].enqueue_many(range(KEPT_OPEN + 50))
            while (taken := spool['in'].take()) is not None:
                spool['in'].finish(taken.filebase)
        assert spool.pool.count() == KEPT_OPEN + 50

    def test_a_full_pool_is_counted_the_seldomer_the_more_is_in_it(self, tmp_path: Path) -> None:
        there = 4 * COUNT_EVERY * COUNT_SHARE

        class Counted(FilePool):
            counted = 0

            def count(self) -> int:
                self.counted += 1
                return there

        folder = Folder(tmp_path / '.spare', Disk())
        folder.make()
        pool = Counted(folder, limit=there)
        queue = Switchboard('in', tmp_path / 'in', pool=pool, options=QueueOptions(durability='lazy'))
        given = 8 * COUNT_EVERY
        for _ in range(given):
            queue.enqueue('x')
            taken = queue.take()
            assert taken is not None
            queue.finish(taken.filebase)
        assert 0 < pool.counted <= given // (4 * COUNT_EVERY) + 1

    def test_who_takes_as_many_as_he_gives_goes_on_with_a_full_pool(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / '.spare', Disk())
        folder.make()
        FilePool(folder).fill(10)
        pool = FilePool(folder, limit=5)  # so there are too many
        queue = Switchboard('in', tmp_path / 'in', pool=pool, options=QueueOptions(durability='lazy'))
        assert len({cycle(queue, number) for number in range(3 * COUNT_EVERY)}) == 1
        assert pool.count() == 10

    def test_a_process_that_only_finishes_leaves_every_file_to_those_who_put(self, spool: Spool) -> None:
        filebases = spool['in'].enqueue_many(range(20))
        consumer = Spool(spool.directory, 'lazy')
        while (taken := consumer['in'].take()) is not None:
            consumer['in'].finish(taken.filebase)
        assert consumer.pool.kept_open == []
        producer = FilePool(Folder(spool.path('.spare'), Disk()))
        drafts = [producer.acquire() for _ in filebases]
        assert producer.count() == len(filebases)
        for draft in drafts:
            producer.discard(draft)
        producer.close()
        consumer.close()

    def test_as_long_as_looks_pay_no_file_is_new(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / '.spare', Disk())
        folder.make()
        (tmp_path / 'in').mkdir()
        queue = Folder(tmp_path / 'in', folder.disk)
        producer, consumer = FilePool(folder), FilePool(folder)
        consumer.fill(30)
        for turn in range(50):
            taken = [producer.acquire() for _ in range(30)]
            for number, file in enumerate(taken):
                name = f'{turn}-{number}'
                folder.disk.rename(file.name, name, src_dir_fd=folder.fd, dst_dir_fd=queue.fd)
                consumer.recycle(file.fd, queue, name, 10)
        assert consumer.count() == 30

    def test_where_others_are_faster_at_most_of_what_is_there_some_are_made(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / '.spare', Disk())
        folder.make()
        pool, other = FilePool(folder), FilePool(folder)
        other.fill(30)
        taken = [pool.acquire() for _ in range(4)]
        for name in set(folder.names()) - {file.name for file in taken}:
            (Path(folder.path) / name).unlink()
        there = 4 + other.fill(4 + 20)
        taken += [pool.acquire() for _ in range(MISSES_BEFORE_LOOK)]
        assert pool.count() == there + MISSES_BEFORE_LOOK
        for file in taken:
            folder.disk.unlock_and_close(file.fd)
        taken = [pool.acquire() for _ in range(10)]
        assert pool.count() == there + MISSES_BEFORE_LOOK
        for file in taken:
            folder.disk.unlock_and_close(file.fd)

    def test_a_directory_that_has_grown_is_looked_at_seldom_unless_it_pays(self, tmp_path: Path) -> None:
        class Counting(GrowingDisk):
            looks = 0

            def scandir(self, path: Any) -> Any:
                self.looks += 1
                return os.scandir(path)

        disk = Counting()
        folder = Folder(tmp_path / '.spare', disk)
        folder.make()
        # It is not empty, or it would be renewed; and what keeps it is of no use.
        (tmp_path / '.spare' / 'directory').mkdir()
        disk.grow(folder)
        blocks = Grown.st_size // BLOCK_BYTES
        pool = FilePool(folder)
        taken = [pool.acquire() for _ in range(blocks)]
        assert 1 < disk.looks <= 1 + blocks // (blocks // 4)
        for file in taken:
            disk.unlock_and_close(file.fd)
        for path in (tmp_path / '.spare').iterdir():
            if path.is_file():
                path.unlink()
        FilePool(folder).fill(blocks)
        pool.misses, before = blocks, pool.count()
        taken = [pool.acquire() for _ in range(blocks * 3 // 4)]
        assert pool.count() == before
        for file in taken:
            disk.unlock_and_close(file.fd)

    def test_several_who_look_at_the_same_names_find_all_of_them(self, spares: FilePool) -> None:
        spares.fill(100)
        pools = [FilePool(spares.folder) for _ in range(4)]
        taken = [pools[number % 4].acquire() for number in range(100)]
        assert len({inode(draft) for draft in taken}) == 100
        # Each makes a few new ones before it looks again for those that it has passed over.
        assert spares.count() <= 100 + len(pools) * MISSES_BEFORE_LOOK
        for draft in taken:
            spares.disk.unlock_and_close(draft.fd)

    def test_beyond_its_limit_finished_files_are_deleted(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / '.spare', Disk())
        folder.make()
        spares = FilePool(folder, limit=5)
        assert spares.fill(100) == 5
        queue = Switchboard('in', tmp_path / 'in', pool=spares)
        queue.enqueue_many(range(20))
        while (taken := queue.take()) is not None:
            queue.finish(taken.filebase)
        assert spares.count() <= 5 + 20
        assert os.listdir(tmp_path / 'in') == []

    def test_the_room_that_they_take_is_bounded_by_the_size_of_what_is_given(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path / '.spare', Disk())
        folder.make()
        queue = Switchboard('in', tmp_path / 'in', pool=FilePool(folder, limit_bytes=40 * 60_000))
        queue.enqueue_many([b'x' * 60_000] * (2 * COUNT_EVERY))
        while (taken := queue.take()) is not None:
            queue.finish(taken.filebase)
        assert len(os.listdir(folder.path)) < 2 * COUNT_EVERY

    def test_a_burst_larger_than_what_is_always_kept_is_kept_whole(self, spares: FilePool) -> None:
        assert spares.fill(ALWAYS_KEPT + 900) == ALWAYS_KEPT + 900
        taken = [spares.acquire() for _ in range(3)]
        for draft in taken:
            spares.recycle(draft.fd, draft.folder, draft.name, draft.size)
        assert spares.count() == ALWAYS_KEPT + 900

    def test_what_lay_unused_for_an_hour_goes_slowly(self, spares: FilePool, tmp_path: Path) -> None:
        run = Folder(tmp_path / '.run', Disk())
        run.make()
        spares.fill(ALWAYS_KEPT + 800, size=1)
        assert spares.unused(run, 0) is None
        assert spares.shrink(run, 0) == 0
        assert spares.unused(run, 60) == (ALWAYS_KEPT + 800, 60)
        drafts = [spares.acquire() for _ in range(80)]
        assert spares.count() == ALWAYS_KEPT + 800
        for draft in drafts:
            draft.folder.disk.unlink(draft.name, dir_fd=draft.folder.fd)  # published elsewhere
            draft.folder.disk.close_quietly(draft.fd)
        assert spares.shrink(run, UNUSED_NS // 2) == 0
        assert spares.shrink(run, UNUSED_NS) == 720 // SHRINKS_BY
        assert spares.shrink(run, UNUSED_NS + 1) == 0
        assert spares.shrink(run, 3 * UNUSED_NS) == (720 - 720 // SHRINKS_BY) // SHRINKS_BY
        assert spares.shrink(run, 5) == 0, 'the machine was started anew: the count begins again'

    def test_a_small_pool_is_left_alone(self, spares: FilePool, tmp_path: Path) -> None:
        run = Folder(tmp_path / '.run', Disk())
        run.make()
        spares.fill(10)
        assert [spares.shrink(run, hour * UNUSED_NS) for hour in range(4)] == [0] * 4
        assert spares.count() == 10

    def test_filling_makes_what_is_missing_and_emptying_deletes_what_nobody_writes(
        self, spares: FilePool
    ) -> None:
        assert (spares.fill(3, size=100), spares.fill(3), spares.fill(2)) == (3, 0, 0)
        assert [path.stat().st_size for path in files(spares)] == [100] * 3
        draft = spares.acquire()
        assert spares.empty() == 2
        assert [path.name for path in files(spares)] == [draft.name]

    def test_a_child_does_not_keep_the_spares_of_its_parent_locked(self, spool: Spool) -> None:
        number = cycle(spool['in'])
        with Child(lambda: spool.pool.close() or cycle(spool['in'])) as child:
            assert child.join() != number  # the parent still keeps it
        assert cycle(spool['in']) == number

    def test_a_file_that_cannot_be_moved_there_is_deleted(self, tmp_path: Path) -> None:
        disk = FaultyDisk(0, errno.ENOSPC, calls=('rename',))
        spool = Spool(tmp_path / 'spool', 'lazy', disk=disk)
        filebase = spool['in'].enqueue('x')
        spool['in'].dequeue(filebase)
        disk.arm(1)
        spool['in'].finish(filebase)
        assert disk.failed_call == 'rename'
        assert os.listdir(spool.path('in')) == []


class TestWithoutASpool:
    def test_the_directory_is_empty_when_the_queue_is(self, tmp_path: Path) -> None:
        queue = Switchboard('in', tmp_path / 'in')
        for number in range(3):
            cycle(queue, number)
        queue.enqueue('x')
        assert len(os.listdir(tmp_path / 'in')) == 1
        queue.finish(queue.files[0])
        assert os.listdir(tmp_path / 'in') == []
        assert os.listdir(tmp_path) == ['in']

    def test_drafts_of_the_dead_are_removed_and_those_of_the_living_are_not(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path, Disk())
        scratch = FilePool.without_spares(folder)
        draft = scratch.acquire()
        (tmp_path / 'left.tmp').touch()
        assert delete_unfinished(folder) == 1
        assert os.listdir(tmp_path) == [draft.name]
        scratch.discard(draft)
        assert os.listdir(tmp_path) == []

    def test_recovery_of_the_queue_does_that_too(self, tmp_path: Path) -> None:
        queue = Switchboard('in', tmp_path / 'in')
        (tmp_path / 'in' / 'left.tmp').touch()
        assert queue.recover() == []
        assert os.listdir(tmp_path / 'in') == []


class TestSharedByThreads:
    def test_no_file_is_given_to_two_threads(self, tmp_path: Path) -> None:
        pool = FilePool(Folder(tmp_path, Disk()))
        (tmp_path / 'queue').mkdir()
        queue = Folder(tmp_path / 'queue', pool.disk)
        start = threading.Barrier(8)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                start.wait()
                for turn in range(200):
                    file = pool.acquire()
                    word = f'{number} {turn}'.encode()
                    pool.disk.write_all(file.fd, word)
                    name = f'{number}-{turn}'
                    pool.disk.rename(file.name, name, src_dir_fd=pool.folder.fd, dst_dir_fd=queue.fd)
                    assert pool.disk.pread(file.fd, len(word), 0) == word
                    pool.recycle(file.fd, queue, name, len(word))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert errors == []
        assert os.listdir(tmp_path / 'queue') == []
