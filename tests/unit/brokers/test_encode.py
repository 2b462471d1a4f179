"""What goes to a broker, and that it comes back as it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.brokers.decode import entry_of, filebase_of
from switchboard.brokers.encode import encode, encode_entry
from switchboard.brokers.message import HISTORY_HEADER, METADATA_HEADER, Delivery, OutgoingMessage
from switchboard.brokers.redis.payload import unpack
from switchboard.errors import ContentDisallowedError, CorruptEntryError, MessageTooLargeError
from switchboard.extra.kombu import content
from switchboard.message.journal import count_since_retry
from switchboard.message.naming import digest_of, is_filebase
from switchboard.message.serializers import Serializers
from tests.helpers.deliveries import read_delivery

DIGEST = '0123456789' * 4


def delivered(outgoing: OutgoingMessage) -> Delivery:
    # As AMQP and Redis do: what is not text or a number by JSON's rules would not arrive.
    return Delivery('q', outgoing.body, json.loads(json.dumps(outgoing.headers)), dict(outgoing.properties))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.text(max_size=8).filter(
    lambda key: key[:1] != '_' and key not in ('version', 'delay', 'not_before')
)


@given(msg=JSON | st.binary(), metadata=st.dictionaries(KEYS, JSON, max_size=4))
def test_message_and_metadata_come_back_equal(msg: Any, metadata: dict[str, Any]) -> None:
    outgoing = encode(msg, metadata, message_id=DIGEST, history=[{'event': 'x'}])
    back, msgdata, history = read_delivery(delivered(outgoing))
    assert (back, type(back)) == (msg, type(msg))
    assert msgdata == {**metadata, 'version': 3, '_parsemsg': False}
    assert history == [{'event': 'x'}]


def test_a_header_holds_what_a_header_can_and_json_the_rest() -> None:
    metadata = {'n': 2**63 - 1, 'big': 2**63, 'x-death': 'ours', 'bad\udc80': 1, 'list': [None, {'a': 1.5}]}
    headers = encode('x', metadata, message_id=DIGEST).headers
    assert (headers['n'], headers['list']) == (2**63 - 1, [None, {'a': 1.5}])
    assert json.loads(headers[METADATA_HEADER]) == {'big': 2**63, 'x-death': 'ours', 'bad\udc80': 1}


def test_others_can_read_it() -> None:
    mail = EmailMessage()
    mail['Subject'] = 'hello'
    for msg, content_type in (
        (mail, 'message/rfc822'),
        ({'a': 1}, 'application/json'),
        ('text', 'text/plain'),
        (b'\0', 'application/data'),
    ):
        properties = encode(msg, {'priority': 4, 'reply_to': 'me'}, message_id=DIGEST).properties
        assert properties['content_type'] == content_type
        assert (properties['message_id'], properties['delivery_mode']) == (DIGEST, 2)
        assert (properties['priority'], properties['reply_to']) == (4, 'me')


def test_a_time_to_live_is_told_as_what_is_left_of_it() -> None:
    outgoing = encode('x', {'expires': datetime.now(UTC).timestamp() + 60}, message_id=DIGEST)
    assert 50_000 < int(outgoing.properties['expiration']) <= 60_000


def test_metadata_beyond_a_frame_are_refused_and_a_long_history_keeps_its_end() -> None:
    with pytest.raises(MessageTooLargeError):
        encode('x', {'a': 'x' * 100_000}, message_id=DIGEST)
    history = [{'event': 'failed', 'n': number, 'traceback': 'x' * 8000} for number in range(50)]
    outgoing = encode('x', {}, message_id=DIGEST, history=history)
    kept = json.loads(outgoing.headers[HISTORY_HEADER])
    assert kept[-1]['n'] == 49
    assert 'traceback' in kept[-1]
    assert len(json.dumps(outgoing.headers)) < 100_000


@pytest.mark.parametrize('tracebacks', [True, False])
def test_tracebacks_stay_at_home_if_they_are_to_and_what_counts_goes_along(tracebacks: bool) -> None:
    entry = entry_of(delivered(encode_entry(entry_of(delivered(encode('x', {}, message_id=DIGEST))))))
    record = {'event': 'failed', 'error': 'no', 'traceback': 'x', 'set': {'n': 2}}
    sent = delivered(encode_entry(entry, (record,), tracebacks=tracebacks))
    assert ('traceback' in sent.headers[HISTORY_HEADER]) == tracebacks
    (failed,) = entry_of(sent).records
    assert failed['error'] == 'no'
    assert read_delivery(sent)[1]['n'] == 2


def test_an_entry_keeps_its_name() -> None:
    filebase = f'1732242000.000000001+{DIGEST}+p3'
    delivery = delivered(encode_entry(entry_of(delivered(encode('x', {'n': 1}, message_id=DIGEST)))))
    delivery.headers['x-switchboard-when'] = '1732242000.000000001'
    delivery.properties['priority'] = 3
    assert filebase_of(delivery) == filebase


OURS = ('kind', 'when', 'metadata', 'history', 'due', 'path')
HEADER_NAMES = st.sampled_from(
    [f'x-switchboard-{name}' for name in OURS] + ['compression', 'priority', 'delay']
)
# What a header may be: a value, or JSON written down as text.
HEADERS = st.dictionaries(
    HEADER_NAMES | KEYS, JSON | JSON.map(json.dumps) | st.sampled_from(['text', 'json', 'mail'])
)
PROPERTY_NAMES = st.sampled_from(
    ['message_id', 'content_type', 'content_encoding', 'priority', 'timestamp', 'reply_to', 'correlation_id']
)


@given(headers=HEADERS, properties=st.dictionaries(PROPERTY_NAMES, JSON), body=st.binary())
def test_whatever_a_stranger_writes_is_an_entry_with_a_history_or_a_corrupt_one(
    headers: dict[str, Any], properties: dict[str, Any], body: bytes
) -> None:
    entry = entry_of(Delivery('q', body, headers, properties))
    assert is_filebase(entry.filebase)
    assert all(isinstance(record, dict) for record in entry.records)
    count_since_retry(entry.records, 'recovered')
    encode_entry(entry_of(Delivery('q', body, headers, properties), undecoded=True))
    try:
        entry.load(Serializers())
    except (CorruptEntryError, ContentDisallowedError):
        return
    entry.apply_history({})


@given(
    st.binary()
    | JSON.map(json.dumps).map(str.encode)
    | st.fixed_dictionaries({'body': JSON, 'properties': JSON, 'headers': JSON})
    .map(json.dumps)
    .map(str.encode)
)
def test_whatever_is_in_a_list_of_redis_is_a_delivery(message: bytes) -> None:
    delivery = unpack('q', message)
    assert isinstance(delivery.exchange, str)
    entry_of(delivery)


@given(told=JSON, properties=st.dictionaries(PROPERTY_NAMES, JSON, max_size=2))
def test_whatever_a_message_of_redis_says_of_its_delivery_is_a_delivery(
    told: Any, properties: dict[str, Any]
) -> None:
    payload = {'body': 'x', 'properties': {**properties, 'delivery_info': told}, 'headers': {}}
    delivery = unpack('q', json.dumps(payload).encode())
    assert (type(delivery.exchange), type(delivery.routing_key)) == (str, str)
    assert is_filebase(filebase_of(delivery))


class TestWhatOthersSend:
    def test_by_content_type_with_headers_as_metadata(self) -> None:
        delivery = Delivery(
            'q',
            b'{"a": 1}',
            {'task': 'add', 'when': datetime(2026, 1, 1, tzinfo=UTC), 'raw': b'\xff'},
            {'content_type': 'application/json', 'correlation_id': '7', 'message_id': 'theirs'},
            'ex',
            'key',
        )
        msg, msgdata, history = read_delivery(delivery)
        assert (msg, history) == ({'a': 1}, [])
        assert msgdata['task'] == 'add'
        assert msgdata['when'] == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
        assert (msgdata['exchange'], msgdata['routing_key'], msgdata['correlation_id']) == ('ex', 'key', '7')

    def test_one_message_id_is_one_identity_and_none_is_none(self) -> None:
        one = Delivery('q', b'x', {}, {'message_id': 'theirs'})
        assert digest_of(filebase_of(one)) == digest_of(filebase_of(one))
        # The producer was started anew, and counts from the beginning.
        other = Delivery('q', b'y', {}, {'message_id': 'theirs'})
        assert digest_of(filebase_of(one)) != digest_of(filebase_of(other))
        nameless = Delivery('q', b'x', {}, {})
        assert filebase_of(nameless) != filebase_of(nameless)
        assert is_filebase(filebase_of(nameless))

    def test_text_in_another_encoding_and_an_unknown_type(self) -> None:
        latin = Delivery('q', b'\xe4', {}, {'content_type': 'text/plain', 'content_encoding': 'latin-1'})
        assert read_delivery(latin)[0] == '\xe4'
        assert read_delivery(Delivery('q', b'\xe4', {}, {'content_type': 'image/png'}))[0] == b'\xe4'

    def test_a_pickle_is_not_read(self) -> None:
        pickled = {'content_type': 'application/x-python-serialize', 'content_encoding': 'binary'}
        with pytest.raises(ContentDisallowedError):
            read_delivery(Delivery('q', b'cos\nsystem\n.', {}, pickled))

    @pytest.mark.parametrize(
        'headers',
        [
            {'x-switchboard-kind': 'json'},
            {'x-switchboard-kind': 'NO KIND'},
            {'x-switchboard-kind': 'text', 'x-switchboard-history': '{'},
            {'x-switchboard-kind': 'text', 'x-switchboard-history': '[1]'},
            {'x-switchboard-kind': 'text', 'x-switchboard-history': '["x"]'},
            {'x-switchboard-kind': 'text', 'x-switchboard-history': '{"a": 1}'},
            {'x-switchboard-kind': 'text', 'x-switchboard-history': '[' * 100_000},
            {'x-switchboard-kind': 'text', 'x-switchboard-metadata': '[]'},
            {'compression': 'application/x-gzip'},
            {'compression': 'no such thing'},
        ],
    )
    def test_what_is_not_what_it_says_is_corrupt(self, headers: dict[str, Any]) -> None:
        with pytest.raises(CorruptEntryError):
            read_delivery(Delivery('q', b'\xff{', headers, {}))

    def test_what_kombu_has_stored_goes_out_as_kombus_consumers_expect_it(self) -> None:
        stored = content.write({'a': 1}, serializer='json', compression='zlib', correlation_id='7')
        outgoing = encode(stored, {}, message_id=DIGEST)
        assert outgoing.properties['content_type'] == 'application/json'
        assert (outgoing.properties['correlation_id'], outgoing.properties['message_id']) == ('7', DIGEST)
        assert read_delivery(delivered(outgoing))[0] == {'a': 1}

    @pytest.mark.parametrize('other', [{'body': 5}, {'body': {'a': 1}}, {'body': [1, 2]}, {'headers': 'x'}])
    def test_what_only_looks_like_it_comes_back_as_it_was(self, other: dict[str, Any]) -> None:
        msg = {'body': 'text', 'content-type': 'text/plain', 'properties': {}, 'headers': {}} | other
        assert read_delivery(delivered(encode(msg, {}, message_id=DIGEST)))[0] == msg
