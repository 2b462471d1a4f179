"""Channels of a real RabbitMQ: who closes them, what that ends, and that none are left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from switchboard import Runner
from switchboard.brokers import connect
from switchboard.brokers.encode import encode
from switchboard.brokers.rabbitmq.driver import RabbitDriver
from switchboard.errors import (
    BrokerDownError,
    EntryTakenError,
    QueueMismatchError,
    UnknownExchangeError,
    UnknownQueueError,
)
from switchboard.options import RunnerOptions
from switchboard.queue.watch import wait_readable
from switchboard.testing import Signal
from tests.helpers.waiting import eventually, take_next
from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import OnBroker, queue_of, unacked, wait
from tests.servers.brokers.far import Far
from tests.servers.rabbitmq.rabbits import channels, setting

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

# Longer than the timeout and the broker's look at it.
TOO_LONG_S = 3.0


@pytest.fixture(scope='class')
def impatient(rabbitmq_server: Broker) -> Iterator[None]:
    """A message that is not acknowledged within a second ends its channel; each half second it is looked."""
    with setting(rabbitmq_server, consumer_timeout=1000, channel_tick_interval=500):
        yield


@pytest.mark.usefixtures('impatient')
class TestAJobThatIsLongerThanConsumerTimeout:
    @pytest.mark.parametrize('heartbeat', ['1s', '300s'])
    def test_it_loses_its_message_which_comes_again_and_the_queue_goes_on(
        self, rabbitmq: OnBroker, heartbeat: str
    ) -> None:
        # With the long heartbeat nobody reads what the broker said before the job is done.
        queue = queue_of(rabbitmq, f'&heartbeat={heartbeat}')
        filebase = queue.enqueue('long')
        assert queue.take() is not None
        wait(TOO_LONG_S)
        with pytest.raises(EntryTakenError, match='again'):
            queue.finish(filebase)
        assert unacked(queue.connection) == 0
        again = take_next(queue)
        assert again.filebase == filebase
        queue.finish(again.filebase)
        assert queue.count() == 0
        queue.enqueue('next')
        assert take_next(queue).msg == 'next'

    def test_nothing_is_left_of_what_the_connection_had(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        connection: Any = queue.connection
        queue.enqueue('a')
        connection_number = connection.connection_number
        held = connection.get(queue.all_queues[0])
        connection.consume(queue.all_queues, prefetch=1)
        wait(TOO_LONG_S)
        with pytest.raises(BrokerDownError, match='acknowledgement'):
            connection.has_message()
        assert not connection.is_ours(held)
        assert unacked(connection) == 0
        assert connection.descriptors() == []
        connection.consume(queue.all_queues, prefetch=1)
        assert connection.connection_number > connection_number
        assert take_next(queue).msg == 'a'

    def test_a_runner_goes_on(self, rabbitmq_server: Broker, tmp_path: Path) -> None:
        far = Far(rabbitmq_server.url, tmp_path)
        seen: list[str] = []

        class Slow(Runner):
            def setup(self) -> None:
                self.third = Signal()

            def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
                seen.append(msg)
                if seen == ['slow']:
                    wait(TOO_LONG_S)
                if msg == 'next':
                    self.third.set()

        runner = Slow(far.another(), RunnerOptions('slow', '', 'far', poll_interval_s=60.0))
        thread = threading.Thread(target=runner.run)
        far.queue.enqueue('slow')
        thread.start()
        try:
            wait(TOO_LONG_S + 1)
            far.queue.enqueue('next')
            runner.third.wait_or_timeout(30)
        finally:
            runner.stop()
            thread.join(30)
        # It was done when the broker gave it out again, and that was known.
        assert seen == ['slow', 'next']
        assert far.queue.count() == 0
        far.close()

    def test_what_a_broker_refuses_of_a_call_is_still_told_as_that(self, rabbitmq: OnBroker) -> None:
        connection = queue_of(rabbitmq).connection
        with pytest.raises(UnknownQueueError):
            connection.get('no such queue')
        with pytest.raises(UnknownQueueError):
            connection.consume(['no such queue'])


class TestChannels:
    def test_a_tag_that_the_broker_does_not_know_ends_the_connection_and_not_the_program(
        self, rabbitmq: OnBroker
    ) -> None:
        queue = queue_of(rabbitmq)
        queue.enqueue('a')
        connection: Any = queue.connection
        [name] = queue.all_queues
        held, connection_number = connection.get(name), connection.connection_number
        connection.driver.ack(replace(held, tag=4711))
        assert connection.count('no such queue') == 0  # has_message of it meanwhile, and connects again
        assert connection.connection_number > connection_number
        assert not connection.is_ours(held)
        assert take_next(queue).msg == 'a'

    def test_none_is_left_of_what_was_refused(self, rabbitmq_server: Broker, rabbitmq: OnBroker) -> None:
        connection = connect(rabbitmq_server.url)
        driver = connection.driver
        assert isinstance(driver, RabbitDriver)
        outgoing = encode('x', {}, message_id='1')
        name = f'{rabbitmq.prefix}.there'
        connection.declare_queue(name)
        connection.publish(outgoing, routing_key=name)
        before = channels(rabbitmq_server)
        connection_number = connection.connection_number
        for _ in range(100):
            assert connection.count('no such queue') == 0
            with pytest.raises(UnknownExchangeError):
                connection.bind(name, 'no such exchange', 'x')
            with pytest.raises(QueueMismatchError):
                connection.declare_queue(name, arguments={'x-max-length': 1})
            with pytest.raises(UnknownExchangeError):
                connection.publish(outgoing, exchange='no such exchange', routing_key='x')
            with pytest.raises(UnknownQueueError):
                connection.get('no such queue')
            with pytest.raises(UnknownQueueError):
                connection.consume(['no such queue'])
        connection.publish(outgoing, routing_key=name)
        assert connection.get(name) is not None
        assert channels(rabbitmq_server) <= before + 1  # the one by which messages come
        assert len(driver.connection.channels) <= 3
        assert driver.connection.channel_max >= 2047
        assert connection.count(name) == 1
        connection.delete_queue(name)
        assert connection_number == 1
        connection.close()


class TestASleeper:
    """What the thread that keeps the connection alive reads must wake who sleeps on it."""

    def test_a_message_that_another_thread_has_read_wakes_at_once(self, rabbitmq: OnBroker) -> None:
        queue, other = queue_of(rabbitmq), queue_of(rabbitmq)
        connection: Any = queue.connection
        wakeup = queue.make_wakeup()
        wakeup.arm()
        other.enqueue('a')

        def another_has_read_it() -> bool:
            connection.send_heartbeat()
            return bool(wait_readable(connection.descriptors()[1:], 0))

        eventually(another_has_read_it, 'read by another thread')
        began_s = time.monotonic()
        assert wakeup.wait(30)
        assert time.monotonic() - began_s < 10
        wakeup.disarm()
        assert take_next(queue).msg == 'a'
        wakeup.arm()
        assert not wakeup.wait(0.3)  # it wakes once
        wakeup.close()

    def test_a_connection_that_another_thread_has_given_up_wakes_as_well(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        connection: Any = queue.connection
        wakeup = queue.make_wakeup()
        wakeup.arm()
        connection.abort()
        began_s = time.monotonic()
        assert wakeup.wait(30)
        assert time.monotonic() - began_s < 10
        wakeup.disarm()
        wakeup.arm()
        assert not wakeup.wait(0.3)
        wakeup.close()
