"""Readings of real directories while files are renamed in them: Btrfs misses some, and no order depends on that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from switchboard import Spool, Switchboard
from switchboard.errors import EntryTakenError
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from tests.helpers.processes import Child
from tests.power import images
from tests.power.images import FILE_SYSTEMS, FileSystem

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(images.why_not()), reason=images.why_not())]

LOOKERS, LOOKS = 2, 4000
FILES, READINGS = 10, 20_000


@pytest.fixture(params=FILE_SYSTEMS, ids=str)
def kind(request: pytest.FixtureRequest) -> FileSystem:
    found: FileSystem = request.param
    return found


@pytest.fixture
def place(kind: FileSystem, tmp_path: Path) -> Iterator[Path]:
    with images.mounted(images.make(kind, tmp_path), tmp_path / 'mounted', kind.options) as mounted:
        yield mounted


def opened(directory: Path) -> Switchboard:
    return Spool(directory, 'lazy').queue('in', strict_order=True)


def take_and_give_back(directory: Path, first: str) -> None:
    """Do with the first entry what a runner does with one that fails, again and again."""
    consumer = opened(directory).consumer
    while True:
        with suppress(EntryTakenError):
            consumer.release(consumer._claim(first, consumer._order), 0.0, None)


def look(directory: Path) -> set[str]:
    """:return: what this process was given."""
    queue = opened(directory)
    found = set()
    for _ in range(LOOKS):
        if (one := queue.take()) is not None:
            found.add(one.msg)
            queue.release(one.filebase)
    return found


def test_in_strict_order_none_passes_one_that_others_take_and_give_back(place: Path) -> None:
    directory = place / 'spool'
    with closing(Spool(directory, 'lazy')) as spool:
        queue = spool.queue('in', strict_order=True)
        first, *_ = [queue.enqueue(message, order_key='key') for message in ('first', 'second', 'third')]
    with ExitStack() as stack:
        stack.enter_context(Child(lambda: take_and_give_back(directory, first)))
        lookers = [stack.enter_context(Child(lambda: look(directory))) for _ in range(LOOKERS)]
        found = set.union(*(looker.join() for looker in lookers))
    assert found <= {'first'}


def rename_for_ever(directory: Path) -> Callable[[], None]:
    def work() -> None:
        while True:
            for number in range(FILES):
                os.rename(directory / f'{number}.pck', directory / f'{number}.bak')
                os.rename(directory / f'{number}.bak', directory / f'{number}.pck')

    return work


def test_one_reading_misses_nothing_where_that_is_relied_on(place: Path) -> None:
    for number in range(FILES):
        (place / f'{number}.pck').touch()
    folder = Folder(place, Disk.of_system())
    with Child(rename_for_ever(place)) as child:
        missed = 0
        for _ in range(READINGS if folder.reads_every_name else 0):
            read = folder.names_and_size(1000)
            assert read is not None
            missed += not {f'{number}.' for number in range(FILES)} <= {name[:2] for name in read[0]}
        child.kill()
    folder.close()
    assert not missed
