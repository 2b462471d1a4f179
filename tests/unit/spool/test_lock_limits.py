"""A process that is stopped while it holds a lock makes the others wait for a while, and not for ever."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.cli.exits import Exit, exit_of
from switchboard.drop.program import Drop
from switchboard.drop.request import DropRequest
from switchboard.errors import LockTimeoutError
from switchboard.handoff.publish_many import Publication
from switchboard.operating.janitor import tidy
from switchboard.spool.active_config import activate
from switchboard.store.disk import Disk

SECTIONS = """
[queue.in]
max_messages = 100
[queue.out]
"""


class Impatient(Disk):
    lock_timeout_s = 0.01


@pytest.fixture
def spool(make_spool: Callable[..., Spool]) -> Spool:
    spool = make_spool(SECTIONS, disk=Impatient())
    assert spool.config is not None
    activate(spool.config)
    spool['in'].enqueue('x', dedupe_key='k')
    spool.declare('declared')
    return spool


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another open file description, as another process has one: which of the two it is makes no difference to the kernel."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def enqueue_with_key(spool: Spool) -> object:
    return spool['in'].enqueue('y', dedupe_key='k')


def publish_with_key(spool: Spool) -> object:
    [outcome] = spool.publish_many([Publication('y', {'dedupe_key': 'k'}, ['in'])])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def hand_off_with_key(spool: Spool) -> object:
    taken = spool['in'].take()
    transaction = spool.transaction(spool['in'], taken.filebase)
    transaction.emit(spool['in'], 'y', {'dedupe_key': 'k'})
    for error in spool.commit_all([transaction]).values():
        spool['in'].release(taken.filebase)
        raise error
    return taken


def drop(spool: Spool) -> object:
    door = Drop(DropRequest(['in']), spool.directory, Impatient())
    door.check()
    reading, writing = os.pipe()
    os.write(writing, b'Subject: a\n\nb\n')
    os.close(writing)
    door.read(reading)
    os.close(reading)
    door.write_metadata({})
    return door.store(lambda: None)


KEYS, COUNT, DECLARED = '.dedupe@in/.lock*', '.run/room/in', '.run/declared/.lock'


@pytest.mark.parametrize(
    ('file', 'act'),
    [
        (KEYS, enqueue_with_key),
        (KEYS, publish_with_key),
        (KEYS, hand_off_with_key),
        (COUNT, lambda spool: spool['in'].enqueue('y')),
        (COUNT, lambda spool: spool['in'].enqueue_many(['y', 'z'])),
        (COUNT, drop),
        (DECLARED, lambda spool: spool.declare('other')),
        (DECLARED, lambda spool: spool.delete('declared')),
        (DECLARED, lambda spool: spool.register_consumer('declared')),
    ],
)
def test_each_wait_for_a_lock_has_a_limit_and_a_clear_error(spool: Spool, file: str, act: Any) -> None:
    [path] = Path(spool.directory).glob(file)
    before = len(spool['in'].get_files())
    with locked(path), pytest.raises(LockTimeoutError, match='locked by another process') as caught:
        act(spool)
    assert exit_of(caught.value) is Exit.TEMPORARY
    assert len(spool['in'].get_files()) == before, 'refused, and nothing stored'
    act(spool)


@pytest.mark.parametrize('file', [KEYS, COUNT, DECLARED])
def test_the_janitor_does_the_rest(spool: Spool, file: str) -> None:
    [path] = Path(spool.directory).glob(file)
    with locked(path):
        assert tidy(spool).handoffs == 0


def test_a_message_that_is_done_is_done_though_it_cannot_be_counted(spool: Spool) -> None:
    taken = spool['in'].take()
    with locked(Path(spool.directory, COUNT)):
        spool['in'].finish(taken.filebase)
    assert spool['in'].get_files() == []
