"""Each call of each operation fails once: what was there is there, what was promised is kept, nothing is left locked."""

from __future__ import annotations

import errno
import itertools
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from switchboard.errors import QueueFullError
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.testing.faults import FaultyDisk
from tests.faults.harness.images import Recovery, deaths
from tests.faults.harness.world import State, World, remove, the_same_again
from tests.faults.operations import ERRORS, OPERATIONS, Operation
from tests.plugins.turns import CALLS, FSYNC_SCOPES, failing_calls

# An operation that makes more calls than this goes round in circles.
MAX_CALLS = 2000

# The calls that can be short.
READS_AND_WRITES = ('pread', 'pwrite')
FLUSHES = ('fdatasync', 'fsync', 'syncfs')
# What follows a short write, where nothing does.
GOES_ON = 'and goes on'

# What works with several queues makes a hundred calls and more.
LONG = ('three', '5 outputs', 'a pass of a runner')

each_operation = pytest.mark.parametrize(
    'operation',
    [
        pytest.param(each, marks=[pytest.mark.slow] if any(word in str(each) for word in LONG) else [])
        for each in OPERATIONS
    ],
    ids=str,
)


class Case:
    """An operation, struck at one call.

    :param start_s: when it begins; those that begin at the same time go alike until they are struck.
    :param recovery: of all these.
    """

    def __init__(
        self,
        operation: Operation,
        directory: Path,
        number: int,
        fault: Mapping[str, Any],
        start_s: float,
        recovery: Recovery,
    ) -> None:
        self.operation = operation
        self.directory = directory / 'case'
        self.directory.mkdir()
        self.disk = FaultyDisk(**fault)
        self.error: BaseException | None = None
        self._start_s = start_s
        self._recovery = recovery
        with the_same_again(start_s) as clock:
            self.world = World(self.directory, self.disk, clock)
            operation.prepare(self.world)
            self.disk.arm(number)
            self._act()

    def act_again(self) -> None:
        self.disk.arm(0)
        with the_same_again(self._start_s, seed=1):
            self._act()

    def _act(self) -> None:
        self.error = None
        try:
            self.operation.act(self.world)
        except self.operation.errors as error:
            self.error = error

    def says_where(self) -> bool:
        """Does an error of the system name a file or a directory by its whole path, and not the queue alone?"""
        cause = self.error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__
        if cause is None:
            return True
        is_whole = cause.filename2 is None or cause.filename2.startswith(str(self.directory))
        return is_whole and str(self.directory) in str(self.error)

    def says_what_became_of_messages(self, found: State) -> bool:
        """Does the error of a full disk tell the sender of a message that it was not stored, and the owner of one that was there that it was not lost?"""
        if not isinstance(self.error, QueueFullError) or not isinstance(self.error.__cause__, OSError):
            return True
        said, operation = str(self.error), self.operation
        is_stored = messages(operation.after) <= messages(found)
        return (is_stored or 'nothing was stored' in said) and (not operation.before or 'lost' in said)

    def restart(self) -> State:
        """:return: what is there after the process is gone and another one has recovered."""
        self.disk.end_process()
        found = self._recovery(self.world.path)
        remove(self.directory)
        return found

    def __str__(self) -> str:
        return f'{self.operation}, call {self.disk.fail_at} ({self.disk.failed_call}): {self.error!r}'


def messages(of: State) -> Counter[str]:
    """:return: all of them, in whichever queue they are."""
    return Counter(body for bodies in of.values() for body in bodies)


def cases(
    operation: Operation,
    directory: Path,
    fault_at: Callable[[int], Mapping[str, Any]] = lambda number: {},
    calls: str = '',
    **fault: Any,
) -> Iterator[Case]:
    """The operation, struck at its first, second, ... call, until a run meets no fault.

    :param fault_at: what is special about the fault at a call.
    :param calls: which of them; by default all.
    """
    start_s, recovery = time.time(), Recovery()
    fsync_scope = Folder(directory, Disk()).fsync_scope  # as of all of them, and not asked for by each
    for number in failing_calls(calls):
        each = {'fsync_scope': fsync_scope, **fault, **fault_at(number)}
        case = Case(operation, directory, number, each, start_s, recovery)
        if case.disk.count < number:
            assert case.error is None
            assert case.restart() == operation.after
            assert number > 1 or 'calls' in each, 'an operation that calls nothing proves nothing'
            return
        assert number < MAX_CALLS
        yield case


def expected(case: Case) -> list[State]:
    """What one failed call may leave: all of the operation if it says nothing, nothing of it if it raises."""
    operation = case.operation
    return [operation.after if case.error is None else operation.before, *operation.between]


# Which error it is matters in a handful of places: one is tried at each call, the others take turns.
OTHERS = [number for name, number in ERRORS.items() if name != 'EIO']
IN_TURNS = 'others in turns'


def one_after_another(operation: Operation) -> Callable[[int], Mapping[str, Any]]:
    """:return: which error a call meets; each operation begins with another, so that each error meets each step somewhere."""
    first = zlib.crc32(str(operation).encode())
    return lambda number: {'error': OTHERS[(first + number) % len(OTHERS)]}


def test_in_turns_every_error_is_met() -> None:
    for operation in OPERATIONS[:3]:
        turns = one_after_another(operation)
        assert {turns(number)['error'] for number in range(1, len(OTHERS) + 1)} == set(OTHERS)


def in_quarters(*errors: str) -> Callable[[Any], Any]:
    """Mark a test of two errors, each at half of the calls: one of the four on each day."""
    quarters = tuple(itertools.product(errors, CALLS))
    parametrize = pytest.mark.parametrize('quarter', quarters, ids=', '.join)
    return lambda test: pytest.mark.in_turns('quarter', quarters)(parametrize(test))


@in_quarters('EIO', IN_TURNS)
@each_operation
def test_a_call_that_fails_loses_nothing_and_names_a_path(
    operation: Operation, quarter: tuple[str, str], scratch: Path
) -> None:
    error, calls = quarter
    fault_at = one_after_another(operation) if error == IN_TURNS else lambda number: {'error': errno.EIO}
    for case in cases(operation, scratch, fault_at, calls):
        assert case.world.leaks() == [], case
        assert case.disk.bad_descriptor_calls == [], case
        assert case.says_where(), case
        found = case.restart()
        assert found in expected(case), case
        assert case.says_what_became_of_messages(found), case


@pytest.mark.parametrize('fsync_scope', FSYNC_SCOPES)
@pytest.mark.in_turns
@each_operation
def test_a_flush_that_says_that_nothing_is_there_fails_as_any_other(
    operation: Operation, fsync_scope: int, scratch: Path
) -> None:
    fault = {'error': errno.ENOENT, 'fsync_scope': fsync_scope, 'calls': FLUSHES}
    for case in cases(operation, scratch, lambda number: fault):
        assert case.world.leaks() == [], case
        assert case.disk.bad_descriptor_calls == [], case
        assert case.says_where(), case
        assert case.restart() in expected(case), case


@pytest.mark.slow
@in_quarters('EIO', 'ENOSPC')
@each_operation
def test_after_a_failure_the_same_process_can_do_it_again(
    operation: Operation, quarter: tuple[str, str], scratch: Path
) -> None:
    error, calls = quarter
    for case in cases(operation, scratch, calls=calls, error=ERRORS[error]):
        if case.error is None or not operation.repeatable:
            case.restart()
            continue
        first = str(case)
        case.act_again()
        assert case.error is None, first
        assert case.disk.bad_descriptor_calls == [], first
        assert case.restart() == operation.after, first


@pytest.mark.slow
@pytest.mark.parametrize('error', [GOES_ON, 'ENOSPC'])
@pytest.mark.in_turns('error', (GOES_ON, 'ENOSPC'))
@each_operation
def test_a_short_write_or_read_leaves_no_half_message(
    operation: Operation, error: str, scratch: Path
) -> None:
    fault = {'error': ERRORS.get(error, 0), 'short': True, 'calls': READS_AND_WRITES}
    for case in cases(operation, scratch, lambda number: fault):
        assert case.disk.failed_call in READS_AND_WRITES, case
        assert case.world.leaks() == [], case
        assert case.disk.bad_descriptor_calls == [], case
        if error == GOES_ON:
            assert case.error is None, case
        assert case.restart() in expected(case), case


@pytest.mark.slow
@in_quarters('ENOSPC', 'EROFS')
@each_operation
def test_a_disk_that_stays_broken_loses_nothing(
    operation: Operation, quarter: tuple[str, str], scratch: Path
) -> None:
    """Taking back may fail as well here, so what was reported as not stored may arrive: but never in part."""
    error, calls = quarter
    for case in cases(operation, scratch, calls=calls, error=ERRORS[error], persistent=True):
        assert case.world.leaks() == [], case
        assert case.disk.bad_descriptor_calls == [], case
        assert case.restart() in operation.after_death(), case


@each_operation
def test_a_death_at_any_call_leaves_what_recovery_repairs(operation: Operation, scratch: Path) -> None:
    for found, number, last in deaths(operation, scratch):
        assert found in operation.after_death(), f'{operation}, killed at call {number}, after {last}'
