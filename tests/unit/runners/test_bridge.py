"""A bridge to a broker: what goes out when, and what stays where it is while the broker is away; and what a section must say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip('kombu')

from switchboard.brokers.message import HISTORY_HEADER
from switchboard.errors import (
    ConfigError,
    DestinationDown,
    MessageTooLargeError,
    QueueError,
    QueueFullError,
    QueueMismatchError,
    UnserializableError,
)
from switchboard.runners.bridge import ToBroker
from switchboard.runners.bridge_remote import PATH_HEADER, PATH_KEY, arguments, remote_targets
from tests.unit.runners.bridges import IN, OUT, Bridged


@pytest.fixture
def out(tmp_path: Path) -> Bridged:
    return Bridged(tmp_path, OUT)


def test_a_batch_is_published_at_once_and_then_finished(out: Bridged) -> None:
    out.spool['out'].enqueue_many(['a', 'b', 'c'])
    out.turn(out.bridge('up'))
    assert out.broker.publications == [[b'a', b'b', b'c']]
    assert out.broker.bodies('orders') == [b'a', b'b', b'c']
    assert out.spool['out'].get_files() == []
    assert out.links[0].is_closed


def test_what_is_to_be_there_is_declared_once_for_each_connection(out: Bridged) -> None:
    out.spool['out'].enqueue('a')
    runner = out.bridge('up')
    out.turn(runner)
    assert dict(out.links[0].calls) == {
        'declare orders topic': 1,
        'declare orders None': 1,
        'bind orders orders ': 1,
    }


def test_what_is_deleted_at_the_broker_while_a_connection_lasts_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Bridged(tmp_path, OUT.replace('[queue.out]', 'unroutable = bad\n[queue.out]'))
    out.spool['out'].enqueue_many(['a', 'b'])
    runner = out.bridge('up')
    connect = runner.connect

    def connect_and_lose_all() -> None:
        connect()
        out.broker.queues.clear()
        out.broker.exchanges.clear()

    monkeypatch.setattr(runner, 'connect', connect_and_lose_all)
    out.turn(runner)
    assert out.broker.bodies('orders') == [b'a', b'b']
    assert out.spool['out'].get_files() == []


def test_the_id_is_the_entrys_digest_however_often_it_is_sent(out: Bridged) -> None:
    filebase = out.spool['out'].enqueue('a')
    out.turn(out.bridge('up'))
    [delivery] = out.broker.queues['orders']
    assert delivery.message_id == filebase.partition('+')[2]
    assert delivery.headers[PATH_HEADER] == ['here']


def test_while_the_broker_is_away_nothing_is_tried_written_or_lost(out: Bridged) -> None:
    filebases = out.spool['out'].enqueue_many(['a', 'b'])
    out.broker.is_down = True
    for _ in range(5):
        out.turn(out.bridge('up'))
    assert out.spool['out'].get_files() == filebases
    for filebase in filebases:
        out.spool['out'].dequeue(filebase)
        assert out.spool['out'].history(filebase) == []
        out.spool['out'].release(filebase)
    out.broker.is_down = False
    out.turn(out.bridge('up'))
    assert out.broker.bodies('orders') == [b'a', b'b']


def test_what_the_broker_refuses_for_now_stays_and_the_rest_is_finished(out: Bridged) -> None:
    out.spool['out'].enqueue_many(['a', 'full', 'c'])
    out.broker.refusals[b'full'] = QueueFullError('no room')
    out.turn(out.bridge('up'))
    assert out.contents('out') == ['full']
    assert out.broker.bodies('orders') == [b'a', b'c']


def test_what_no_queue_takes_is_tried_again_by_the_queues_policy(tmp_path: Path) -> None:
    out = Bridged(tmp_path, OUT.replace('remote_queue = orders\n', ''))
    out.spool['out'].enqueue('a', routing_key='nobody')
    out.turn(out.bridge('up'))
    [record] = out.history('out')
    assert (record['event'], record['error']) == ('deferred', 'TemporaryFailure')
    assert 'no queue of the broker takes it' in record['message']


def test_or_goes_to_bad_at_once_where_that_is_wanted(tmp_path: Path) -> None:
    text = OUT.replace('remote_queue = orders\n', 'unroutable = bad\n')
    out = Bridged(tmp_path, text)
    out.spool['out'].enqueue('a')
    out.turn(out.bridge('up'))
    assert 'no queue of the broker takes it' in out.reason()


@pytest.mark.parametrize('error', [MessageTooLargeError, UnserializableError])
def test_what_can_never_be_sent_goes_to_bad(out: Bridged, error: type[QueueError]) -> None:
    out.spool['out'].enqueue('large')
    out.broker.refusals[b'large'] = error('too large')
    out.turn(out.bridge('up'))
    assert 'too large' in out.reason()


def test_metadata_and_history_go_along(out: Bridged) -> None:
    filebase = out.spool['out'].enqueue({'n': 1}, colour='red', dedupe_key='mine')
    out.spool['out'].dequeue(filebase)
    out.spool['out'].release(filebase, record={'event': 'failed', 'traceback': 'x' * 5000})
    out.turn(out.bridge('up'))
    [delivery] = out.broker.queues['orders']
    assert json.loads(delivery.body) == {'n': 1}
    assert delivery.headers['colour'] == 'red'
    assert 'dedupe_key' not in delivery.headers
    [record] = json.loads(delivery.headers[HISTORY_HEADER])
    assert (record['event'], len(record['traceback'])) == ('failed', 5000)


def test_a_history_stays_here_unless_it_is_to_go_along(tmp_path: Path) -> None:
    out = Bridged(tmp_path, OUT.replace('send_history = yes\n', ''))
    filebase = out.spool['out'].enqueue('a')
    out.spool['out'].dequeue(filebase)
    out.spool['out'].release(filebase, record={'event': 'failed', 'traceback': 'secret'})
    out.turn(out.bridge('up'))
    [delivery] = out.broker.queues['orders']
    assert 'secret' not in repr(delivery)
    assert HISTORY_HEADER not in delivery.headers


def test_the_type_of_an_exchange_is_told_where_it_is_not_declared(tmp_path: Path) -> None:
    out = Bridged(tmp_path, OUT.replace('remote_queue = orders\n', 'declare = no\n'))
    out.broker.exchanges['orders'] = set()
    out.spool['out'].enqueue('a')
    out.turn(out.bridge('up'))
    assert out.links[-1].calls == {'expect orders topic': 1}


def test_a_time_to_live_goes_along_and_the_broker_is_not_told(out: Bridged) -> None:
    out.spool['out'].enqueue('a', ttl=60)
    out.turn(out.bridge('up'))
    [delivery] = out.broker.queues['orders']
    assert 'expiration' not in delivery.properties
    assert delivery.headers['expires'] == pytest.approx(out.clock.time_ns() / 1e9 + 60, abs=1)


def test_a_message_that_goes_in_a_circle_ends_in_bad(out: Bridged) -> None:
    out.spool['out'].enqueue('a', {PATH_KEY: [f'site {number}' for number in range(8)]})
    out.spool['out'].enqueue('b', {PATH_KEY: [f'site {number}' for number in range(7)]})
    out.turn(out.bridge('up'))
    assert 'has been through 8 bridges: site 0 -> site 1' in out.reason()
    assert out.broker.bodies('orders') == [b'b']


def test_the_key_is_made_of_the_metadata(tmp_path: Path) -> None:
    text = OUT.replace(
        'origin_name = here', 'origin_name = here\nremote_routing_key = {kind}.{place|nowhere}'
    )
    out = Bridged(tmp_path, text)
    out.spool['out'].enqueue('a', kind='order')
    out.spool['out'].enqueue('b')
    out.turn(out.bridge('up'))
    assert [delivery.routing_key for delivery in out.broker.queues['orders']] == ['order.nowhere']
    assert 'needs kind' in out.reason()


@pytest.mark.parametrize(
    ('section', 'old', 'new', 'reason'),
    [
        (OUT, 'queue = out', 'queue =', 'names the local queue'),
        (OUT, 'url = amqp://broker', 'url = ftp://broker', 'no broker'),
        (
            OUT,
            'remote_exchange = orders\nremote_queue = orders\n',
            '',
            'give remote_exchange or remote_queue',
        ),
        (
            OUT,
            'origin_name = here',
            'remote_bindings = a\nremote_exchange_type = odd',
            'is none of direct, topic',
        ),
        (
            OUT,
            'url = amqp://broker',
            'remote_exchange_type = headers\nurl = redis://broker/0',
            'no headers exchange',
        ),
        (
            OUT,
            'url = amqp://broker',
            'remote_exchange_type = fanout\nurl = redis://broker/0',
            'stores nothing',
        ),
        (IN, 'queue =\n', 'queue = in\n', 'leave it empty'),
        (IN, 'remote_queue = invoices', 'remote_exchange = e', 'needs this key'),
        (IN, 'routing_key = in\n', '', 'give a local exchange, or a routing_key'),
        (IN, 'origin_name = here', 'remote_bindings = a.b', 'needs remote_exchange and remote_queue'),
        (IN, 'origin_name = here', 'remote_arguments = x', 'write name=value'),
        (IN, 'origin_name = here', 'prefetch = 0', 'out of range'),
        (IN, 'origin_name = here', 'heartbeat = 5', 'is not a duration'),
        (IN, 'routing_key = in', 'routing_key = nowhere', 'no such queue'),
        (IN, 'routing_key = in', 'exchange = nowhere', "there is no exchange 'nowhere'"),
    ],
)
def test_a_section_that_cannot_work_is_refused(
    tmp_path: Path, section: str, old: str, new: str, reason: str
) -> None:
    assert old in section
    with pytest.raises(ConfigError, match=reason):
        Bridged(tmp_path, section.replace(old, new, 1)).bridge('up' if section is OUT else 'down').setup()


@pytest.mark.parametrize(
    ('where', 'is_circle'),
    [
        ('remote_exchange = orders\nremote_queue = mine', True),
        ('remote_queue = orders', False),
        ('remote_exchange = others\nremote_queue = mine', False),
    ],
)
def test_who_takes_from_where_another_runner_publishes_to_must_say_what_is_meant(
    tmp_path: Path, where: str, is_circle: bool
) -> None:
    text = OUT + IN.replace('remote_queue = invoices', where)
    if is_circle:
        with pytest.raises(ConfigError, match='runner up publishes to where this one takes from'):
            Bridged(tmp_path, text).bridge('down')
        text = text.replace('routing_key = in', 'routing_key = in\nown = skip')
    Bridged(tmp_path / 'well', text).bridge('down')


def test_arguments_are_numbers_truths_and_words() -> None:
    assert arguments('x-queue-type=quorum x-max-length=10 a=-1 b=true "c=two words"') == {
        'x-queue-type': 'quorum',
        'x-max-length': 10,
        'a': -1,
        'b': True,
        'c': 'two words',
    }


def test_the_password_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / 'secret').write_text('p@ss/word\nmore\n')
    address = 'amqp://shop@broker.example.com:5673/vhost'
    text = OUT.replace(
        'amqp://broker.example.com//', f'{address}\npassword_file = {tmp_path}/secret\nheartbeat = 7s'
    )
    runner = Bridged(tmp_path, text).runner(ToBroker, 'up')
    url = runner.broker_url()
    assert (url.address, url.heartbeat_s) == ('amqp://shop:p%40ss%2Fword@broker.example.com:5673/vhost', 7)
    assert 'p@ss' not in runner.make_connection().url
    (tmp_path / 'secret').unlink()
    with pytest.raises(ConfigError, match='password_file: cannot be read'):
        runner.make_connection()


def test_the_password_is_that_of_each_address(tmp_path: Path) -> None:
    (tmp_path / 'secret').write_text('pw\n')
    addresses = 'amqp://me%40site@a.example.com:5672;amqp://you@b.example.com//'
    text = OUT.replace('amqp://broker.example.com//', f'{addresses}\npassword_file = {tmp_path}/secret')
    url = Bridged(tmp_path, text).runner(ToBroker, 'up').broker_url()
    assert url.address == 'amqp://me%40site:pw@a.example.com:5672;amqp://you:pw@b.example.com//'


def test_the_first_of_several_addresses_names_the_broker() -> None:
    settings = {'url': 'amqp://me@a:5673;amqp://me@b:5672//', 'remote_queue': 'q'}
    assert remote_targets(settings) == ('a:5673', '', 'q')


def test_what_the_broker_forbids_is_waited_for_and_no_fault_of_the_message(tmp_path: Path) -> None:
    runner = Bridged(tmp_path, OUT).runner(ToBroker, 'up')
    assert isinstance(runner.as_runner_error(QueueMismatchError('403')), DestinationDown)
