"""Power cuts of real file systems while the product works, and a worker is killed now and then: what was promised with ``durability = full`` is there, and once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.harness.world import DAMAGED
from tests.helpers.processes import Child, ends, in_child
from tests.helpers.waiting import eventually
from tests.power import images
from tests.power.dying import STEPS, die_and_go_on
from tests.power.found import what_is_there
from tests.power.images import FILE_SYSTEMS, FileSystem
from tests.power.work import Work, number_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(images.why_not()), reason=images.why_not())]

# `SWITCHBOARD_POWER_CUTS=100` asks for more.
CUTS = int(os.environ.get('SWITCHBOARD_POWER_CUTS', '4'))
# Workers at a time, and lines that they are to write between two cuts: by work, and not by time.  After half of them, one worker is killed.
WORKERS, LINES_BETWEEN = 3, 250
# Producers that try again after a cut: those that had put in a message with a key last.
RETRIED = 30
# Numbers that one worker has for its messages.
EACH = 1_000_000
# Of `tests.power.work`: as few flushes as the file system needs, or two.
FLUSHES = ('full', 'two')
# Where nothing is promised, two of the four file systems have their turn on a day.
TWO_A_DAY = pytest.mark.in_turns('kind', FILE_SYSTEMS, days=2)


class HandOff(NamedTuple):
    """A message that is to leave a queue, and the numbers of the notes that are to come with it."""

    number: int
    source: str
    notes: tuple[int, ...]


@dataclass
class Promises:
    """What the log says."""

    fsync_scope: int = -1
    begun: set[int] = field(default_factory=set)
    accepted: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    left: set[tuple[int, str]] = field(default_factory=set)
    keyed: list[int] = field(default_factory=list)
    hand_offs: list[HandOff] = field(default_factory=list)
    renewed: int = 0
    # With ``lazy`` nothing is promised, and all the same no producer that tries again is to be told that a lost message is there.
    is_promised: bool = True

    @classmethod
    def read(cls, log: Path, mode: str = 'full') -> Promises:
        promises = cls(is_promised=mode != 'lazy')
        for line in log.read_text().split('\n'):
            match line.split():
                case ['fsync_scope', fsync_scope, '.']:
                    promises.fsync_scope = int(fsync_scope)
                case ['begun' | 'accepted' | 'finished' as what, number, '.']:
                    getattr(promises, what).add(int(number))
                case ['left', number, queue, '.']:
                    promises.left.add((int(number), queue))
                case ['keyed', number, '.']:
                    promises.keyed.append(int(number))
                case ['hands', number, source, *notes, '.']:
                    promises.hand_offs.append(HandOff(int(number), source, tuple(map(int, notes))))
                case ['renewed', '.']:
                    promises.renewed += 1
        return promises


@dataclass
class Tally:
    """What some cuts have shown."""

    cuts: int = 0
    kills: int = 0
    checked: int = 0
    renewed: int = 0
    # Notes of hand-offs, hand-offs that a cut may have interrupted, and retries of producers with keys.
    notes: int = 0
    under_way: int = 0
    retried: int = 0
    errors: list[str] = field(default_factory=list)


def places_of(found: Mapping[str, Sequence[str]]) -> dict[int, list[str]]:
    """:return: the queues in which the message of a number is, with one of them for each time."""
    places: dict[int, list[str]] = {}
    for queue, texts in found.items():
        for text in texts:
            if text != DAMAGED:
                places.setdefault(number_of(text.rpartition('\n\n')[2]), []).append(queue)
    return places


def look(spool: Path, before: Promises, after: Promises, tally: Tally) -> None:
    """Compare what is there with what had been promised before the cut, and was not yet taken back after it."""
    retried = after.keyed[-RETRIED:]
    remains = what_is_there(spool, retried)
    look_at_retries(places_of(remains.again), retried, after, tally)
    if not after.is_promised:
        return
    places = places_of(remains.found)
    counts = Counter({number: len(queues) for number, queues in places.items()})
    for number in before.accepted - after.finished:
        tally.checked += 1
        if counts[number] != 1:
            tally.errors.append(f'{number}: there {counts[number]} times, in {places.get(number, [])}')
    tally.errors += [
        f'{number}: doubled, in {places[number]}' for number, count in counts.items() if count > 1
    ]
    tally.errors += [f'{number}: never sent' for number in counts.keys() - after.begun]
    tally.errors += [
        f'{number}: back in {queue}' for number, queue in before.left if queue in places.get(number, ())
    ]
    look_at_hand_offs(places, before, after, tally)
    tally.errors += [f'{name}: neither rolled forward nor back' for name in remains.staged]


def look_at_hand_offs(
    places: Mapping[int, Sequence[str]], before: Promises, after: Promises, tally: Tally
) -> None:
    """Each hand-off is done, with its notes, or not begun: whether its worker lived, and whether it was told so."""
    for number, source, notes in after.hand_offs:
        tally.under_way += (number, source) not in before.left
        tally.notes += len(notes)
        # What was finished between the cut and the second look at the log may have been there at the cut, or not.
        known = [note for note in notes if note in places or note not in after.finished - before.finished]
        there = [note in places or note in before.finished for note in known]
        if any(there) and not all(there):
            tally.errors.append(f'{number}: by halves, of its notes {known}: {there}')
        if any(there) and source in places.get(number, ()):
            tally.errors.append(f'{number}: doubled, in {source} beside its notes')
        if any(there) and number not in places and number not in after.finished:
            tally.errors.append(f'{number}: there 0 times, and its notes are there')


def look_at_retries(
    places: Mapping[int, Sequence[str]], retried: Sequence[int], after: Promises, tally: Tally
) -> None:
    """A producer that tries again has its message stored, if the cut has taken it with or without its key; else it is there already.

    Where nothing is promised the cut may take the key alone.
    """
    for number in retried:
        tally.retried += 1
        there = len(places.get(number, ()))
        if (there > 1 and after.is_promised) or (there < 1 and number not in after.finished):
            tally.errors.append(f'{number}: there {there} times after a retry, in {places.get(number, [])}')


class Workers:
    """The processes at work in one spool; a killed one is replaced."""

    def __init__(self, spool: Path, log: Path, mode: str) -> None:
        self._place = spool, log, mode
        self._started = 0
        self._workers = [self._start() for _ in range(WORKERS)]

    def _start(self) -> Child:
        first = 1 + self._started * EACH
        self._started += 1
        return Child(lambda: Work(*self._place, first).for_ever())

    def signal(self, signum: signal.Signals) -> None:
        for worker in self._workers:
            os.kill(worker.pid, signum)

    def assert_well(self) -> None:
        for worker in self._workers:
            if ends(worker.pid, 0):
                worker.join()
                raise AssertionError('a worker ended by itself')

    def kill_one(self) -> None:
        with self._workers.pop(0) as worker:
            worker.kill()
        self._workers.append(self._start())

    def end(self) -> None:
        for worker in self._workers:
            with worker:
                worker.kill()


def cut_often(kind: FileSystem, mode: str, work: Path, cuts: int) -> Tally:
    """Have the product work on a file system, and take the power away several times."""
    tally = Tally()
    log = work / 'log'
    log.touch()
    with images.host(work) as host:
        image = images.make(kind, host)
        with images.mounted(image, work / 'original', kind.options) as original:
            workers = Workers(original / 'spool', log, mode)
            try:
                for number in range(1, cuts + 1):
                    _wait_for_lines(log, number * LINES_BETWEEN - LINES_BETWEEN // 2, workers)
                    workers.kill_one()
                    tally.kills += 1
                    _wait_for_lines(log, number * LINES_BETWEEN, workers)
                    if number == cuts and kind.keeps_size and mode != 'lazy':
                        eventually(lambda: Promises.read(log).renewed, 'a directory is renewed')
                    before = Promises.read(log, mode)
                    copy = images.cut(image)
                    after = Promises.read(log, mode)
                    # What they did meanwhile would be looked for by no one, and the time for it is that of all other tests.
                    workers.signal(signal.SIGSTOP)
                    tally.cuts += 1
                    assert before.fsync_scope == kind.fsync_scope
                    with images.mounted(copy, work / 'cut', kind.copy_options) as place:
                        look(place / 'spool', before, after, tally)
                    workers.signal(signal.SIGCONT)
            finally:
                workers.end()
    tally.renewed = Promises.read(log).renewed
    return tally


def _wait_for_lines(log: Path, lines: int, workers: Workers) -> None:
    def are_there() -> bool:
        workers.assert_well()
        return log.read_bytes().count(b'\n') >= lines

    eventually(are_there, f'{lines} lines in {log}')


@pytest.mark.parametrize('mode', FLUSHES)
@pytest.mark.in_turns('mode', FLUSHES)
@pytest.mark.parametrize('kind', FILE_SYSTEMS, ids=str)
def test_what_was_promised_survives_a_power_cut(kind: FileSystem, mode: str, tmp_path: Path) -> None:
    tally = cut_often(kind, mode, tmp_path, CUTS)
    assert tally.errors == []
    assert tally.checked > 20 * CUTS
    assert min(tally.notes, tally.retried) > CUTS
    assert tally.renewed or not kind.keeps_size


@pytest.mark.parametrize('mode', FLUSHES)
@pytest.mark.in_turns('mode', FLUSHES)
@pytest.mark.parametrize('kind', FILE_SYSTEMS, ids=str)
def test_a_hand_off_that_a_dead_process_began_is_not_there_by_halves(
    kind: FileSystem, mode: str, tmp_path: Path
) -> None:
    found = {}
    with images.host(tmp_path) as host:
        image = images.make(kind, host)
        with images.mounted(image, tmp_path / 'original', kind.options) as original:
            for number, step in enumerate(STEPS):
                spool = original / f'spool{number}'
                in_child(lambda spool=spool, step=step: die_and_go_on(str(spool), mode, step))
                copy = images.cut(image)
                with images.mounted(copy, tmp_path / 'cut', kind.copy_options) as place:
                    found[step] = what_is_there(place / spool.name).found
    begun = {'in': ('input',), 'next': ('next',) * 3}
    done = {'out': ('output',), 'notes': ('note',), 'next': ('next',) * 3}
    assert found == {step: begun if step == 'before the commit' else done for step in STEPS}


@pytest.mark.parametrize('kind', FILE_SYSTEMS, ids=str)
@TWO_A_DAY
def test_where_nothing_is_flushed_a_producer_that_tries_again_has_its_message_stored(
    kind: FileSystem, tmp_path: Path
) -> None:
    tally = cut_often(kind, 'lazy', tmp_path, CUTS)
    assert tally.errors == []
    assert tally.retried > CUTS


@pytest.mark.parametrize('kind', FILE_SYSTEMS, ids=str)
@TWO_A_DAY
def test_a_disk_that_flushes_nothing_is_found_out(kind: FileSystem, tmp_path: Path) -> None:
    assert cut_often(kind, 'none', tmp_path, CUTS).errors
