"""Counting, finding, selecting and removing entries, while others work on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import AmbiguousEntryError, EntryTakenError, UnknownEntryError
from switchboard.message.naming import NS_PER_S
from switchboard.operating.acts import remove
from switchboard.operating.entry_fields import entry_fields
from switchboard.operating.finding import find
from switchboard.operating.grouping import ages_by_group
from switchboard.operating.queue_counts import (
    AGE_MINUTES,
    AgeRow,
    age_table,
    count,
    entry_age_s,
    walk_entries,
)
from switchboard.operating.selection import Selection, select
from switchboard.operating.summary import summarize
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.kernel import WITH_NAME
from switchboard.store.reading import peek
from switchboard.testing import FakeClock
from tests.helpers.commands import at_work, fail


def places(spool: Spool, *names: str) -> list[tuple[str, Folder]]:
    return [(name, Folder(spool.path(name), Disk())) for name in names]


def test_a_directory_that_is_not_there_is_an_empty_queue(tmp_path: Path) -> None:
    folder = Folder(tmp_path / 'none', Disk())
    assert count(folder, 'none').entries == 0
    assert list(walk_entries(folder, ('.pck',))) == []
    with pytest.raises(UnknownEntryError):
        find([('none', folder)], '1234567890')
    assert not (tmp_path / 'none').exists()


def test_the_oldest_waiting_and_the_next_delayed_are_told(spool: Spool) -> None:
    queue = spool['in']
    for when in (1_000_000_100, 1_000_000_050, 1_000_000_300, 1_000_000_200):
        queue.enqueue('x', not_before=when)
    names = {1_000_000_050: 'a', 1_000_000_100: 'b', 1_000_000_200: 'c', 1_000_000_300: 'd'}
    for filebase, (when, letter) in zip(queue.get_files(), names.items(), strict=True):
        path = Path(spool.path('in', f'{when}.000000000+{letter * 40}.pck'))
        Path(spool.path('in', filebase + '.pck')).rename(path)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    counts = count(queue.folder, 'in', now_ns=1_000_000_150 * NS_PER_S)
    assert (counts.waiting, counts.delayed) == (2, 2)
    assert (counts.oldest_ns, counts.next_ns) == (1_000_000_050 * NS_PER_S, 1_000_000_200 * NS_PER_S)


def test_an_entry_that_goes_while_it_is_counted_is_no_error(spool: Spool) -> None:
    queue = spool['in']
    filebases = queue.enqueue_many(['x', 'y'])

    class Emptying(Disk):
        @contextmanager
        def scandir(self, path: Any) -> Iterator[Any]:
            with Disk.scandir(path) as entries:

                def names() -> Iterator[Any]:
                    for entry in list(entries):
                        for filebase in filebases:
                            with suppress(FileNotFoundError):
                                os.unlink(filebase + '.pck', dir_fd=path)
                        yield entry

                yield names()

    counts = count(Folder(queue.queue_directory, Emptying()), 'in')
    assert (counts.waiting, counts.size_bytes) == (2, 0)


def test_sizes_can_be_left_out(spool: Spool) -> None:
    spool['in'].enqueue('x')
    assert count(spool['in'].folder, 'in', sizes=False).size_bytes == 0


def test_a_shape_has_a_column_for_every_age() -> None:
    shape = AgeRow('in')
    for minutes in AGE_MINUTES:
        shape.add(minutes * 60 - 1)
    shape.add(AGE_MINUTES[-1] * 60)
    shape.add(-1)
    assert (shape.counts, shape.later, shape.total) == ([1] * 10, 1, 11)


def test_the_fullest_row_comes_first() -> None:
    rows = age_table([('few', 1.0), ('many', 1.0), ('many', 2.0), ('also few', 1.0)])
    assert [row.name for row in rows] == ['many', 'also few', 'few']


def test_one_entry_is_found_in_its_queue_only(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x')
    spool['out'].enqueue('y')
    where = places(spool, 'in', 'out')
    assert find(where, filebase).queue == 'in'
    assert find(where, f'in/{filebase}').filebase == filebase
    with pytest.raises(UnknownEntryError):
        find(where, f'out/{filebase}')


def test_several_entries_are_named_and_a_few_of_many_will_do(spool: Spool) -> None:
    filebases = spool['in'].enqueue_many('x' for _ in range(20))
    with pytest.raises(AmbiguousEntryError) as caught:
        find(places(spool, 'in'), filebases[0][:8])
    assert 2 <= len(caught.value.candidates) <= 6


def selected(spool: Spool, selection: Selection, *names: str) -> list[str]:
    return sorted(each.filebase for each in select(places(spool, *names), selection, spool.clock.time_ns()))


def test_without_criteria_everything_is_selected(spool: Spool) -> None:
    filebases = [spool['in'].enqueue('x'), spool['in'].enqueue('y', delay=60), fail(spool, 'in', 'z')]
    assert selected(spool, Selection(), 'in', 'bad') == sorted(filebases)


def test_a_cause_is_as_good_as_a_class_of_error(spool: Spool) -> None:
    filebase = fail(spool, 'in', 'x', 'TimeoutError')
    for error in ('TimeoutError', 'timeouterror', 'Time*', 'rejected'):
        assert selected(spool, Selection.of(error=error), 'bad') == [filebase]
    assert selected(spool, Selection.of(error='Timeout'), 'bad') == []


def test_the_age_of_a_preserved_entry_is_in_its_history(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x', not_before=1_000_000_000)
    queue.finish(filebase, preserve=True)
    assert selected(spool, Selection.parse('older:1h'), 'bad') == []
    assert selected(spool, Selection.parse('older:0'), 'bad') == [filebase]


def test_an_entry_at_work_is_not_removed(spool: Spool) -> None:
    with at_work(spool, 'in', 'x') as filebase:
        with pytest.raises(EntryTakenError, match='a process is working on it'):
            remove(spool['in'], filebase)
        assert spool['in'].get_files('.bak') == [filebase]


def test_what_is_removed_becomes_a_spare(spool: Spool) -> None:
    filebase = fail(spool, 'in', 'x')
    before = spool.pool.count()
    remove(spool['bad'], filebase)
    assert spool['bad'].get_files('.psv') == []
    assert spool.pool.count() == before + 1
    with pytest.raises(EntryTakenError, match='no such entry'):
        remove(spool['bad'], filebase)


def test_what_only_a_turned_clock_has_put_into_the_future_is_waiting(clock: FakeClock, spool: Spool) -> None:
    queue = spool['in']
    misdated, delayed = queue.enqueue('x'), queue.enqueue('y', delay=60)
    clock.set_back(3600)
    now_ns = clock.time_ns()
    counts = count(queue.folder, 'in', now_ns=now_ns)
    assert (counts.waiting, counts.delayed) == (1, 1)
    assert queue.files == [misdated]
    seen = [summarize(queue.folder, 'in', filebase) for filebase in (misdated, delayed)]
    assert [one.state(now_ns) for one in seen if one] == ['waiting', 'delayed']


@pytest.mark.parametrize('turned_s', [-3600, 0, 30, 3600])
def test_all_that_tell_when_an_entry_is_due_tell_what_a_reader_does(
    clock: FakeClock, spool: Spool, turned_s: int
) -> None:
    queue = spool['in']
    now, later = queue.enqueue('x'), queue.enqueue('y', delay=60)
    if turned_s < 0:
        clock.set_back(-turned_s)
    else:
        clock.set_forward(turned_s)
    now_ns = clock.time_ns()
    reader = Spool(spool.directory, durability='lazy', clock=clock)['in']
    reader.has_ready()
    files = reader.files
    due_s = reader.wait_s() if later not in files else None
    census = count(queue.folder, 'in', now_ns=now_ns)
    assert census.waiting == len(files)
    assert census.oldest_ns <= now_ns
    summaries = {name: summarize(queue.folder, 'in', name) for name in (now, later)}
    told = {name: entry_fields(one, now_ns, {}) for name, one in summaries.items() if one is not None}
    assert {name for name, one in told.items() if one['state'] == 'waiting'} == set(files)
    ages_s = dict.fromkeys((now, later), 0.0)
    for name in ages_s:
        ages_s[name] = entry_age_s(queue.folder, name, '.pck', now_ns)
        assert told[name]['age_s'] == pytest.approx(ages_s[name], abs=0.01)
        assert told[name]['ready_at'] == pytest.approx(now_ns / NS_PER_S - ages_s[name], abs=0.01)
        assert (ages_s[name] >= 0) == (name in files)
    (row,) = age_table(ages_by_group([('in', queue.folder)], now_ns, {}))
    assert row.later == 2 - len(files)
    picked = select([('in', queue.folder)], Selection.parse('age:>=0s'), now_ns)
    assert {found.filebase for found in picked} == set(files)
    if due_s is None:
        assert census.next_ns == 0
    else:
        assert due_s == pytest.approx(60 - max(turned_s, 0), abs=1)
        assert (census.next_ns - now_ns) / NS_PER_S == pytest.approx(due_s, abs=1)
        assert -ages_s[later] == pytest.approx(due_s, abs=1)


class MissesOnce(Disk):
    """Has the first listing of a directory miss a name, as on Btrfs a file is missed that is renamed meanwhile."""

    fsync_scope = staticmethod(lambda fd: WITH_NAME)
    missed = ''

    def scandir(self, path):
        found, self.missed, missed = list(os.scandir(path)), '', self.missed
        return nullcontext(entry for entry in found if not missed or not entry.name.startswith(missed))


def test_an_entry_that_one_listing_misses_is_found_and_makes_a_beginning_ambiguous(spool: Spool) -> None:
    first, _ = (spool['in'].enqueue(text) for text in ('one', 'two'))
    disk = MissesOnce()
    place = [('in', Folder(spool.path('in'), disk))]
    disk.missed = first
    assert find(place, first[:-3]).filebase == first
    disk.missed = first
    with pytest.raises(AmbiguousEntryError):
        find(place, first[:6])


class Overtaken(Disk):
    """A disk on which others go on between the opening of a file and each reading of it."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = [meanwhile]

    def read_all(self, fd: int, size: int, offset: int = 0) -> bytes:
        while self._meanwhile:
            self._meanwhile.pop()()
        return super().read_all(fd, size, offset)


@pytest.mark.parametrize('look', [summarize, lambda *entry: peek(entry[0], entry[2], '.pck')])
def test_a_file_that_is_another_message_by_now_is_not_shown_as_a_damaged_one(
    spool: Spool, look: Callable[..., object]
) -> None:
    queue = spool['in']
    filebase = queue.enqueue('mine')

    def goes_on() -> None:
        before = {os.stat(spool.path('in', filebase + '.pck')).st_ino}
        queue.dequeue(filebase)
        queue.finish(filebase)
        other = queue.enqueue('not mine')
        assert {os.stat(spool.path('in', other + '.pck')).st_ino} == before

    folder = Folder(spool.path('in'), Overtaken(goes_on))
    assert look(folder, 'in', filebase) is None
