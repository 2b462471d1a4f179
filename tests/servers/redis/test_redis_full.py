"""A Redis that has used up its ``maxmemory``: nothing is let in, and what is at work goes on, ends, and is given back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from switchboard import Runner
from switchboard.brokers.consumer import OWN_CLAIMS
from switchboard.brokers.message import DUE_HEADER, WHEN_HEADER, OutgoingMessage
from switchboard.brokers.redis.keys import redis_key
from switchboard.errors import EntryTakenError, QueueFullError
from switchboard.message.naming import digest_of
from switchboard.options import RunnerOptions
from tests.helpers.waiting import eventually
from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import (
    HELD_LEASE,
    OnBroker,
    drain,
    end_leases,
    queue_of,
    unacked,
    wait,
    wait_for_renewal,
)
from tests.servers.brokers.far import Far

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

# Two hundred messages: half of them is far more than all buffers of all connections.
ROOM_BYTES = 8 * 1024 * 1024
MESSAGE_BYTES = 40_000


class Full:
    """A queue on a Redis, and what fills that."""

    def __init__(self, place: OnBroker) -> None:
        self.client: Any = Redis.from_url(place.url)
        self.client.config_set('maxmemory-policy', 'noeviction')
        self.place = place

    def queue(self) -> Any:
        return queue_of(self.place, f'&lease={HELD_LEASE}')

    def fill(self, queue: Any) -> None:
        """Enqueue until there is no more memory, and leave none for anything small either."""
        self._limit(ROOM_BYTES)
        with pytest.raises(QueueFullError, match='no more memory'):
            _enqueue_for_ever(queue, 'x' * MESSAGE_BYTES)
        # What connections take and give back counts as well: the limit lies where their buffers never reach, amid the messages.
        self._limit(-ROOM_BYTES // 2)
        with pytest.raises(QueueFullError, match='no more memory'):
            queue.enqueue('')

    def _limit(self, room_bytes: int) -> None:
        self.client.config_set('maxmemory', self.client.info('memory')['used_memory'] + room_bytes)


def _enqueue_for_ever(queue: Any, text: str) -> None:
    while True:
        queue.enqueue(text)


@pytest.fixture
def full(own_redis: Broker, tmp_path: Path) -> Iterator[Full]:
    place = OnBroker(own_redis.url, tmp_path / 'spool')
    full = Full(place)
    yield full
    full.client.config_set('maxmemory', 0)
    place.close()


def test_who_works_keeps_his_message_and_ends_it(full: Full) -> None:
    queue, other = full.queue(), full.queue()
    filebase = queue.enqueue('work')
    assert queue.take().msg == 'work'
    full.fill(queue)
    wait_for_renewal(full.place, queue)
    assert other.recover(include_own=False) == []
    assert full.client.hkeys(f'switchboard:{queue.all_queues[0]}:deaths') == [b'born', b'looked']
    queue.finish(filebase)
    assert unacked(queue.connection) == 0


def test_what_is_given_back_is_the_next_again(full: Full) -> None:
    queue, other = full.queue(), full.queue()
    filebase = queue.enqueue('first')
    queue.take()
    full.fill(queue)
    queue.release(filebase)
    assert other.take().msg == 'first'


def test_what_a_dead_holder_had_is_given_to_another_and_counted(full: Full) -> None:
    dead, other = full.queue(), full.queue()
    filebase = dead.enqueue('first')
    dead.take()
    full.fill(dead)
    dead.connection.stop_heartbeat()  # as if its process had died
    end_leases(full.place, dead)
    other.recover(include_own=False)
    OWN_CLAIMS.clear()  # it was another process's
    assert other.take().filebase == filebase
    assert [one['count'] for one in other.history(filebase)] == [1]
    other.recover(include_own=True)  # its holder gives up, and that is counted, too
    assert [one['count'] for one in other.history(other.take().filebase)] == [1, 2]


def test_what_was_deferred_comes_and_it_can_be_emptied(full: Full) -> None:
    queue = full.queue()
    queue.enqueue('late', delay=0.5)
    full.fill(queue)
    with pytest.raises(QueueFullError, match='no more memory'):
        queue.enqueue('later', delay=5)
    eventually(lambda: 'late' in drain(queue), 'due')
    queue.enqueue('there is room')
    assert drain(queue) == ['there is room']


def test_a_message_whose_time_is_far_off_stops_no_other_where_it_cannot_be_put_back(full: Full) -> None:
    queue, other = full.queue(), full.queue()
    early = OutgoingMessage(b'early', {DUE_HEADER: time.time() + 86_400.0}, {'message_id': 'early'})
    queue.connection.publish(early, routing_key=queue.all_queues[0])
    queue.enqueue('now')
    full.fill(queue)
    taken = queue.take()
    assert taken.msg == 'now'
    queue.finish(taken.filebase)
    assert unacked(queue.connection) == 1
    full.client.config_set('maxmemory', 0)
    queue.close()
    assert {len(text) for text in drain(other)} == {MESSAGE_BYTES}
    assert full.client.zcard(redis_key(queue.all_queues[0], 'delayed')) == 1


def test_a_message_that_cannot_be_put_back_is_told_of_once_and_not_given_out_by_name_either(
    full: Full, caplog: pytest.LogCaptureFixture
) -> None:
    queue = full.queue()
    headers = {DUE_HEADER: time.time() + 86_400.0, WHEN_HEADER: '1700000000.000000000'}
    early = OutgoingMessage(b'early', headers, {'message_id': 'early'})
    queue.connection.publish(early, routing_key=queue.all_queues[0])
    queue.enqueue('now')
    full.fill(queue)
    with caplog.at_level(logging.WARNING, 'switchboard.queue'):
        queue.finish(queue.take().filebase)
        [record] = caplog.records
        filebase = record.members['filebase']  # type: ignore[attr-defined]  # set by log_event
        assert (record.levelname, record.getMessage().partition(' not delayed ')[0]) == ('WARNING', filebase)
        queue.defer(filebase, 0)  # as if a minute had passed
        queue.finish(queue.take().filebase)
        assert caplog.records == [record]
    with pytest.raises(EntryTakenError):
        queue.dequeue(filebase)
    assert unacked(queue.connection) == 0


def test_what_fails_is_in_the_bad_queue_on_this_machines_disk(full: Full) -> None:
    queue = full.queue()
    filebase = queue.enqueue('work')
    queue.take()
    full.fill(queue)
    queue.finish(filebase, preserve=True, reason='why')
    assert full.place.preserved().history(filebase)[-1]['reason'] == 'why'
    assert unacked(queue.connection) == 0


def test_what_is_to_be_tried_again_later_stays_with_its_holder_until_it_can_be_written(full: Full) -> None:
    queue = full.queue()
    filebase = queue.enqueue('work')
    queue.take()
    full.fill(queue)
    with pytest.raises(QueueFullError):
        queue.release(filebase, delay_s=5.0, record={'event': 'failed'})
    assert queue.get_files('.bak') == [filebase]
    full.client.config_set('maxmemory', 0)
    queue.release(filebase, delay_s=0.1, record={'event': 'failed'})
    assert queue.get_files('.bak') == []


class Fail(Runner):
    """Fails, and counts."""

    tries = 0

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        self.tries += 1
        raise ValueError('no good')


def test_what_a_runner_failed_at_is_held_until_there_is_memory_and_counted_once_a_try(
    full: Full, own_redis: Broker, tmp_path: Path
) -> None:
    far = Far(own_redis.url, tmp_path, 'max_attempts = 3', lease=HELD_LEASE)
    runner = Fail(far.another(), RunnerOptions('fail', '', 'far', recovery_interval_s=0.2))
    filebase = far.queue.enqueue('x')
    full.fill(full.queue())
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        eventually(lambda: runner.tries, 'tried')
        wait(1)  # it is not tried again meanwhile: that it has failed cannot be written
        assert runner.tries == 1
        full.client.config_set('maxmemory', 0)
        eventually(lambda: far.spool['bad'].get_files('.psv'), 'given up')
    finally:
        runner.stop()
        thread.join(60)
    [preserved] = far.spool['bad'].get_files('.psv')
    assert digest_of(preserved) == digest_of(filebase)
    failures = [one for one in far.spool['bad'].history(preserved) if one['event'] == 'failed']
    assert len(failures) == 3
    assert runner.tries == 3
    far.close()
