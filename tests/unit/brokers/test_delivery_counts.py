"""Delivery counts: what a process held when it died is counted, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchboard.brokers.delivery_counts import FORGET_S, DeliveryCounts
from switchboard.clock import SYSTEM_CLOCK
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.testing import FakeClock
from tests.helpers.processes import Child

ONE, TWO = 'a' * 40, 'b' * 40


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / 'held'


def delivery_counts(place: Path, clock: object = SYSTEM_CLOCK) -> DeliveryCounts:
    disk = Disk()
    return DeliveryCounts(Folder(place, disk), disk, clock)


def test_what_a_dead_process_held_is_counted_once(place: Path) -> None:
    def hold_and_die() -> None:
        mine = delivery_counts(place)
        mine.note_claimed(ONE)
        mine.note_claimed(TWO)
        mine.note_ended(TWO)
        os.kill(os.getpid(), 9)

    with pytest.raises(AssertionError):
        Child(hold_and_die).join()
    mine = delivery_counts(place)
    assert mine.collect_dead_holders() == [ONE]
    assert mine.collect_dead_holders() == []
    assert (mine.deaths(ONE), mine.deaths(TWO)) == (1, 0)
    assert delivery_counts(place).deaths(ONE) == 1


def test_what_a_living_one_holds_is_not(place: Path) -> None:
    mine = delivery_counts(place)
    mine.note_claimed(ONE)
    assert delivery_counts(place).collect_dead_holders() == []
    assert Child(lambda: delivery_counts(place).collect_dead_holders()).join() == []
    mine.close()


def test_a_child_lets_go_of_it_and_the_parent_keeps_it(place: Path) -> None:
    mine = delivery_counts(place)
    mine.note_claimed(ONE)

    def in_the_child() -> list[str]:
        mine.note_claimed(TWO)  # in a file of its own
        mine.note_ended(TWO)
        mine.close()
        return delivery_counts(place).collect_dead_holders()

    assert Child(in_the_child).join() == []
    mine.note_ended(ONE)
    mine.close()
    assert delivery_counts(place).collect_dead_holders() == []


def test_an_end_forgets_the_deaths(place: Path) -> None:
    mine = delivery_counts(place)
    assert (mine.add_death(ONE), mine.add_death(ONE)) == (1, 2)
    mine.clear_deaths(ONE)
    assert delivery_counts(place).deaths(ONE) == 0
    assert list(place.iterdir()) == []


def test_an_end_in_another_process_is_known_here(place: Path) -> None:
    mine, other = delivery_counts(place), delivery_counts(place)
    assert (mine.add_death(ONE), other.add_death(ONE)) == (1, 2)
    assert mine.deaths(ONE) == 2
    other.clear_deaths(ONE)
    assert (mine.deaths(ONE), mine.add_death(ONE)) == (0, 1)


def test_a_count_that_could_not_be_written_is_kept_here(place: Path) -> None:
    place.write_text('in the way of the directory')
    mine = delivery_counts(place)
    assert (mine.add_death(ONE), mine.add_death(ONE), mine.deaths(ONE)) == (1, 2, 2)


def test_a_process_that_ends_in_order_leaves_nothing(place: Path) -> None:
    mine = delivery_counts(place)
    mine.note_claimed(ONE)
    mine.note_ended(ONE)
    mine.close()
    assert list(place.iterdir()) == []


def test_slots_are_used_again(place: Path) -> None:
    mine = delivery_counts(place)
    for number in range(100):
        mine.note_claimed(f'{number:040x}')
        mine.note_ended(f'{number:040x}')
    [file] = place.iterdir()
    assert file.stat().st_size == 41
    mine.close()


def test_old_counts_are_forgotten(place: Path) -> None:
    clock = FakeClock()
    delivery_counts(place, clock).add_death(ONE)
    clock.advance(FORGET_S + 1)
    delivery_counts(place, clock).collect_dead_holders()
    assert delivery_counts(place, clock).deaths(ONE) == 0


def test_without_a_directory_it_counts_for_itself() -> None:
    mine = DeliveryCounts(None, Disk(), SYSTEM_CLOCK)
    mine.note_claimed(ONE)
    assert mine.collect_dead_holders() == []
    assert (mine.add_death(ONE), mine.deaths(ONE)) == (1, 1)


def test_a_foreign_file_is_left_alone(place: Path) -> None:
    place.mkdir()
    (place / 'README').write_text('x')
    (place / 'x.held').write_text('no digest\n')
    assert delivery_counts(place).collect_dead_holders() == []
    assert [file.name for file in place.iterdir()] == ['README']
