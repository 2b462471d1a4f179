"""Redis, and a connection that breaks when Redis has done what it was asked for, or tells of a message at the worst moment."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from switchboard.brokers.redis.keys import read_script
from switchboard.errors import BrokerDownError, EntryTakenError
from tests.helpers.waiting import PATIENCE_S, eventually
from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import (
    HELD_LEASE,
    OnBroker,
    end_leases,
    queue_of,
    unacked,
    wait_for_broker,
    wait_for_renewal,
)
from tests.servers.brokers.middleman import Middleman

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def _called(script: str) -> bytes:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest().encode()


TAKE, ACK = _called(read_script('TAKE')), _called(read_script('ACK'))


@pytest.fixture
def middleman(redis_server: Broker) -> Iterator[Middleman]:
    middleman = Middleman(redis_server.port)
    yield middleman
    middleman.close()


@pytest.fixture
def queue(place: OnBroker, middleman: Middleman) -> Iterator[Any]:
    """A queue by way of the middleman, with Redis's scripts loaded."""
    queue_of(place)  # by which the queue is deleted at the end
    url, place.url = place.url, f'redis://127.0.0.1:{middleman.port}/0'
    queue = queue_of(place, f'&lease={HELD_LEASE}')
    place.url = url
    place.queues.remove(queue)
    assert queue.take() is None
    yield queue
    queue.close()


def take_and_hear_nothing(queue: Any, middleman: Middleman) -> None:
    """Take the first of two; Redis has given it out, and is away when it should say so."""
    queue.enqueue_many(['first', 'second'])
    middleman.lose_answer_to(TAKE)
    with middleman.away(), pytest.raises(BrokerDownError):
        queue.take()


class TestALostAnswer:
    def test_what_was_taken_is_taken_and_no_other(
        self, queue: Any, place: OnBroker, middleman: Middleman
    ) -> None:
        first = queue.enqueue_many(['first', 'second'])[0]
        middleman.lose_answer_to(TAKE)
        taken = queue.take()
        assert middleman.has_lost.is_set()
        assert (taken.msg, taken.filebase) == ('first', first)
        assert queue.history(first) == []
        wait_for_renewal(place, queue)
        other = queue_of(place)
        assert other.recover(include_own=False) == []
        assert other.take().msg == 'second'
        assert other.take() is None
        queue.finish(first)
        assert Redis.from_url(place.url).hlen(f'switchboard:{queue.all_queues[0]}:held') == 1

    def test_it_is_taken_when_the_broker_is_back(
        self, queue: Any, place: OnBroker, middleman: Middleman
    ) -> None:
        take_and_hear_nothing(queue, middleman)
        assert middleman.has_lost.is_set()
        wait_for_broker(queue)
        taken = queue.take()
        assert taken.msg == 'first'
        assert queue.history(taken.filebase) == []
        assert unacked(queue.connection) == 1
        assert queue.count() == 1

    def test_after_the_lease_it_is_given_to_another_and_the_next_one_to_us(
        self, queue: Any, place: OnBroker, middleman: Middleman
    ) -> None:
        take_and_hear_nothing(queue, middleman)
        end_leases(place, queue)
        other = queue_of(place)
        other.recover(include_own=False)
        assert other.take().msg == 'first'
        wait_for_broker(queue)
        assert queue.take().msg == 'second'

    def test_what_was_finished_is_finished(self, queue: Any, place: OnBroker, middleman: Middleman) -> None:
        queue.enqueue('x')
        queue.finish(queue.take().filebase)  # the script is loaded by now
        filebase = queue.enqueue('y')
        queue.take()
        middleman.lose_answer_to(ACK)
        with pytest.raises(EntryTakenError):  # which is all that can be told
            queue.finish(filebase)
        assert middleman.has_lost.is_set()
        other = queue_of(place)
        assert other.recover(include_own=False) == []
        assert other.take() is None


class Sleeper(threading.Thread):
    """Sleeps once as a runner does."""

    def __init__(self, queue: Any) -> None:
        super().__init__()
        self.queue = queue
        self.wakeup = queue.make_wakeup()
        self.falls_asleep = threading.Event()
        self.is_woken = False
        self.slept_s = 0.0

    def run(self) -> None:
        self.wakeup.arm()
        began_s = time.monotonic()
        if self.queue.has_ready():
            self.is_woken = True
        else:
            self.falls_asleep.set()
            self.is_woken = self.wakeup.wait(PATIENCE_S)
        self.slept_s = time.monotonic() - began_s

    def woken(self) -> bool:
        self.join()
        self.wakeup.disarm()
        self.wakeup.close()
        return self.is_woken and self.slept_s < PATIENCE_S / 2


class TestASleeper:
    def test_is_woken_by_what_comes_with_the_word_that_he_is_listened_for(
        self, queue: Any, place: OnBroker, middleman: Middleman
    ) -> None:
        middleman.hold_answer_to(b'SUBSCRIBE')
        sleeper = Sleeper(queue)
        sleeper.start()
        assert middleman.holds.wait(PATIENCE_S)
        sleeper.falls_asleep.wait(1)  # which he must not: he has not been told yet
        queue_of(place).enqueue('x')
        middleman.let_go.set()
        assert sleeper.woken()
        assert queue.take().msg == 'x'

    def test_is_woken_when_the_connection_that_renews_his_leases_broke_meanwhile(
        self, queue: Any, place: OnBroker, middleman: Middleman
    ) -> None:
        queue.enqueue('held')
        assert queue.take() is not None
        sleeper = Sleeper(queue)
        sleeper.start()
        assert sleeper.falls_asleep.wait(PATIENCE_S)
        with middleman.away():
            Redis.from_url(place.url).client_kill_filter(_type='normal', skipme=True)
            eventually(lambda: not queue.connection.driver.is_open(), 'noticed')
        queue_of(place).enqueue('x')
        assert sleeper.woken()
        wait_for_broker(queue)
        assert queue.take().msg == 'x'
        assert unacked(queue.connection) == 2

    def test_is_not_woken_by_nothing(self, queue: Any) -> None:
        wakeup = queue.make_wakeup()
        wakeup.arm()
        assert not wakeup.wait(0.3)
        wakeup.disarm()
        wakeup.close()
