"""A real SIGKILL of a real process in each operation, before it begins and after each of its changes: what recovery finds is before, after, or listed.

A death between two changes leaves what one at the first call after the former leaves, for locks and memory are gone in any case: see `images`.
Whole runs, which do not always go alike, are killed at each call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.faults.harness.dying import ALL, FEWER_CALLS, RUNS
from tests.faults.harness.images import recorded
from tests.faults.harness.world import observe, remove
from tests.faults.operations import Operation
from tests.plugins.aside import Aside
from tests.plugins.turns import FOURTHS, failing_calls


@pytest.fixture(scope='session')
def dying() -> Iterator[Aside]:
    with Aside('tests.faults.harness.dying:die_aside') as made:
        yield made


def deadly(operation: Operation, fourth: str, scratch: Path) -> Iterable[int]:
    """:return: a fourth of the calls to die at."""
    if operation in RUNS:
        return failing_calls(fourth)
    numbers = [number for _, number, _ in recorded(operation, scratch / 'recorded').left or ()]
    assert numbers
    first, step = FOURTHS[fourth]
    return numbers[first - 1 :: step]


@pytest.mark.slow
@pytest.mark.parametrize('operation', ALL, ids=str)
@pytest.mark.parametrize('fourth', FOURTHS)
@pytest.mark.in_turns('fourth', tuple(FOURTHS))
def test_a_process_killed_at_any_call_leaves_what_recovery_repairs(
    fourth: str, operation: Operation, scratch: Path, dying: Aside
) -> None:
    for number in deadly(operation, fourth, scratch):
        directory = scratch / str(number)
        directory.mkdir()
        status = dying(str(operation), str(directory), number)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == FEWER_CALLS
            assert number > 1
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        found = observe(directory / 'spool')
        assert found in operation.after_death(), number
        remove(directory)
