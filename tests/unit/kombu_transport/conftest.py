"""What the tests of the transport share: a spool, connections to it, and a count of what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

kombu = pytest.importorskip('kombu')

import switchboard.extra.kombu  # noqa: E402, F401  makes the name known

Connect = Callable[..., 'kombu.Connection']


@pytest.fixture
def spool_path(tmp_path: Path) -> Path:
    path = tmp_path / 'spool'
    path.mkdir()
    return path


@pytest.fixture
def connect(spool_path: Path) -> Iterator[Connect]:
    """Open connections to the spool; options are the URL's."""
    opened = []

    def make(**options: object) -> kombu.Connection:
        query = '&'.join(f'{key}={value}' for key, value in {'durability': 'lazy', **options}.items())
        opened.append(kombu.Connection(f'switchboard://{spool_path}?{query}'))
        return opened[-1]

    yield make
    for connection in opened:
        connection.release()


@pytest.fixture
def connection(connect: Connect) -> kombu.Connection:
    return connect()


@pytest.fixture
def channel(connection: kombu.Connection) -> object:
    return connection.default_channel


@pytest.fixture
def queue(channel: object) -> kombu.Queue:
    """A queue that is declared."""
    queue = kombu.Queue('work')(channel)
    queue.declare()
    return queue


@pytest.fixture
def files(spool_path: Path) -> Callable[[str], list[str]]:
    """What lies in a directory of the spool."""

    def listing(name: str) -> list[str]:
        path = spool_path / name
        return sorted(os.listdir(path)) if path.exists() else []

    return listing
