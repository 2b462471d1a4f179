"""The locks that processes wait for are taken in the order that the page about them states, so that no two wait for each other."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from switchboard.testing.faults import FaultyDisk
from tests.faults.harness.world import World, hand_on, remove, the_same_again
from tests.faults.operations import OPERATIONS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'switchboard'
PAGE = ROOT / 'docs' / 'explanation' / 'threads-and-locks.md'

# The modules that wait for a lock, by the lock.
WAITING = re.compile(r'\.lock_when_free\(|\bwaits_for=')
WAITERS = {
    'declarations': 'declared/declarations',
    'keys': 'handoff/deduplication',
    'commit record': 'handoff/stage',
    'count': 'store/limits',
}

# The files of each lock, below the spool, by the name that the page has for it; the first that matches.
# The order of keys is locked by the byte, and never through `Disk.flock`: nobody waits for it.
FILES = {
    'declarations': r'\.run/declared/\.lock',
    'keys': r'\.dedupe@[^/]+/\.lock\d\d',
    'commit record': r'\.stage/[^/:]+:commit',
    'count': r'\.run/room/[^/.][^/]*',
    'order': r'\.run/order/[^/]+',
    'removal': r'\.run/declared/[^/.][^/]*',
    'draft, staged output': r'\.(spare|stage)/.+|(.+/)?\.new-[^/]+|[^/.][^/]*/\w+\.tmp',
    'ticket': r'\.run/(owners|consumers)/.+',
    'holdings': r'\.held@[^/]+/.+\.held',
    'master': r'\.run/master/master\.lock',
    'claim': r'[^/.][^/]*/.+',
}


class Row(NamedTuple):
    """A lock, as the page has it."""

    lock: str
    file: str
    kept: str
    waits: str


def rows() -> list[Row]:
    """:return: the table of locks, from above to below."""
    table = PAGE.read_text().partition('| lock | file |')[2].partition('\n\n')[0].splitlines()[2:]
    return [Row(*(cell.strip() for cell in line.strip('|').split('|'))) for line in table]


def waited_for() -> list[str]:
    """:return: the locks that the page says are waited for, in their order."""
    return [row.lock for row in rows() if row.waits.startswith('at most')]


def lock_of(path: str) -> str:
    """:return: the name of the lock on a file below the spool."""
    return next(lock for lock, files in FILES.items() if re.fullmatch(files, path))


class Step(NamedTuple):
    """A lock is taken, or waited for.

    :param held: the other locks of the process, at this moment and under the names that they have now.
    """

    lock: str
    path: str
    held: list[tuple[str, str]]
    waits: bool


class WatchedDisk(FaultyDisk):
    """A disk that notes the order in which its process takes locks."""

    def __init__(self, spool: Path) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._spool = str(spool)
        self._locked: set[int] = set()

    def flock(self, fd: int, operation: int) -> None:
        if operation & fcntl.LOCK_UN:
            self._locked.discard(fd)
        else:
            self._note(fd, waits=False)
        FaultyDisk.flock(self, fd, operation)
        if not operation & fcntl.LOCK_UN:
            self._locked.add(fd)

    def lock_when_free(self, fd: int, what: str, **keys: Any) -> bool:
        self._note(fd, waits=True)
        return super().lock_when_free(fd, what, **keys)

    def close(self, fd: int) -> None:
        self._locked.discard(fd)
        FaultyDisk.close(self, fd)

    def _note(self, fd: int, *, waits: bool) -> None:
        held = sorted(self._named(each) for each in self._locked - {fd})
        self.steps.append(Step(*self._named(fd), held, waits))

    def _named(self, fd: int) -> tuple[str, str]:
        path = os.path.relpath(os.readlink(f'/proc/self/fd/{fd}').removesuffix(' (deleted)'), self._spool)
        path = path.removesuffix('.tmp') if '/.lock' in path else path
        return lock_of(path), path


def enqueue_once_with_a_limit(world: World) -> None:
    world.queue('few').enqueue('a', dedupe_key='k')


def hand_off_keys_to_queues_with_limits(world: World) -> None:
    roomy = [world.spool.declare(name, options={'max_messages': 9}) for name in ('roomy', 'airy')]
    transaction = world.spool.transaction(world.queue('in'), world.claimed('a'))
    for key in 'klm':
        transaction.emit_all(roomy, key, {'dedupe_key': key})
    assert world.spool.commit_all([transaction]) == {}


def declare_use_and_delete(world: World) -> None:
    owner = world.spool.declared.owner
    world.spool.declare('q', owner=owner, options={'max_messages': 9})
    ticket = world.spool.register_consumer('q', owner)
    hand_on(world.spool, world.queue('q'), world.claimed('a', 'q'), {'q': ['b']})
    ticket.close()
    world.spool.delete('q')
    owner.close()


ACTS: list[tuple[str, Callable[[World], Any], Callable[[World], Any]]] = [
    *((each.name, each.prepare, each.act) for each in OPERATIONS),
    *(
        (each.__name__, World.configured, each)
        for each in (enqueue_once_with_a_limit, hand_off_keys_to_queues_with_limits, declare_use_and_delete)
    ),
]


@pytest.fixture(scope='module')
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Step]]:
    """Every lock that the operations take or wait for, with the name of the operation."""
    return [
        (name, step)
        for name, prepare, act in ACTS
        for step in watched(tmp_path_factory.mktemp('case'), prepare, act)
    ]


def watched(directory: Path, prepare: Callable[[World], Any], act: Callable[[World], Any]) -> list[Step]:
    with the_same_again(time.time()) as clock:
        disk = WatchedDisk(directory / 'spool')
        world = World(directory, disk, clock)
        prepare(world)
        act(world)
    disk.end_process()
    remove(directory)
    return disk.steps


def test_the_page_names_each_lock_and_its_file() -> None:
    assert {row.lock for row in rows()} == FILES.keys()
    for row in rows():
        named = [name for name in re.findall(r'`([^`]+)`', row.file) if '/' in name]
        assert [name for name in named if not re.fullmatch(FILES[row.lock], name)] == []


def test_the_page_says_of_each_lock_that_is_waited_for() -> None:
    """The recovery of claims waits as well, half a second, and its row says so."""
    modules = [path for path in PACKAGE.glob('**/*.py') if WAITING.search(path.read_text())]
    found = {f'{path.parent.name}/{path.stem}' for path in modules if path.stem != 'disk'}
    assert found - {'queue/recovery'} == set(WAITERS.values())
    assert list(WAITERS) == waited_for()


def test_locks_that_are_waited_for_are_taken_in_the_order_of_the_page(steps: list[tuple[str, Step]]) -> None:
    order = waited_for()
    wrong = []
    nested = set()
    for name, step in steps:
        for lock, path in step.held if step.waits else ():
            nested.add((lock, step.lock))
            if lock in order and (order.index(lock), path) >= (order.index(step.lock), step.path):
                wrong.append(f'{name}: {path}, then {step.path}')
    assert wrong == []
    assert nested >= {('keys', 'keys'), ('keys', 'count')}
    assert nested >= {(lock, 'declarations') for lock in ('claim', 'removal', 'ticket')}


def test_no_lock_is_taken_while_a_count_is_held(steps: list[tuple[str, Step]]) -> None:
    assert sum(step.lock == 'count' for _, step in steps) > 20
    assert [(name, step) for name, step in steps if 'count' in dict(step.held)] == []
