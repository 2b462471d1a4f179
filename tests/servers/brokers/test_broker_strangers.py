"""A queue on a real broker, and messages of strangers that hardly anybody could read: each goes its way, and stops nobody."""

from __future__ import annotations

import random
import socket
import threading
from struct import pack

import pytest
from amqp import Connection
from redis import Redis

from tests.servers.brokers.broker_queues import OnBroker, drain, queue_of, wait

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

HEADERS, MESSAGE_ID = 1 << 13, 1 << 7
METHOD, HEADER, BODY = 1, 2, 3


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(content: bytes) -> bytes:
    return pack('>I', len(content)) + content


def nested(levels: int) -> bytes:
    value = b'I\0\0\0\1'
    for _ in range(levels):
        value = b'F' + table(short(b'a') + value)
    return value


def headers(value: bytes) -> bytes:
    return pack('>H', HEADERS) + table(short(b'a') + value)


# Of each: what stands beside the body, and whether the message can be read.
STRANGERS = {
    'a date beyond all years': (headers(b'T' + pack('>Q', 2**62)), False),
    'an id that is no UTF-8': (pack('>H', MESSAGE_ID) + short(b'\xff\xfe'), False),
    'tables in tables': (headers(nested(5000)), False),
    'a name of a header that is no UTF-8': (pack('>H', HEADERS) + table(short(b'\xff') + b't\1'), True),
    'a decimal of many digits': (headers(b'D\xff\xff\xff\xff\xff'), True),
}


def publish_raw(url: str, exchange: str, key: bytes, properties: bytes) -> None:
    """Publish what no library would write."""
    host, _, port = url.partition('@')[2].strip('/').partition(':')
    connection = Connection(f'{host}:{port}', 'guest', 'guest')
    connection.connect()
    channel = connection.channel()
    frames = (
        (METHOD, pack('>HHH', 60, 40, 0) + short(exchange.encode()) + short(key) + b'\0'),
        (HEADER, pack('>HHQ', 60, 0, 1) + properties),
        (BODY, b'x'),
    )
    sock: socket.socket = connection.sock
    for kind, content in frames:
        sock.sendall(pack('>BHI', kind, channel.channel_id, len(content)) + content + b'\xce')
    channel.exchange_declare('amq.topic', 'topic', passive=True)  # answered when the broker has read all that
    connection.close()


@pytest.mark.parametrize(('properties', 'is_readable'), STRANGERS.values(), ids=STRANGERS)
def test_what_stands_beside_a_body_stops_nobody(
    rabbitmq: OnBroker, properties: bytes, is_readable: bool
) -> None:
    queue = queue_of(rabbitmq)
    queue.enqueue('before')
    publish_raw(rabbitmq.url, '', queue.all_queues[0].encode(), properties)
    queue.enqueue('after')
    assert drain(queue) == ['before', *([b'x'] if is_readable else []), 'after']
    bad = rabbitmq.preserved().get_files('.psv')
    assert len(bad) == (0 if is_readable else 1)
    for filebase in bad:
        assert 'its properties cannot be read' in rabbitmq.preserved().history(filebase)[-1]['reason']


def test_a_routing_key_that_is_no_text_stops_nobody(rabbitmq: OnBroker) -> None:
    queue = queue_of(rabbitmq)
    [name] = queue.all_queues
    queue.producer.declare([name])
    queue.connection.bind(name, 'amq.topic', '#')
    publish_raw(rabbitmq.url, 'amq.topic', b'a.\xff\xfe', pack('>H', 0))
    queue.enqueue('after')
    assert drain(queue) == [b'x', 'after']


NONSENSE = (
    b'{"body": "x", "properties": {}, "headers": {"x-switchboard-due": NaN}}',
    b'{"body": "x", "properties": {}, "headers": {"x-switchboard-due": Infinity, "x-switchboard-kind": "text"}}',
    b'{"body": "x", "properties": {"message_id": ' + b'[' * 500 + b']' * 500 + b'}, "headers": {}}',
    b'{"body": "x", "properties": {"timestamp": NaN, "priority": [], "message_id": {}}, "headers": {"x-switchboard-when": {}}}',
    b'[' * 100_000,
    b'\xff',
)


def test_nonsense_in_a_list_of_redis_stops_nobody(redis: OnBroker) -> None:
    queue = queue_of(redis)
    queue.enqueue('before')
    client = Redis.from_url(redis.url)
    for message in NONSENSE:
        client.lpush(queue.all_queues[0], message)
    queue.enqueue('after')
    found = drain(queue)
    assert [one for one in found if one in ('before', 'after')] == ['before', 'after']
    assert queue.count() == 0


def test_threads_take_each_message_once(place: OnBroker) -> None:
    """Some are put off, some given back, and each is done by one."""
    queue = queue_of(place)
    wanted = {f'message {number}' for number in range(300)}
    queue.enqueue_many(sorted(wanted))
    at_work: set[str] = set()
    done: list[str] = []
    errors: list[BaseException] = []
    lock = threading.Lock()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        while len(done) < len(wanted) and not errors:
            taken = queue.take()
            if taken is None:
                wait(0.005)  # the others have the rest in their hands, or have just given it back
                continue
            with lock:
                assert taken.msg not in at_work
                at_work.add(taken.msg)
            what = chance.randrange(4)
            with lock:
                at_work.remove(taken.msg)
            if what > 1:
                queue.finish(taken.filebase)
                done.append(taken.msg)
                continue
            queue.release(taken.filebase)
            if what:
                queue.defer(taken.filebase, 0.02)
            else:
                queue.has_ready()

    def noted(seed: int) -> None:
        try:
            work(seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=noted, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(done) == sorted(wanted)
