"""A real SIGKILL of a real process at each call of each operation: what recovery finds is before, after, or listed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.dying import ALL, FEWER_CALLS, Dying
from tests.faults.operations import Operation
from tests.faults.world import observe, remove
from tests.helpers.turns import FOURTHS, struck


@pytest.fixture(scope='session')
def dying() -> Iterator[Dying]:
    made = Dying()
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize('operation', ALL, ids=str)
@pytest.mark.parametrize('calls', FOURTHS)
@pytest.mark.in_turns('calls', tuple(FOURTHS))
def test_a_process_killed_at_any_call_leaves_what_recovery_repairs(
    calls: str, operation: Operation, scratch: Path, dying: Dying
) -> None:
    for number in struck(calls):
        directory = scratch / str(number)
        directory.mkdir()
        status = dying.at(operation, directory, number)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == FEWER_CALLS
            assert number > 1
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        found = observe(directory / 'spool')
        assert found in operation.after_death(), number
        remove(directory)
