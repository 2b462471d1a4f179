"""A Redis that has lost its data: what processes have in their hands is not lost with it, and all goes on."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.utils import json as kombu_json
from redis import Redis

from switchboard import Spool
from switchboard.brokers import connect
from switchboard.brokers.consumer import OWN_CLAIMS
from switchboard.brokers.message import OutgoingMessage
from switchboard.brokers.redis.keys import redis_key
from switchboard.errors import BrokerDownError, EntryTakenError, NoRouteError
from switchboard.runners.bridge import FromBroker
from tests.helpers.configurations import load
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
    wait_for_broker,
)
from tests.servers.mail.arrivals import arrive

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

BRIDGE = """
[runner.down]
class = runners.bridge:FromBroker
queue =
url = {url}?lease=1s
remote_exchange = {name}
remote_exchange_type = topic
remote_queue = {name}
remote_bindings = a.*
routing_key = in
[queue.in]
consumed_externally = yes
"""


@pytest.fixture
def place(own_redis: Broker, tmp_path: Path) -> Iterator[OnBroker]:
    place = OnBroker(own_redis.url, tmp_path / 'spool')
    yield place
    place.close()


def is_flushed(server: Broker) -> None:
    Redis.from_url(server.url).flushall()


def is_replaced(server: Broker) -> None:
    server.kill()
    shutil.rmtree(server.directory / 'appendonlydir')
    server.start()


@pytest.fixture(params=[is_flushed, is_replaced])
def lose(request: pytest.FixtureRequest, own_redis: Broker) -> Callable[[], None]:
    return lambda: request.param(own_redis)


def sign_of_life(queue: Any) -> None:
    wait_for_broker(queue)
    queue.connection.send_heartbeat()


def leftovers(queue: Any) -> list[str]:
    client = Redis.from_url(queue.url.address, decode_responses=True)
    return [key for key in client.keys(f'switchboard:{queue.all_queues[0]}:*') if not key.endswith(':deaths')]


@pytest.mark.parametrize('notice', [sign_of_life, wait_for_broker], ids=['in time', 'at the end'])
def test_what_is_in_hand_ends_as_if_nothing_had_been_lost(
    place: OnBroker, lose: Callable[[], None], notice: Callable[[Any], None]
) -> None:
    queue = queue_of(place, f'&lease={HELD_LEASE}')
    queue.enqueue_many(['done', 'bad', 'given back', 'failed', b'\0deferred', 'waits'])
    taken = {one.msg: one.filebase for one in (queue.take() for _ in range(5))}
    lose()
    notice(queue)
    queue.enqueue('new')
    queue.finish(taken['done'])
    queue.finish(taken['bad'], preserve=True)
    queue.release(taken['given back'])
    queue.release(taken['failed'], record={'event': 'failed'})
    assert queue.get_files('.bak') == [taken[b'\0deferred']]
    queue.release(taken[b'\0deferred'])
    assert drain(queue) == [b'\0deferred', 'given back', 'new', 'failed']
    assert place.spool['bad'].get_files('.psv') == [taken['bad']]
    assert leftovers(queue) == []


def test_what_was_in_hand_is_given_out_again_when_its_holder_dies_after_that(
    place: OnBroker, lose: Callable[[], None]
) -> None:
    dead, other = (queue_of(place, f'&lease={HELD_LEASE}') for _ in range(2))
    filebase = dead.enqueue('first')
    dead.take()
    lose()
    sign_of_life(dead)
    dead.connection.stop_heartbeat()  # as if its process had died
    end_leases(place, dead)
    wait_for_broker(other)
    other.recover(include_own=False)
    OWN_CLAIMS.clear()  # it was another process's
    assert other.take().filebase == filebase


def test_a_lease_that_ran_out_before_is_not_taken_back(place: OnBroker, own_redis: Broker) -> None:
    late, other = (queue_of(place, f'&lease={HELD_LEASE}') for _ in range(2))
    filebase = late.enqueue('first')
    late.take()
    is_flushed(own_redis)
    sign_of_life(late)
    end_leases(place, late)
    other.recover(include_own=False)
    with pytest.raises(EntryTakenError):
        late.finish(filebase)
    assert drain(other) == ['first']


def test_what_a_process_has_of_a_queue_that_it_deletes_goes_with_it(place: OnBroker) -> None:
    queue = queue_of(place)
    queue.enqueue('first')
    filebase = queue.take().filebase
    queue.connection.delete_queue(queue.all_queues[0])
    queue.connection.send_heartbeat()
    assert leftovers(queue) == []
    with pytest.raises(EntryTakenError):
        queue.finish(filebase)


def test_what_kombu_cannot_write_holds_up_no_other(place: OnBroker, own_redis: Broker) -> None:
    queue = queue_of(place, f'&lease={HELD_LEASE}')
    [name] = queue.all_queues
    headers = [[json.loads(kombu_json.dumps(uuid.uuid4())), 1]]  # a key that is no text
    strange = {'body': 'strange', 'properties': {'message_id': '1'}, 'headers': headers}
    Redis.from_url(own_redis.url).lpush(name, json.dumps(strange))
    filebase = queue.enqueue('first')
    first, second = queue.connection.get(name), queue.connection.get(name)
    assert first.body == b'strange'
    is_flushed(own_redis)
    queue.connection.send_heartbeat()
    assert [queue.connection.is_ours(one) for one in (first, second)] == [False, True]
    queue.connection.requeue(second)
    assert queue.take().filebase == filebase


def test_a_message_whose_lease_is_over_is_given_up_with_the_others(place: OnBroker) -> None:
    queue = queue_of(place, f'&lease={HELD_LEASE}')
    queue.enqueue_many(['first', 'second', 'third'])
    assert [queue.take().msg for _ in range(2)] == ['first', 'second']
    end_leases(place, queue)
    queue.recover_backup_files()
    assert sorted(drain(queue)) == ['first', 'second', 'third']
    assert unacked(queue.connection) == 0


def test_a_bridge_makes_its_bindings_again(
    own_redis: Broker, tmp_path: Path, lose: Callable[[], None]
) -> None:
    name = uuid.uuid4().hex[:8]
    config = load(
        tmp_path,
        BRIDGE.format(url=own_redis.url, name=name),
        head='[switchboard]\nspool = spool\ndurability = lazy\n',
    )
    spool = Spool.from_config(config)
    runner, sender = FromBroker(spool, config.runners['down']), connect(own_redis.url)
    sender.expect_exchange(name, 'topic')

    def is_routed() -> bool:
        try:
            runner.periodic()
            sender.publish(
                OutgoingMessage(b'hello', {}, {'content_type': 'text/plain'}),
                exchange=name,
                routing_key='a.b',
            )
        except (NoRouteError, BrokerDownError):
            wait(0.1)
            return False
        return True

    runner.setup()
    try:
        assert is_routed()
        deaths, client = redis_key(name, 'deaths'), Redis.from_url(own_redis.url)
        eventually(lambda: client.hget(deaths, 'born'), 'a sign of life')
        lose()
        eventually(is_routed, 'bound')
        runner.periodic()
        assert {one.msg for one in arrive(spool['in'], 1)} == {'hello'}
    finally:
        runner.cleanup()
        sender.close()
