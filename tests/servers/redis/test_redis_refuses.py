"""A Redis that stops a script in the middle, was away, or turns its clock: no message is lost by that, none is doubled, and none is taken from who works on it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis, RedisError

from switchboard.brokers.consumer import OWN_CLAIMS
from switchboard.brokers.driver import UNCONFIRMED
from switchboard.brokers.message import OutgoingMessage
from switchboard.brokers.queue import BrokerQueue
from switchboard.brokers.redis.driver import LEAST_BULK_BYTES, RedisDriver
from switchboard.brokers.redis.keys import SCRIPTS, read_script, redis_key
from switchboard.brokers.url import read_broker_url
from switchboard.errors import MessageTooLargeError, SwitchboardError
from tests.helpers.waiting import PATIENCE_S, eventually
from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import END_LEASES, HELD_LEASE, OnBroker, end_leases, queue_of
from tests.servers.place import ROOT

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

COMMANDS = sorted(set(re.findall(r"redis\.p?call\('(\w+)'", ''.join(map(read_script, SCRIPTS)))))
# Held, leases, deaths, delayed, and the list.
KEYS = range(5)
USER = 'limited'
MESSAGE = OutgoingMessage(b'one', {}, {'message_id': '1'})
HOUR_MS = 3_600_000


class Limited:
    """A queue of one message, and a user who may not do everything with it."""

    def __init__(self, url: str) -> None:
        self.client: Any = Redis.from_url(url)
        self._user('reset', 'on', '>secret', '~*', '&*', '+@all')
        address = f'redis://{USER}:secret@127.0.0.1:{urlsplit(url).port}/0'
        self.driver = RedisDriver(read_broker_url(address), 5.0, 30.0)
        self.driver.open()
        self.empty()

    def empty(self) -> None:
        """Begin with another queue."""
        self.queue = uuid.uuid4().hex[:8]
        self.keys = self.driver._keys(self.queue)

    def _user(self, *rules: str) -> None:
        self.client.execute_command('ACL', 'SETUSER', USER, *rules)

    @contextmanager
    def without(self, fault: str | int) -> Iterator[None]:
        """Refuse a command, or have a key be somebody else's."""
        if isinstance(fault, str):
            self._user(f'-{fault}')
            yield
            self._user('+@all')
            return
        key, kept = self.keys[fault], f'{self.queue} kept'
        is_there = self.client.exists(key)
        if is_there:
            self.client.rename(key, kept)
        self.client.set(key, 'no such type')
        yield
        self.client.delete(key)
        if is_there:
            self.client.rename(kept, key)

    def publish(self, outgoing: OutgoingMessage = MESSAGE) -> None:
        outcomes = [UNCONFIRMED]
        self.driver.send([(outgoing, '', self.queue)], [0], outcomes)
        assert outcomes == [None]

    def end_leases(self) -> None:
        key = redis_key(self.queue, 'leases')
        if tags := self.client.zrange(key, 0, -1):
            self.client.eval(END_LEASES, 1, key, *tags)

    def all_there_is(self) -> list[bytes]:
        """Take everything, what dead holders had as well."""
        self.end_leases()
        self.driver.recover(self.queue)
        found: list[bytes] = []
        while len(found) < 5 and (delivery := self.driver.get(self.queue)) is not None:
            found.append(delivery.body)
        self.client.delete(*self.keys)
        return found

    def close(self) -> None:
        self.driver.close()
        self.client.execute_command('ACL', 'DELUSER', USER)


@pytest.fixture(scope='module')
def user(redis_server: Broker) -> Iterator[Limited]:
    user = Limited(redis_server.url)
    yield user
    user.close()


@pytest.fixture
def limited(user: Limited) -> Limited:
    user.empty()
    return user


def _taken(limited: Limited) -> Any:
    limited.publish()
    delivery = limited.driver.get(limited.queue)
    assert delivery is not None
    return delivery


def _take(limited: Limited) -> Callable[[], Any]:
    limited.publish()
    return lambda: limited.driver.get(limited.queue)


def _take_a_late_one(limited: Limited) -> Callable[[], Any]:
    limited.driver.delay(limited.queue, MESSAGE, 0.0)
    return lambda: limited.driver.get(limited.queue)


def _give_back(limited: Limited) -> Callable[[], Any]:
    delivery = _taken(limited)
    return lambda: limited.driver.requeue(delivery, False)


def _give_up(limited: Limited) -> Callable[[], Any]:
    delivery = _taken(limited)
    return lambda: limited.driver.requeue(delivery, True)


def _restore(limited: Limited) -> Callable[[], Any]:
    _taken(limited)
    limited.end_leases()
    return lambda: limited.driver.recover(limited.queue)


def _renew(limited: Limited) -> Callable[[], Any]:
    delivery = _taken(limited)
    return lambda: limited.driver.send_heartbeat([delivery])


@pytest.mark.parametrize('fault', [*COMMANDS, *KEYS])
def test_a_script_that_is_stopped_loses_nothing_and_doubles_nothing(
    limited: Limited, fault: str | int
) -> None:
    for step in (_take, _take_a_late_one, _give_back, _give_up, _restore, _renew):
        work = step(limited)
        with limited.without(fault):
            for _ in range(2):
                try:
                    work()
                    break
                except (RedisError, SwitchboardError):
                    pass  # stopped by the fault: once more
        assert limited.all_there_is() == [b'one'], step.__name__


@pytest.mark.parametrize('fault', [*COMMANDS, *KEYS])
def test_what_is_refused_was_not_stored(limited: Limited, fault: str | int) -> None:
    for put in (limited.publish, lambda: limited.driver.delay(limited.queue, MESSAGE, 0.0)):
        is_stored = True
        with limited.without(fault):
            try:
                put()
            except (RedisError, SwitchboardError):
                is_stored = False
        assert limited.all_there_is() == [b'one'] * is_stored


def test_a_message_for_which_redis_would_hang_up_is_too_large(limited: Limited) -> None:
    name = 'proto-max-bulk-len'
    before = limited.client.config_get(name)[name]
    limited.client.config_set(name, LEAST_BULK_BYTES)
    try:
        small, large = (replace(MESSAGE, body=b'x' * size) for size in (700_000, 800_000))
        limited.publish(small)
        with pytest.raises(MessageTooLargeError, match=name):
            limited.publish(large)
        with pytest.raises(MessageTooLargeError, match=name):
            limited.driver.delay(limited.queue, large, 1.0)
        assert limited.all_there_is() == [small.body]
    finally:
        limited.client.config_set(name, before)


def test_a_key_of_another_type_is_named(limited: Limited) -> None:
    with limited.without(0), pytest.raises(RedisError, match=f'switchboard:{limited.queue}:.*`queue`'):
        limited.driver.get(limited.queue)


RIGHTS = re.compile(r'A user needs (.*?)\n\n', re.DOTALL)


def test_the_rights_in_the_reference_are_enough(limited: Limited) -> None:
    page = (ROOT / 'docs' / 'reference' / 'broker-queues.md').read_text()
    [sentence] = RIGHTS.findall(page)
    words = [word.replace('NAME', limited.queue) for word in re.findall('`([^`]+)`', sentence)]
    rules = [
        word if word[0] in '~&' else '+' + word.replace(' ', '|')
        for word in words
        if word != 'recovery_interval'
    ]
    limited.client.execute_command('ACL', 'SETUSER', 'few', 'reset', 'on', '>secret', *rules)
    try:
        queue = BrokerQueue(
            limited.queue, f'redis://few:secret@127.0.0.1:{limited.driver._url.address.rpartition(":")[2]}'
        )
        wakeup = queue.make_wakeup()
        wakeup.arm()
        assert wakeup.is_watching
        filebase = queue.enqueue('one')
        assert wakeup.wait(PATIENCE_S)
        wakeup.close()
        assert queue.take().msg == 'one'
        queue.connection.send_heartbeat()
        filebase = queue.release(filebase, delay_s=0.001)
        queue.recover()
        eventually(queue.take, 'taken')
        queue.finish(filebase)
        assert queue.count() == 0
        connection = queue.connection
        connection.expect_exchange(f'{limited.queue}.exchange')
        connection.bind(limited.queue, f'{limited.queue}.exchange', '#')
        connection.publish(MESSAGE, exchange=f'{limited.queue}.exchange', routing_key='key')
        assert queue.count() == 1
        assert limited.all_there_is() == [b'one']
        queue.close()
    finally:
        limited.client.execute_command('ACL', 'DELUSER', 'few')


def test_a_binding_that_was_lost_or_refused_is_made_when_it_is_asked_for_again(limited: Limited) -> None:
    exchange = f'{limited.queue}.exchange'
    limited.driver.declare_exchange(exchange, 'topic')
    with limited.without('sadd'), pytest.raises(RedisError):
        limited.driver.bind(limited.queue, exchange, '#')
    limited.driver.bind(limited.queue, exchange, '#')
    key = f'_kombu.binding.{exchange}'
    assert limited.client.delete(key) == 1
    limited.driver.bind(limited.queue, exchange, '#')
    assert limited.client.delete(key) == 1


class TestTimeInWhichNobodyCouldRenew:
    @pytest.mark.parametrize('away_ms', [HOUR_MS, -HOUR_MS], ids=['away, or set forward', 'set back'])
    def test_it_ends_no_lease_that_ran_before_and_keeps_none_for_longer(
        self, place: OnBroker, away_ms: int
    ) -> None:
        holder, other = (queue_of(place, f'&lease={HELD_LEASE}') for _ in range(2))
        client: Any = Redis.from_url(place.url)
        filebase = holder.enqueue('work')
        holder.take()
        holder.connection.stop_heartbeat()  # it comes later
        other.recover(include_own=False)
        [queue] = holder.all_queues
        deaths, leases = redis_key(queue, 'deaths'), redis_key(queue, 'leases')
        client.hincrby(deaths, 'looked', -away_ms)
        [(tag, ends_ms)] = client.zrange(leases, 0, -1, withscores=True)
        client.zincrby(leases, -away_ms, tag)
        other.recover(include_own=False)
        assert client.hlen(redis_key(queue, 'held')) == 1
        assert 0 <= client.zscore(leases, tag) - ends_ms < HOUR_MS / 2
        end_leases(place, holder)  # and then it died
        other.recover(include_own=False)
        OWN_CLAIMS.clear()  # it was another process's
        assert other.take().filebase == filebase

    def test_a_holder_that_is_dead_is_found_by_who_looks_seldom(self, place: OnBroker) -> None:
        dead, other = (queue_of(place, f'&lease={HELD_LEASE}') for _ in range(2))
        client: Any = Redis.from_url(place.url)
        dead.enqueue('work')
        dead.take()
        dead.connection.stop_heartbeat()
        [queue] = dead.all_queues
        held = []
        for _ in range(3):
            other.recover(include_own=False)
            held.append(client.hlen(redis_key(queue, 'held')))
            client.hincrby(redis_key(queue, 'deaths'), 'looked', -HOUR_MS)
            for tag in client.zrange(redis_key(queue, 'leases'), 0, -1):
                client.zincrby(redis_key(queue, 'leases'), -HOUR_MS, tag)
        assert held == [1, 1, 0]

    def test_who_waits_looks_as_often_as_a_holder(self, place: OnBroker) -> None:
        queue = queue_of(place)
        assert queue.take() is None
        queue.connection.send_heartbeat()
        assert Redis.from_url(place.url).hexists(redis_key(queue.all_queues[0], 'deaths'), 'looked')

    def test_nothing_is_left_of_a_queue_that_is_deleted(self, place: OnBroker) -> None:
        queue = queue_of(place)
        queue.enqueue('x')
        assert queue.take() is not None
        [name] = queue.all_queues
        queue.connection.delete_queue(name)
        queue.connection.held.clear()
        queue.connection.send_heartbeat()
        assert Redis.from_url(place.url).keys(f'*{name}*') == []
