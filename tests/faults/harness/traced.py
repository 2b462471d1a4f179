"""Operations with the steps in C or in Python, in a process that strace follows, and kills or refuses at a call."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from switchboard import Spool
from switchboard.store.disk import Disk
from switchboard.store.kernel import accelerator
from tests.faults.harness.world import World
from tests.faults.operations import OPERATIONS, Operation

# The calls of the steps, and of Python where it has to take one over.
CALLS = (
    *('openat', 'flock', 'fstat', 'newfstatat', 'pwrite64', 'pread64', 'ftruncate', 'close', 'getdents64'),
    *('renameat', 'renameat2', 'fsync', 'fdatasync'),
)
CALL = re.compile(r'^(\w+)\(', re.MULTILINE)
RETURNED, RAISED, BROKEN = 0, 3, 1
PR_SET_PTRACER = 0x59616D61


class LazyWorld(World):
    """One whose messages are published in one call, for nobody waits for the disk."""

    @property
    def spool(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self.path, 'lazy', disk=self.disk)
        return self._spool


KINDS: dict[str, type[World]] = {'lazy': LazyWorld, 'full': World}


def prepared(operation: Operation, directory: Path, kind: type[World], *, is_fast: bool) -> World:
    disk = Disk()
    disk.accelerator = accelerator() if is_fast else None
    assert bool(disk.accelerator) == is_fast
    world = kind(directory, disk)
    operation.prepare(world)
    return world


@cache
def imported(operation: str, kind: str, is_fast: bool) -> None:
    """Do an operation here: what is imported when it is first needed is no call of the operation's."""
    with tempfile.TemporaryDirectory() as directory:
        found = named(operation)
        found.act(prepared(found, Path(directory), KINDS[kind], is_fast=is_fast))


def named(operation: str) -> Operation:
    [found] = [each for each in OPERATIONS if str(each) == operation]
    return found


def run(operation: Operation, directory: Path, kind: type[World], *, is_fast: bool) -> None:
    """In a child: do the operation, after a stop at which strace takes hold."""
    code = BROKEN
    try:
        world = prepared(operation, directory, kind, is_fast=is_fast)
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
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


def traced_aside(operation: str, directory: str, kind: str, inject: str, is_fast: bool) -> tuple[int, str]:
    """As `traced`, for `Aside`."""
    imported(operation, kind, is_fast)
    return traced(named(operation), Path(directory), KINDS[kind], inject, is_fast=is_fast)
