"""What a runner writes kombu reads, and the other way round, in each serializer and compression that is installed."""

from __future__ import annotations

import datetime
import re
import zlib
from email.message import EmailMessage

import kombu
import pytest
from kombu.compression import encoders, get_encoder
from kombu.exceptions import ContentDisallowed, SerializerNotInstalled

from switchboard import Spool
from switchboard.errors import CorruptEntryError
from switchboard.extra.kombu import content
from tests.kombu.suites import ROOT

SERIALIZERS = ('json', 'yaml', 'msgpack', 'pickle', 'switchboard')
# Before 5.7, kombu has zstd from another library, which the tests do without.
HAS_ZSTD = kombu.VERSION[:2] >= (5, 7) or 'application/zstd' in encoders()
INSTALLED = ('zlib', 'bzip2', 'lzma', *(['zstd'] if HAS_ZSTD else []), 'brotli')
COMPRESSIONS = (None, *INSTALLED, 'bz2', 'gzip')
VALUE = {'täxt': ['a', 1, None, {'b': True}]}


def test_all_compressions_are_there():
    assert {get_encoder(name)[1] for name in INSTALLED} <= set(encoders())


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('serializer', SERIALIZERS)
def test_both_sides_read_what_the_other_wrote(channel, queue, spool_path, serializer, compression):
    spool_queue = Spool(spool_path, durability='lazy')['work']
    spool_queue.enqueue(
        content.write(VALUE, serializer=serializer, compression=compression, correlation_id='c')
    )
    message = queue.get(no_ack=True, accept=[serializer])
    assert message.payload == VALUE
    assert message.properties['correlation_id'] == 'c'
    name = 'bzip2' if compression == 'bz2' else compression
    kombu.Producer(channel).publish(VALUE, routing_key='work', serializer=serializer, compression=name)
    assert content.read(spool_queue.take().msg, accept=[serializer]) == VALUE


@pytest.mark.parametrize('body', ['täxt', b'\x00\xff'])
@pytest.mark.parametrize('compression', [None, 'zlib'])
def test_what_needs_no_serializer_is_read_by_both(channel, queue, spool_path, body, compression):
    spool_queue = Spool(spool_path, durability='lazy')['work']
    spool_queue.enqueue(content.write(body, serializer=None, compression=compression))
    assert queue.get(no_ack=True).payload == body
    kombu.Producer(channel).publish(body, routing_key='work', compression=compression)
    assert content.read(spool_queue.take().msg) == body


def test_what_is_said_at_enqueue_is_a_property_of_the_message(queue, spool_path):
    spool_queue = Spool(spool_path, durability='lazy')['work']
    spool_queue.enqueue(content.write(1), priority=7, reply_to='answers', exchange='e', routing_key='k')
    message = queue.get(no_ack=True)
    assert (message.properties['priority'], message.properties['reply_to']) == (7, 'answers')
    assert message.delivery_info['exchange'] == 'e'
    assert message.delivery_info['routing_key'] == 'k'


# Those that the page about `drop` names, where all are in one line; kombu's messages have a priority, too.
[MEANINGS] = re.findall(r'^\| `-m KEY=VALUE`.*', (ROOT / 'docs/reference/drop.md').read_text(), re.MULTILINE)
QUEUE_KEYS = set(re.findall(r'`([a-z_]+)`', MEANINGS)) - {'priority'}


def test_these_are_keys_of_the_queue():
    assert {'delay', 'not_before', 'ttl', 'order_key', 'dedupe_key'} < QUEUE_KEYS


@pytest.mark.parametrize('key', [*sorted(QUEUE_KEYS), 'delay_s', 'expires_s'])
def test_what_is_to_be_said_at_enqueue_is_refused_here(key):
    with pytest.raises(TypeError, match=f'^{key}: .* enqueue, emit, publish'):
        content.write(1, **{key: 5})


def test_what_is_not_accepted_is_neither_read_nor_decompressed():
    written = content.write(VALUE, serializer='pickle', compression='zlib')
    with pytest.raises(ContentDisallowed):
        content.read(written)
    written['body'] = 'bm90IGNvbXByZXNzZWQ='
    with pytest.raises(ContentDisallowed):
        content.read(written)


def test_names_that_nothing_is_known_of_are_errors_of_the_program():
    with pytest.raises(LookupError, match='zipper'):
        content.write(1, compression='zipper')
    with pytest.raises(SerializerNotInstalled):
        content.write(1, serializer='morse')
    with pytest.raises(SerializerNotInstalled):
        content.read(content.write(1), accept=['morse'])


@pytest.mark.parametrize('msg', [{}, {'body': 'x'}, {'body': 'x', 'properties': {}}, 'text', 5])
def test_what_is_no_message_of_kombu_is_an_error(msg):
    with pytest.raises(CorruptEntryError):
        content.read(msg)


@pytest.mark.parametrize(
    'changed',
    [
        {'body': '{"torn'},
        {'body': 7},
        {'headers': {'compression': 'application/x-gzip'}},
        {'headers': {'compression': 'zipper'}},
        {'headers': {'compression': ['x']}},
        {'headers': 'x'},
        {'properties': {'body_encoding': 'base64'}, 'body': '%'},
    ],
)
def test_a_damaged_message_is_an_error_of_one_kind(changed):
    with pytest.raises(CorruptEntryError):
        content.read({**content.write(VALUE), **changed})


# What programs put in without a word of kombu.


@pytest.fixture
def queues(tmp_path, spool_path):
    """A queue for each kind, all of one configured spool."""
    sections = ''.join(
        f'[queue.{kind}]\nexternal = yes\naccept = json, {kind}\nserializer = {kind}\npickle_classes =\n'
        for kind in ('msgpack', 'yaml')
    )
    sections += '[queue.pickle]\nexternal = yes\naccept = pickle\npickle_classes = datetime:date\n'
    (tmp_path / 'switchboard.cfg').write_text(
        f'[switchboard]\nspool = {spool_path}\ndurability = lazy\n{sections}'
    )
    return Spool.from_config(tmp_path / 'switchboard.cfg')


@pytest.mark.parametrize(
    ('kind', 'value'),
    [
        ('msgpack', {'raw': b'\xff', 'n': [1, None]}),
        ('yaml', {'when': datetime.date(2026, 11, 22), 'täxt': ['ä']}),
        ('pickle', datetime.date(2026, 11, 22)),
    ],
)
def test_each_kind_of_the_spool_is_a_content_type_of_kombu(queues, connect, tmp_path, kind, value):
    queues[kind].enqueue(value, colour='red')
    connection = connect(config=tmp_path / 'switchboard.cfg')
    queue = kombu.Queue(kind)(connection.default_channel)
    message = queue.get(accept=['json'])
    with pytest.raises(ContentDisallowed):
        message.decode()
    message.requeue()
    message = queue.get(accept=[kind])
    assert message.payload == value
    assert message.headers == {'colour': 'red'}
    message.ack()


def test_mail_text_and_bytes_arrive_as_they_are(queue, spool_path):
    spool_queue = Spool(spool_path, durability='lazy')['work']
    mail = EmailMessage()
    mail['Subject'] = 'grüße'
    for msg in (mail, 'lone \udc80 surrogate', zlib.compress(b'x')):
        spool_queue.enqueue(msg)
    first, second, third = (queue.get(no_ack=True) for _ in range(3))
    assert (first.content_type, first.body) == ('message/rfc822', bytes(mail))
    assert second.body == b'lone \xed\xb2\x80 surrogate'
    assert zlib.decompress(third.body) == b'x'
