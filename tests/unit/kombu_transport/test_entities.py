"""Queues, exchanges and bindings: on the disk, for all processes, as AMQP 0-9-1 says it."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal

import kombu
import pytest
from amqp.exceptions import AccessRefused, ChannelError, NotFound, PreconditionFailed, ResourceLocked

from switchboard import Spool
from switchboard.kombu_transport.queue_names import directory_name
from tests.helpers.waiting import eventually
from tests.unit.declared.test_presence import in_child, kill


def declared(channel, name, **keys):
    queue = kombu.Queue(name, **keys)(channel)
    queue.declare()
    return queue


def put(channel, body, routing_key='', exchange='', **keys):
    kombu.Producer(channel).publish(body, routing_key=routing_key, exchange=exchange, **keys)


def got(*queues):
    """What waits in each queue."""
    found = []
    for queue in queues:
        bodies = []
        while (message := queue.get(no_ack=True)) is not None:
            bodies.append(message.payload)
        found.append(bodies)
    return found


# Names.


@pytest.mark.parametrize(
    ('queue', 'directory'),
    [
        ('celery', 'celery'),
        ('w1@host.celery.pidbox', 'w1@host.celery.pidbox'),
        ('bad', '%62ad'),
        ('trash', '%74rash'),
        ('lost+found', '%6Cost+found'),
        ('.hidden', '%2Ehidden'),
        ('-x', '%2Dx'),
        ('a/b c%', 'a%2Fb%20c%25'),
        ('exchange:x', 'exchange%3Ax'),
        ('ü', '%C3%BC'),
    ],
)
def test_a_queue_has_a_directory_whatever_it_is_called(channel, queue, directory, files):
    assert directory_name(queue) == directory
    queue = declared(channel, queue)
    put(channel, 'x', queue.name)
    assert len(files(directory)) == 1
    assert got(queue) == [['x']]


def test_long_names_stay_apart(channel):
    names = [directory_name('x' * 200 + end) for end in 'ab']
    assert len(set(names)) == 2
    assert all(len(name) == 100 for name in names)
    one, two = (declared(channel, 'x' * 200 + end) for end in 'ab')
    put(channel, 1, one.name)
    assert got(two, one) == [[], [1]]


# Exchanges.


def test_every_process_sees_what_one_has_declared(connect):
    one, two = connect().default_channel, connect().default_channel
    topic = kombu.Exchange('news', type='topic')
    queue = declared(one, 'in', exchange=topic, routing_key='a.#')
    put(two, 'x', 'a', exchange='news')
    put(two, 'y', 'a.b.c', exchange='news')
    put(two, 'z', 'b', exchange='news')
    assert got(queue) == [['x', 'y']]


def test_direct_and_fanout(channel):
    direct, fanout = kombu.Exchange('d'), kombu.Exchange('f', type='fanout')
    one = declared(channel, 'one', bindings=[kombu.binding(direct, '1'), kombu.binding(fanout)])
    two = declared(channel, 'two', bindings=[kombu.binding(direct, '2'), kombu.binding(fanout)])
    put(channel, 'to two', '2', exchange='d')
    put(channel, 'to all', exchange='f')
    assert got(one, two) == [['to all'], ['to two', 'to all']]


@pytest.mark.parametrize(
    ('arguments', 'headers', 'fits'),
    [
        ({'x-match': 'all', 'format': 'pdf', 'n': 1}, {'format': 'pdf', 'n': 1, 'more': 2}, True),
        ({'format': 'pdf', 'n': 1}, {'format': 'pdf'}, False),
        ({'x-match': 'any', 'format': 'pdf', 'n': 1}, {'n': 1}, True),
        ({'x-match': 'any', 'format': 'pdf', 'x-n': 1}, {'x-n': 1}, False),
        ({'x-match': 'any-with-x', 'format': 'pdf', 'x-n': 1}, {'x-n': 1}, True),
        ({'format': None}, {'format': 'any'}, True),
    ],
)
def test_headers(channel, arguments, headers, fits):
    exchange = kombu.Exchange('h', type='headers')
    queue = declared(channel, 'in', exchange=exchange, binding_arguments=arguments)
    put(channel, 'x', exchange='h', headers=headers)
    assert got(queue) == [['x'] if fits else []]


@pytest.mark.parametrize('arguments', [{'x-match': 'some'}, {'format': ['pdf']}])
def test_headers_that_cannot_be_compared_are_refused(channel, arguments):
    with pytest.raises(PreconditionFailed):
        declared(channel, 'in', exchange=kombu.Exchange('h', type='headers'), binding_arguments=arguments)


def test_exchanges_bound_to_exchanges(channel):
    for name in ('outer', 'inner'):
        kombu.Exchange(name, type='fanout')(channel).declare()
    queue = declared(channel, 'in', exchange=kombu.Exchange('inner', type='fanout'))
    outer, inner = kombu.Exchange('outer')(channel), kombu.Exchange('inner')(channel)
    inner.bind_to('outer')
    put(channel, 'x', exchange='outer')
    assert got(queue) == [['x']]
    with pytest.raises(PreconditionFailed, match='circle'):
        outer.bind_to('inner')
    inner.unbind_from('outer')
    put(channel, 'y', exchange='outer')
    assert got(queue) == [[]]


def test_an_alternate_takes_what_nobody_wants(channel):
    main = kombu.Exchange('main', arguments={'alternate-exchange': 'rest'})
    main(channel).declare()
    queue = declared(channel, 'in', exchange=kombu.Exchange('rest', type='fanout'))
    put(channel, 'x', 'nobody', exchange='main')
    assert got(queue) == [['x']]


def test_what_nobody_wants_is_dropped_or_returned(channel):
    kombu.Exchange('main')(channel).declare()
    put(channel, 'x', 'nobody', exchange='main')
    put(channel, 'x', 'no such queue')
    with pytest.raises(ChannelError, match='NO_ROUTE'):
        put(channel, 'x', 'nobody', exchange='main', mandatory=True)
    returned = []
    producer = kombu.Producer(channel, on_return=lambda *what: returned.append(what))
    producer.publish('x', routing_key='nobody', exchange='main', mandatory=True)
    [(error, exchange, routing_key, message)] = returned
    assert (error.reply_code, exchange, routing_key, message['body']) == (312, 'main', 'nobody', b'x')


def test_publishing_to_an_exchange_that_is_not_there_is_an_error(channel):
    with pytest.raises(NotFound):
        put(channel, 'x', exchange='nowhere')


def test_an_exchange_is_declared_as_it_is_or_not_at_all(connect):
    one, two = connect().default_channel, connect().default_channel
    kombu.Exchange('e', type='topic')(one).declare()
    kombu.Exchange('e', type='topic')(two).declare()
    for wrong in (kombu.Exchange('e', type='direct'), kombu.Exchange('e', type='topic', durable=False)):
        with pytest.raises(PreconditionFailed):
            wrong(two).declare()
    kombu.Exchange('e', passive=True)(two).declare()
    with pytest.raises(NotFound):
        kombu.Exchange('f', passive=True)(two).declare()


def test_the_exchanges_that_are_always_there(channel):
    queue = declared(channel, 'in')
    queue.bind_to('amq.topic', 'a.*')
    put(channel, 'x', 'a.b', exchange='amq.topic')
    put(channel, 'y', 'a.b', exchange='amq.fanout')
    assert got(queue) == [['x']]
    channel.exchange_declare('amq.fanout', passive=True)
    with pytest.raises(AccessRefused):
        channel.exchange_bind('amq.fanout', '')
    for name in ('amq.topic', ''):
        with pytest.raises(AccessRefused):
            channel.exchange_delete(name)
    with pytest.raises(PreconditionFailed):
        channel.exchange_declare('amq.topic', 'direct')
    put(channel, 'z', 'a.b', exchange='amq.topic')
    assert got(queue) == [['z']]


@pytest.mark.parametrize('kind', ['direct', 'topic', 'fanout', 'headers'])
def test_programs_that_ask_for_an_exchanges_type_and_bindings_get_them(channel, kind):
    declared(channel, 'in', exchange=kombu.Exchange('e', type=kind), routing_key='a.*')
    assert channel.typeof('e').type == kind
    assert [(key, queue) for key, _, queue in channel.get_table('e')] == [('a.*', 'in')]
    assert channel.typeof('amq.topic').type == 'topic'
    assert channel.typeof('not there').type == 'direct'


def test_a_deleted_exchange_is_gone_for_all(connect):
    one, two = connect().default_channel, connect().default_channel
    exchange = kombu.Exchange('e', type='fanout')(one)
    declared(one, 'in', exchange=exchange)
    with pytest.raises(PreconditionFailed):
        exchange.delete(if_unused=True)
    exchange.delete()
    exchange.delete()
    with pytest.raises(NotFound):
        put(two, 'x', exchange='e')


def test_an_unbound_queue_gets_nothing_more(connect):
    one, two = connect().default_channel, connect().default_channel
    exchange = kombu.Exchange('e', type='topic')
    queue = declared(one, 'in', exchange=exchange, routing_key='a.*')
    bound = exchange(one)
    assert one.list_bindings() == [('in', 'e', 'a.*')]
    queue.unbind_from(bound, 'another key')
    put(two, 'x', 'a.b', exchange='e')
    queue.unbind_from(bound, 'a.*')
    put(two, 'y', 'a.b', exchange='e')
    assert got(queue) == [['x']]
    assert one.list_bindings() == []


# Queues.


def test_a_queue_is_declared_as_it_is_or_not_at_all(connect):
    one, two = connect().default_channel, connect().default_channel
    declared(one, 'q', max_length=3, queue_arguments={'x-queue-mode': 'lazy'})
    declared(two, 'q', max_length=3)
    for wrong in (
        {},
        {'max_length': 4},
        {'max_length': 3, 'durable': False},
        {'max_length': 3, 'message_ttl': 1},
    ):
        with pytest.raises(PreconditionFailed):
            declared(connect().default_channel, 'q', **wrong)
    with pytest.raises(NotFound):
        kombu.Queue('nowhere')(two).queue_declare(passive=True)


def test_declaring_tells_how_much_waits_and_who_consumes(connect):
    one, two = connect().default_channel, connect().default_channel
    queue = declared(one, 'q')
    for number in range(3):
        put(two, number, 'q')
    message = queue.get()
    with kombu.Consumer(two, queue):
        assert kombu.Queue('q')(one).queue_declare(passive=True) == ('q', 2, 1)
    assert kombu.Queue('q')(one).queue_declare(passive=True) == ('q', 2, 0)
    message.ack()


@pytest.mark.parametrize(
    'arguments',
    [{'x-message-ttl': 'soon'}, {'x-max-length': -1}, {'x-max-length': 1, 'x-overflow': 'explode'},
     {'x-dead-letter-routing-key': 'x'}],
)  # fmt: skip
def test_arguments_without_sense_are_refused(channel, arguments):
    with pytest.raises(PreconditionFailed):
        declared(channel, 'q', queue_arguments=arguments)


ODD = {
    'tuple': ('a', 'b'),
    'bytes': b'x',
    'date': datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    'decimal': Decimal('1.5'),
}


@pytest.mark.parametrize('value', ODD.values(), ids=ODD)
def test_arguments_that_json_does_not_hold_are_compared_and_undone(connect, value):
    for _ in range(2):
        channel = connect().default_channel
        exchange = kombu.Exchange('e', arguments={'x-odd': value})(channel)
        queue = declared(channel, 'q', queue_arguments={'x-odd': value})
        exchange.declare()
        queue.bind_to(exchange, 'key', arguments={'x-odd': value})
    assert channel.list_bindings() == [('q', 'e', 'key')]
    queue.unbind_from(exchange, 'key', arguments={'x-odd': value})
    assert channel.list_bindings() == []


def test_arguments_that_cannot_be_written_damage_nothing(connect):
    arguments = {'x-odd': math.nan}
    channel = connect().default_channel
    queue, exchange = declared(channel, 'q'), kombu.Exchange('e')(channel)
    exchange.declare()
    for refused in (
        lambda: declared(channel, 'other', queue_arguments=arguments),
        kombu.Exchange('f', arguments=arguments)(channel).declare,
        lambda: queue.bind_to(exchange, 'key', arguments=arguments),
    ):
        with pytest.raises(PreconditionFailed):
            refused()
    queue.bind_to(exchange, 'key')
    put(connect().default_channel, 'x', 'key', exchange='e')
    assert got(queue) == [['x']]


def test_a_queue_without_a_name_gets_one(channel):
    queue = kombu.Queue('')(channel)
    queue.declare()
    assert queue.name.startswith('amq.gen-')


def test_purging_and_deleting(connect, files):
    one, two = connect().default_channel, connect().default_channel
    queue = declared(one, 'q')
    for number in range(3):
        put(two, number, 'q')
    with pytest.raises(PreconditionFailed, match='messages'):
        queue.delete(if_empty=True)
    assert queue.purge() == 3
    with kombu.Consumer(two, queue), pytest.raises(PreconditionFailed, match='consumer'):
        queue.delete(if_unused=True)
    put(two, 'x', 'q')
    assert one.queue_delete('q') == 1
    assert one.queue_delete('q') == 0
    put(two, 'y', 'q')
    assert files('q') == []
    with pytest.raises(NotFound):
        queue.get()


def test_an_exclusive_queue_is_one_processs_alone_and_goes_with_its_connection(connect, files):
    one, two = connect(), connect()
    queue = declared(one.default_channel, 'q', exclusive=True)
    declared(two.default_channel, 'q', exclusive=True)
    put(two.default_channel, 'x', 'q')
    assert got(queue) == [['x']]

    def declare() -> object:
        connection = connect()
        with pytest.raises(ResourceLocked):
            declared(connection.default_channel, 'q', exclusive=True)
        channel = connection.default_channel
        queue = kombu.Queue('q')(channel)
        for use in (
            lambda: channel.basic_consume('q', True, print, 'tag'),
            lambda: queue.queue_declare(passive=True),
            queue.get,
            queue.purge,
            queue.delete,
            lambda: queue.bind_to('amq.direct', 'key'),
            lambda: channel.queue_unbind('q', 'amq.direct', 'key'),
        ):
            with pytest.raises(ResourceLocked):
                use()
        put(channel, 'y', 'q')
        return connection

    kill(in_child(declare))
    assert got(queue) == [['y']]
    one.release()
    assert files('.run/declared') == ['.lock']


def test_an_exclusive_queue_goes_when_its_process_is_killed(connect):
    def declare() -> object:
        connection = connect()
        declared(connection.default_channel, 'q', exclusive=True)
        return connection

    kill(in_child(declare))
    with pytest.raises(NotFound):  # a new connection looks
        kombu.Queue('q')(connect().default_channel).queue_declare(passive=True)


def test_an_auto_delete_queue_goes_with_its_last_consumer_and_what_it_held(connect, files):
    one, two = connect().default_channel, connect().default_channel
    queue = declared(one, 'q', auto_delete=True, exchange=kombu.Exchange('e', type='fanout'))
    put(two, 'x', 'q')
    consumer, other = (
        kombu.Consumer(one, queue, auto_declare=False),
        kombu.Consumer(two, queue, auto_declare=False),
    )
    consumer.consume()
    other.consume()
    consumer.cancel()
    assert files('q') != []
    two.close()
    assert files('.run/declared') == ['.exchanges', '.lock']
    assert one.list_bindings() == []


def test_an_expiring_queue_goes_in_its_time(connect):
    channel = connect().default_channel
    declared(channel, 'q', expires=0.2)
    assert eventually(channel.spool_connection.spool.delete_unused_queues, 'expired') == ['q']


def test_queues_of_the_configuration_are_used_as_they_are(connect, tmp_path, spool_path):
    (tmp_path / 'switchboard.cfg').write_text(
        f'[switchboard]\nspool = {spool_path}\ndurability = lazy\n[queue.in]\nexternal = yes\nttl = 1h\n'
    )
    (tmp_path / 'exchange.cfg').write_text('[exchange.mail]\ntype = topic\nbindings =\n    in.# -> in\n')
    channel = connect(config=tmp_path / 'switchboard.cfg').default_channel
    queue = declared(channel, 'in')
    kombu.Exchange('mail', type='topic')(channel).declare()
    put(channel, 'x', 'in.box', exchange='mail')
    assert got(queue) == [['x']]
    with pytest.raises(PreconditionFailed):
        declared(channel, 'in', message_ttl=5)
    with pytest.raises(PreconditionFailed):
        channel.queue_delete('in')


def test_exchanges_that_kombu_declares_are_there_for_plain_programs(channel, spool_path):
    queue = declared(channel, 'in', exchange=kombu.Exchange('e', type='topic'), routing_key='a.#')
    Spool(spool_path, durability='lazy').publish({'n': 1}, exchange='e', routing_key='a.b')
    assert got(queue) == [[{'n': 1}]]
