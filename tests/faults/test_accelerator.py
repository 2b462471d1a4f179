"""The steps in C, killed and refused at each system call that they make: what `FaultyDisk` does to Python's calls, strace does to the kernel's.

The same operations, killed at the calls of Python, are the control: what may be found afterwards is the same.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.store.disk import Disk
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.world import World, observe, remove
from tests.helpers.accelerator import steps
from tests.servers.place import missing

pytestmark = pytest.mark.slow

# The calls of the steps, and of Python where it has to take one over.
CALLS = (
    *('openat', 'flock', 'fstat', 'newfstatat', 'pwrite64', 'pread64', 'ftruncate', 'close', 'getdents64'),
    *('renameat', 'renameat2', 'fsync', 'fdatasync'),
)
CALL = re.compile(r'^(\w+)\(', re.MULTILINE)
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

RETURNED, RAISED, BROKEN = 0, 3, 1
PR_SET_PTRACER = 0x59616D61


class LazyWorld(World):
    """One whose messages are published in one call, for nobody waits for the disk."""

    @property
    def spool(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self.path, 'lazy', disk=self.disk)
        return self._spool


def run(operation: Operation, directory: Path, kind: type[World], *, is_fast: bool) -> None:
    """In a child: do the operation, after a stop at which strace takes hold."""
    code = BROKEN
    try:
        # Once elsewhere: what is imported when it is first needed is no call of the operation's.
        for place in ('before', ''):
            disk = Disk()
            disk.accelerator = steps() if is_fast else None
            (directory / place).mkdir(exist_ok=True)
            world = kind(directory / place, disk)
            operation.prepare(world)
            if not place:
                ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
                os.kill(os.getpid(), signal.SIGSTOP)
            code = BROKEN
            try:
                operation.act(world)
                code = RETURNED
            except operation.errors:
                code = RAISED
    finally:
        os._exit(code)


def traced(
    operation: Operation, directory: Path, kind: type[World], inject: str, *, is_fast: bool
) -> tuple[int, str]:
    """:return: how the child ended, as ``waitpid`` tells, and the trace of its calls."""
    directory.mkdir()
    child = os.fork()
    if child == 0:
        run(operation, directory, kind, is_fast=is_fast)
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    log = directory / 'trace'
    command = [
        'strace',
        '-p',
        str(child),
        '-o',
        str(log),
        '-e',
        f'trace={",".join(CALLS)}',
        '-e',
        'signal=none',
    ]
    with subprocess.Popen(
        [*command, *(['-e', f'inject={inject}'] if inject else [])], stderr=subprocess.PIPE, text=True
    ) as strace:
        assert strace.stderr is not None
        line = strace.stderr.readline()
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
        assert 'attached' in line, line + strace.stderr.read()
    return status, log.read_text()


def strikes(
    operation: Operation, scratch: Path, kind: type[World], *, is_fast: bool
) -> Iterator[tuple[str, int]]:
    """:return: each call of the operation, by name and number."""
    status, trace = traced(operation, scratch / 'counted', kind, '', is_fast=is_fast)
    assert os.waitstatus_to_exitcode(status) == RETURNED
    assert observe(scratch / 'counted' / 'spool') == operation.after
    counts = Counter(name for name in CALL.findall(trace) if name in CALLS)
    assert counts
    for name, count in counts.items():
        for number in range(1, count + 1):
            yield name, number


both = pytest.mark.parametrize('is_fast', [True, False], ids=['in C', 'in Python'])
kinds = pytest.mark.parametrize('kind', [LazyWorld, World], ids=['lazy', 'full'])
each_operation = pytest.mark.parametrize('operation', CHOSEN, ids=str)


@pytest.fixture(autouse=True)
def prepared() -> None:
    if shutil.which('strace') is None:
        missing('strace')
    steps()


def test_all_that_were_chosen_are_there() -> None:
    assert len(CHOSEN) == len(NAMES)


@both
@kinds
@pytest.mark.in_turns('kind', (LazyWorld, World))
@each_operation
def test_a_process_killed_at_any_call_leaves_what_recovery_repairs(
    operation: Operation, kind: type[World], is_fast: bool, scratch: Path
) -> None:
    met: set[str] = set()
    calls = list(strikes(operation, scratch, kind, is_fast=is_fast))
    for name, number in calls:
        directory = scratch / f'{name}{number}'
        status, _ = traced(
            operation, directory, kind, f'{name}:signal=SIGKILL:when={number}', is_fast=is_fast
        )
        # It may get by: now and then an operation also does what is due ten times a second, and does it in one run only.
        assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL, (name, number)
        if os.WIFSIGNALED(status):
            met.add(name)
        assert observe(directory / 'spool') in operation.after_death(), (name, number)
        remove(directory)
    assert met == {name for name, _ in calls}


@kinds
@pytest.mark.in_turns('kind', (LazyWorld, World))
@pytest.mark.parametrize('how', ['once', 'lasting'])
@each_operation
def test_a_call_that_fails_loses_nothing(
    operation: Operation, how: str, kind: type[World], scratch: Path
) -> None:
    met: set[str] = set()
    calls = list(strikes(operation, scratch, kind, is_fast=True))
    for turn, (name, number) in enumerate(calls):
        directory = scratch / f'{name}{number}'
        error = ('EIO', 'ENOSPC', 'EINTR')[turn % (3 if how == 'once' else 2)]
        when = number if how == 'once' else f'{number}+'
        status, trace = traced(operation, directory, kind, f'{name}:error={error}:when={when}', is_fast=True)
        code = os.waitstatus_to_exitcode(status)
        if 'INJECTED' in trace:
            met.add(name)
        assert code in (RETURNED, RAISED), (name, number, error)
        allowed = [operation.after if code == RETURNED else operation.before, *operation.between]
        assert observe(directory / 'spool') in allowed, (name, number, error)
        remove(directory)
    assert met == {name for name, _ in calls}
