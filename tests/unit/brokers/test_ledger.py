"""The ledger: what a process held when it died is counted, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchboard.brokers.ledger import FORGET_S, Ledger
from switchboard.clock import SYSTEM_CLOCK
from switchboard.store.disk import Disk, Folder
from switchboard.testing import FakeClock
from tests.processes import Child

ONE, TWO = 'a' * 40, 'b' * 40


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / 'held'


def ledger(place: Path, clock: object = SYSTEM_CLOCK) -> Ledger:
    disk = Disk()
    return Ledger(Folder(place, disk), disk, clock)  # type: ignore[arg-type]


def test_what_a_dead_process_held_is_counted_once(place: Path) -> None:
    def hold_and_die() -> None:
        mine = ledger(place)
        mine.begin(ONE)
        mine.begin(TWO)
        mine.end(TWO)
        os.kill(os.getpid(), 9)

    with pytest.raises(AssertionError):
        Child(hold_and_die).join()
    mine = ledger(place)
    assert mine.collect() == [ONE]
    assert mine.collect() == []
    assert (mine.deaths(ONE), mine.deaths(TWO)) == (1, 0)
    assert ledger(place).deaths(ONE) == 1


def test_what_a_living_one_holds_is_not(place: Path) -> None:
    mine = ledger(place)
    mine.begin(ONE)
    assert ledger(place).collect() == []
    assert Child(lambda: ledger(place).collect()).join() == []
    mine.close()


def test_a_child_lets_go_of_it_and_the_parent_keeps_it(place: Path) -> None:
    mine = ledger(place)
    mine.begin(ONE)

    def in_the_child() -> list[str]:
        mine.begin(TWO)  # in a file of its own
        mine.end(TWO)
        mine.close()
        return ledger(place).collect()

    assert Child(in_the_child).join() == []
    mine.end(ONE)
    mine.close()
    assert ledger(place).collect() == []


def test_an_end_forgets_the_deaths(place: Path) -> None:
    mine = ledger(place)
    assert (mine.add(ONE), mine.add(ONE)) == (1, 2)
    mine.clear(ONE)
    assert ledger(place).deaths(ONE) == 0
    assert list(place.iterdir()) == []


def test_a_process_that_ends_in_order_leaves_nothing(place: Path) -> None:
    mine = ledger(place)
    mine.begin(ONE)
    mine.end(ONE)
    mine.close()
    assert list(place.iterdir()) == []


def test_slots_are_used_again(place: Path) -> None:
    mine = ledger(place)
    for number in range(100):
        mine.begin(f'{number:040x}')
        mine.end(f'{number:040x}')
    [file] = place.iterdir()
    assert file.stat().st_size == 41
    mine.close()


def test_old_counts_are_forgotten(place: Path) -> None:
    clock = FakeClock()
    ledger(place, clock).add(ONE)
    clock.advance(FORGET_S + 1)
    ledger(place, clock).collect()
    assert ledger(place, clock).deaths(ONE) == 0


def test_without_a_directory_it_counts_for_itself() -> None:
    mine = Ledger(None, Disk(), SYSTEM_CLOCK)
    mine.begin(ONE)
    assert mine.collect() == []
    assert (mine.add(ONE), mine.deaths(ONE)) == (1, 1)


def test_a_foreign_file_is_left_alone(place: Path) -> None:
    place.mkdir()
    (place / 'README').write_text('x')
    (place / 'x.held').write_text('no digest\n')
    assert ledger(place).collect() == []
    assert [file.name for file in place.iterdir()] == ['README']
