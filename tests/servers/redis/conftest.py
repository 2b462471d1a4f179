"""Each test here is of Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.brokers.broker import Broker, redis, started


@pytest.fixture
def server(redis_server: Broker) -> Broker:
    """The broker of `place` and `far`."""
    return redis_server


@pytest.fixture(scope='module')
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for the tests of a file that do to it what others could not bear."""
    yield from started(redis(tmp_path_factory.mktemp('redis')))
