"""A queue on a disk in trouble: one that cannot be read, one that is full, and a process that may open no more files."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool, Switchboard
from switchboard.errors import DurabilityError, EntryTakenError, QueueFullError
from switchboard.interfaces import Taken
from switchboard.options import QueueOptions
from switchboard.queue.consumer import MAX_REFUSED, REFUSED_S
from switchboard.store.claims import OWN_CLAIMS, open_claim
from switchboard.store.disk import Disk
from switchboard.testing import FakeClock
from tests.helpers.processes import in_child

LAZY = QueueOptions(durability='lazy')


class TroubledDisk(Disk):
    """Fails what a test says, for the files it says."""

    def __init__(self) -> None:
        self.unreadable: set[int] = set()
        self.rename_error = 0
        self.open_error = 0
        self.exists_error = 0

    def exists(self, name: Any, dir_fd: int) -> bool:
        if self.exists_error:
            raise OSError(self.exists_error, os.strerror(self.exists_error))
        return super().exists(name, dir_fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino in self.unreadable:
            raise OSError(errno.EIO, 'bad sector')
        return os.pread(fd, size, offset)

    def rename(self, source: Any, target: Any, **keys: Any) -> None:
        if self.rename_error and str(target).endswith('.bak'):
            raise OSError(self.rename_error, os.strerror(self.rename_error))
        os.rename(source, target, **keys)

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if self.open_error and str(path).endswith('.pck'):
            raise OSError(self.open_error, os.strerror(self.open_error))
        return os.open(path, flags, mode, dir_fd=dir_fd)


class TestTroubleWithTheDisk:
    @pytest.fixture
    def disk(self) -> TroubledDisk:
        return TroubledDisk()

    @pytest.fixture
    def troubled(self, tmp_path: Path, disk: TroubledDisk, clock: FakeClock) -> Switchboard:
        return Switchboard('in', tmp_path / 'in', options=LAZY, disk=disk, clock=clock)

    def test_one_entry_that_cannot_be_read_stops_nothing_and_is_tried_again(
        self, troubled: Switchboard, disk: TroubledDisk, clock: FakeClock
    ) -> None:
        filebases = [troubled.enqueue(number) for number in range(3)]
        disk.unreadable.add((Path(troubled.queue_directory) / f'{filebases[0]}.pck').stat().st_ino)
        taken = [troubled.take() for _ in range(3)]
        assert [one and one.msg for one in taken] == [1, 2, None]
        assert troubled.files == filebases[:1]
        assert not troubled.has_ready()
        disk.unreadable.clear()
        clock.advance(REFUSED_S + 1)
        one = troubled.take()
        assert one is not None
        assert one.msg == 0

    def test_it_says_so_to_who_asks_for_that_entry(self, troubled: Switchboard, disk: TroubledDisk) -> None:
        filebase = troubled.enqueue('x')
        disk.unreadable.add((Path(troubled.queue_directory) / f'{filebase}.pck').stat().st_ino)
        with pytest.raises(DurabilityError, match='bad sector') as caught:
            troubled.dequeue(filebase)
        assert caught.value.step == 'read'
        with pytest.raises(DurabilityError):
            troubled.history(filebase)
        assert troubled.files == [filebase]

    def test_when_many_in_a_row_are_refused_it_is_the_disk(
        self, troubled: Switchboard, disk: TroubledDisk
    ) -> None:
        troubled.enqueue_many(range(MAX_REFUSED + 5))
        disk.rename_error = errno.EROFS
        with pytest.raises(DurabilityError, match='Read-only'):
            troubled.take()
        assert len(troubled.files) == MAX_REFUSED + 5
        disk.rename_error = 0
        assert troubled.take() is not None

    def test_entries_that_are_refused_again_and_again_do_not_hold_the_others_back(
        self, troubled: Switchboard, disk: TroubledDisk, clock: FakeClock
    ) -> None:
        number = 10 * MAX_REFUSED
        for filebase in troubled.enqueue_many(range(number)):
            disk.unreadable.add((Path(troubled.queue_directory) / f'{filebase}.pck').stat().st_ino)
        troubled.enqueue('good')
        taken = None
        for _ in range(number // MAX_REFUSED + 1):
            with suppress(DurabilityError):
                taken = troubled.take()
            clock.advance(REFUSED_S + 1)  # as long as a runner waits between two tries
        assert taken is not None
        assert taken.msg == 'good'

    def test_a_process_with_too_many_open_files_hears_of_it_at_once(
        self, troubled: Switchboard, disk: TroubledDisk
    ) -> None:
        troubled.enqueue_many(range(3))
        disk.open_error = errno.ENFILE
        with pytest.raises(DurabilityError, match='open files'):
            troubled.take()
        disk.open_error = 0
        taken = troubled.take()
        assert taken is not None
        assert taken.msg == 1  # the first is left alone for a while

    def test_too_many_open_files_do_not_change_the_order_of_a_key(
        self, troubled: Switchboard, disk: TroubledDisk, clock: FakeClock
    ) -> None:
        for number in range(3):
            troubled.enqueue(number, order_key='k')
        disk.open_error = errno.EMFILE
        with pytest.raises(DurabilityError, match='open files'):
            troubled.take()
        disk.open_error = 0
        assert troubled.take() is None  # the first one waits for a moment, and the others for it
        clock.advance(1)
        taken = [troubled.take() for _ in range(3)]
        assert [one and one.msg for one in taken] == [0, 1, 2]

    def test_a_directory_that_is_gone_is_an_error_of_the_tree(self, troubled: Switchboard) -> None:
        Path(troubled.queue_directory).rmdir()
        for call in (troubled.take, troubled.has_ready, troubled.get_files, lambda: troubled.files):
            with pytest.raises(DurabilityError) as caught:
                call()
            assert caught.value.step == 'list'


def room_for(files: int) -> int:
    """:return: a limit that leaves room for so many files besides those that are open."""
    used = set(map(int, os.listdir('/proc/self/fd')))
    free = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(free, files, None))


class TestOpenFiles:
    def test_a_soft_limit_below_what_is_open_already_is_raised_as_well(self, queue: Switchboard) -> None:
        queue.enqueue('x')

        def work() -> bool:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            fds = [os.dup(0) for _ in range(100)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (20, hard))
            taken = queue.take()
            assert taken is not None
            queue.finish(taken.filebase)
            return resource.getrlimit(resource.RLIMIT_NOFILE)[0] > len(fds)

        assert in_child(work)

    def test_a_batch_of_claims_raises_the_soft_limit_as_far_as_it_needs(self, queue: Switchboard) -> None:
        queue.enqueue_many(range(300))

        def work() -> tuple[int, bool]:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (room_for(60), hard))
            taken = list(iter(queue.take, None))
            for one in taken:
                assert one is not None
                queue.finish(one.filebase)
            return len(taken), resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 300

        assert in_child(work) == (300, True)

    def test_what_raises_the_limit_is_loaded_before_the_limit_is_met(
        self, queue: Switchboard, tmp_path: Path
    ) -> None:
        queue.enqueue_many(range(60))
        program = (
            'import sys; from switchboard import Switchboard; from switchboard.options import QueueOptions; '
            'queue = Switchboard("in", sys.argv[1], options=QueueOptions(durability="lazy")); '
            'print(len(list(iter(queue.take, None))))'
        )
        command = [
            'sh',
            '-c',
            'ulimit -Sn 40 && exec "$@"',
            'sh',
            sys.executable,
            '-c',
            program,
            str(tmp_path / 'in'),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.stdout, done.stderr) == ('60\n', '')

    def test_at_the_hard_limit_it_says_so_and_works_on_what_it_has(self, tmp_path: Path) -> None:
        clock = FakeClock()
        queue = Switchboard('in', tmp_path / 'in', options=LAZY, clock=clock)
        queue.enqueue_many(range(300))

        def take_all() -> tuple[list[Taken], str]:
            taken: list[Taken] = []
            try:
                while (one := queue.take()) is not None:
                    taken.append(one)
            except DurabilityError as error:
                return taken, str(error)
            return taken, ''

        def work() -> list[str]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (room_for(60),) * 2)
            errors = []
            while queue.get_files():
                taken, error = take_all()
                assert taken
                for one in taken:
                    queue.finish(one.filebase)
                errors.append(error)
                clock.advance(31)  # they are deferred for half a minute
            return errors

        *errors, last = in_child(work)
        assert len(errors) > 2
        assert all('Too many open files' in error for error in errors)
        # On a slow machine the directory is listed anew with all descriptors in use.
        assert not last or 'Too many open files' in last


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of its own, of 256 KiB."""
        path = tmp_path / 'small'
        path.mkdir()
        command = ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip('needs the right to mount')
        yield path
        subprocess.run(['umount', '-l', str(path)], check=True)

    def test_a_full_disk_refuses_and_loses_nothing(self, small_disk: Path) -> None:
        queue = Switchboard('in', small_disk / 'in')
        stored: list[str] = []

        def fill() -> None:
            for number in range(100):
                stored.append(queue.enqueue(bytes([number]) * 20_000))

        with pytest.raises(QueueFullError, match='No space'):
            fill()
        assert 5 < len(stored) < 14
        assert queue.get_files() == stored
        assert [name for name in os.listdir(small_disk / 'in') if name.endswith('.tmp')] == []
        for number, filebase in enumerate(stored):
            assert queue.dequeue(filebase)[0] == bytes([number]) * 20_000
            queue.annotate(filebase, {'event': 'no room for this', 'text': 'x' * 9000})
            queue.finish(filebase)
        queue.enqueue(b'x' * 20_000)

    def test_an_entry_can_leave_a_full_disk_for_the_bad_queue(self, small_disk: Path) -> None:
        queue = Switchboard('in', small_disk / 'in')
        filebase = queue.enqueue('x')
        Switchboard('bad', small_disk / 'bad')

        def fill() -> None:
            with (small_disk / 'ballast').open('wb', buffering=0) as file:
                while True:
                    file.write(b'x' * 4096)

        with pytest.raises(OSError, match='No space'):
            fill()
        queue.finish(filebase, preserve=True, reason='y' * 8000)
        assert os.listdir(small_disk / 'bad') == [f'{filebase}.psv']


ENDINGS: dict[str, Callable[[Switchboard, str], object]] = {
    'finish': lambda queue, filebase: queue.finish(filebase),
    'preserve': lambda queue, filebase: queue.finish(filebase, preserve=True),
    'release': lambda queue, filebase: queue.release(filebase),
    'release later': lambda queue, filebase: queue.release(filebase, delay_s=60, record={'event': 'late'}),
}


@pytest.mark.parametrize('what', ['its file', 'its directory'])
@pytest.mark.parametrize('ending', ENDINGS.values(), ids=ENDINGS)
def test_a_claim_is_over_whose_file_somebody_has_taken_away(
    tmp_path: Path, ending: Callable[[Switchboard, str], object], what: str
) -> None:
    queue = Spool(tmp_path, durability='lazy')['in']
    queue.enqueue('x')
    taken = queue.take()
    assert taken is not None
    if what == 'its file':
        (tmp_path / 'in' / f'{taken.filebase}.bak').unlink()
    else:
        shutil.rmtree(tmp_path / 'in')
    with pytest.raises(EntryTakenError, match='its file is gone'):
        ending(queue, taken.filebase)
    assert not any(claim.filebase == taken.filebase for claim in OWN_CLAIMS.values())


def test_a_dead_letter_whose_file_is_gone_closes_that_file_once(make_spool: Callable[..., Spool]) -> None:
    spool = make_spool('[queue.in]\ndead_letter = other\n[queue.other]\n')
    queue = spool['in']
    queue.enqueue('x')
    taken = queue.take()
    assert taken is not None
    os.unlink(queue.folder.path_of(f'{taken.filebase}.bak'))
    with pytest.raises(EntryTakenError, match='its file is gone'):
        queue.finish(taken.filebase, preserve=True)
    # It was opened after the file had been closed, and has got its number.
    bad = queue.consumer.bad
    assert stat.S_ISDIR(os.fstat(bad.fd).st_mode)
    bad.close()


def test_an_entry_is_unlocked_where_the_disk_does_not_say_whether_its_file_is_gone(tmp_path: Path) -> None:
    disk = TroubledDisk()
    queue = Switchboard('in', tmp_path / 'in', options=LAZY, disk=disk)
    filebase = queue.enqueue('x')
    claim = open_claim(queue.folder, filebase, '.pck')
    assert claim is not None
    disk.exists_error = errno.EIO
    with pytest.raises(DurabilityError, match='rename'):
        queue.consumer.raise_claim_error(claim, FileNotFoundError(errno.ENOENT, 'gone'), 'rename')
    assert not claim.is_own()
