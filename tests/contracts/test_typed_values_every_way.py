"""Values of types that JSON does not have come back equal and of the same type, whichever way a message takes."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import kombu
import pytest

from switchboard import Runner, Spool
from switchboard.brokers.encode import encode, encode_entry
from switchboard.brokers.message import Delivery
from switchboard.errors import PermanentFailure, TemporaryFailure
from switchboard.message.entry import read_entry
from switchboard.message.entry_header import content_checksum, pack_header
from switchboard.message.metadata import FIXED_METADATA
from switchboard.message.naming import make_filebase
from switchboard.message.typed_json import is_equal
from switchboard.options import QueueOptions, RunnerOptions
from switchboard.routing.headers import HeaderIndex, HeaderMatch
from switchboard.testing import FakeClock
from tests.helpers.commands import succeed
from tests.helpers.deliveries import read_delivery
from tests.helpers.runs import Recorder

VALUES: dict[str, Any] = {
    'naive': datetime.fromisoformat('2026-11-28T18:00:00.000001'),
    'aware': datetime(2026, 11, 28, 18, 0, tzinfo=UTC),
    'date': date(2026, 11, 28),
    'time': time(18, 0, 1),
    'timedelta': timedelta(days=-1, microseconds=1),
    'decimal': Decimal('1.50'),
    'uuid': uuid.UUID(int=7),
    'bytes': b'text',
    'more bytes': b'\xff\x00',
    'tuple': (1, (2, [3])),
    'recipients': {'ann@example.com', 'bob@example.com'},
    'frozenset': frozenset((date(2026, 1, 1), ('x', b'y'))),
    'nested': [{'a': ({'b': Decimal(1)},)}],
    'looks like a tag': {'__type__': 'set', '__value__': [1]},
    'unknown tag': {'__type__': 'os.system', '__value__': 'true'},
}


def kept(msgdata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in msgdata.items() if key not in FIXED_METADATA}


def assert_same(msg: Any, msgdata: dict[str, Any]) -> None:
    assert is_equal(msg, VALUES), msg
    assert is_equal(kept(msgdata), VALUES), msgdata


def take(spool: Any, queue: str) -> tuple[Any, dict[str, Any]]:
    [filebase] = spool[queue].get_files()
    msg, msgdata = spool[queue].dequeue(filebase)
    spool[queue].finish(filebase)
    return msg, msgdata


def test_enqueue_and_publish(spool: Spool) -> None:
    spool['in'].enqueue(VALUES, VALUES)
    assert_same(*take(spool, 'in'))
    spool['in']
    spool.publish(VALUES, VALUES, routing_key='in')
    assert_same(*take(spool, 'in'))


@pytest.mark.parametrize('value', list(VALUES.values()), ids=list(VALUES))
def test_each_may_be_a_body(spool: Spool, value: Any) -> None:
    spool['in'].enqueue(value)
    msg, _ = take(spool, 'in')
    assert is_equal(msg, value)


def test_emit_keep_retry_and_a_dead_letter(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = Spool(tmp_path / 'spool', 'lazy', clock=clock, options=QueueOptions(dead_letter='dead'))

    def then(runner: Runner, msg: Any, msgdata: dict[str, Any]) -> object:
        round_ = len(runner.seen)
        if round_ == 1:
            msgdata.update(VALUES)
            return True
        if round_ == 2:
            raise TemporaryFailure('later')
        runner.emit('out', msg, msgdata)
        if round_ == 3:
            return None
        raise PermanentFailure('no')

    runner = Recorder(spool, RunnerOptions('r', 'x:X', queue='in'), clock=clock, then=then)
    spool['in'].enqueue(VALUES)
    for _ in range(3):
        runner.run(until_empty=True)
        clock.advance(4000)
    assert_same(*take(spool, 'out'))
    assert len(runner.seen) == 3
    for msg, msgdata in runner.seen[1:]:
        assert_same(msg, msgdata)
    spool['in'].enqueue(VALUES, VALUES)
    runner.run(until_empty=True)
    assert_same(*take(spool, 'dead'))


def test_edit_and_retry_by_hand(spool: Spool, tmp_path: Path) -> None:
    queue = spool['in']
    queue.enqueue(VALUES, VALUES)
    [filebase] = queue.files
    queue.dequeue(filebase)
    queue.finish(filebase, preserve=True)
    at = ('-s', tmp_path / 'spool')
    succeed(*at, 'edit', filebase, '--set', 'more:={"__type__":"set","__value__":[1]}', '--to', 'in')
    msg, msgdata = take(spool, 'in')
    assert is_equal(msgdata.pop('more'), {1})
    assert_same(msg, msgdata)


def test_the_command_line_puts_them_in_and_shows_them(spool: Spool, tmp_path: Path) -> None:
    spool['out'].enqueue(VALUES, VALUES)
    at = ('-s', tmp_path / 'spool')
    [filebase] = spool['out'].files
    [shown] = succeed(*at, 'show', '--json', filebase).objects
    assert 'ann@example.com' in succeed(*at, 'show', filebase).out
    pairs = [
        f'{key}:={json.dumps(value)}' for key, value in shown['metadata'].items() if key not in FIXED_METADATA
    ]
    words = [word for pair in pairs for word in ('-m', pair)]
    succeed(*at, 'enqueue', 'in', '--kind', 'json', *words, input=shown['body'].encode())
    assert_same(*take(spool, 'in'))


@pytest.mark.parametrize('more', [(), ({'event': 'kept', 'set': {'set': {1}}},)])
def test_a_broker_and_back(spool: Spool, more: Any) -> None:
    queue = spool['in']
    filebase = queue.enqueue(VALUES, VALUES)
    letters = [encode(VALUES, VALUES, message_id='0' * 40)]
    content = (Path(queue.queue_directory) / f'{filebase}.pck').read_bytes()
    letters.append(encode_entry(read_entry(filebase, content), more))
    for letter in letters:
        headers = json.loads(json.dumps(letter.headers))
        msg, msgdata, _ = read_delivery(Delivery('q', letter.body, headers, dict(letter.properties)))
        if letter is letters[1] and more:
            assert is_equal(msgdata.pop('set'), {1})
        assert_same(msg, msgdata)


def test_kombu_both_ways(spool: Spool, tmp_path: Path) -> None:
    spool['q'].enqueue(VALUES, VALUES)
    with kombu.Connection(f'switchboard://{tmp_path}/spool') as connection:
        queue = connection.SimpleQueue('q')
        message = queue.get(block=False)
        assert is_equal(message.payload, VALUES)
        assert is_equal(kept(message.headers), VALUES)
        message.ack()
        known = {
            key: value
            for key, value in VALUES.items()
            if key in ('naive', 'date', 'decimal', 'uuid', 'bytes')
        }
        queue.put(known, headers={'known': known, 'tag': VALUES['looks like a tag']})
        queue.put({}, headers={'tag': VALUES['looks like a tag']})
        first, second = queue.get(block=False), queue.get(block=False)
        assert is_equal(first.payload, known)
        assert is_equal(first.headers['known'], known)
        assert second.headers['tag'] == VALUES['looks like a tag']
        first.ack()
        second.ack()
        queue.close()


def test_a_program_that_writes_files_by_itself(spool: Spool) -> None:
    queue = spool['in']
    spool['out'].enqueue(VALUES, VALUES)
    [source] = (Path(queue.queue_directory).parent / 'out').glob('*.pck')
    head, _, rest = source.read_bytes().partition(b'\n')
    metadata_length = int(head.split()[2])
    metadata, body = rest[:metadata_length], rest[metadata_length:]
    digest = '0' * 40
    header = pack_header('json', len(metadata), len(body), digest, content_checksum(metadata, body))
    (Path(queue.queue_directory) / (make_filebase(10**18, digest) + '.pck')).write_bytes(
        header + metadata + body
    )
    assert_same(*take(spool, 'in'))


@pytest.mark.parametrize(
    ('key', 'text'),
    [
        ('naive', '2026-11-28T18:00:00.000001'),
        ('aware', '2026-11-28T18:00:00+00:00'),
        ('date', '2026-11-28'),
        ('time', '18:00:01'),
        ('decimal', '1.50'),
        ('uuid', '00000000-0000-0000-0000-000000000007'),
        ('bytes', 'text'),
    ],
)
def test_a_headers_exchange_compares_them_by_their_text(key: str, text: str) -> None:
    index = HeaderIndex([HeaderMatch('all', ((key, text),)), HeaderMatch('all', ((key, text + '0'),))])
    assert index.match(VALUES) == [0]


@pytest.mark.parametrize('key', ['more bytes', 'tuple', 'recipients', 'frozenset', 'looks like a tag'])
def test_what_has_no_text_can_only_be_asked_to_be_there(key: str) -> None:
    there, equal = HeaderMatch('all', ((key, None),)), HeaderMatch('all', ((key, str(VALUES[key])),))
    assert HeaderIndex([there, equal]).match(VALUES) == [0]
    assert 'no plain value' in equal.explain_mismatch(VALUES)


def test_a_timedelta_has_its_seconds_for_text() -> None:
    assert HeaderIndex([HeaderMatch('all', (('wait', '90'),))]).match({'wait': timedelta(minutes=1.5)}) == [0]
