"""A RabbitMQ that takes nothing for now, or refuses us: nothing is sent to it again and again, and no message is at fault."""

from __future__ import annotations

import logging
import select
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from switchboard.brokers import connect
from switchboard.brokers.connection import Connection
from switchboard.brokers.message import OutgoingMessage
from switchboard.brokers.rabbitmq.driver import RabbitDriver
from switchboard.errors import BrokerDownError
from tests.helpers.waiting import PATIENCE_S, eventually
from tests.servers.brokers.broker import Broker
from tests.servers.rabbitmq.rabbits import ctl

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

BATCH = 10


@contextmanager
def short_of_memory(server: Broker) -> Iterator[None]:
    alarm = '{resource_limit, memory, node()}'
    ctl(server, 'eval', f'rabbit_alarm:set_alarm({{{alarm}, []}}).')
    try:
        yield
    finally:
        ctl(server, 'eval', f'rabbit_alarm:clear_alarm({alarm}).')


@pytest.fixture
def connection(rabbitmq_server: Broker) -> Iterator[Connection]:
    connection = connect(rabbitmq_server.url, confirm_timeout_s=1.0)
    yield connection
    connection.close()


@pytest.fixture
def queue(connection: Connection) -> Iterator[str]:
    name = uuid.uuid4().hex[:8]
    connection.declare_queue(name)
    yield name
    connection.delete_queue(name)


def test_what_a_broker_without_memory_does_not_take_is_not_sent_again_and_it_can_be_emptied(
    rabbitmq_server: Broker, connection: Connection, queue: str
) -> None:
    batch = [(OutgoingMessage(b'', {}, {'message_id': str(number)}), '', queue) for number in range(BATCH)]
    connection.publish(OutgoingMessage(b'before', {}, {}), routing_key=queue)
    outcomes: list[Any] = []
    with short_of_memory(rabbitmq_server):
        for _ in range(5):
            outcomes += connection.publish_many(batch)
        with pytest.raises(BrokerDownError, match='short of memory or disk: `rabbitmq-diagnostics alarms`'):
            connection.delay(queue, batch[0][0], 1.0)
        delivery = connection.get(queue)
        assert delivery is not None
        assert delivery.body == b'before'
        connection.ack(delivery)
    eventually(lambda: set(connection.publish_many(batch)) == {None}, 'published')
    # What was on its way when the alarm came may be there, once.
    confirmed = outcomes.count(None) + BATCH
    assert confirmed <= connection.count(queue) <= confirmed + BATCH
    assert {type(error) for error in outcomes} <= {BrokerDownError, type(None)}


def publish_until_refused(connection: Connection) -> None:
    nowhere = [(OutgoingMessage(b'', {}, {}), '', 'nowhere')]
    eventually(
        lambda: any(isinstance(each, BrokerDownError) for each in connection.publish_many(nowhere)), 'refused'
    )


def test_who_ends_does_not_wait_for_a_broker_that_does_not_read(
    rabbitmq_server: Broker, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with short_of_memory(rabbitmq_server):
        publish_until_refused(connection)
        with caplog.at_level(logging.DEBUG):
            connection.close()
    assert 'not closed' not in caplog.text


def test_what_is_pushed_by_the_connection_that_the_broker_does_not_read_from_is_not_given_out(
    rabbitmq_server: Broker, connection: Connection, queue: str
) -> None:
    other = connect(rabbitmq_server.url)
    other.publish(OutgoingMessage(b'pushed', {}, {}), routing_key=queue)
    held = other.get(queue)
    assert held is not None
    connection.consume([queue])
    with short_of_memory(rabbitmq_server):
        publish_until_refused(connection)
        assert connection.get(queue) is None  # by another connection
        other.requeue(held)
        assert isinstance(connection.driver, RabbitDriver)
        assert select.select([connection.driver._alarm.connection.sock], [], [], PATIENCE_S)[0]
        connection.send_heartbeat()
        # Its tag is that of another message on the connection that is used now.
        assert connection.get(queue) is None
    other.close()
    again = eventually(partial(connection.get, queue), 'given out')
    assert again is not None
    assert (again.body, again.redelivered) == (b'pushed', True)
    connection.ack(again)


@pytest.fixture
def powerless(rabbitmq_server: Broker, queue: str) -> Iterator[Connection]:
    """A connection of a user who may do nothing, not even with queues that are there."""
    erlang = 'rabbit_auth_backend_internal'
    ctl(
        rabbitmq_server,
        'eval',
        f'{erlang}:add_user(<<"powerless">>, <<"secret">>, <<"test">>),'
        f'{erlang}:set_permissions(<<"powerless">>, <<"/">>, <<"^$">>, <<"^$">>, <<"^$">>, <<"test">>).',
    )
    connection = connect(rabbitmq_server.url.replace('guest:guest', 'powerless:secret'))
    yield connection
    connection.close()
    ctl(rabbitmq_server, 'delete_user', 'powerless')


CALLS: dict[str, Callable[[Connection, str], Any]] = {
    'declare_queue': lambda connection, _: connection.declare_queue('another'),
    'declare_exchange': lambda connection, _: connection.declare_exchange('another'),
    'bind': lambda connection, queue: connection.bind(queue, 'amq.topic', '#'),
    'publish': lambda connection, queue: connection.publish(OutgoingMessage(b'', {}, {}), routing_key=queue),
    'delay': lambda connection, queue: connection.delay(queue, OutgoingMessage(b'', {}, {}), 1.0),
    'get': lambda connection, queue: connection.get(queue),
    'consume': lambda connection, queue: connection.consume([queue]),
    'delete_queue': lambda connection, queue: connection.delete_queue(queue),
}


def test_whatever_a_broker_refuses_us_is_no_fault_of_a_message(powerless: Connection, queue: str) -> None:
    for name, call in CALLS.items():
        with pytest.raises(BrokerDownError, match=r'refuses us: .*ACCESS_REFUSED'):
            pytest.fail(f'{name}: {call(powerless, queue)}')
