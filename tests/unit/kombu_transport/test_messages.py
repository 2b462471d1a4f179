"""A message's way: published, delivered, and then acknowledged, rejected, given back, or left by the dead."""

from __future__ import annotations

import datetime
import json
import math
import os
from contextlib import nullcontext
from email.message import EmailMessage

import kombu
import pytest
from amqp.exceptions import ContentTooLarge, PreconditionFailed

from switchboard import Spool
from switchboard.kombu_transport import spool_connection, unacked
from switchboard.kombu_transport.errors import QueueFull
from switchboard.kombu_transport.spool_connection import EXPIRY_RESTS
from switchboard.message.typed_json import MAX_DEPTH
from switchboard.operating import janitor
from switchboard.testing import FakeClock
from tests.helpers.waiting import PATIENCE_S

WHEN = datetime.datetime(2026, 11, 22, 10, 30, tzinfo=datetime.UTC)


@pytest.fixture
def queue(channel):
    queue = kombu.Queue('work', durable=True)(channel)
    queue.declare()
    return queue


def put(channel, body, routing_key='work', **keys):
    kombu.Producer(channel).publish(body, routing_key=routing_key, **keys)


# In.


def test_a_message_is_an_entry_that_people_can_read(channel, queue, files, spool_path):
    put(channel, {'to': 'jo'}, headers={'task': 'send'}, priority=3, correlation_id='c1')
    [name] = files('work')
    assert name.endswith('+p3.pck')
    entry = Spool(spool_path)['work'].peek(name.removesuffix('.pck'))
    payload, metadata = json.loads(entry.body), json.loads(entry.metadata)
    assert payload['body'] == '{"to": "jo"}'
    assert payload['headers'] == {'task': 'send'}
    assert payload['content-type'] == 'application/json'
    assert metadata == {'priority': 3, 'correlation_id': 'c1'}


@pytest.mark.parametrize(
    ('body', 'serializer'),
    [
        ({'a': [1, None]}, 'json'),
        ('täxt', None),
        (b'\x00\xff', None),
        ({'t': (1, 2)}, 'pickle'),
        ('y', 'yaml'),
    ],
)
@pytest.mark.parametrize('compression', [None, 'zlib', 'bzip2'])
def test_what_is_published_is_delivered(channel, queue, body, serializer, compression):
    put(channel, body, serializer=serializer, compression=compression)
    message = queue.get(accept=['json', 'pickle', 'yaml', 'application/data', 'text/plain'])
    assert message.payload == body
    message.ack()


def test_bare_text_is_a_message_as_the_command_celery_amqp_has_it(channel, queue):
    channel.basic_publish('hello', exchange='', routing_key='work', mandatory=False, immediate=False)
    assert queue.get(accept=['text/plain'], no_ack=True).payload == 'hello'


def test_headers_that_json_does_not_hold_survive(channel, queue):
    put(channel, 'x', headers={'when': WHEN, 'key': b'\xff', 'plain': 1})
    assert queue.get().headers == {'when': WHEN, 'key': b'\xff', 'plain': 1}


def test_headers_that_nothing_holds_are_an_error_and_nothing_is_stored(channel, queue, files):
    with pytest.raises((PreconditionFailed, TypeError)):
        put(channel, 'x', headers={'object': object()})
    assert files('work') == []


def _nested(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    'headers',
    [
        {'a': math.nan},
        {'a': [math.inf]},
        {'a': _nested(MAX_DEPTH)},
        {'a': _nested(100_000)},
        {'a': _nested(MAX_DEPTH), 'when': WHEN},
        {'a': {'__type__': 'datetime', '__value__': 'no date'}, 'when': WHEN},
        {'a': {'__type__': 'unknown', '__value__': ''}, 'when': WHEN},
    ],
    ids=['not a number', 'infinity', 'deep', 'very deep', 'deep with a date', 'no date', 'unknown tag'],
)
@pytest.mark.parametrize('is_batch', [False, True], ids=['alone', 'batch'])
def test_headers_that_no_consumer_could_read_are_an_error_and_nothing_is_stored(
    channel, queue, files, headers, is_batch
):
    if is_batch and kombu.VERSION[:2] < (5, 7):
        pytest.skip('kombu has no batches')
    producer = kombu.Producer(channel)
    with pytest.raises(PreconditionFailed), producer.batch() if is_batch else nullcontext():
        producer.publish('x', routing_key='work', headers=headers)
    assert files('work') == []


def test_headers_as_deep_as_can_be_read_are_delivered(channel, queue):
    deep = _nested(MAX_DEPTH - 4)
    put(channel, 'x', headers={'a': deep})
    assert queue.get(no_ack=True).headers == {'a': deep}


def test_an_expiration_that_is_no_number_is_an_error_and_nothing_is_stored(channel, queue, files):
    message = channel.prepare_message('x', properties={'expiration': 'soon'})
    with pytest.raises(PreconditionFailed, match='milliseconds'):
        channel.basic_publish(message, exchange='', routing_key='work')
    assert files('work') == []


def test_a_persistent_message_in_a_durable_queue_is_synced_and_no_other(connect, files):
    connection = connect(durability='full')
    channel = connection.default_channel
    synced: list[int] = []
    disk = channel.spool_connection.spool.disk
    real = disk.sync_files
    disk.sync_files = lambda fds, **keys: synced.append(len(fds)) or real(fds, **keys)
    for name, durable in (('durable', True), ('fleeting', False)):
        kombu.Queue(name, durable=durable)(channel).declare()
    synced.clear()
    put(channel, 'x', 'fleeting', delivery_mode=2)
    put(channel, 'x', 'durable', delivery_mode=1)
    assert synced == []
    put(channel, 'x', 'durable', delivery_mode=2)
    assert synced == [1]


def test_the_connections_word_on_durability_is_the_upper_bound(connect):
    channel = connect(durability='lazy').default_channel
    kombu.Queue('work')(channel).declare()
    assert channel.spool_connection.queue('work', 'publish').options.durability == 'lazy'


def test_a_message_beyond_a_limit_is_refused_or_makes_room(channel, files):
    refusing = {'x-max-length': 2, 'x-overflow': 'reject-publish'}
    kombu.Queue('strict', queue_arguments=refusing)(channel).declare()
    kombu.Queue('rolling', max_length=2)(channel).declare()
    for number in range(2):
        put(channel, number, 'strict')
    with pytest.raises(QueueFull):
        put(channel, 2, 'strict')
    for number in range(4):
        put(channel, number, 'rolling')
    rolling = kombu.Queue('rolling', max_length=2)(channel)
    assert [rolling.get().payload for _ in range(2)] == [2, 3]
    assert files('bad') == []


def test_a_message_may_be_too_large_for_a_configured_queue(connect, tmp_path, spool_path):
    (tmp_path / 'switchboard.cfg').write_text(
        f'[switchboard]\nspool = {spool_path}\n[queue.work]\nexternal = yes\nmax_body = 1KiB\n'
    )
    channel = connect(config=tmp_path / 'switchboard.cfg').default_channel
    kombu.Queue('work')(channel).declare()
    put(channel, 'x')
    with pytest.raises(ContentTooLarge):
        put(channel, 'x' * 2000)


# Out.


def test_an_acknowledged_message_is_gone(channel, queue, files):
    put(channel, 'x')
    message = queue.get()
    assert [name.endswith('.bak') for name in files('work')] == [True]
    message.ack()
    assert files('work') == []


def test_no_ack_means_gone_when_delivered(channel, queue, files):
    put(channel, 'x')
    assert queue.get(no_ack=True).payload == 'x'
    assert files('work') == []


def test_each_delivery_has_a_tag_of_its_own_and_says_how_often_it_was_tried(channel, queue, files):
    put(channel, 'x')
    [before] = files('work')
    first = queue.get()
    assert first.delivery_info['redelivered'] is False
    assert first.delivery_info['attempts'] == 1
    first.requeue()
    assert files('work') == [before]
    second = queue.get()
    assert second.delivery_info['redelivered'] is True
    assert second.delivery_info['attempts'] == 2
    assert second.delivery_tag != first.delivery_tag


def test_a_rejected_message_goes_to_bad_with_its_reason(channel, queue, files, spool_path):
    put(channel, 'x')
    queue.get().reject()
    [name] = files('bad')
    last = Spool(spool_path)['bad'].history(name.removesuffix('.psv'))[-1]
    assert (last['queue'], last['cause']) == ('work', 'rejected')


def test_a_message_that_is_given_back_too_often_goes_to_bad(connect, files, spool_path):
    channel = connect(delivery_limit=3).default_channel
    queue = kombu.Queue('work')(channel)
    queue.declare()
    put(channel, 'x')
    for attempt in range(1, 4):
        message = queue.get()
        assert message.delivery_info['attempts'] == attempt
        message.requeue()
    assert queue.get() is None
    [name] = files('bad')
    assert Spool(spool_path)['bad'].history(name.removesuffix('.psv'))[-1]['cause'] == 'attempts'


def test_a_queues_own_delivery_limit_goes_first(channel, files):
    queue = kombu.Queue('work', queue_arguments={'x-delivery-limit': 1})(channel)
    queue.declare()
    put(channel, 'x')
    queue.get().requeue()
    assert len(files('bad')) == 1


def test_closing_gives_back_what_is_not_acknowledged_and_holds_nothing_against_it(connect):
    first, second = connect(), connect()
    queue = kombu.Queue('work')(first.default_channel)
    queue.declare()
    put(first.default_channel, 'x')
    for _ in range(2):
        with first.channel() as channel:
            assert queue(channel).get().payload == 'x'
    message = queue(second.default_channel).get()
    assert message.delivery_info['redelivered'] is True
    assert message.delivery_info['attempts'] == 1
    history = message.channel.spool_connection.queue('work', 'consume').history
    [delivery] = message.channel.qos.claims.values()
    assert [record['event'] for record in history(delivery.filebase)] == ['returned']


def test_recover_gives_all_back(channel, queue):
    put(channel, 'x')
    queue.get()
    channel.basic_recover(requeue=True)
    assert queue.get().payload == 'x'


def test_multiple_acknowledges_all_that_came_before(channel, queue, files):
    for number in range(3):
        put(channel, number)
    messages = [queue.get() for _ in range(3)]
    channel.basic_ack(messages[1].delivery_tag, multiple=True)
    assert len(files('work')) == 1
    messages[2].ack()
    assert files('work') == []


def test_acknowledging_what_is_gone_with_its_queue_is_no_error(channel, queue):
    put(channel, 'x')
    message = queue.get()
    queue.delete()
    message.ack()


@pytest.mark.parametrize('ending', ['ack', 'reject', 'requeue', None])
def test_ending_what_somebody_has_taken_away_is_no_error_and_leaves_room(
    connection, channel, queue, spool_path, ending
):
    channel.basic_qos(0, 1, False)
    put(channel, 'x')
    message = queue.get()
    [file] = (spool_path / 'work').glob('*.bak')
    file.unlink()
    if ending is None:
        channel.close()
    else:
        getattr(message, ending)()
        assert len(channel.qos) == 0
    assert not unacked._LEFT


# Time and order.


def test_a_message_expires(channel, queue, files):
    put(channel, 'x', expiration=0)
    put(channel, 'y', expiration=60)
    assert queue.get().payload == 'y'
    assert files('bad') == []


@pytest.mark.parametrize('says', ['queue', 'message'])
def test_a_queue_without_consumers_delays_messages_for_another(connect, files, says):
    connection = connect(recovery_interval=0.02, poll_interval=0.02)
    channel = connection.default_channel
    dead_letters = {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'work'}
    kombu.Queue('work')(channel).declare()
    kombu.Queue('delay', message_ttl=0.1 if says == 'queue' else None, queue_arguments=dead_letters)(
        channel
    ).declare()
    for number in range(2):
        put(channel, number, 'delay', expiration=0.1 if says == 'message' else None)
    bodies: list[object] = []
    with kombu.Consumer(
        channel, kombu.Queue('work'), callbacks=[lambda body, _: bodies.append(body)], no_ack=True
    ):
        while len(bodies) < 2:
            connection.drain_events(timeout=PATIENCE_S)
    assert bodies == [0, 1]
    assert files('delay') == []


def kept_without_consumers(channel, *bodies, queue='kept', **keys):
    kombu.Queue(queue, **keys)(channel).declare()
    for body in bodies:
        put(channel, body, queue, expiration=0)


def test_a_message_whose_time_is_over_is_dropped_where_nobody_consumes(connect, files):
    connection = connect()
    kept_without_consumers(connection.default_channel, 'x')
    connection.transport.spool_connection.expire()
    assert files('kept') == files('bad') == []


def test_a_damaged_message_holds_up_no_other_where_nobody_consumes(connect, spool_path, files):
    connection = connect()
    dead_letters = {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'work'}
    declared = kombu.Queue('work')(connection.default_channel)
    declared.declare()
    kept_without_consumers(connection.default_channel, 'damaged', 'x', queue_arguments=dead_letters)
    os.truncate(spool_path / 'kept' / files('kept')[0], 30)
    connection.transport.spool_connection.expire()
    assert declared.get(no_ack=True).payload == 'x'
    assert len(files('bad')) == 1


class Entries:
    """The entries of a directory, of which no more can be had than there are."""

    def __init__(self, entries, most):
        self.entries, self.left = entries, most

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.entries.close()

    def __iter__(self):
        return self

    def __next__(self):
        self.left -= 1
        assert self.left >= 0, 'the whole directory is read'
        return next(self.entries)


def test_a_queue_with_consumers_is_not_read_to_the_end_to_see_that_it_is_not_empty(
    connect, spool_path, monkeypatch
):
    connection = connect()
    kept_without_consumers(connection.default_channel, *range(9))
    opened = connection.transport.spool_connection
    monkeypatch.setattr(opened.spool, 'consumer_count', lambda name: 1)
    scandir = opened.spool.disk.scandir
    opened.spool.disk.scandir = lambda path: Entries(scandir(path), 1 if is_kept(path, spool_path) else 99)
    opened.expire()


def is_kept(path, spool_path):
    return isinstance(path, int) and os.path.samestat(os.fstat(path), os.stat(spool_path / 'kept'))


class Slow(FakeClock):
    """One by which each look takes a second."""

    def monotonic_ns(self):
        self.advance(1)
        return super().monotonic_ns()


def test_who_consumes_has_the_time_between_two_looks_for_what_is_over(connect, files, monkeypatch):
    connection = connect()
    channel, opened = connection.default_channel, connection.transport.spool_connection
    for module in (janitor, spool_connection):
        monkeypatch.setattr(module, 'LOOKED_AT', 2)
    monkeypatch.setattr(opened.spool, 'clock', Slow())
    kept_without_consumers(channel, *range(3))
    assert opened.expire() > 0
    assert opened.expire() is not None  # it rests as long as that took, and tells when to go on
    assert len(files('kept')) == 1
    looks = [opened.expire() for _ in range(20)]
    assert files('kept') == []
    assert looks[-1] is None
    kept_without_consumers(channel, 'late')
    count = 0
    while files('kept'):
        opened.expire()
        count += 1
        assert count < 10 * EXPIRY_RESTS
    assert count > EXPIRY_RESTS / 2  # of a look that has found nothing


def test_an_eta_is_the_brokers_if_the_connection_says_so(connect):
    connection = connect(eta='broker')
    channel = connection.default_channel
    queue = kombu.Queue('work')(channel)
    queue.declare()
    now = datetime.datetime.now(datetime.UTC)
    put(channel, 'in an hour', headers={'eta': (now + datetime.timedelta(hours=1)).isoformat()})
    put(channel, 'now', headers={'eta': None})
    got = []
    with kombu.Consumer(channel, queue, callbacks=[lambda body, message: got.append(body) or message.ack()]):
        connection.drain_events(timeout=PATIENCE_S)
        assert got == ['now']
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.05)
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=0.3)
        put(channel, 'later', headers={'eta': soon.isoformat()})
        connection.drain_events(timeout=PATIENCE_S)
    assert got == ['now', 'later']
    assert datetime.datetime.now(datetime.UTC) >= soon


def test_dead_letters_go_where_the_queue_says_and_tell_why(channel):
    for name in ('dead', 'late'):
        kombu.Queue(name)(channel).declare()
    arguments = {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead'}
    queue = kombu.Queue('work', queue_arguments=arguments)(channel)
    queue.declare()
    put(channel, 'x')
    queue.get().reject()
    headers = kombu.Queue('dead')(channel).get().headers
    [death] = headers.pop('x-death')
    assert isinstance(death.pop('time'), datetime.datetime)
    assert death == {
        'queue': 'work',
        'reason': 'rejected',
        'count': 1,
        'exchange': '',
        'routing-keys': ['work'],
    }
    assert headers == {
        'x-first-death-queue': 'work', 'x-first-death-reason': 'rejected', 'x-first-death-exchange': ''
    }  # fmt: skip


def test_dead_letters_go_through_an_exchange_with_their_own_key(channel):
    exchange = kombu.Exchange('graveyard', type='topic')(channel)
    dead = kombu.Queue('dead', exchange=exchange, routing_key='work.#')(channel)
    dead.declare()
    main = kombu.Exchange('main', type='topic')(channel)
    queue = kombu.Queue(
        'work', exchange=main, routing_key='work.*', queue_arguments={'x-dead-letter-exchange': 'graveyard'}
    )(channel)
    queue.declare()
    put(channel, 'x', 'work.7', exchange=main)
    queue.get().reject()
    assert dead.get().payload == 'x'


# What others put in.


def test_what_other_programs_put_in_is_a_message_too(channel, queue, spool_path):
    spool_queue = Spool(spool_path)['work']
    mail = EmailMessage()
    mail['Subject'] = 'hello'
    for msg in ({'a': 1}, 'text', b'\xff', mail):
        spool_queue.enqueue(msg, colour='red')
    got = [queue.get(accept=['json', 'text/plain', 'application/data']) for _ in range(4)]
    assert [message.content_type for message in got] == [
        'application/json', 'text/plain', 'application/data', 'message/rfc822'
    ]  # fmt: skip
    assert [message.payload for message in got[:3]] == [{'a': 1}, 'text', b'\xff']
    assert b'Subject: hello' in got[3].body
    assert got[0].headers == {'colour': 'red'}


def test_what_is_torn_or_no_message_goes_to_bad_and_kills_nobody(channel, queue, files, spool_path):
    put(channel, 'torn')
    [name] = files('work')
    path = spool_path / 'work' / name
    path.write_bytes(path.read_bytes()[:-3])
    Spool(spool_path)['work'].enqueue({'body': '%%%', 'properties': {'body_encoding': 'no such one'}})
    put(channel, 'good')
    assert queue.get().payload == 'good'
    assert len(files('bad')) == 2


def test_a_runner_reads_what_kombu_put_in(channel, queue, spool_path):
    put(channel, {'a': 1}, reply_to='answers', correlation_id='c1')
    taken = Spool(spool_path)['work'].take()
    assert json.loads(taken.msg['body']) == {'a': 1}
    assert taken.msgdata['reply_to'] == 'answers'
