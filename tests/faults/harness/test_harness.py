"""The instruments are tested too: a harness that strikes nothing, or forgets nothing, proves nothing."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from switchboard.store.disk import CREATE_FLAGS, Disk
from switchboard.store.folder import Folder
from switchboard.store.kernel import CONTENT_ONLY, WITH_NAME
from switchboard.testing.faults import FaultyDisk, Killed
from switchboard.testing.power import PowerLossDisk
from tests.faults.harness.images import died, image, recorded
from tests.faults.harness.world import remove, the_same_again
from tests.faults.operations import OPERATIONS
from tests.plugins import turns

VARIANTS = 100


def test_the_nth_call_fails_and_no_other(scratch: Path) -> None:
    disk = FaultyDisk(fail_at=2, error=errno.EDQUOT)
    fd = disk.open(scratch / 'a', os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match='quota'):
        disk.pwrite(fd, b'x', 0)
    assert disk.pwrite(fd, b'x', 0) == 1
    assert disk.failed_call == 'pwrite'
    disk.close(fd)


def test_a_close_that_fails_has_closed(scratch: Path) -> None:
    disk = FaultyDisk(fail_at=2)
    fd = disk.open(scratch / 'a', os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match='error'):
        disk.close(fd)
    assert disk.open_files() == {}
    with pytest.raises(OSError, match='Bad file descriptor'):
        os.fstat(fd)


def test_closing_twice_is_noticed(scratch: Path) -> None:
    disk = FaultyDisk()
    fd = disk.open(scratch / 'a', os.O_RDWR | os.O_CREAT)
    disk.close(fd)
    with pytest.raises(OSError, match='Bad file descriptor'):
        disk.close(fd)
    assert disk.bad_descriptor_calls == [f'close({fd})']


def test_a_short_write_writes_half(scratch: Path) -> None:
    disk = FaultyDisk(fail_at=2, short=True, error=0)
    fd = disk.open(scratch / 'a', os.O_RDWR | os.O_CREAT)
    disk.write_all(fd, b'abcdef')
    assert disk.trace == ['open', 'pwrite', 'pwrite']
    assert (scratch / 'a').read_bytes() == b'abcdef'
    disk.close(fd)


def test_the_dead_do_nothing_and_the_kernel_drops_their_locks(scratch: Path) -> None:
    disk = FaultyDisk(kill='simulated')
    folder = Folder(scratch, disk)
    disk.create_locked('a', folder.fd)
    disk.arm(1)
    with pytest.raises(Killed):
        disk.rename('a', 'b', src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    with pytest.raises(Killed):
        disk.unlink('a', dir_fd=folder.fd)
    living = Folder(scratch, Disk())
    assert living.disk.open_locked('a', living.fd) is None
    disk.end_process()
    opened = living.disk.open_locked('a', living.fd)
    assert opened is not None
    os.close(opened[0])


def test_the_dead_have_no_directory_open(scratch: Path) -> None:
    disk = FaultyDisk(kill='simulated')
    folder = Folder(scratch, disk)
    fd = folder.fd
    disk.arm(1)
    with pytest.raises(Killed):
        folder.sync()
    disk.end_process()
    with pytest.raises(OSError, match='Bad file descriptor'):
        os.fstat(fd)
    assert disk.failed_call == 'fsync'


@pytest.mark.parametrize('name', ['batch of three', 'hand-off, 1 output', 'enqueue in a new spool'])
def test_one_run_shows_what_a_death_at_each_call_leaves(name: str, scratch: Path) -> None:
    [operation] = [each for each in OPERATIONS if str(each) == name]
    start_s = time.time()
    with the_same_again(start_s) as clock:
        shown = recorded(operation, scratch / 'run', clock).left
    assert shown is not None
    for number in itertools.count(1):
        with the_same_again(start_s) as clock:
            disk = died(operation, scratch / 'died', number, clock)
        if not disk.failed_call:
            break
        assert image(scratch / 'died' / 'spool') == [left for left, first, _ in shown if first <= number][-1]
        remove(scratch / 'died')
    assert number > len(shown) > 3


class Bench:
    """A directory on a disk that may lose power, and what was found in it afterwards."""

    def __init__(self, directory: Path, fsync_scope: int = CONTENT_ONLY) -> None:
        self.root = directory / 'run'
        self.root.mkdir()
        (self.root / 'one').mkdir()
        (self.root / 'two').mkdir()
        self.directory = directory
        self.disk = PowerLossDisk(fsync_scope=fsync_scope)
        self.disk.assume_durable(self.root)
        self.one = Folder(self.root / 'one', self.disk)
        self.two = Folder(self.root / 'two', self.disk)

    def write(self, name: str, content: bytes) -> int:
        fd = self.disk.open(name, CREATE_FLAGS, 0o660, dir_fd=self.one.fd)
        self.disk.write_all(fd, content)
        return fd

    def move(self, name: str) -> None:
        self.disk.rename(name, name, src_dir_fd=self.one.fd, dst_dir_fd=self.two.fd)

    def outcomes(self) -> set[tuple[tuple[str, bytes], ...]]:
        """All that a power cut at the end was seen to leave."""
        *_, last = self.disk.crash_points()
        found = set()
        for variant in range(VARIANTS):
            target = self.directory / f'after{variant}'
            last.restore(self.root, target, variant)
            files = sorted(path for path in target.rglob('*') if path.is_file())
            found.add(tuple((str(path.relative_to(target)), path.read_bytes()) for path in files))
            remove(target)
        return found


@pytest.fixture
def bench(scratch: Path) -> Bench:
    return Bench(scratch)


def test_what_nobody_synced_may_be_gone_or_there_or_torn(bench: Bench) -> None:
    os.close(bench.write('a', b'x' * 1000))
    outcomes = bench.outcomes()
    assert () in outcomes
    assert (('one/a', b''),) in outcomes
    assert (('one/a', b'x' * 1000),) in outcomes
    assert any(content.strip(b'x') for ((_, content),) in (found for found in outcomes if found))


def test_a_synced_file_without_its_directory_may_be_gone_and_is_whole_if_not(bench: Bench) -> None:
    fd = bench.write('a', b'content')
    bench.disk.fdatasync(fd)
    os.close(fd)
    assert bench.outcomes() == {(), (('one/a', b'content'),)}


def test_a_synced_directory_keeps_the_name_and_not_the_content(bench: Bench) -> None:
    os.close(bench.write('a', b'content'))
    bench.one.sync()
    outcomes = bench.outcomes()
    assert all(found[0][0] == 'one/a' for found in outcomes)
    assert (('one/a', b''),) in outcomes


def test_both_synced_is_kept(bench: Bench) -> None:
    fd = bench.write('a', b'content')
    bench.disk.fdatasync(fd)
    bench.one.sync()
    os.close(fd)
    assert bench.outcomes() == {(('one/a', b'content'),)}


def test_a_rename_has_happened_or_not(bench: Bench) -> None:
    bench.disk.fdatasync(bench.write('a', b'content'))
    bench.one.sync()
    bench.move('a')
    assert bench.outcomes() == {(('one/a', b'content'),), (('two/a', b'content'),)}


@pytest.mark.parametrize('which', ['one', 'two'])
def test_a_rename_is_there_when_one_of_its_directories_was_synced(bench: Bench, which: str) -> None:
    bench.disk.fdatasync(bench.write('a', b'content'))
    bench.move('a')
    getattr(bench, which).sync()
    assert bench.outcomes() == {(('two/a', b'content'),)}


def test_where_a_name_comes_with_the_file_a_flush_of_its_new_directory_may_leave_the_old_one(
    scratch: Path,
) -> None:
    bench = Bench(scratch, WITH_NAME)
    fd = bench.write('a', b'content')
    bench.disk.fsync(fd)
    bench.disk.sync_all()
    bench.move('a')
    bench.two.sync()
    assert {tuple(name for name, _ in found) for found in bench.outcomes()} == {
        ('one/a', 'two/a'),
        ('two/a',),
    }
    bench.disk.fsync(fd)
    assert bench.outcomes() == {(('two/a', b'content'),)}


def test_renames_of_two_files_may_be_reordered_and_those_of_one_may_not(bench: Bench) -> None:
    for name in ('a', 'b'):
        bench.disk.fdatasync(bench.write(name, b''))
    bench.one.sync()
    bench.move('a')
    bench.move('b')
    names = {tuple(name for name, _ in found) for found in bench.outcomes()}
    assert names == {('one/a', 'one/b'), ('one/b', 'two/a'), ('one/a', 'two/b'), ('two/a', 'two/b')}
    bench.disk.rename('b', 'c', src_dir_fd=bench.two.fd, dst_dir_fd=bench.one.fd)
    bench.two.sync()
    assert {tuple(name for name, _ in found) for found in bench.outcomes()} == {('one/c', 'two/a')}


def test_a_new_directory_that_the_one_above_does_not_know_is_lost_with_all_in_it(bench: Bench) -> None:
    new = bench.root / 'new'
    bench.disk.mkdir(new)
    folder = Folder(new, bench.disk)
    bench.disk.fdatasync(bench.write('a', b''))
    bench.disk.rename('a', 'a', src_dir_fd=bench.one.fd, dst_dir_fd=folder.fd)
    folder.sync()
    assert bench.outcomes() == {(), (('new/a', b''),)}
    Folder(bench.root, bench.disk).sync()
    assert bench.outcomes() == {(('new/a', b''),)}


def test_writing_over_a_file_may_leave_old_and_new(bench: Bench) -> None:
    fd = bench.write('a', b'o' * 64)
    bench.disk.fdatasync(fd)
    bench.one.sync()
    bench.disk.write_all(fd, b'n' * 64)
    contents = {found[0][1] for found in bench.outcomes()}
    assert {b'o' * 64, b'n' * 64} <= contents
    assert any(set(content) == set(b'on') for content in contents)


def test_the_same_seed_leaves_the_same(bench: Bench) -> None:
    os.close(bench.write('a', b'x' * 1000))
    assert bench.outcomes() == bench.outcomes()


def marked(nodeid: str, params: dict[str, Any], *marks: pytest.Mark) -> pytest.Item:
    item = SimpleNamespace(
        nodeid=nodeid,
        callspec=SimpleNamespace(params=params),
        iter_markers=lambda name: [mark for mark in marks if mark.name == name],
    )
    return cast('pytest.Item', item)


@pytest.mark.parametrize('operation', ['enqueue', 'take', 'hand off once'])
def test_over_three_days_each_operation_has_had_every_flush_order(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = []
    for day in range(700_000, 700_003):
        monkeypatch.setenv(turns.DAY, str(day))
        for fsync_scope in turns.FSYNC_SCOPES:
            item = marked(
                f'test_x[{fsync_scope}-{operation}]',
                {'fsync_scope': fsync_scope, 'operation': operation},
                pytest.mark.in_turns.mark,
            )
            if turns.has_its_day(item):
                had.append((day, fsync_scope))
    assert len({day for day, _ in had}) == len({fsync_scope for _, fsync_scope in had}) == len(had) == 3


def test_over_two_days_each_operation_has_had_both_of_two_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    had = []
    for day in (700_000, 700_001):
        monkeypatch.setenv(turns.DAY, str(day))
        for error in ('EIO', 'ENOSPC'):
            item = marked(
                f'test_x[enqueue-{error}]',
                {'error': error, 'operation': 'enqueue'},
                pytest.mark.in_turns('error', ('EIO', 'ENOSPC')).mark,
            )
            if turns.has_its_day(item):
                had.append(error)
    assert sorted(had) == ['EIO', 'ENOSPC']


def test_two_parameters_in_turns_have_had_all_pairs_in_six_days(monkeypatch: pytest.MonkeyPatch) -> None:
    had = []
    for day in range(700_000, 700_006):
        monkeypatch.setenv(turns.DAY, str(day))
        for fsync_scope, half in itertools.product(turns.FSYNC_SCOPES, 'ab'):
            item = marked(
                'test_x',
                {'fsync_scope': fsync_scope, 'half': half},
                pytest.mark.in_turns.mark,
                pytest.mark.in_turns('half', ('a', 'b')).mark,
            )
            if turns.has_its_day(item):
                had.append((fsync_scope, half))
    assert sorted(had) == sorted(itertools.product(turns.FSYNC_SCOPES, 'ab'))


@pytest.mark.parametrize('values', ['ab', 'abc', 'abcd'])
@pytest.mark.parametrize('file', ['tests/test_x.py', 'tests/test_y.py'])
def test_over_some_days_each_value_has_had_its_turn_on_the_disk_and_in_memory(
    file: str, values: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = set()
    for day in range(700_000, 700_000 + 2 * turns.DAYS_IN_ONE_PLACE * len(values)):
        monkeypatch.setenv(turns.DAY, str(day))
        for value in values:
            item = marked(
                f'{file}::test[{value}]', {'value': value}, pytest.mark.in_turns('value', values).mark
            )
            if turns.has_its_day(item):
                had.add((value, turns.is_in_memory(file)))
    assert had == set(itertools.product(values, (False, True)))


def test_of_two_that_take_turns_one_has_its_day_and_tomorrow_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    had = []
    for day in (700_000, 700_001):
        monkeypatch.setenv(turns.DAY, str(day))
        had += [
            turn
            for turn in (0, 1)
            if turns.has_its_day(marked('', {}, pytest.mark.every_second_day(turn).mark))
        ]
    assert had == [0, 1]


def test_over_the_days_that_it_takes_each_value_has_had_its_turn_once_and_all_tests_of_a_file_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    had: dict[str, list[tuple[int, str]]] = {'test_a': [], 'test_b': []}
    for day in range(700_000, 700_003):
        monkeypatch.setenv(turns.DAY, str(day))
        for test, way in itertools.product(had, 'abcdef'):
            item = marked(
                f'test_x.py::{test}[{way}]',
                {'way': way},
                pytest.mark.in_turns('way', 'abcdef', days=3, shared=True).mark,
            )
            if turns.has_its_day(item):
                had[test].append((day, way))
    assert had['test_a'] == had['test_b']
    assert sorted(way for _, way in had['test_a']) == list('abcdef')
    assert Counter(day for day, _ in had['test_a']) == dict.fromkeys(range(700_000, 700_003), 2)
