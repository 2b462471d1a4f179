"""A queue on a real broker: long jobs, lost connections, forks, and a broker that goes away and comes back."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from switchboard import Runner
from switchboard.brokers import connect
from switchboard.brokers.consumer import OWN_CLAIMS
from switchboard.brokers.message import OutgoingMessage
from switchboard.brokers.queue import BrokerQueue
from switchboard.errors import BrokerDownError, EntryTakenError, UnknownExchangeError
from switchboard.message.naming import digest_of, key_digest
from switchboard.options import RunnerOptions
from switchboard.runner.asyncrunner import AsyncRunner
from switchboard.testing import Signal
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually, take_next
from tests.servers.brokers.broker import Broker, redis
from tests.servers.brokers.broker_queues import (
    HELD_LEASE,
    OnBroker,
    queue_of,
    unacked,
    wait,
    wait_for_broker,
    wait_for_renewal,
)
from tests.servers.brokers.far import Far

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


class TestALongJob:
    def test_a_job_that_is_longer_than_heartbeat_and_lease_keeps_its_message(self, place: OnBroker) -> None:
        rabbit = place.url.startswith('amqp')
        options = '&heartbeat=2s' if rabbit else f'&lease={HELD_LEASE}'
        queue, other = queue_of(place, options), queue_of(place, options)
        filebase = queue.enqueue('x')
        assert queue.take() is not None
        if rabbit:
            wait(5)  # after two silent heartbeats the broker would take it for dead
        else:
            wait_for_renewal(place, queue)
        other.recover(include_own=False)
        assert other.take() is None
        queue.finish(filebase)
        assert other.take() is None
        assert other.count() == 0


class TestALostConnection:
    def test_old_tags_are_void_and_the_message_comes_again(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        filebase = queue.enqueue('x')
        queue.take()
        queue.connection.abort()
        with pytest.raises(EntryTakenError, match='again'):
            queue.finish(filebase)
        again = take_next(queue)
        assert again.filebase == filebase
        queue.finish(filebase)
        assert queue.count() == 0

    def test_what_comes_again_to_who_still_works_on_it_is_his(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        filebase = queue.enqueue('x')
        queue.take()
        queue.connection.abort()
        assert queue.take() is None  # it came, and is the one that is at work
        assert queue.get_files('.bak') == [filebase]
        queue.finish(filebase)
        assert queue.count() == 0

    def test_who_was_about_to_sleep_is_woken_if_it_was_made_anew_meanwhile(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        wakeup = queue.make_wakeup()
        wakeup.arm()
        queue.connection.abort()
        assert not queue.has_ready()  # by a new connection, to which nothing is pushed
        assert wakeup.wait(60)
        wakeup.close()

    def test_on_redis_the_message_stays_with_its_holder(self, redis_server: Broker, tmp_path: Path) -> None:
        place = OnBroker(redis_server.url, tmp_path / 'spool')
        queue = queue_of(place)
        filebase = queue.enqueue('x')
        queue.take()
        queue.connection.abort()
        queue.finish(filebase)
        assert queue_of(place).take() is None
        place.close()

    def test_a_dead_holders_lease_ends_and_that_is_counted(
        self, redis_server: Broker, tmp_path: Path
    ) -> None:
        place = OnBroker(redis_server.url, tmp_path / 'spool')
        dead, other = queue_of(place, '&lease=1s'), queue_of(place)
        filebase = dead.enqueue('x')
        dead.take()
        dead.connection.stop_heartbeat()  # as if its process had died
        wait(1.2)
        other.recover(include_own=False)
        OWN_CLAIMS.clear()  # it was another process's
        taken = take_next(other)
        assert taken.filebase == filebase
        assert [one['count'] for one in other.history(filebase)] == [1]
        place.close()


# So long a runner sleeps that nobody wakes.
POLL_S = 90.0


class AllAreKnown:
    """Markers of a queue all of whose entries were done."""

    def find(self, marker: str) -> str:
        return marker


class OneIsOnABadSector:
    """Markers of a queue of which one cannot be read."""

    def __init__(self, filebase: str) -> None:
        self._marker = key_digest(digest_of(filebase))

    def find(self, marker: str) -> None:
        if marker == self._marker:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class Collect(Runner):
    def setup(self) -> None:
        self.collected = Signal()
        self.messages: list[Any] = []

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        self.messages.append(msg)
        self.collected.set()


class CollectAsync(AsyncRunner):
    async def setup(self) -> None:
        self.collected = Signal()
        self.messages: list[Any] = []

    async def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        self.messages.append(msg)
        self.collected.set()


class TestAnIdleRunner:
    @pytest.mark.parametrize('cls', [Collect, CollectAsync])
    def test_is_woken_at_once_and_finds_a_broker_again_that_was_away(
        self, server: Broker, far: Far, cls: Any
    ) -> None:
        runner = cls(far.another(), RunnerOptions('collect', '', 'far', poll_interval_s=POLL_S))
        thread = threading.Thread(target=runner.run)
        thread.start()
        try:
            wait(1)  # it is asleep by then
            far.queue.enqueue('one')
            runner.collected.wait_or_timeout(POLL_S / 3)  # long before it would look by itself
            wait(0.5)  # it has acknowledged by then, and the broker has heard of it
            server.stop()
            server.start()
            wait_for_broker(far.queue)
            runner.collected = Signal()
            far.queue.enqueue('two')
            runner.collected.wait_or_timeout(60)
        finally:
            runner.stop()
            thread.join(30)
        assert runner.messages == ['one', 'two']
        assert far.queue.count() == 0


class TestTheBrokerAway:
    def test_gone_in_the_middle_of_a_job_and_started_again_it_has_lost_nothing(
        self, server: Broker, place: OnBroker
    ) -> None:
        queue = queue_of(place)
        filebase, second = queue.enqueue_many(['at work', 'waiting'])
        assert queue.take() is not None
        if queue.url.kind == 'rabbitmq':
            server.kill()
        else:
            server.stop()  # as it is configured, it writes each second; and who was killed may not know who has what
        try:
            with pytest.raises(BrokerDownError):
                queue.enqueue('while it is away')
            with pytest.raises(BrokerDownError, match='tried again') as caught:
                queue.enqueue('and at once')
            assert 0 < caught.value.retry_after_s <= 1
            assert not queue.has_ready()
        finally:
            server.start()
        wait_for_broker(queue)
        if queue.url.kind == 'rabbitmq':
            with pytest.raises(EntryTakenError):
                queue.finish(filebase)
        else:
            queue.finish(filebase)
            queue.enqueue('at work')
        messages = [take_next(queue).msg, take_next(queue).msg]
        assert sorted(messages) == ['at work', 'waiting']
        assert second in queue.get_files('.bak')

    def test_all_that_was_taken_on_the_way_goes_back_when_one_cannot_be_looked_at(
        self, redis_server: Broker, tmp_path: Path
    ) -> None:
        place = OnBroker(redis_server.url, tmp_path / 'spool')
        filebases = [place.queue().enqueue(text) for text in ('first', 'second', 'third')]
        queue = place.queue(cls=BrokerQueue, finished_markers=lambda _queue: OneIsOnABadSector(filebases[1]))
        with pytest.raises(OSError, match='error'):
            queue.dequeue(filebases[2])
        assert unacked(queue.connection) == 0
        assert queue.take().filebase == filebases[0]
        with pytest.raises(OSError, match='error'):
            queue.take()
        assert unacked(queue.connection) == 1
        place.close()

    def test_what_is_known_already_is_acknowledged_when_it_is_back(
        self, redis_server: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = OnBroker(redis_server.url, tmp_path / 'spool')
        queue = place.queue(cls=BrokerQueue, finished_markers=lambda _queue: AllAreKnown())
        queue.enqueue('x')
        ack = queue.connection.ack

        def ack_when_it_is_away(delivery: Any) -> None:
            monkeypatch.undo()
            redis_server.stop()
            ack(delivery)

        monkeypatch.setattr(queue.connection, 'ack', ack_when_it_is_away)
        try:
            with pytest.raises(BrokerDownError):
                queue.take()
        finally:
            redis_server.start()
        wait_for_broker(queue)
        assert queue.take() is None
        assert unacked(queue.connection) == 0
        place.close()


def is_connected(connection: Any) -> bool:
    try:
        connection.connect()
    except BrokerDownError:
        return False
    return True


@pytest.fixture(params=['refuses', 'says nothing'])
def dead_port(request: pytest.FixtureRequest) -> Iterator[int]:
    if request.param == 'refuses':
        yield free_port()
        return
    with socket.create_server(('127.0.0.1', 0)) as listener:  # the kernel accepts, and nobody ever answers
        yield listener.getsockname()[1]


def test_where_the_first_address_does_not_answer_the_second_is_asked(place: OnBroker, dead_port: int) -> None:
    scheme, _, rest = place.url.partition('://')
    user, at, _ = rest.rpartition('@')
    nobody = f'{scheme}://{user}{at}127.0.0.1:{dead_port}/'
    second = f'{place.url}?heartbeat=5s' if scheme == 'amqp' else f'{place.url}?lease=5s'
    queue = queue_of(OnBroker(place.url, Path(place.spool.directory)))
    # An answer may take as long as the broker needs, and the first one as long as connecting.
    connection = connect(f'{nobody};{second}', connect_timeout_s=5.0, confirm_timeout_s=3600.0)
    with pytest.raises(BrokerDownError):
        connection.connect()
    eventually(lambda: is_connected(connection), 'connected')
    connection.declare_queue(queue.all_queues[0])
    connection.publish(OutgoingMessage(b'x'), routing_key=queue.all_queues[0])
    assert connection.count(queue.all_queues[0]) == 1
    connection.delete_queue(queue.all_queues[0])
    connection.close()
    queue.close()


def test_a_replica_of_redis_is_no_address_to_stay_with(redis_server: Broker, tmp_path: Path) -> None:
    queue = f'replicated-{free_port()}'
    with redis(tmp_path) as other:
        connection = connect(f'{other.url};{redis_server.url}')
        connection.publish(OutgoingMessage(b'x'), routing_key=queue)
        Redis(port=other.port).execute_command('REPLICAOF', '127.0.0.1', str(redis_server.port))
        with pytest.raises(BrokerDownError, match=r'[Rr]eplica|loading'):
            connection.publish(OutgoingMessage(b'y'), routing_key=queue)
        eventually(lambda: is_connected(connection), 'connected')
        connection.publish(OutgoingMessage(b'z'), routing_key=queue)
        delivery = connection.get(queue)
        assert delivery is not None
        assert delivery.body == b'z'
        connection.delete_queue(queue)
        connection.close()


def test_what_there_is_no_memory_for_is_waited_for_by_a_new_connection(place: OnBroker) -> None:
    connection = connect(place.url)
    connection.connect()
    before = connection.connection_number

    def work() -> None:
        raise MemoryError

    with pytest.raises(BrokerDownError, match='MemoryError'):
        connection.call_with_reconnect('get', work)
    assert connection.connection_number > before
    connection.close()


def test_a_mistake_of_ours_does_not_look_like_a_broker_that_is_away(place: OnBroker) -> None:
    connection = connect(place.url)
    connection.connect()
    for mistake in (AttributeError, TypeError, KeyError):

        def work(mistake: type[Exception] = mistake) -> None:
            raise mistake

        with pytest.raises(mistake):
            connection.call_with_reconnect('test', work)
        assert connection.connection_number == 1
    connection.close()


def test_the_bindings_of_a_topic_exchange_that_others_have_declared_are_those_of_a_topic(
    place: OnBroker,
) -> None:
    declaring, sending = connect(place.url), connect(place.url)
    name = place.prefix
    declaring.declare_exchange(name, 'topic')
    declaring.declare_queue(name)
    declaring.bind(name, name, 'orders.#')
    sending.expect_exchange(name, 'topic')
    sending.publish(OutgoingMessage(b'x'), exchange=name, routing_key='orders.new.urgent')
    assert declaring.count(name) == 1
    if place.url.startswith('redis'):
        with pytest.raises(UnknownExchangeError):  # rather than to take it for a direct one
            connect(place.url).publish(OutgoingMessage(b'x'), exchange=name, routing_key='orders.new')
    declaring.delete_queue(name)
    declaring.close()
    sending.close()
