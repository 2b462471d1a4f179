"""The chores of a spool: one that fails keeps no other from being done."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.operating.janitor import full_disks, tidy
from switchboard.store.disk import Disk
from switchboard.testing import FakeClock


@pytest.fixture
def spool(make_spool: Callable[..., Spool], clock: FakeClock) -> Spool:
    sections = '[queue.a]\nmin_free_space = 1\n[queue.in]\n[queue.z]\nmin_free_space = 1000000000G\n'
    return make_spool(sections, clock=clock)


def put_in_the_place_of(spool: Spool, queue: str) -> None:
    """A file, where the directory of a queue was."""
    path = Path(spool.directory, queue)
    shutil.rmtree(path, ignore_errors=True)
    path.write_bytes(b'')


@pytest.mark.parametrize('broken', ['bad', 'a'])
def test_the_other_chores_are_done(tmp_path: Path, spool: Spool, clock: FakeClock, broken: str) -> None:
    spool['in'].enqueue('x', dedupe_key='k')
    clock.advance(90_000)
    put_in_the_place_of(spool, broken)
    again = Spool.from_config(spool.config, clock=clock)
    failed: list[str] = []
    done = tidy(again, lambda subject, error: failed.append(subject))
    assert done.forgotten == 1
    assert broken in failed


class BadSector(Disk):
    """One directory cannot be opened."""

    def open(self, path: Any, *options: Any, **keys: Any) -> int:
        if str(path).endswith('/gone'):
            raise OSError(errno.EIO, 'Input/output error')
        return super().open(path, *options, **keys)


def test_one_that_no_section_names_and_the_disk_refuses_keeps_nothing_from_being_done(
    spool: Spool, clock: FakeClock
) -> None:
    spool['in'].enqueue('x', dedupe_key='k')
    clock.advance(90_000)
    Path(spool.directory, 'gone').mkdir()  # before `in`, by name
    again = Spool.from_config(spool.config, clock=clock, disk=BadSector())
    failed: dict[str, Exception] = {}
    assert tidy(again, failed.__setitem__).forgotten == 1
    assert isinstance(failed.pop('gone'), OSError)
    assert failed == {}


def test_a_directory_that_is_gone_hides_no_full_disk(spool: Spool) -> None:
    assert [name for name, _ in full_disks(spool)] == ['z']
    shutil.rmtree(Path(spool.directory, 'a'))
    assert [name for name, _ in full_disks(spool)] == ['z']


class Deleting(Disk):
    """Has another process delete a queue in the middle of the chores: at the n-th time that a directory or a file is opened.

    Not while the chores have the declarations locked, which keeps others from deleting anything.
    """

    def __init__(self) -> None:
        self.countdown = 0
        self.delete: Callable[[], object] = int

    def open(self, path: Any, *options: Any, **keys: Any) -> int:
        self.countdown -= 1
        if self.countdown == 0:
            self.delete()
        return super().open(path, *options, **keys)


def test_a_queue_that_is_deleted_while_it_is_tidied_is_no_failure(tmp_path: Path) -> None:
    failed: dict[str, Exception] = {}
    for number in range(1, 200):
        place = tmp_path / str(number)
        other, disk = Spool(place), Deleting()
        other.declare('gone')
        other['gone'].enqueue('x', dedupe_key='k')
        tidying = Spool(place, disk=disk)
        deleted: list[bool] = []

        def delete(other: Spool = other, deleted: list[bool] = deleted) -> None:
            with other.declared.records.lock(wait=False) as is_free:
                deleted.append(is_free)
            if is_free:
                other.delete('gone')

        disk.countdown, disk.delete = number, delete
        tidy(tidying, failed.__setitem__)
        assert failed == {}, number
        if not deleted:
            break
    assert 20 < number < 199


def test_a_queue_that_goes_when_its_last_message_is_done_is_no_failure_meanwhile(tmp_path: Path) -> None:
    failed: dict[str, Exception] = {}
    spool = Spool(tmp_path)
    spool.declare('going')
    queue = spool['going']
    queue.enqueue('at work')
    taken = queue.take()
    assert taken is not None
    Spool(tmp_path).delete('going')
    tidy(Spool(tmp_path), failed.__setitem__)
    assert failed == {}
    queue.finish(taken.filebase)
    assert tidy(Spool(tmp_path), failed.__setitem__).deleted_queues == 1
    assert failed == {}
