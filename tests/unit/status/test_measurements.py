"""What runners measure: bounded, added up without a sum that ever falls, and on the scoreboard when it is wanted."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.status.measurements import (
    BOUNDS_S,
    ERROR_NAME,
    MAX_ERRORS,
    NS_PER_S,
    OTHER,
    ErrorCount,
    Histogram,
    Measurements,
    sum_of,
)
from switchboard.status.scoreboard import Scoreboard, Slot, SupervisorRecord
from switchboard.store.layout import MASTER_LOCK

HOSTILE = ('', 'a b', 'x\ny', 'x"} 1', 'é', '1abc', 'x\0y', 'n' * 82, OTHER)
names = st.one_of(st.sampled_from(HOSTILE), st.from_regex(ERROR_NAME, fullmatch=True))


@pytest.fixture
def scoreboard(tmp_path: Path) -> Iterator[Scoreboard]:
    scoreboard = Scoreboard.create(tmp_path / 'scoreboard', 4)
    for index in range(2):
        scoreboard.write_supervisor_record(index, SupervisorRecord('in', index, 2, os.getpid()))
    yield scoreboard
    scoreboard.close()


def shown(measurements: Measurements) -> dict[str, int]:
    return {name: each.count for name, each in measurements.errors.items()} | {
        OTHER: measurements.other_errors
    }


def test_a_duration_is_counted_in_the_first_bucket_that_holds_it() -> None:
    histogram = Histogram()
    for bound in BOUNDS_S:
        histogram.observe(round(bound * NS_PER_S))
    histogram.observe(round(BOUNDS_S[-1] * NS_PER_S) + 1)
    assert histogram.counts == [1] * (len(BOUNDS_S) + 1)
    assert histogram.total == len(BOUNDS_S) + 1


@pytest.mark.parametrize('name', HOSTILE)
def test_a_name_that_is_none_has_no_counter_of_its_own(name: str) -> None:
    measurements = Measurements()
    measurements.failed_by(name, 1)
    assert shown(measurements) == {OTHER: 1}


@given(st.lists(names, max_size=100))
def test_whatever_the_errors_are_called_all_are_counted_and_few_are_named(failures: list[str]) -> None:
    measurements = Measurements()
    for at, name in enumerate(failures):
        measurements.failed_by(name, at)
    assert sum(shown(measurements).values()) == len(failures)
    assert len(measurements.errors) <= MAX_ERRORS
    assert Measurements.of(measurements.values()) == measurements


@given(st.lists(st.tuples(st.integers(0, 2), names), max_size=120), st.integers(0, 2))
def test_no_sum_falls_while_slices_fail_and_take_each_others_places(
    failures: list[tuple[int, str]], gone: int
) -> None:
    slices = [Measurements() for _ in range(3)]
    before: dict[str, int] = {}
    for at, (part, name) in enumerate(failures):
        slices[part % len(slices)].failed_by(name, at)
        if at == len(failures) // 2:
            keep = sum_of(slices).errors
            heir = sum_of((slices.pop(gone), slices.pop(0)), keep=keep)
            # As a scoreboard does it: what was carried stays apart, and the heir counts on beside it.
            slices += [Measurements.of(heir.values()), Measurements()]
        now = shown(sum_of(slices))
        assert {name: count for name, count in before.items() if now.get(name, 0) < count} == {}
        assert len(now) <= MAX_ERRORS + 1
        before = now
    assert sum(before.values()) == len(failures)


def test_durations_are_on_the_scoreboard_when_the_runner_rests_and_once_a_second_before(
    scoreboard: Scoreboard,
) -> None:
    now_ns = 5 * NS_PER_S
    slot = Slot(scoreboard, 0, clock_ns=lambda: now_ns)
    for seconds in (0, 0.5, 0.9, 1.0):
        now_ns = int((5 + seconds) * NS_PER_S)
        slot.measured(NS_PER_S, 2 * NS_PER_S)
        slot.end('done')
        assert scoreboard.measurements(0).process.total == (4 if seconds == 1.0 else 1)
    slot.measured(NS_PER_S, None)
    slot.flush()
    assert (scoreboard.measurements(0).process.total, scoreboard.measurements(0).wait.total) == (5, 4)
    assert scoreboard.measurements(0).wait.sum_ns == 8 * NS_PER_S


def test_a_failure_and_a_recovery_are_on_the_scoreboard_at_once(scoreboard: Scoreboard) -> None:
    slot = Slot(scoreboard, 0)
    slot.end('failed', 'ValueError')
    slot.recovered(2)
    found = scoreboard.measurements(0)
    assert shown(found) == {'ValueError': 1, OTHER: 0}
    assert found.recovered == 2


def test_the_next_process_of_a_slice_counts_on(scoreboard: Scoreboard) -> None:
    for _ in range(2):
        slot = Slot(scoreboard, 0)
        slot.measured(NS_PER_S, NS_PER_S)
        slot.end('failed', 'ValueError')
    assert shown(scoreboard.measurements(0)) == {'ValueError': 2, OTHER: 0}
    assert scoreboard.measurements(0).process.total == 2


def test_what_others_have_measured_is_carried_on_and_a_freed_slot_has_measured_nothing(
    scoreboard: Scoreboard,
) -> None:
    slot = Slot(scoreboard, 0)
    slot.end('failed', 'ValueError')
    scoreboard.write_inherited(1, scoreboard.measurements(0))
    scoreboard.clear(0)
    assert shown(scoreboard.measurements_of('in')) == {'ValueError': 1, OTHER: 0}
    scoreboard.write_supervisor_record(0, SupervisorRecord('out'))
    assert scoreboard.measurements(0) == Measurements()


def test_who_looks_while_a_slice_takes_the_place_of_another_sees_its_counters_once(
    scoreboard: Scoreboard,
) -> None:
    looks = []

    def look() -> int:
        looks.append(sum(each.done for each in scoreboard.records_unchecked()))
        if len(looks) == 1:
            with scoreboard.replacing_slices():
                scoreboard.write_supervisor_record(0, SupervisorRecord('in', 0, 2, inherited=(1, 0, 0, 0)))
        return looks[-1]

    assert scoreboard.read_unchanged(look) == 1
    assert looks == [0, 1]


def test_a_master_that_dies_while_it_changes_slices_stops_no_reader(scoreboard: Scoreboard) -> None:
    changing = scoreboard.replacing_slices()
    changing.__enter__()
    assert len(scoreboard.records_with_measurements()) == 2


def test_who_looks_waits_for_a_living_master_that_is_just_changing_slices(scoreboard: Scoreboard) -> None:
    # However long that takes: a master may have to wait for a processor in the middle of it.
    with (scoreboard.path.parent / MASTER_LOCK).open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        looking = threading.Event()
        seen: list[int] = []

        def look() -> int:
            return sum(each.done for each in scoreboard.records_unchecked())

        def read() -> None:
            looking.set()
            seen.append(scoreboard.read_unchanged(look))

        with scoreboard.replacing_slices(), scoreboard.replacing_slices():
            reader = threading.Thread(target=read)
            reader.start()
            looking.wait()
            scoreboard.write_supervisor_record(0, SupervisorRecord('in', 0, 2, inherited=(1, 0, 0, 0)))
            scoreboard.write_supervisor_record(0, SupervisorRecord('in', 0, 2, inherited=(3, 0, 0, 0)))
        reader.join()
    assert seen == [3]


def test_an_error_that_is_kept_by_decision_has_the_time_of_the_decision() -> None:
    late = Measurements(errors={'A': ErrorCount(1, 9)})
    kept = sum_of([late], keep={'A': ErrorCount(5, 2)})
    assert kept.errors == {'A': ErrorCount(1, 2)}
