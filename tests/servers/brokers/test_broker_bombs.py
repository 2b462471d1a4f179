"""A queue on a real broker, and strangers who send a little that becomes very much."""

from __future__ import annotations

import tracemalloc

import pytest
from kombu import Connection
from kombu.compression import encoders

from switchboard.message.naming import is_filebase
from tests.servers.brokers.broker_queues import OnBroker, drain, queue_of, unacked

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

LIMIT_BYTES = 100_000
BOMB = '0' * (32 * 1024 * 1024)


def test_a_bomb_of_any_compression_is_in_the_bad_queue_as_it_came(place: OnBroker) -> None:
    queue = queue_of(place, max_body_bytes=LIMIT_BYTES)
    name = queue.all_queues[0]
    queue.producer.declare([name])
    with Connection(place.url) as connection:
        producer = connection.Producer(auto_declare=False)
        for compression in encoders():
            producer.publish(BOMB, routing_key=name, serializer='raw', compression=compression)
        producer.publish('x' * LIMIT_BYTES, routing_key=name, serializer='raw', compression='zlib')
    tracemalloc.start()
    try:
        assert drain(queue) == [b'x' * LIMIT_BYTES]
        assert tracemalloc.get_traced_memory()[1] < len(BOMB) / 2
    finally:
        tracemalloc.stop()
    bad = place.preserved()
    found = bad.get_files('.psv')
    assert len(found) == len(encoders()) >= 3
    for filebase in found:
        assert is_filebase(filebase)
        record = bad.history(filebase)[-1]
        assert record['cause'] == 'corrupt'
        assert f'are more than {LIMIT_BYTES} when they are decompressed' in record['reason']
    assert unacked(queue.connection) == 0
