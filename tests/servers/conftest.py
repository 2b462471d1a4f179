"""Each test of brokers runs over both; and a place for the servers of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import OnBroker
from tests.servers.brokers.far import Far
from tests.servers.place import Place
from tests.servers.place import place as place_of_servers


@pytest.fixture(params=['rabbitmq_server', 'redis_server'])
def server(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(server: Broker, tmp_path: Path) -> Iterator[OnBroker]:
    place = OnBroker(server.url, tmp_path / 'spool')
    yield place
    place.close()


@pytest.fixture
def rabbitmq(rabbitmq_server: Broker, tmp_path: Path) -> Iterator[OnBroker]:
    place = OnBroker(rabbitmq_server.url, tmp_path / 'spool')
    yield place
    place.close()


@pytest.fixture
def redis(redis_server: Broker, tmp_path: Path) -> Iterator[OnBroker]:
    place = OnBroker(redis_server.url, tmp_path / 'spool')
    yield place
    place.close()


@pytest.fixture
def far(server: Broker, tmp_path: Path) -> Iterator[Far]:
    far = Far(server.url, tmp_path)
    yield far
    far.close()


@pytest.fixture
def somewhere() -> Iterator[Place]:
    """A place with a spool that other users may reach."""
    with place_of_servers() as made:
        yield made
