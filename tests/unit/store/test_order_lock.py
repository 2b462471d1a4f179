"""The locks of the keys of a queue in strict order, and the list of those whose entries came to another place than the last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.order_lock import OrderLock, Position

ONE, OTHER = (f'1700000000.5+{key}{"0" * 32}' for key in ('0a0b0c0d', '0a0b0c0e'))


@pytest.fixture
def order(tmp_path: Path) -> OrderLock:
    return OrderLock(Folder(tmp_path / 'order', Disk()), 'in')


@pytest.fixture
def fd(order: OrderLock) -> Iterator[int]:
    held = order.lock(OTHER)
    assert held is not None
    yield held
    os.close(held)


def test_a_key_is_locked_once_and_others_beside_it(order: OrderLock) -> None:
    first = order.lock(ONE)
    assert first is not None
    assert order.lock(ONE) is None
    other = order.lock(OTHER)
    assert other is not None
    os.close(first)
    again = order.lock(ONE)
    assert again is not None
    for each in (other, again):
        os.close(each)


def test_a_key_is_changed_if_it_was_added_since_and_no_other_is(order: OrderLock, fd: int) -> None:
    before = order.position(fd)
    assert not order.is_reordered_since(fd, ONE, before)
    order.note_reordered(ONE)
    assert order.is_reordered_since(fd, ONE, before)
    assert not order.is_reordered_since(fd, OTHER, before)
    assert not order.is_reordered_since(fd, ONE, order.position(fd))


def test_without_a_mark_every_key_is_changed(order: OrderLock, fd: int) -> None:
    assert order.is_reordered_since(fd, ONE, None)


def test_a_list_that_has_grown_is_emptied_and_then_every_key_is_changed(
    order: OrderLock, fd: int, tmp_path: Path
) -> None:
    before = order.position(fd)
    file, largest = tmp_path / 'order' / 'in', 0
    while order.position(fd).name == before.name:
        order.note_reordered(OTHER)
        largest = max(largest, file.stat().st_size)
    assert largest <= 64 * 1024
    assert order.is_reordered_since(fd, ONE, before)
    assert not order.is_reordered_since(fd, ONE, order.position(fd))
    order.note_reordered(ONE)
    assert order.is_reordered_since(fd, ONE, Position(order.position(fd).name, 16))


def test_the_locks_stay_when_the_list_is_emptied(order: OrderLock, fd: int) -> None:
    os.ftruncate(fd, 0)
    assert order.lock(OTHER) is None
