"""Delays on a real RabbitMQ: whatever happens while a message waits, it comes."""

from __future__ import annotations

from typing import Any

import pytest

from switchboard.brokers.producer import LONGEST_WAIT_S
from switchboard.brokers.rabbitmq.delays import delay_queue_name, rounded_delay_ms
from switchboard.errors import QueueFullError
from switchboard.message.naming import digest_of
from tests.helpers.waiting import eventually, take_next
from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import OnBroker, drain, queue_of, wait, wait_for_broker
from tests.servers.rabbitmq.rabbits import queues

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def waiting_for(queue: Any, delay_s: float) -> str:
    return delay_queue_name(queue.all_queues[0], delay_s)


def fill(queue: Any) -> list[str]:
    """:return: what a queue has taken until it was full."""
    sent: list[str] = []
    try:
        while len(sent) < 1000:
            queue.enqueue(f'{len(sent)}')
            sent.append(f'{len(sent)}')
    except QueueFullError:
        return sent
    raise AssertionError('it is never full')


def arrive(queue: Any, number: int) -> list[Any]:
    """:return: so many messages, in their order, once they have come."""
    found = drain(queue)
    while len(found) < number:
        taken = take_next(queue)
        queue.finish(taken.filebase)
        found.append(taken.msg)
    return found


class TestAQueueThatIsFullWhenADelayEnds:
    @pytest.mark.parametrize('kind', ['classic', 'quorum'])
    def test_what_was_delayed_comes_when_there_is_room(self, rabbitmq: OnBroker, kind: str) -> None:
        queue = queue_of(rabbitmq, f'&type={kind}', max_messages=2)
        queue.enqueue_many([('late', {'delay': 0.3}), ('later', {'delay': 0.3})])
        sent = fill(queue)
        wait(1.5)
        assert sorted(arrive(queue, len(sent) + 2)) == sorted([*sent, 'late', 'later'])

    def test_a_retry_is_kept_too_with_its_history(self, rabbitmq: OnBroker) -> None:
        queue, other = queue_of(rabbitmq, max_messages=1), queue_of(rabbitmq, max_messages=1)
        filebase = queue.enqueue('x')
        queue.take()
        other.enqueue('in its place')  # first, for the delay may be over at once on a busy machine
        queue.release(filebase, delay_s=0.3, record={'event': 'failed', 'error': 'Oops'})
        wait(1.5)
        taken = other.take()  # only this one: then there is room for the other
        assert taken.msg == 'in its place'
        other.finish(taken.filebase)
        again = take_next(queue)
        assert digest_of(again.filebase) == digest_of(filebase)
        assert [one['error'] for one in queue.history(again.filebase)] == ['Oops']

    def test_it_is_kept_while_the_broker_is_killed_and_started(
        self, rabbitmq: OnBroker, rabbitmq_server: Broker
    ) -> None:
        queue = queue_of(rabbitmq, max_messages=1)
        queue.enqueue_many(['a', ('late', {'delay': 0.3})])
        wait(1)
        rabbitmq_server.kill()
        rabbitmq_server.start()
        wait_for_broker(queue)
        assert arrive(queue, 2) == ['a', 'late']


class TestQueuesForDelays:
    def test_there_are_only_so_many_however_long_is_waited(self) -> None:
        lengths = {rounded_delay_ms(0.05 * 1.01**power) for power in range(1800)}
        assert max(lengths) > LONGEST_WAIT_S * 1000
        assert len({length for length in lengths if length <= rounded_delay_ms(LONGEST_WAIT_S)}) <= 180

    @pytest.mark.parametrize('delay_s', [0.001, 0.1, 0.25, 0.81, 5, 59.9, 3600, 86_400, LONGEST_WAIT_S])
    def test_a_delay_is_never_shorter_than_asked_for_and_not_much_longer(self, delay_s: float) -> None:
        waited_s = rounded_delay_ms(delay_s) / 1000
        assert delay_s <= waited_s <= max(delay_s + 0.1, delay_s * 1.125)

    def test_delays_of_one_length_share_one_which_stays(
        self, rabbitmq: OnBroker, rabbitmq_server: Broker
    ) -> None:
        queue = queue_of(rabbitmq)
        for delay_s in (0.41, 0.45, 0.49):
            queue.enqueue(delay_s, delay=delay_s)
        name = queue.all_queues[0]
        assert queues(rabbitmq_server, f'{name}.') == [waiting_for(queue, 0.45)]

    def test_one_that_somebody_has_deleted_is_made_again(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        queue.enqueue('first', delay=0.4)
        assert arrive(queue, 1) == ['first']
        queue.connection.delete_queue(waiting_for(queue, 0.4))
        queue.enqueue('late', delay=0.4)
        assert take_next(queue).msg == 'late'
        assert queue.take() is None

    def test_what_waits_in_one_of_an_older_version_comes_as_well(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        name = queue.all_queues[0]
        arguments = {
            'x-message-ttl': 600,
            'x-expires': 60_600,
            'x-dead-letter-exchange': '',
            'x-dead-letter-routing-key': name,
        }
        old = f'{name}.wait.600'
        queue.producer.declare([name])
        queue.connection.declare_queue(old, arguments=arguments)
        queue.connection.publish(queue.producer.prepare('old', {}).outgoing, routing_key=old)
        queue.enqueue('new', delay=0.6)
        assert sorted([take_next(queue).msg, take_next(queue).msg]) == ['new', 'old']
        queue.connection.delete_queue(old)

    def test_what_is_delayed_keeps_its_priority(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        queue.enqueue('low', delay=0.3)
        queue.enqueue('high', priority=9, delay=0.3)
        eventually(lambda: queue.count() == 2, 'both due')
        assert drain(queue) == ['high', 'low']
