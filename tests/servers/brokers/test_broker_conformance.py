"""The conformance suite of `ISwitchboard`, over RabbitMQ and Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.queue import *  # noqa: F403 - the tests that every queue must pass
from tests.contracts.queue_life import *  # noqa: F403 - the tests that every queue must pass
from tests.contracts.queue_runner import *  # noqa: F403 - the tests that every queue must pass
from tests.servers.brokers.broker_queues import OnBroker

pytestmark = [pytest.mark.server]


@pytest.fixture(params=['rabbitmq_server', 'redis_server'])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnBroker]:
    options = '&slices=16' if request.cls is TestSlices else ''  # noqa: F405 - one of them
    backend = OnBroker(request.getfixturevalue(request.param).url, tmp_path / 'spool', options=options)
    yield backend
    backend.close()
