"""What a runner writes kombu reads, and the other way round, in each serializer and compression that is installed."""

from __future__ import annotations

import kombu
import pytest
from kombu.compression import encoders
from kombu.exceptions import ContentDisallowed

from switchboard import Spool
from switchboard.errors import CorruptEntryError
from switchboard.extra.kombu import content

SERIALIZERS = ('json', 'yaml', 'msgpack', 'pickle', 'switchboard')
COMPRESSIONS = (None, 'gzip', 'bzip2', 'lzma', 'zstd', 'brotli')
VALUE = {'täxt': ['a', 1, None, {'b': True}]}


def installed(compression: str | None) -> bool:
    aliases = {'gzip': 'application/x-gzip', 'bzip2': 'application/x-bz2'}
    return compression is None or any(
        compression in one or aliases.get(compression) == one for one in encoders()
    )


@pytest.fixture
def queue(channel):
    queue = kombu.Queue('work')(channel)
    queue.declare()
    return queue


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('serializer', SERIALIZERS)
def test_both_sides_read_what_the_other_wrote(channel, queue, spool_path, serializer, compression):
    if not installed(compression):
        pytest.skip(f'{compression} is not installed')
    board = Spool(spool_path, durability='lazy')['work']
    board.enqueue(content.write(VALUE, serializer=serializer, compression=compression, correlation_id='c'))
    message = queue.get(no_ack=True, accept=[serializer])
    assert message.payload == VALUE
    assert message.properties['correlation_id'] == 'c'
    kombu.Producer(channel).publish(VALUE, routing_key='work', serializer=serializer, compression=compression)
    assert content.read(board.take().msg, accept=[serializer]) == VALUE


def test_what_is_not_accepted_is_not_read():
    with pytest.raises(ContentDisallowed):
        content.read(content.write(VALUE, serializer='pickle'))


@pytest.mark.parametrize('msg', [{}, {'body': 'x'}, {'body': 'x', 'properties': {}}, 'text', 5])
def test_what_is_no_message_of_kombu_is_an_error(msg):
    with pytest.raises(CorruptEntryError):
        content.read(msg)
