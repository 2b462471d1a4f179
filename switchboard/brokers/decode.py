"""Messages that a broker has given out, as entries.

What others have sent (Celery, kombu, any program that speaks AMQP) is read by content type, decompressed up to a limit, with its headers as metadata.
Nothing is unpickled unless the queue accepts that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from switchboard.brokers.message import (
    HISTORY_HEADER,
    KIND_HEADER,
    METADATA_HEADER,
    UNREADABLE_HEADER,
    WHEN_HEADER,
    Delivery,
)
from switchboard.errors import CorruptEntryError
from switchboard.message.content_types import CONTENT_TYPES, decode_text, decompress
from switchboard.message.entry import Entry
from switchboard.message.entry_header import pack_header
from switchboard.message.journal import Record, sanitized
from switchboard.message.metadata import dump_metadata, load_metadata
from switchboard.message.naming import (
    DIGEST_DIGITS,
    HIGHEST_PRIORITY,
    NS_PER_S,
    SYSTEM_NAME_GENERATOR,
    digest_of,
    is_filebase,
    make_filebase,
)
from switchboard.message.typed_json import load_json

_KINDS = {
    **{content_type: kind for kind, (content_type, _) in reversed(CONTENT_TYPES.items())},
    'application/text': 'text',
    'text/html': 'text',
    'application/octet-stream': 'bytes',
}
_AS_THEY_ARE = ('', 'binary', 'utf-8', 'utf8', 'us-ascii', 'ascii-8bit')
# Records of a history that somebody else has written: an honest one is cut to what a header carries.
MAX_RECORDS = 1000
MAX_REASON_CHARACTERS = 300


def entry_of(delivery: Delivery, max_bytes: int | None = None, *, undecoded: bool = False) -> Entry:
    """Make the entry that a directory would have of a delivery.  Never raises: a mistake in it is the entry's ``damage``.

    :param max_bytes: how long a compressed body may be when it is decompressed; None for `content_types.MAX_DECOMPRESSED_BYTES`.
    :param undecoded: leave the body compressed and encoded, because processes that decoded it before died of it.
    """
    headers, filebase = delivery.headers, filebase_of(delivery)
    kind = headers.get(KIND_HEADER)
    try:
        if UNREADABLE_HEADER in headers:
            raise CorruptEntryError(str(headers[UNREADABLE_HEADER])[:MAX_REASON_CHARACTERS])
        body = delivery.body if undecoded else _body(delivery, max_bytes)
        if isinstance(kind, str):
            pack_header(kind, 0, 0, '', 0)  # can it be one?
            metadata = {key: _plain(value) for key, value in headers.items() if not key.startswith('x-')}
            metadata |= load_metadata(
                str(headers.get(METADATA_HEADER, '{}')).encode('utf-8', 'surrogatepass')
            )
            records = _history(headers.get(HISTORY_HEADER))
        else:
            is_whole = body is not delivery.body or not _is_encoded(delivery)
            kind = _KINDS.get(delivery.properties.get('content_type') or '', 'bytes') if is_whole else 'bytes'
            metadata, records = _plain(_foreign_metadata(delivery)), []
        return Entry(filebase, kind, dump_metadata(metadata), body, list(records))
    except Exception as error:  # anybody may have sent it
        damage = (
            error
            if isinstance(error, CorruptEntryError)
            else CorruptEntryError(f'not what it says it is: {error!r}')
        )
        return Entry(filebase, 'bytes', b'{}', delivery.body, [], damage=damage)


def _history(header: Any) -> list[Record]:
    """Read a header that anybody may have written.

    :raises CorruptEntryError: it is no list of records.
    """
    records = load_json(str(header or '[]').encode('utf-8', 'surrogatepass'), 'history')
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise CorruptEntryError('history: not a list of JSON objects')
    return [sanitized(one) for one in records[-MAX_RECORDS:]]


def _is_encoded(delivery: Delivery) -> bool:
    return bool(delivery.headers.get('compression')) or _encoding(delivery) not in _AS_THEY_ARE


def _encoding(delivery: Delivery) -> str:
    return str(delivery.properties.get('content_encoding') or '').lower()


def _body(delivery: Delivery, max_bytes: int | None) -> bytes:
    body = delivery.body
    if compression := delivery.headers.get('compression'):
        body = decompress(body, compression, max_bytes)
    encoding = _encoding(delivery)
    if encoding not in _AS_THEY_ARE and KIND_HEADER not in delivery.headers:
        body = decode_text(body, encoding).encode()
    return body


def _foreign_metadata(delivery: Delivery) -> dict[str, Any]:
    metadata = {str(key): value for key, value in delivery.headers.items() if key != 'compression'}
    for key in ('reply_to', 'correlation_id', 'type', 'app_id'):
        if delivery.properties.get(key):
            metadata[key] = delivery.properties[key]
    if delivery.exchange:
        metadata |= {'exchange': delivery.exchange, 'routing_key': delivery.routing_key}
    return metadata


def _plain(value: Any) -> Any:
    """The part of a header's value that JSON holds."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return _seconds(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode('utf-8', 'replace')
    return value if isinstance(value, str | int | float | None) else str(value)


def filebase_of(delivery: Delivery) -> str:
    """:return: the entry's name: the one it had with us, or one that is made of its message id; without one, a new one."""
    message_id, when = delivery.message_id, delivery.headers.get(WHEN_HEADER)
    if message_id is None:
        digest = SYSTEM_NAME_GENERATOR.digest(
            hashlib.sha1(delivery.body, usedforsecurity=False).hexdigest()[:8]
        )
    elif is_filebase(f'0000000000.0+{message_id}'):
        digest = message_id[:DIGEST_DIGITS]
    else:
        # With the body, because a stranger's ids may be a counter that starts again.
        identity = message_id.encode('utf-8', 'surrogatepass') + b'\0' + delivery.body
        digest = hashlib.sha1(identity, usedforsecurity=False).hexdigest()
    priority = delivery.properties.get('priority')
    rank = f'+p{priority}' if type(priority) is int and 0 < priority <= HIGHEST_PRIORITY else ''
    if isinstance(when, str) and is_filebase(f'{when}+{digest}{rank}'):
        return f'{when}+{digest}{rank}'
    return make_filebase(_sent_ns(delivery), digest) + rank


def identity_of(delivery: Delivery) -> str:
    """:return: 40 hex digits that are the same each time that the broker gives a message out, by which its deaths are counted.

    A message without an id has those of all messages with its body: what kills with one of them kills with the others.
    """
    if delivery.key:
        return delivery.key
    if delivery.message_id is not None:
        return digest_of(filebase_of(delivery))
    return hashlib.sha1(delivery.body, usedforsecurity=False).hexdigest()


def _seconds(moment: datetime) -> float:
    """:return: seconds since the epoch; a time without a zone is one of UTC, as py-amqp gives them."""
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _sent_ns(delivery: Delivery) -> int:
    sent = delivery.properties.get('timestamp')
    if isinstance(sent, datetime):
        sent = _seconds(sent)
    if isinstance(sent, int | float) and 0 < sent < 9_000_000_000:
        return int(sent) * NS_PER_S
    return SYSTEM_NAME_GENERATOR.next_when_ns()
