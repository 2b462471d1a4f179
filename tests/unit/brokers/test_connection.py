"""A connection to a broker that is away."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip('redis')

from switchboard.brokers import connect
from switchboard.errors import BrokerDownError
from switchboard.testing import FakeClock

# Nobody listens there.
AWAY = 'redis://127.0.0.1:1/0?lease=8s'


def test_heartbeats_that_fail_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    connection = connect(AWAY)
    with caplog.at_level(logging.WARNING, 'switchboard.queue'):
        for _ in range(3):
            connection.send_heartbeat()
    assert [record.message.partition(' url')[0] for record in caplog.records] == ['heartbeat failed']


def test_a_holder_is_back_within_its_lease() -> None:
    clock = FakeClock()
    connection = connect(AWAY, clock=clock)
    for _ in range(6):
        with pytest.raises(BrokerDownError, match='refused') as raised:
            connection.connect()
        clock.advance(raised.value.retry_after_s)
    assert raised.value.retry_after_s == 4


def test_why_the_broker_is_away_is_said_each_time() -> None:
    connection = connect(AWAY)
    for text in ('refused', r'refused.*tried again in 0\.[0-9] s'):
        with pytest.raises(BrokerDownError, match=text):
            connection.connect()
