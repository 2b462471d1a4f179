"""The conformance suite of `ISwitchboard`, over RabbitMQ and Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite('tests.conformance', 'tests.conformance_life', 'tests.conformance_runner')

from tests.conformance import *  # noqa: E402, F403
from tests.conformance import _leave_out_what_cannot_be  # noqa: E402, F401
from tests.conformance_life import *  # noqa: E402, F403
from tests.conformance_runner import *  # noqa: E402, F403
from tests.servers.broker_queues import OnBroker  # noqa: E402

pytestmark = [pytest.mark.server]


@pytest.fixture(params=['rabbitmq_server', 'redis_server'])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnBroker]:
    options = '&slices=16' if request.cls is TestSlices else ''  # noqa: F405
    backend = OnBroker(request.getfixturevalue(request.param).url, tmp_path / 'spool', options=options)
    yield backend
    backend.close()
