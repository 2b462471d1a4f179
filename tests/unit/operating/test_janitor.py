"""The chores of a spool: one that fails keeps no other from being done."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.operating.janitor import full_disks, tidy
from switchboard.store.disk import Disk
from switchboard.testing import FakeClock
from tests.helpers.configurations import load


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path, clock: FakeClock) -> Spool:
    sections = '[queue.a]\nmin_free_space = 1\n[queue.in]\n[queue.z]\nmin_free_space = 1000000000G\n'
    return Spool.from_config(load(tmp_path, sections), clock=clock)


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
