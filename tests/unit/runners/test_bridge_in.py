"""A bridge from a broker: what comes in how often, and what stays there while something is full."""

from __future__ import annotations

import logging
import tracemalloc
import zlib
from pathlib import Path

import pytest

pytest.importorskip('kombu')

from switchboard.brokers.encode import encode
from switchboard.brokers.message import HISTORY_HEADER, UNREADABLE_HEADER, OutgoingMessage
from switchboard.runners import bridge_arrivals
from switchboard.runners.bridge_remote import PATH_HEADER, PATH_KEY
from tests.unit.runners.bridges import IN, Bridged, letter


@pytest.fixture
def inward(tmp_path: Path) -> Bridged:
    made = Bridged(tmp_path, IN)
    made.turn(made.bridge('down'))  # declares
    return made


def put(inward: Bridged, *letters: OutgoingMessage) -> None:
    for one in letters:
        inward.broker.put('invoices', one, 'billing', 'paid')


def test_all_that_is_there_is_stored_and_acknowledged_in_order(inward: Bridged) -> None:
    put(inward, *(letter(str(number), str(number)) for number in range(250)))
    runner = inward.bridge('down')
    inward.turn(runner)
    assert inward.contents('in') == [str(number) for number in range(250)]
    assert inward.links[-1].prefetch == 100
    assert inward.links[-1].calls['flush_acks'] == 3
    assert inward.broker.bodies('invoices') == []


def test_metadata_and_history_are_those_of_the_other_side(inward: Bridged) -> None:
    record = {'event': 'failed', 'time': 5.0, 'error': 'E'}
    one = encode({'n': 1}, {'colour': 'red'}, message_id='1' * 40, history=[record])
    one.headers[PATH_HEADER] = ['there']
    put(inward, one)
    inward.turn(inward.bridge('down'))
    elsewhere, bridged = inward.history('in')
    assert elsewhere == {'event': 'elsewhere', 'time': 5.0, 'site': 'there', 'record': record}
    assert (bridged['event'], bridged['from']) == ('bridged', 'memory://broker/ invoices')
    msg, msgdata = inward.take('in')
    assert msg == {'n': 1}
    assert msgdata['colour'] == 'red'
    assert msgdata[PATH_KEY] == ['there']
    assert (msgdata['exchange'], msgdata['routing_key']) == ('billing', 'paid')
    assert not [key for key in msgdata if key.startswith('x-')]


def test_what_the_broker_gives_out_again_is_acknowledged_and_not_stored(inward: Bridged) -> None:
    put(inward, letter('a', '1'), letter('b', '2'))
    inward.turn(inward.bridge('down'))
    put(inward, letter('b', '2'), letter('c', '3'), letter('c', '3'))
    inward.turn(inward.bridge('down'))
    assert inward.contents('in') == ['a', 'b', 'c']
    assert inward.broker.bodies('invoices') == []


def test_an_id_with_another_body_is_another_message(inward: Bridged) -> None:
    put(inward, letter('a', '1'), letter('b', '1'), letter('no id'), letter('no id'))
    inward.turn(inward.bridge('down'))
    assert inward.contents('in') == ['a', 'b', 'no id', 'no id']


def test_it_is_known_for_the_window_of_the_queue_and_no_longer(inward: Bridged) -> None:
    put(inward, letter('a', '1'))
    inward.turn(inward.bridge('down'))
    inward.clock.advance(86_401)
    put(inward, letter('a', '1'))
    inward.turn(inward.bridge('down'))
    assert inward.contents('in') == ['a', 'a']


def test_headers_of_strangers_take_no_effect_by_chance(inward: Bridged) -> None:
    one = letter('a', '1', delay=5000, ttl='short', priority=70, colour='red')
    one.properties['priority'] = 200
    put(inward, one)
    inward.turn(inward.bridge('down'))
    msgdata = inward.take('in')[1]
    assert {key: msgdata[key] for key in ('remote_delay', 'remote_ttl', 'remote_priority')} == {
        'remote_delay': 5000,
        'remote_ttl': 'short',
        'remote_priority': 70,
    }
    assert (msgdata['priority'], msgdata['colour']) == (9, 'red')


def test_even_what_has_too_many_headers_is_put_aside(inward: Bridged) -> None:
    many = {f'{number}': 'x' * 5000 for number in range(4000)}
    put(inward, letter('a', '1', **many), letter('b', '2', odd=float('nan')))
    inward.turn(inward.bridge('down'))
    assert len(inward.spool['bad'].get_files('.psv')) == 2
    assert inward.broker.bodies('invoices') == []


def test_kombus_form_is_what_consumers_of_the_spool_by_kombu_expect(tmp_path: Path) -> None:
    inward = Bridged(tmp_path, IN.replace('origin_name = here', 'origin_name = here\nformat = kombu'))
    inward.turn(inward.bridge('down'))
    put(inward, OutgoingMessage(b'[1]', {'task': 'add'}, {'content_type': 'application/json', 'priority': 3}))
    inward.turn(inward.bridge('down'))
    msg, msgdata = inward.take('in')
    assert (msg['body'], msg['content-type'], msg['headers']) == (
        'WzFd',
        'application/json',
        {'task': 'add'},
    )
    assert msg['properties']['body_encoding'] == 'base64'
    assert msgdata['priority'] == 3


@pytest.mark.parametrize('form', ['message', 'kombu'])
def test_a_message_whose_headers_could_not_be_read_is_put_aside_with_the_reason(
    form: str, tmp_path: Path
) -> None:
    inward = Bridged(tmp_path, IN.replace('origin_name = here', f'origin_name = here\nformat = {form}'))
    inward.turn(inward.bridge('down'))
    put(inward, OutgoingMessage(b'x', {UNREADABLE_HEADER: 'its properties cannot be read'}, {}))
    inward.turn(inward.bridge('down'))
    assert inward.contents('in') == []
    bad = inward.spool['bad']
    [filebase] = bad.get_files('.psv')
    assert bad.peek(filebase).body == b'x'
    assert 'its properties cannot be read' in bad.history(filebase)[-1]['reason']


def test_what_cannot_be_read_or_routed_goes_to_bad_as_it_came(tmp_path: Path) -> None:
    inward = Bridged(tmp_path, IN.replace('routing_key = in', 'routing_key = {queue|in}'))
    inward.turn(inward.bridge('down'))
    broken = OutgoingMessage(b'{', {'x-odd': 1}, {'content_type': 'application/json', 'message_id': '1'})
    put(inward, broken, letter('lost', '2', queue='nowhere'), letter('good', '3'))
    inward.turn(inward.bridge('down'))
    assert inward.contents('in') == ['good']
    bad = inward.spool['bad']
    found = {bad.peek(one).body: bad.history(one)[-1]['reason'] for one in bad.get_files('.psv')}
    assert found.keys() == {b'{', b'lost'}
    assert 'UnknownQueueError' in found[b'lost']
    assert inward.broker.bodies('invoices') == []
    put(inward, broken)
    inward.turn(inward.bridge('down'))
    assert len(bad.get_files('.psv')) == 2


def test_while_the_queue_is_full_what_was_fetched_stays_with_the_broker(tmp_path: Path) -> None:
    inward = Bridged(
        tmp_path, IN.replace('routing_key = in', 'routing_key = in\nprefetch = 3') + 'max_messages = 2\n'
    )
    inward.turn(inward.bridge('down'))
    put(inward, *(letter(str(number), str(number)) for number in range(5)))
    runner = inward.bridge('down')
    waits: list[float] = []
    runner.wake_after = waits.append
    runner.setup()
    for _ in range(8):
        runner.periodic()
    assert inward.contents('in') == ['0', '1']
    assert len(inward.links[-1].held) == 3  # no more than it may have
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    for _ in range(2):
        taken = inward.spool['in'].take()
        inward.spool['in'].finish(taken.filebase)
    runner.periodic()
    assert inward.contents('in') == ['2', '3']
    runner.cleanup()
    assert inward.broker.bodies('invoices') == [b'4']


def test_when_the_connection_breaks_what_was_fetched_is_forgotten_and_comes_again(
    inward: Bridged, caplog: pytest.LogCaptureFixture
) -> None:
    inward.spool.drain('in')
    put(inward, letter('a', '1'))
    runner = inward.bridge('down')
    runner.setup()
    with caplog.at_level(logging.INFO):
        runner.periodic()
    assert [one.levelname for one in caplog.records if one.members['event'] == 'cannot take messages'] == [
        'INFO'
    ]
    assert len(inward.links[-1].held) == 1
    inward.links[-1].break_off()
    inward.spool.resume('in')
    runner.periodic()
    assert inward.contents('in') == ['a']
    assert inward.links[-1].held == {}
    assert inward.history('in')[-1]['redelivered'] is True


def test_while_the_broker_is_away_it_is_asked_again_after_the_time_it_says(inward: Bridged) -> None:
    runner = inward.bridge('down')
    waits: list[float] = []
    runner.wake_after = waits.append
    runner.setup()
    inward.broker.is_down = True
    runner.periodic()
    assert waits == [0.5]
    inward.broker.is_down = False
    put(inward, letter('a', '1'))
    runner.periodic()
    assert inward.contents('in') == ['a']


def test_through_an_exchange_all_copies_are_stored_or_none(tmp_path: Path) -> None:
    text = IN.replace('routing_key = in', 'exchange = here') + '[queue.copy]\nexternal = yes\n'
    inward = Bridged(tmp_path, text, '[exchange.here]\ntype = topic\nbindings =\n    # -> in, copy\n')
    inward.turn(inward.bridge('down'))
    put(inward, letter('a', '1'), letter('a', '1'))
    inward.turn(inward.bridge('down'))
    assert inward.contents('in') == inward.contents('copy') == ['a']
    msgdata = inward.take('copy')[1]
    assert (msgdata['exchange'], msgdata['routing_key']) == ('here', 'paid')


def test_what_was_sent_from_here_is_left_where_that_is_wanted(tmp_path: Path) -> None:
    for own, expected in (('skip', ['theirs', 'through us']), ('accept', ['ours', 'theirs', 'through us'])):
        inward = Bridged(
            tmp_path / own, IN.replace('origin_name = here', f'origin_name = here\nown_messages = {own}')
        )
        inward.turn(inward.bridge('down'))
        put(
            inward,
            letter('ours', '1', **{PATH_HEADER: ['there', 'here']}),
            letter('theirs', '2', **{PATH_HEADER: ['there']}),
            letter('through us', '3', **{PATH_HEADER: ['here', 'there']}),
        )
        inward.turn(inward.bridge('down'))
        assert inward.contents('in') == expected
        assert inward.broker.bodies('invoices') == []


def test_a_history_of_a_stranger_that_is_none_is_put_aside_and_stops_nothing(inward: Bridged) -> None:
    for number, history in enumerate(('[1]', '["x"]', '{"a": 1}', '{')):
        one = encode(str(number), {}, message_id=str(number) * 40)
        one.headers[HISTORY_HEADER] = history
        put(inward, one)
    put(inward, letter('good', '9'))
    inward.turn(inward.bridge('down'))
    assert inward.contents('in') == ['good']
    assert len(inward.spool['bad'].get_files('.psv')) == 4
    assert inward.broker.bodies('invoices') == []


def test_of_many_compressed_bodies_only_some_are_in_memory_at_once(
    inward: Bridged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_arrivals, 'GROUP_BYTES', 4_000_000)
    body = zlib.compress(bytes(2_000_000))
    put(
        inward,
        *(
            OutgoingMessage(body, {'compression': 'application/x-gzip'}, {'message_id': str(one)})
            for one in range(40)
        ),
    )
    runner = inward.bridge('down')
    tracemalloc.start()
    try:
        inward.turn(runner)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(inward.spool['in'].files) == 40
    assert peak_bytes < 30_000_000
