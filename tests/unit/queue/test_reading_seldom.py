"""A large directory is read seldom, and what is listed from memory is what a reading would find."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.message.naming import NS_PER_S, Slice, format_when
from switchboard.queue import wakeup
from switchboard.queue.listing import Listing
from switchboard.queue.ready_queue import SHARE, STAMP_STEP_NS, ReadyQueue
from switchboard.queue.wakeup import Wakeup
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.testing import FakeClock
from tests.large_directories import GrowingDisk

MS = NS_PER_S // 1000


class TickingClock(FakeClock):
    """A reading takes a millisecond by it, so that every listing is slow."""

    ticks_ns = 0

    def monotonic_ns(self) -> int:
        self.ticks_ns += MS
        return super().monotonic_ns() + self.ticks_ns


class CountingDisk(Disk):
    def __init__(self) -> None:
        self.listed = 0

    def scandir(self, path: Any) -> Any:
        self.listed += 1
        return Disk.scandir(path)


class Scene:
    """A directory with entries that are nothing but names, and a queue of them."""

    def __init__(self, path: Path, slice_: Slice | None = None, kept: int = 20) -> None:
        self.path = path
        self.clock = TickingClock()
        self.disk = CountingDisk()
        self.count = 0
        self.listing = Listing(Folder(path, self.disk), self.clock, slice_ or Slice())
        self.queue = ReadyQueue(self.listing, slow_listing_ns=MS, kept=kept)
        self.plain = ReadyQueue(Listing(Folder(path, Disk()), self.clock, slice_ or Slice()))
        self.wakeup = Wakeup(os.fspath(path))

    def due(self) -> tuple[list[str], float | None]:
        """What is given out, and in how many seconds there is more."""
        self.queue.scan()
        found = []
        while not self.queue.needs_listing:
            found.append(self.queue.next())
        return found, self.queue.wait_s()

    def watched(self) -> None:
        """Bring the queue to where it goes by what the kernel tells."""
        self.queue.watch(self.wakeup)
        for _ in range(2):
            self.due()
        self.disk.listed = 0

    def add(self, in_s: float = -60, priority: int = 0, first: int = 0) -> str:
        self.count += 1
        when = format_when(self.clock.time_ns() + int(in_s * NS_PER_S) + self.count)
        filebase = f'{when}+{first:08x}{self.count:032d}' + (f'+p{priority}' if priority else '')
        # As entries come: finished, by a rename, and dated by the clock that named them, however much later it is for the kernel.
        draft = self.path / '.draft'
        draft.touch()
        os.utime(draft, ns=(self.clock.time_ns(), self.clock.time_ns()))
        draft.rename(self.path / f'{filebase}.pck')
        return filebase

    def rename(self, old: str, new: str) -> None:
        (self.path / old).rename(self.path / new)

    def settle(self) -> None:
        """Make the directory look as if it had been left alone for a while."""
        long_ago_ns = self.path.stat().st_mtime_ns - 2 * STAMP_STEP_NS
        os.utime(self.path, ns=(long_ago_ns, long_ago_ns))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


class TestByWhatTheKernelTells:
    def test_the_directory_is_not_read_while_names_come_and_go(self, scene: Scene) -> None:
        scene.watched()
        late, early = scene.add(-10), scene.add(-20)
        assert scene.due()[0] == [early, late]
        scene.rename(f'{early}.pck', f'{early}.bak')
        assert scene.due()[0] == [late]
        (scene.path / f'{late}.pck').unlink()
        assert scene.due() == ([], None)
        scene.rename(f'{early}.bak', f'{early}.pck')
        assert scene.due()[0] == [early]
        assert scene.disk.listed == 0

    def test_a_delayed_entry_is_due_when_its_time_has_come(self, scene: Scene) -> None:
        soon, _ = scene.add(0.02), scene.add(60)
        scene.watched()
        due, next_s = scene.due()
        assert due == []
        assert next_s == pytest.approx(0.02, abs=0.02)
        scene.clock.advance(0.03)
        due, next_s = scene.due()
        assert due == [soon]
        assert next_s == pytest.approx(60, abs=0.1)
        assert scene.disk.listed == 0

    def test_an_entry_that_only_a_turned_clock_has_put_into_the_future_is_due(self, scene: Scene) -> None:
        scene.watched()
        filebase = scene.add(3600)
        an_hour_ahead_ns = scene.clock.time_ns() + 3601 * NS_PER_S
        os.utime(scene.path / f'{filebase}.pck', ns=(an_hour_ahead_ns, an_hour_ahead_ns))
        assert scene.due()[0] == [filebase]

    def test_priorities_count(self, scene: Scene) -> None:
        scene.watched()
        low, high = scene.add(-20), scene.add(-10, priority=5)
        assert scene.due()[0] == [high, low]

    def test_other_slices_are_left_alone(self, tmp_path: Path) -> None:
        scene = Scene(tmp_path, Slice(0, 2))
        scene.watched()
        ours = scene.add(first=1)
        scene.add(first=0xFFFFFFFF)
        assert scene.due()[0] == [ours]

    def test_what_is_no_entry_is_looked_at(self, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
        scene.watched()
        (scene.path / 'README').write_text('hello')
        assert scene.due() == ([], None)
        assert 'README' in caplog.text
        assert scene.disk.listed > 0

    def test_what_has_an_entrys_name_and_is_none_is_passed_over_once_it_was_reported(
        self, scene: Scene
    ) -> None:
        scene.watched()
        filebase = scene.add()
        scene.listing.report_foreign_file(f'{filebase}.pck', 'not a regular file')
        assert scene.due()[0] == []

    def test_when_too_much_was_told_the_directory_is_read(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wakeup, 'MAX_NAMES', 3)
        scene.watched()
        filebases = [scene.add() for _ in range(4)]
        assert scene.due()[0] == filebases
        assert scene.disk.listed == 1

    def test_it_goes_on_while_nobody_sleeps(self, scene: Scene) -> None:
        scene.watched()
        scene.wakeup.arm()
        scene.wakeup.disarm()
        filebase = scene.add()
        assert scene.due()[0] == [filebase]
        assert scene.disk.listed == 0

    def test_a_sleeper_is_woken_all_the_same(self, scene: Scene) -> None:
        scene.watched()
        scene.wakeup.arm()
        assert scene.due()[0] == []
        assert not scene.wakeup.wait(0)
        filebase = scene.add()
        assert scene.wakeup.wait(60)
        assert not scene.wakeup.wait(0)
        scene.wakeup.disarm()
        assert scene.due()[0] == [filebase]
        assert scene.disk.listed == 0

    def test_it_is_not_believed_for_ever(self, scene: Scene) -> None:
        scene.watched()
        scene.clock.advance(SHARE * 2 * MS / NS_PER_S)
        scene.due()
        assert scene.disk.listed == 1

    def test_when_the_watch_is_gone_the_directory_is_read(self, scene: Scene) -> None:
        scene.watched()
        scene.wakeup.close()
        filebase = scene.add()
        assert scene.due()[0] == [filebase]
        assert scene.disk.listed > 0


class TestWithoutEvents:
    def test_a_directory_that_nobody_has_changed_is_not_read_again(self, scene: Scene) -> None:
        filebase = scene.add()
        later = scene.add(0.05)
        scene.due()
        scene.settle()
        scene.due()
        scene.disk.listed = 0
        assert scene.due()[0] == [filebase]
        scene.clock.advance(0.06)
        assert scene.due() == ([filebase, later], None)
        assert scene.disk.listed == 0

    def test_one_that_was_changed_is(self, scene: Scene) -> None:
        scene.due()
        scene.settle()
        scene.due()
        filebase = scene.add()
        assert scene.due()[0] == [filebase]

    def test_one_that_was_changed_a_moment_before_is_not_believed(self, scene: Scene) -> None:
        scene.due()
        scene.add()
        scene.due()
        scene.disk.listed = 0
        scene.due()
        assert scene.disk.listed > 0


def test_a_directory_that_is_quickly_read_is_read_each_time(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    queue = ReadyQueue(scene.listing)
    queue.watch(scene.wakeup)
    for _ in range(5):
        queue.scan()
    assert scene.disk.listed == 5


class GrownDisk(GrowingDisk):
    def __init__(self) -> None:
        super().__init__()
        self.listed = 0

    def scandir(self, path: Any) -> Any:
        self.listed += 1
        return Disk.scandir(path)


def test_a_directory_that_was_large_once_and_cannot_be_renewed_is_read_seldom(tmp_path: Path) -> None:
    disk = GrownDisk()
    spool = Spool(tmp_path / 'spool', 'lazy', disk=disk)
    queue = spool['in']
    queue.enqueue('later', delay=3600)
    disk.grow(queue.folder)
    wakeup = queue.make_wakeup()
    for _ in range(2):  # from the second reading on the kernel tells
        assert queue.take() is None
    disk.listed = 0
    for _ in range(20):
        filebase = spool.queue('in').enqueue('x')
        taken = queue.take()
        assert taken is not None
        assert taken.filebase == filebase
        queue.finish(filebase)
        assert queue.take() is None
    assert disk.listed < 20  # a hundredth of the time
    wakeup.close()
    spool.close()


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('kept', [3, 1000])
def test_whatever_happens_it_lists_what_a_reading_would(tmp_path: Path, seed: int, kept: int) -> None:
    scene, rng = Scene(tmp_path, kept=kept), random.Random(seed)
    scene.watched()
    ready: list[str] = []
    claimed: list[str] = []
    for _ in range(150):
        what = rng.random()
        if what < 0.5 or not ready:
            ready.append(scene.add(rng.choice((-60, -10, 0.01, 0.05, 60)), rng.choice((0, 0, 0, 3, 9))))
        elif what < 0.7:
            one = ready.pop(rng.randrange(len(ready)))
            scene.rename(f'{one}.pck', f'{one}.bak')
            claimed.append(one)
        elif what < 0.8 and claimed:
            one = claimed.pop()
            scene.rename(f'{one}.bak', f'{one}.pck')
            ready.append(one)
        elif what < 0.85 and claimed:
            (scene.path / f'{claimed.pop()}.bak').unlink()
        elif what < 0.9:
            (scene.path / f'{ready.pop(0)}.pck').unlink()
        else:
            scene.clock.advance(rng.choice((0.001, 0.02)))
        if rng.random() < 0.4:
            due, next_s = scene.due()
            everything = scene.plain.files()
            # Of more than it keeps, it lists the first ones.
            assert due == everything[: len(due)]
            assert due or not everything
            scene.plain.scan()
            assert next_s == pytest.approx(scene.plain.wait_s(), abs=0.1)
