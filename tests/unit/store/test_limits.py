"""What a queue may hold is asked before a message is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool, Switchboard
from switchboard.errors import QueueFullError
from switchboard.message.naming import NS_PER_S
from switchboard.options import QueueOptions
from switchboard.store import limits
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import COUNTS, RUN
from switchboard.store.limits import Limits, SharedCount, evicted
from switchboard.store.pool import MISSES_BEFORE_LOOK
from switchboard.testing import FakeClock


class CountingDisk(Disk):
    """Counts how often a directory is listed, and is as full as a test says."""

    def __init__(self, free_bytes: int = 10**9) -> None:
        self.listed = 0
        self.free_bytes = free_bytes

    def scandir(self, path: Any) -> Any:
        self.listed += 1
        return Disk.scandir(path)

    def statvfs(self, path: Any) -> Any:
        class Status:
            f_bavail = self.free_bytes // 4096
            f_frsize = 4096

        return Status


def make(path: Path, clock: FakeClock, disk: Disk | None = None, **options: Any) -> Switchboard:
    return Switchboard('in', path / 'in', options=QueueOptions(**options), disk=disk, clock=clock)


def test_a_number_of_messages_and_not_one_more(tmp_path: Path, clock: FakeClock) -> None:
    queue = make(tmp_path, clock, max_messages=3)
    for number in range(3):
        queue.enqueue(number)
    with pytest.raises(QueueFullError, match='3 messages wait, and max_messages is 3'):
        queue.enqueue(3)
    assert len(queue.files) == 3


def test_claimed_entries_count_and_foreign_files_do_not(tmp_path: Path, clock: FakeClock) -> None:
    queue = make(tmp_path, clock, max_messages=2)
    (tmp_path / 'in' / 'README').touch()
    queue.enqueue(1)
    queue.take()
    queue.enqueue(2)
    with pytest.raises(QueueFullError):
        queue.enqueue(3)


def test_bytes_are_those_of_the_files(tmp_path: Path, clock: FakeClock) -> None:
    queue = make(tmp_path, clock, max_bytes=2000)
    queue.enqueue(b'x' * 1000)
    with pytest.raises(QueueFullError, match='max_bytes is 2000'):
        queue.enqueue(b'x' * 1000)
    queue.enqueue(b'x' * 500)


def test_what_others_have_put_in_is_seen_after_a_second(tmp_path: Path, clock: FakeClock) -> None:
    queue, other = make(tmp_path, clock, max_messages=3), make(tmp_path, clock)
    queue.enqueue(1)
    for number in range(5):
        other.enqueue(number)
    queue.enqueue(2)
    clock.advance(1.1)
    with pytest.raises(QueueFullError, match='7 messages wait'):
        queue.enqueue(3)


def test_the_directory_is_not_listed_for_each_message(tmp_path: Path, clock: FakeClock) -> None:
    disk = CountingDisk()
    queue = make(tmp_path, clock, disk, max_messages=1000)
    for number in range(100):
        queue.enqueue(number)
    assert disk.listed == 1


class SlowDisk(Disk):
    """Takes a tenth of a second to list a directory."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    def scandir(self, path: Any) -> Any:
        self.clock.advance(0.1)
        return Disk.scandir(path)


@pytest.mark.parametrize('is_cheap', [True, False])
def test_a_queue_that_takes_long_to_count_is_not_counted_anew_for_each_refusal(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, is_cheap: bool
) -> None:
    monkeypatch.setattr(limits, 'CHEAP_COUNT_NS', NS_PER_S if is_cheap else 2 * NS_PER_S // 1000)
    queue = make(tmp_path, clock, SlowDisk(clock), max_messages=1)
    queue.finish(queue.enqueue('first'))
    if not is_cheap:
        with pytest.raises(QueueFullError):
            queue.enqueue('second')
        clock.advance(0.1 * limits.COUNT_SHARE + 0.001)
    queue.enqueue('second')


def test_without_a_limit_nothing_is_asked(tmp_path: Path, clock: FakeClock) -> None:
    disk = CountingDisk(free_bytes=0)
    make(tmp_path, clock, disk).enqueue('x')
    assert disk.listed == 0


def test_the_disks_reserve_is_kept(tmp_path: Path, clock: FakeClock) -> None:
    disk = CountingDisk(free_bytes=1_000_000)
    queue = make(tmp_path, clock, disk, min_free_space_bytes=900_000)
    queue.enqueue(b'x')
    with pytest.raises(QueueFullError, match='min_free_space keeps 900000'):
        queue.enqueue(b'x' * 200_000)
    disk.free_bytes = 800_000
    with pytest.raises(QueueFullError, match='are free on the disk'):
        queue.enqueue(b'x')
    assert len(queue.files) == 1


def test_a_message_that_was_not_stored_does_not_count(tmp_path: Path, clock: FakeClock) -> None:
    queue = make(tmp_path, clock, max_messages=1)

    def give_up() -> None:
        with queue.batch():
            queue.enqueue('given up')
            raise RuntimeError('stop')

    with pytest.raises(RuntimeError, match='stop'):
        give_up()
    clock.advance(1.1)
    queue.enqueue('x')
    assert len(queue.files) == 1


class TestShared:
    """What the producers of a spool know together."""

    def make(self, path: Path, clock: FakeClock, disk: Disk | None = None, **options: Any) -> Switchboard:
        return Spool(path, disk=disk, clock=clock).queue('in', **options)

    def test_what_others_have_put_in_is_known_at_once(self, tmp_path: Path, clock: FakeClock) -> None:
        queues = [self.make(tmp_path, clock, max_messages=3) for _ in range(4)]
        for queue in queues[:3]:
            queue.enqueue('x')
        with pytest.raises(QueueFullError):
            queues[3].enqueue('x')

    def test_one_counts_for_all(self, tmp_path: Path, clock: FakeClock) -> None:
        disk = CountingDisk()
        queues = [self.make(tmp_path, clock, disk, max_messages=100) for _ in range(4)]
        for queue in queues:  # each spool looks for its spares, and not again with the next few messages
            queue.enqueue('x')
        disk.listed = 0
        for _ in range(MISSES_BEFORE_LOOK // 2):
            for queue in queues:
                queue.enqueue('x')
        assert disk.listed == 0

    def test_a_record_from_before_a_restart_of_the_machine_is_not_believed(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        clock.advance(10**6)
        self.make(tmp_path, clock, max_messages=1).enqueue('x')
        queue = self.make(tmp_path, FakeClock(), max_messages=2)
        queue.enqueue('x')
        with pytest.raises(QueueFullError, match='2 messages wait'):
            queue.enqueue('x')

    @pytest.mark.parametrize('content', [b'', b'x' * 120, b'1 2 3', b'\xff' * 200])
    def test_a_damaged_record_is_made_anew(self, tmp_path: Path, clock: FakeClock, content: bytes) -> None:
        queue = self.make(tmp_path, clock, max_messages=2)
        queue.enqueue('x')
        (tmp_path / RUN / COUNTS / 'in').write_bytes(content)
        queue.enqueue('x')
        with pytest.raises(QueueFullError, match='2 messages wait'):
            queue.enqueue('x')

    def test_who_may_not_use_the_record_counts_for_himself(self, tmp_path: Path, clock: FakeClock) -> None:
        class Forbidden(Disk):
            def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
                if path == 'in':
                    raise PermissionError(13, 'Permission denied')
                return Disk.open(path, flags, mode, dir_fd=dir_fd)

        queue = self.make(tmp_path, clock, Forbidden(), max_messages=2)
        queue.enqueue('x')
        queue.enqueue('x')
        with pytest.raises(QueueFullError, match='2 messages wait'):
            queue.enqueue('x')

    def test_a_record_that_cannot_be_written_stops_nobody(self, tmp_path: Path, clock: FakeClock) -> None:
        class Full(Disk):
            def pwrite(self, fd: int, content: Any, offset: int) -> int:
                if len(content) == 120:
                    raise OSError(28, 'No space left on device')
                return Disk.pwrite(fd, content, offset)

        queue = self.make(tmp_path, clock, Full(), max_messages=2)
        queue.enqueue('x')
        queue.enqueue('x')
        with pytest.raises(QueueFullError):
            queue.enqueue('x')

    def test_a_queue_without_limits_has_no_record(self, tmp_path: Path, clock: FakeClock) -> None:
        self.make(tmp_path, clock).enqueue('x')
        assert not (tmp_path / RUN / COUNTS).exists()

    def test_room_that_a_later_count_has_seen_is_not_given_away_twice(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        disk, queue, counts = Disk(), tmp_path / 'in', Folder(str(tmp_path / 'counts'), Disk())
        one, other = (
            Limits(
                'in',
                Folder(str(queue), disk),
                QueueOptions(max_messages=3),
                clock,
                SharedCount(counts, 'in'),
            )
            for _ in range(2)
        )
        queue.mkdir()
        for number in range(3):
            (queue / f'{number}.pck').touch()
        shortage = one.reserve_or_shortage(1, 0)
        assert shortage is not None
        (queue / '0.pck').unlink()
        clock.advance(1.1)
        assert other.reserve_or_shortage(1, 0) is None  # it has counted anew, and fills the room
        one.note_evicted(1, 0, shortage)
        assert one.reserve_or_shortage(1, 0, recounts=False) is not None

    def test_a_record_that_is_partly_of_another_time_is_not_believed(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        disk = CountingDisk()
        counts, record = Folder(tmp_path / 'counts', disk), tmp_path / 'counts' / 'in'
        written = []
        for messages in (1, 1234):
            with SharedCount(counts, 'in') as shared_count:
                shared_count.messages = shared_count.counted_at_ns = messages
            written.append(record.read_bytes())
        old, new = written
        for length in range(1, len(old)):
            torn = new[:length] + old[length:]
            record.write_bytes(torn)
            with SharedCount(counts, 'in') as shared_count:
                assert shared_count.counted_at_ns == (-1 if torn not in written else int(torn[40:60]))


class TestEvicted:
    @pytest.mark.parametrize('overflow', ['drop-oldest', 'dead-letter'])
    def test_the_messages_that_made_room_are_counted_for_all_producers_together(
        self, tmp_path: Path, clock: FakeClock, overflow: str
    ) -> None:
        room = Folder(tmp_path / RUN / COUNTS, Disk())
        assert evicted(room, 'in') == 0
        for _ in range(2):
            queue = Spool(tmp_path, clock=clock).queue('in', max_messages=2, overflow=overflow)
            for number in range(3):
                queue.enqueue(number)
                clock.advance(0.1)
            clock.advance(1.1)  # counted anew: what has gone is not forgotten
        assert evicted(room, 'in') == 4

    @pytest.mark.parametrize('content', [b'', b'1' * 120, b'\xff' * 500])
    def test_a_damaged_record_says_nothing(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / 'in').write_bytes(content)
        assert evicted(Folder(tmp_path, Disk()), 'in') == 0


class TestMakingRoom:
    def test_the_oldest_goes_whatever_its_priority(self, tmp_path: Path, clock: FakeClock) -> None:
        queue = make(tmp_path, clock, max_messages=2, overflow='drop-oldest')
        for number, priority in enumerate((9, 0, 0)):
            queue.enqueue(number, priority=priority)
            clock.advance(1)
        assert [queue.peek(one).body for one in queue.files] == [b'1', b'2']

    def test_what_is_at_work_or_not_yet_due_is_not_dropped(self, tmp_path: Path, clock: FakeClock) -> None:
        queue = make(tmp_path, clock, max_messages=2, overflow='drop-oldest')
        queue.enqueue('at work')
        assert queue.take() is not None
        queue.enqueue('later', delay=60)
        with pytest.raises(QueueFullError):
            queue.enqueue('no room')
        assert len(queue.get_files()) == len(queue.get_files('.bak')) == 1

    def test_the_directory_is_not_read_for_each_message(self, tmp_path: Path, clock: FakeClock) -> None:
        disk = CountingDisk()
        queue = make(tmp_path, clock, disk, max_messages=300, overflow='drop-oldest', durability='lazy')
        for number in range(300):
            queue.enqueue(number)
        clock.advance(0.5)
        disk.listed = 0
        for number in range(90):
            queue.enqueue(number)
        assert len(queue.files) == 300
        # Once for a hundred of the oldest, and a count before each drop, as long as counting is cheap.
        assert disk.listed <= 95
