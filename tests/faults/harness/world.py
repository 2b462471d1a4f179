"""A spool under test, and what an outside observer finds in it after a restart."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.config.config import Config
from switchboard.errors import CorruptEntryError
from switchboard.handoff.transaction import Transaction
from switchboard.message.entry import parse_header, read_entry
from switchboard.message.naming import (
    CLAIMED,
    PRESERVED,
    READY,
    UNFINISHED,
    is_filebase,
    reset_process_number,
)
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from switchboard.store.claims import OWN_CLAIMS
from switchboard.store.disk import Disk
from switchboard.store.layout import BAD, MAILDIR_NEW, STAGE, TRASH
from switchboard.store.pool import _POOLS
from switchboard.testing.clock import FakeClock
from switchboard.testing.faults import FaultyDisk

# By queue: what the messages say, sorted; a file that cannot be believed says `DAMAGED`.
State = dict[str, tuple[str, ...]]
DAMAGED = '?'

EXCHANGES = """
[exchange.full]
type = fanout
bindings =
    -> ring
    -> out

[exchange.all]
type = fanout
bindings =
    -> left
    -> middle
    -> right
"""
SETTINGS = """
[switchboard]
spool = spool

[queue.in]
[queue.out]
[queue.left]
[queue.middle]
[queue.right]
[queue.few]
max_messages = 1
[queue.letters]
maildir = yes
[queue.dying]
dead_letter = out
[queue.fanned]
dead_letter = exchange:all
[queue.ring]
max_messages = 1
overflow = drop-oldest
[queue.pushed]
max_messages = 1
overflow = dead-letter
dead_letter = out
"""


def state(**queues: str) -> State:
    """``state(**{'in': 'a b'})``: one message ``a`` and one ``b`` in the queue ``in``, and nothing else."""
    return {name: tuple(sorted(bodies.split())) for name, bodies in queues.items() if bodies}


@cache
def settings() -> Config:
    """:return: the declarations, read once: a thousand worlds have the same."""
    with tempfile.TemporaryDirectory(prefix='world.') as directory:
        path = Path(directory, 'switchboard.cfg')
        path.write_text(SETTINGS)
        (path.parent / 'exchange.cfg').write_text(EXCHANGES)
        return Config.load(path)


class World:
    """One spool, the disk that it is on, and what an operation keeps between its two halves."""

    def __init__(self, directory: Path, disk: Disk | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.directory = directory
        self.path = directory / 'spool'
        self.disk = disk or Disk()
        self.clock = clock
        self._spool: Spool | None = None
        self.kept: dict[str, Any] = {}

    @property
    def spool(self) -> Spool:
        """The spool, opened when it is first asked for."""
        if self._spool is None:
            self._spool = Spool(self.path, disk=self.disk, clock=self.clock)
        return self._spool

    def configured(self) -> Spool:
        """A spool whose queues and exchanges are declared."""
        self._spool = Spool.from_config(
            replace(settings(), spool=self.path), disk=self.disk, clock=self.clock
        )
        return self._spool

    def queue(self, name: str) -> Switchboard:
        return self.spool[name]

    def claimed(self, body: str, queue: str = 'in') -> str:
        """Enqueue a message and claim it."""
        filebase = self.queue(queue).enqueue(body)
        self.queue(queue).dequeue(filebase)
        return filebase

    def leaks(self) -> list[str]:
        """Files that are open, and so perhaps locked, and that nobody knows of any more."""
        assert isinstance(self.disk, FaultyDisk)
        known = {claim.fd for claim in OWN_CLAIMS.values() if claim.is_at_work}
        for pool in (known_pool() for known_pool in _POOLS):
            if pool is not None and pool.disk is self.disk:
                known |= {draft.fd for draft in pool.kept_open}
        return sorted(name for fd, name in self.disk.open_files().items() if fd not in known)


@contextmanager
def the_same_again(start_s: float, seed: int = 0) -> Iterator[FakeClock]:
    """A run in which chance gives what it gave in all others, and the clock stands at `start_s`: so far as two runs go alike, they leave the same bytes."""
    with patch('os.urandom', random.Random(seed).randbytes):
        random.seed(seed)
        reset_process_number()
        yield FakeClock(start_s)
    reset_process_number()


def hand_on(spool: Spool, queue: Switchboard, filebase: str, outputs: Mapping[str, list[str]]) -> None:
    """Do what a runner does when ``dispose`` has emitted `outputs`."""
    transaction: Transaction = spool.transaction(queue, filebase)
    try:
        for name, bodies in outputs.items():
            for body in bodies:
                transaction.emit(spool[name], body, {})
    except BaseException:
        transaction.discard()
        raise
    transaction.commit()


class Observed(Exception):
    """Something stands where nothing may stand."""


def observe(path: Path) -> State:
    """Restart, recover, and read everything, as programs that come later do.

    :raises Observed: something is left over: a claim, a staged output, a commit record, a temporary file.
    """
    if not path.exists():
        return {}
    _recover(path)
    found = read_state(path)
    if left := os.listdir(path / STAGE):
        raise Observed(f'left over: {left}')
    return found


def _recover(path: Path) -> None:
    disk = FaultyDisk()  # one that fails nothing and waits for nothing
    spool = Spool(path, disk=disk)
    spool.recover()
    # Twice: a third recovery of an entry may send it on, to a queue that was looked at already.
    for _ in range(2):
        for queue in _queues_with(path, CLAIMED):
            spool[queue].recover_backup_files()
    for queue in _queues_with(path, UNFINISHED):
        Switchboard(queue, path / queue, recover=True, disk=disk)  # as those do that have no spool
    spool.close()


def _queues(path: Path) -> list[str]:
    return [name for name in os.listdir(path) if not name.startswith('.')]


def _queues_with(path: Path, suffix: str) -> list[str]:
    """:return: the queues in which there is such a file."""
    return [each for each in _queues(path) if any(name.endswith(suffix) for name in os.listdir(path / each))]


def read_state(path: Path) -> State:
    """Read what is there, touching nothing.

    :raises Observed: there is a file in a queue that is neither ready nor preserved, nor one that somebody has dropped.
    """
    return {queue: tuple(sorted(found)) for queue in _queues(path) if (found := _read_queue(path, queue))}


def _read_queue(path: Path, queue: str) -> list[str]:
    suffix = PRESERVED if queue in (BAD, TRASH) else READY
    found = []
    with os.scandir(path / queue) as entries:
        for entry in entries:
            if entry.is_dir():
                if entry.name == MAILDIR_NEW:
                    found += [file.read_text() for file in Path(entry.path).iterdir()]
            # A hidden name is one under which a producer writes: a cut may bring it back beside the one that it was given.
            elif entry.is_file() and not (entry.name.endswith('.eml') and entry.name[0] == '.'):
                found.append(_read(entry, suffix))
    return found


def _read(file: os.DirEntry[str], suffix: str) -> str:
    name, dot, ending = file.name.rpartition('.')
    with open(file.path, 'rb', buffering=0) as opened:
        content = opened.read()
    if dot + ending == '.eml':
        return content.decode()
    if dot + ending != suffix or not is_filebase(name):
        raise Observed(f'left over: {file.path}')
    entry = read_entry(name, content)
    return DAMAGED if entry.damage else entry.body.decode()


def remove(directory: str | os.PathLike[str]) -> None:
    """Remove a directory with all that is in it, as nobody else works there: ``shutil.rmtree`` guards against that, and takes thrice as long."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(directory)


def observe_after_cut(path: Path, *, believing: bool = False) -> tuple[State, int]:
    """Come up again after a power cut, recover, and take every message out.

    :param believing: read as a program would that does not check what a file says against its name and its checksum.
    :return: what was to be had, and how many files were found that cannot be believed.
    """
    _recover(path)
    found = read_state(path)
    damaged = sum(texts.count(DAMAGED) for texts in found.values())
    if believing:
        found = {name: tuple(believed(file) for file in (path / name).iterdir()) for name in found}
    return found, damaged


def believed(file: Path) -> str:
    """What an entry says to those who believe its header."""
    content = file.read_bytes()
    try:
        header = parse_header(content)
    except CorruptEntryError:
        return content.decode(errors='replace')
    return content[header.body_start : header.end].decode(errors='replace')
