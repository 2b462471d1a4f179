"""A message as it goes to a broker and comes back: what both ends must agree on, for queues on a broker and for bridges.

The body goes as the bytes that a queue's directory would hold, under the content type of its kind, so that others can read it: a mail as RFC
5322, text as UTF-8, values as JSON.  Metadata become headers of their own names, by which a headers exchange can route.  What a header
cannot carry exactly (a number beyond 64 bits, a lone surrogate, a name that brokers use themselves) goes into one header, as JSON.

``message_id``
    the entry's digest: its identity for life.  A consumer that gets a message twice knows it by that.
``x-switchboard-kind``
    the kind, by which the reader finds its serializer; without it, the content type says.
``x-switchboard-when``
    the first half of the entry's name.
``x-switchboard-metadata``, ``x-switchboard-history``
    JSON.
``x-switchboard-due``
    when a message is due that waits for longer than the broker's timers run.

Reading is in ``decode``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from switchboard.brokers.message import (
    HISTORY_HEADER,
    KIND_HEADER,
    METADATA_HEADER,
    WHEN_HEADER,
    OutgoingMessage,
)
from switchboard.errors import MessageTooLargeError
from switchboard.message.content_types import CONTENT_TYPES, is_kombu_message
from switchboard.message.entry import Entry
from switchboard.message.expiry import EXPIRES
from switchboard.message.journal import Record, dump_record
from switchboard.message.metadata import dump_metadata, load_metadata
from switchboard.message.naming import HIGHEST_PRIORITY, NS_PER_S, SYSTEM_NAME_GENERATOR, parse_filebase
from switchboard.message.serializers import Serializers
from switchboard.message.typed_json import TAG
from switchboard.queue.expiry_clock import ExpiryClock

PERSISTENT = 2
# AMQP sends all headers in one frame, of 128 KiB unless somebody has set another limit.
MAX_HEADER_BYTES = 100_000
MAX_HISTORY_BYTES = 50_000
# Names, keys and most properties are strings of this length at most.
MAX_SHORT_BYTES = 255

_DEFAULT = Serializers()
# The broker throws away expired messages, and does not look twice.
_EXPIRY_CLOCK = ExpiryClock(SYSTEM_NAME_GENERATOR.clock)


def encode(
    msg: Any, msgdata: Mapping[str, Any], *, message_id: str, history: Sequence[Record] = ()
) -> OutgoingMessage:
    """Write a message for a broker.

    What kombu or `content.write` has put into a queue goes out as the message that kombu's consumers expect.

    :raises UnserializableError: nothing holds the message or its metadata.
    :raises MessageTooLargeError: the metadata are more than headers carry.
    """
    if is_kombu_message(msg) and 'content-type' in msg:
        return _encode_kombu(msg, message_id)
    serialized = _DEFAULT.serialize(msg)
    outgoing = _encode(serialized.kind, serialized.body, msgdata, message_id, history)
    expires_s = msgdata.get(EXPIRES)
    if isinstance(expires_s, int | float):
        left_ms = int((expires_s - _EXPIRY_CLOCK.time_ns() / NS_PER_S) * 1000)
        outgoing.properties['expiration'] = str(max(0, left_ms))
    return outgoing


def encode_entry(entry: Entry, more: Sequence[Record] = (), *, tracebacks: bool = True) -> OutgoingMessage:
    """Write an entry, with its name and its history, for a queue on a broker.

    :param more: records to be added to its history.
    :param tracebacks: send them along.
    """
    name = parse_filebase(entry.filebase)
    assert name is not None
    records = [*entry.records, *more]
    metadata = load_metadata(entry.metadata)
    if more:
        metadata = Entry(entry.filebase, entry.kind, entry.metadata, b'', records).apply_history(metadata)
        records = [
            {key: value for key, value in one.items() if key not in ('set', 'drop')} for one in records
        ]
    if not tracebacks:
        records = [{key: value for key, value in one.items() if key != 'traceback'} for one in records]
    outgoing = _encode(entry.kind, entry.body, metadata, name.digest, records)
    outgoing.headers[WHEN_HEADER] = entry.filebase.partition('+')[0]
    if name.priority:
        outgoing.properties['priority'] = name.priority
    else:
        outgoing.properties.pop('priority', None)
    return outgoing


def _encode(
    kind: str, body: bytes, metadata: Mapping[str, Any], message_id: str, history: Sequence[Record]
) -> OutgoingMessage:
    kept = json.loads(dump_metadata(metadata))
    headers: dict[str, Any] = {KIND_HEADER: kind}
    rest: dict[str, Any] = {}
    for key, value in kept.items():
        (headers if _is_carried_key(key) and _is_carried(value) else rest)[key] = value
    if rest:
        headers[METADATA_HEADER] = json.dumps(rest)
    if (size := len(json.dumps(headers))) > MAX_HEADER_BYTES - MAX_HISTORY_BYTES:
        raise MessageTooLargeError(f'metadata of {size} bytes are more than the headers of a broker carry')
    if history:
        headers[HISTORY_HEADER] = _dump_history(history)
    content_type, encoding = CONTENT_TYPES.get(kind, (f'application/x-switchboard.{kind}', 'binary'))
    properties: dict[str, Any] = {
        'message_id': message_id,
        'content_type': content_type,
        'content_encoding': encoding,
        'delivery_mode': PERSISTENT,
        'timestamp': SYSTEM_NAME_GENERATOR.clock.time_ns() // NS_PER_S,
    }
    for key in ('reply_to', 'correlation_id'):
        if isinstance(value := kept.get(key), str) and _is_short(value):
            properties[key] = value
    priority = kept.get('priority')
    if type(priority) is int and 0 < priority <= HIGHEST_PRIORITY:
        properties['priority'] = priority
    return OutgoingMessage(body, headers, properties)


def _is_carried_key(key: str) -> bool:
    return not key.lower().startswith('x-') and bool(key) and _is_short(key)


def _is_short(text: str) -> bool:
    return _is_carried(text) and len(text.encode()) <= MAX_SHORT_BYTES


def _is_carried(value: Any) -> bool:
    """Does a header bring the value back as it is?"""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, list):
        return all(map(_is_carried, value))
    if TAG in value:  # kombu would read it on the way, and refuse what it does not know
        return False
    return all(_is_short(key) and _is_carried(item) for key, item in value.items())


def _dump_history(history: Sequence[Record]) -> str:
    """Of a long history, old tracebacks go first, then the oldest records: the last ones say why the message is where it is."""
    records = [dict(record) for record in history]
    text = _dump_records(records)
    for record in records[:-1]:
        if len(text) > MAX_HISTORY_BYTES and record.pop('traceback', None):
            text = _dump_records(records)
    while len(text) > MAX_HISTORY_BYTES and len(records) > 1:
        del records[: max(1, len(records) // 8)]
        text = _dump_records(records)
    return text if len(text) <= MAX_HISTORY_BYTES else '[]'


def _dump_records(records: Sequence[Record]) -> str:
    return '[' + ','.join(dump_record(record).decode('ascii') for record in records) + ']'


def _encode_kombu(msg: Mapping[str, Any], message_id: str) -> OutgoingMessage:
    own = msg['properties']
    body = msg['body']
    body = base64.b64decode(body.encode()) if own.get('body_encoding') == 'base64' else body.encode()
    properties = {
        key: own[key]
        for key in ('correlation_id', 'reply_to', 'priority', 'expiration', 'type', 'app_id')
        if own.get(key) not in (None, '')
    }
    properties |= {
        'message_id': own.get('message_id') or message_id,
        'content_type': msg['content-type'],
        'content_encoding': msg.get('content-encoding') or 'utf-8',
        'delivery_mode': PERSISTENT,
    }
    headers = dict(msg.get('headers') or {})
    return OutgoingMessage(body, headers, properties)
