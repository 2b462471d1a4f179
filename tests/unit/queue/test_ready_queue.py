"""Which entry comes next, since when it is due, and how often the directory is read."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from switchboard import Switchboard
from switchboard.errors import DurabilityError
from switchboard.message.naming import NS_PER_S, Slice, format_when, sort_key
from switchboard.options import QueueOptions
from switchboard.queue.listing import Listing
from switchboard.queue.ready_queue import ReadyQueue
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.testing import FakeClock

DIGEST = '0123456789012345678901234567890123456789'


class CountingDisk(Disk):
    def __init__(self) -> None:
        self.listed = 0
        self.read_bytes: int | None = None
        self.missed: set[str] = set()

    def scandir(self, path: Any) -> Any:
        self.listed += 1
        missed, self.missed = self.missed, set()
        if not missed:
            return Disk.scandir(path)
        return nullcontext(iter([entry for entry in Disk.scandir(path) if entry.name not in missed]))

    def directory_read_bytes(self, fd: int) -> int:
        """See `Disk`."""
        return Disk.directory_read_bytes(fd) if self.read_bytes is None else self.read_bytes


class Scene:
    """A directory with entries that are nothing but names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.disk = CountingDisk()
        self.count = 0
        folder = Folder(self.path, self.disk)
        folder.queue = 'in'
        self.listing = Listing(folder, self.clock, Slice())
        self.queue = ReadyQueue(self.listing)

    def due(self) -> tuple[list[str], float | None]:
        """What a new object gives out, and in how many seconds there is more."""
        self.queue = ReadyQueue(self.listing)
        files = self.queue.files()
        assert self.queue.scan() == bool(files)
        assert [self.queue.next() for _ in files] == files
        return files, self.queue.wait_s()

    def defer(self, filebase: str, seconds: float) -> None:
        self.queue.defer(filebase, self.clock.monotonic_ns() + int(seconds * NS_PER_S))

    def name(self, in_s: float = -60, priority: int = 0) -> str:
        self.count += 1
        when = format_when(self.clock.time_ns() + int(in_s * NS_PER_S) + self.count)
        return f'{when}+{DIGEST[:30]}{self.count:010d}' + (f'+p{priority}' if priority else '')

    def add(self, in_s: float = -60, priority: int = 0, modified_in_s: float | None = None) -> str:
        filebase = self.name(in_s, priority)
        path = self.path / f'{filebase}.pck'
        path.touch()
        if modified_in_s is not None:
            modified_ns = self.clock.time_ns() + int(modified_in_s * NS_PER_S)
            os.utime(path, ns=(modified_ns, modified_ns))
        return filebase


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


class TestOrder:
    def test_entries_without_priority_are_first_in_first_out(self, scene: Scene) -> None:
        late, early, middle = scene.add(-10), scene.add(-1000), scene.add(-100)
        assert scene.due() == ([early, middle, late], None)

    def test_a_level_of_priority_is_worth_a_minute(self, scene: Scene) -> None:
        old = scene.add(-200)
        high, low = scene.add(-10, priority=3), scene.add(-30, priority=2)
        urgent = scene.add(-10, priority=4)
        assert scene.due()[0] == [urgent, old, high, low]

    def test_nothing_is_deferred_for_ever(self, scene: Scene) -> None:
        old = scene.add(-9 * 60 - 20)
        scene.add(-10, priority=9)
        assert scene.due()[0][0] == old

    def test_names_of_any_length_can_be_put_in_order(self) -> None:
        short = f'1732242000.5+{DIGEST}+p1'
        assert sort_key(short, 60 * NS_PER_S) < sort_key(f'1732242000.4+{DIGEST}', 60 * NS_PER_S)

    def test_only_the_first_ones_are_kept_of_a_long_queue(self, scene: Scene) -> None:
        filebases = [scene.add(-1000 + number) for number in range(50)]
        assert scene.queue.files(7) == filebases[:7]


class TestDue:
    def test_what_lies_in_the_future_waits_for_it(self, scene: Scene) -> None:
        scene.add(60)
        soon = scene.add(30)
        due, next_s = scene.due()
        assert due == []
        assert next_s == pytest.approx(30)
        scene.clock.advance(31)
        assert scene.due()[0] == [soon]

    def test_what_only_a_turned_clock_has_put_there_does_not(self, scene: Scene) -> None:
        displaced = scene.add(3600, modified_in_s=3600)
        delayed = scene.add(3600, modified_in_s=0)
        long_delayed = scene.add(7200, modified_in_s=3600)
        due, next_s = scene.due()
        assert due == [displaced]
        assert next_s == pytest.approx(3600)
        assert delayed < long_delayed

    def test_the_wait_that_was_asked_for_is_kept_when_the_clock_is_set_back(self, scene: Scene) -> None:
        delayed = scene.add(10, modified_in_s=0)
        assert scene.due() == ([], pytest.approx(10))
        scene.clock.set_back(3600)
        assert not scene.queue.scan()
        assert scene.queue.wait_s() == pytest.approx(10)
        scene.clock.advance(11)
        assert scene.queue.scan()
        assert scene.queue.next() == delayed

    def test_entries_that_a_turned_clock_has_put_there_are_the_oldest(self, scene: Scene) -> None:
        displaced = scene.add(3600, modified_in_s=3600)
        assert scene.queue.oldest(3) == [displaced]
        assert scene.queue.sample(3) == [displaced]

    def test_a_clock_that_was_set_back_a_little_is_waited_for(self, scene: Scene) -> None:
        scene.add(0.5, modified_in_s=0.5)
        assert scene.due()[0] == []
        scene.clock.advance(0.6)
        assert len(scene.due()[0]) == 1

    def test_an_entry_that_has_become_due_this_moment_is_due(self, scene: Scene) -> None:
        filebase = scene.add(60)
        assert scene.due()[0] == []
        _, next_s = scene.due()
        assert next_s is not None
        scene.clock.advance(next_s)
        assert scene.due() == ([filebase], None)

    def test_another_processs_entries_from_before_the_clock_was_set_back_are_due(
        self, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        before = Switchboard('in', tmp_path / 'in', clock=clock).enqueue('before')
        clock.set_back(3600)
        # Another process has another name generator: it knows nothing of the time that was.
        other = Switchboard('in', tmp_path / 'in', clock=clock)
        after = other.enqueue('after')
        assert sorted(other.files) == sorted([before, after])
        taken = [other.take(), other.take()]
        assert {one.msg for one in taken if one} == {'before', 'after'}


class TestForeignNames:
    @pytest.fixture
    def foreign(self, scene: Scene) -> list[str]:
        names = ['README', 'foo.pck', 'directory', f'{DIGEST}.pck', 'x.bak.orig']
        for name in names:
            (scene.path / name).touch()
        (scene.path / 'directory').unlink()
        (scene.path / 'directory').mkdir()
        return names

    def test_each_is_reported_once_and_stops_nothing(
        self, scene: Scene, foreign: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        filebase = scene.add()
        with caplog.at_level(logging.WARNING, 'switchboard.queue'):
            for _ in range(3):
                assert scene.due()[0] == [filebase]
        reported = [record.members['name'] for record in caplog.records]
        assert sorted(reported) == sorted(foreign)
        assert all(record.members['queue'] == 'in' for record in caplog.records)

    def test_our_own_other_files_are_not_foreign(
        self, scene: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in (f'{scene.name()}.bak', f'{scene.name()}.psv', f'{DIGEST}.tmp', '.hidden'):
            (scene.path / name).touch()
        assert scene.due() == ([], None)
        assert caplog.records == []

    @pytest.mark.parametrize('kind', ['directory', 'fifo', 'symlink', 'dangling symlink', 'socket'])
    def test_what_has_an_entrys_name_and_is_none_is_reported_once_and_passed_over(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        queue = Switchboard('in', tmp_path / 'in')
        path = tmp_path / 'in' / f'1732242000.5+{DIGEST}.pck'
        match kind:
            case 'directory':
                path.mkdir()
            case 'fifo':
                os.mkfifo(path)
            case 'symlink':
                (tmp_path / 'target').write_text('x')
                path.symlink_to(tmp_path / 'target')
            case 'dangling symlink':
                path.symlink_to('nowhere')
            case 'socket':
                os.mknod(path, stat.S_IFSOCK | 0o600)
        filebase = queue.enqueue('good')
        taken = queue.take()
        assert taken is not None
        assert taken.filebase == filebase
        assert queue.take() is None
        assert not queue.has_ready()
        assert queue.files == []
        assert [path.name in record.getMessage() for record in caplog.records] == [True]
        assert path.is_symlink() or path.exists()


class TestGivingOut:
    def test_one_listing_serves_all_that_it_found(self, scene: Scene) -> None:
        filebases = [scene.add() for _ in range(10)]
        listed = scene.disk.listed
        assert [scene.queue.next() for _ in range(10)] == filebases
        assert scene.disk.listed == listed + 1

    def test_one_call_looks_once_if_others_have_all_that_it_found(self, tmp_path: Path) -> None:
        disk = CountingDisk()
        queue = Switchboard('in', tmp_path / 'in', disk=disk, clock=FakeClock())
        filebases = [queue.enqueue(number) for number in range(3)]
        held = [os.open(tmp_path / 'in' / f'{filebase}.pck', os.O_RDWR) for filebase in filebases]
        for fd in held:
            fcntl.flock(fd, fcntl.LOCK_EX)
        disk.listed = 0
        assert queue.take() is None
        assert disk.listed == 1
        for fd in held:
            os.close(fd)
        # Each later call looks anew, and what was refused waits for a moment.
        new = queue.enqueue('new')
        taken = queue.take()
        assert taken is not None
        assert taken.filebase == new
        assert disk.listed == 2

    @pytest.mark.parametrize(
        ('number', 'read_bytes', 'readings'),
        [(20, 0, 1), (22, 0, 2), (300, 32 * 1024, 1), (300, 0, 2), (400, 32 * 1024, 2)],
    )
    def test_young_entries_that_more_than_one_call_read_are_looked_for_again(
        self, scene: Scene, number: int, read_bytes: int, readings: int
    ) -> None:
        filebases = [scene.add(-0.5) for _ in range(number)]
        scene.disk.read_bytes = read_bytes
        # A reading of several calls can find an entry that came in the middle of it, and miss one that came before that.
        scene.disk.missed = {f'{filebases[0]}.pck'} if readings > 1 else set()
        assert [scene.queue.next() for _ in filebases] == filebases
        assert scene.disk.listed == readings

    def test_what_is_quickly_read_is_read_again_soon(self, scene: Scene) -> None:
        scene.add(-10)
        later = scene.add(-9)
        assert scene.queue.next() != later
        urgent = scene.add(-9, priority=9)
        scene.clock.advance(0.021)  # by this clock, reading takes no time
        assert scene.queue.next() == urgent

    @pytest.mark.parametrize(('took_s', 'good_s'), [(0.003, 0.3), (0.015, 1.0), (0.2, 4.0)])
    def test_the_longer_a_reading_takes_the_longer_its_names_are_good(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch, took_s: float, good_s: float
    ) -> None:
        first, second, third = (scene.add(-number) for number in (10, 9, 8))
        chunks = scene.listing.filebase_chunks

        def slow(suffix: str) -> Iterator[list[str]]:
            scene.clock.advance(took_s)
            return chunks(suffix)

        monkeypatch.setattr(scene.listing, 'filebase_chunks', slow)
        assert scene.queue.next() == first
        urgent = scene.add(-9, priority=9)
        scene.clock.advance(0.9 * good_s - took_s)
        assert scene.queue.next() == second
        scene.clock.advance(0.2 * good_s)
        assert scene.queue.next() == urgent
        (scene.path / f'{second}.pck').unlink()
        (scene.path / f'{first}.pck').unlink()
        assert third

    def test_a_held_entry_is_given_out_when_its_time_is_over(self, scene: Scene) -> None:
        filebase = scene.add()
        scene.defer(filebase, 10)
        assert (scene.queue.next(), scene.queue.scan()) == (None, False)
        assert scene.queue.wait_s() == pytest.approx(10)
        scene.clock.advance(10.1)
        assert scene.queue.scan()
        assert scene.queue.next() == filebase

    def test_young_entries_do_not_wait_for_older_ones_that_are_held(self, scene: Scene) -> None:
        held = scene.add(-60)
        scene.defer(held, 30)
        young = scene.add(-0.5)
        assert scene.queue.scan()
        assert scene.queue.next() == young
        assert scene.queue.wait_s() == pytest.approx(30)

    def test_a_hold_on_what_is_gone_is_forgotten(self, scene: Scene) -> None:
        filebase = scene.add()
        scene.defer(filebase, 10)
        (scene.path / f'{filebase}.pck').unlink()
        assert not scene.queue.scan()
        assert scene.queue.wait_s() is None

    def test_it_waits_for_whatever_comes_first(self, scene: Scene) -> None:
        assert scene.queue.wait_s() is None
        scene.add(20)
        assert not scene.queue.scan()
        assert scene.queue.wait_s() == pytest.approx(20, abs=0.01)
        held = scene.add()
        scene.defer(held, 5)
        assert not scene.queue.scan()
        assert scene.queue.wait_s() == pytest.approx(5)


def test_a_slice_sees_its_own_and_reports_what_is_foreign(tmp_path: Path) -> None:
    everything = Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'))
    for number in range(30):
        everything.enqueue(number)
    shares = [Switchboard('in', tmp_path / 'in', index, 3).files for index in range(3)]
    assert sorted(filebase for share in shares for filebase in share) == everything.files
    assert all(shares)


class TestReplacedDirectory:
    """A queue's directory is renamed away and made anew while a process works on it."""

    def replace(self, path: Path, clock: FakeClock) -> Switchboard:
        (path / 'in').rename(path / 'away')
        clock.advance(1)
        return Switchboard('in', path / 'in', clock=clock)

    def test_what_comes_into_the_new_one_is_taken_and_the_log_says_so(
        self, tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue = Switchboard('in', tmp_path / 'in', clock=clock)
        queue.enqueue('old')
        self.replace(tmp_path, clock).enqueue('new')
        assert [one.msg for one in iter(queue.take, None)] == ['new']
        assert 'replaced' in caplog.text

    def test_what_a_producer_puts_there_goes_into_the_new_one(self, tmp_path: Path, clock: FakeClock) -> None:
        queue = Switchboard('in', tmp_path / 'in', clock=clock)
        queue.enqueue('old')
        other = self.replace(tmp_path, clock)
        queue.enqueue('new')
        assert [one.msg for one in iter(other.take, None)] == ['new']
        assert [one.msg for one in iter(queue.take, None)] == []
        queue.enqueue('newer')
        clock.advance(1)
        assert [one.msg for one in iter(queue.take, None)] == ['newer']

    def test_what_is_at_work_is_finished_where_it_began(self, tmp_path: Path, clock: FakeClock) -> None:
        queue = Switchboard('in', tmp_path / 'in', clock=clock)
        queue.enqueue_many(['old', 'older'])
        taken = queue.take()
        assert taken is not None
        self.replace(tmp_path, clock).enqueue('new')
        queue.finish(taken.filebase)
        clock.advance(1)
        assert [one.msg for one in iter(queue.take, None)] == ['new']
        assert len(list((tmp_path / 'away').iterdir())) == 1

    def test_a_directory_that_is_read_seldom_is_followed_as_well(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        queue = Switchboard('in', tmp_path / 'in', clock=clock, slow_listing_ns=0)
        wakeup = queue.make_wakeup()
        for _ in range(2):
            assert not queue.has_ready()
        other = self.replace(tmp_path, clock)
        other.enqueue('new')
        assert [one.msg for one in iter(queue.take, None)] == ['new']
        other.enqueue('newer')
        clock.advance(1)
        assert [one.msg for one in iter(queue.take, None)] == ['newer']
        wakeup.close()

    def test_a_sleeper_is_woken(self, tmp_path: Path, clock: FakeClock) -> None:
        queue = Switchboard('in', tmp_path / 'in', clock=clock)
        wakeup = queue.make_wakeup()
        wakeup.arm()
        assert not queue.has_ready()
        self.replace(tmp_path, clock)
        assert wakeup.wait(60)
        wakeup.close()

    def test_one_that_is_gone_is_an_error(self, tmp_path: Path, clock: FakeClock) -> None:
        queue = Switchboard('in', tmp_path / 'in', clock=clock)
        (tmp_path / 'in').rmdir()
        with pytest.raises(DurabilityError):
            queue.take()
