"""The steps in C, killed and refused at each system call that they make: what `FaultyDisk` does to Python's calls, strace does to the kernel's.

The same operations, killed at the calls of Python, are the control: what may be found afterwards is the same.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness.traced import CALL, CALLS, KINDS, RAISED, RETURNED
from tests.faults.harness.world import observe, remove
from tests.faults.operations import OPERATIONS, Operation
from tests.helpers.accelerator import build_or_skip
from tests.plugins import turns
from tests.plugins.aside import Aside
from tests.servers.place import missing

pytestmark = pytest.mark.slow

NAMES = (
    'enqueue',
    'enqueue in a spare',
    "enqueue in another's spare",
    'batch of three',
    'dequeue',
    'take',
    'dequeue a damaged entry',
    'finish',
    'finish what nobody claimed',
)
CHOSEN = [each for each in OPERATIONS if str(each) in NAMES]


@pytest.fixture(scope='module')
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aside]:
    if shutil.which('strace') is None:
        missing('strace')
    directory = tmp_path_factory.mktemp('accelerator')
    build_or_skip(directory)
    paths = os.pathsep.join(filter(None, (str(directory), os.environ.get('PYTHONPATH'))))
    with Aside('tests.faults.harness.traced:traced_aside', PYTHONPATH=paths) as made:
        yield made


def strikes(
    operation: Operation, scratch: Path, kind: str, traced: Aside, half: str, *, is_fast: bool
) -> list[tuple[str, int]]:
    """:return: half of the calls of the operation, by name and number."""
    status, trace = traced(str(operation), str(scratch / 'counted'), kind, '', is_fast)
    assert os.waitstatus_to_exitcode(status) == RETURNED
    assert observe(scratch / 'counted' / 'spool') == operation.after
    counts = Counter(name for name in CALL.findall(trace) if name in CALLS)
    assert counts
    calls = [(name, number) for name, count in counts.items() for number in range(1, count + 1)]
    first, step = turns.CALLS[half]
    return calls[first - 1 :: step]


both = pytest.mark.parametrize('is_fast', [True, False], ids=['in C', 'in Python'])
# Lazy or full, and half of the calls: one of the four on each day.
QUARTERS = tuple(itertools.product(KINDS, turns.CALLS))
each_operation = pytest.mark.parametrize('operation', CHOSEN, ids=str)


def test_all_that_were_chosen_are_there() -> None:
    assert len(CHOSEN) == len(NAMES)


@both
@pytest.mark.parametrize('quarter', QUARTERS, ids=', '.join)
@pytest.mark.in_turns('quarter', QUARTERS)
@each_operation
def test_a_process_killed_at_any_call_leaves_what_recovery_repairs(
    operation: Operation, quarter: tuple[str, str], is_fast: bool, scratch: Path, traced: Aside
) -> None:
    kind, half = quarter
    met: set[str] = set()
    calls = strikes(operation, scratch, kind, traced, half, is_fast=is_fast)
    for name, number in calls:
        directory = scratch / f'{name}{number}'
        inject = f'{name}:signal=SIGKILL:when={number}'
        status, _ = traced(str(operation), str(directory), kind, inject, is_fast)
        # It may get by: now and then an operation also does what is due ten times a second, and does it in one run only.
        assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL, (name, number)
        if os.WIFSIGNALED(status):
            met.add(name)
        assert observe(directory / 'spool') in operation.after_death(), (name, number)
        remove(directory)
    assert {name for name, number in calls if number == 1} <= met


@pytest.mark.parametrize('quarter', QUARTERS, ids=', '.join)
@pytest.mark.in_turns('quarter', QUARTERS)
@pytest.mark.parametrize('how', ['once', 'lasting'])
@each_operation
def test_a_call_that_fails_loses_nothing(
    operation: Operation, how: str, quarter: tuple[str, str], scratch: Path, traced: Aside
) -> None:
    kind, half = quarter
    met: set[str] = set()
    calls = strikes(operation, scratch, kind, traced, half, is_fast=True)
    for turn, (name, number) in enumerate(calls):
        directory = scratch / f'{name}{number}'
        error = ('EIO', 'ENOSPC', 'EINTR')[turn % (3 if how == 'once' else 2)]
        when = number if how == 'once' else f'{number}+'
        inject = f'{name}:error={error}:when={when}'
        status, trace = traced(str(operation), str(directory), kind, inject, True)
        code = os.waitstatus_to_exitcode(status)
        if 'INJECTED' in trace:
            met.add(name)
        assert code in (RETURNED, RAISED), (name, number, error)
        allowed = [operation.after if code == RETURNED else operation.before, *operation.between]
        assert observe(directory / 'spool') in allowed, (name, number, error)
        remove(directory)
    assert {name for name, number in calls if number == 1} <= met
