"""From a kombu message to an entry, and back.

kombu's own fields are the message, as JSON: ``body``, ``content-type``, ``content-encoding``, ``headers``, ``properties``.  What the spool must
know stands in the metadata: priority, time to live, when it is ready, whom to answer.  A text body is kept as it is, so `less` shows a task's
arguments; bytes are kept in base64.

An entry that something else has put into the queue (a mail from ``bin/drop``, a value from `Spool.publish`) becomes a kombu message: its bytes, and the
content type of its kind, so a consumer reads it as it reads all others, by kombu's serializers.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.message import Message as Mail
from typing import Any

from kombu.utils import json as kombu_json

from switchboard.errors import UnserializableError
from switchboard.message.content_types import CONTENT_TYPES, is_kombu_message
from switchboard.message.entry import Entry
from switchboard.message.journal import Record, count_since_retry
from switchboard.message.mail import mail_bytes
from switchboard.message.metadata import FIXED_METADATA
from switchboard.message.naming import HIGHEST_PRIORITY, NS_PER_S
from switchboard.message.serializers import EncodedBody
from switchboard.message.typed_json import MAX_DEPTH, OWN_TAGS, TAG, dump_json, is_too_deep, parse_json
from switchboard.operating.summary import time_ns

TRANSIENT = 1
# A tuple, for a union is made anew each time that it is asked about.
_BYTES = (bytes, bytearray, memoryview)
# Headers that JSON alone does not hold (dates, bytes, decimals) are written in kombu's own form, and this says so.
TYPED = 'kombu_typed'
# What the journal of an entry that was delivered before has.
RETURNED, REQUEUED, RECOVERED = 'returned', 'requeued', 'recovered'
_DELIVERED = frozenset((RETURNED, REQUEUED, RECOVERED))
# Those by which a consumer has failed with the message: it gave it back, and not because it was closing, or died.
FAILED = (REQUEUED, RECOVERED)
_DEAD = 'dead-lettered'
# AMQP's words for a dead letter's cause, where they are others.
_REASONS = {'overflow': 'maxlen', 'recoveries': 'delivery_limit', 'attempts': 'delivery_limit'}
# What of a message is not its body, in errors.
_FIELDS = 'headers and properties'


class _Nothing:
    """Stands for the type that kombu would write with a tag that it is only to read."""


def register_tags() -> None:
    """Have kombu's JSON read the tags that are ours alone; what it writes stays as it was."""
    for tag, reader in OWN_TAGS.items():
        kombu_json.register_type(type(tag, (_Nothing,), {}), tag, str, reader)


register_tags()


def pack(
    message: Mapping[str, Any], exchange: str, routing_key: str, *, delayed: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pack a message for the spool.

    :param delayed: a task's ``eta`` is when the entry is ready; otherwise its consumer waits for it.
    :return: the message and its metadata.
    :raises UnserializableError: its expiration is none.
    """
    body, encoding = _text(message)
    properties = dict(message['properties'])
    properties['body_encoding'] = encoding
    properties['delivery_info'] = {
        **(properties.get('delivery_info') or {}),
        'exchange': exchange,
        'routing_key': routing_key,
    }
    payload = {**message, 'body': body, 'properties': properties}
    return payload, _metadata(
        properties, message.get('headers') or {}, exchange, routing_key, delayed=delayed
    )


def _text(message: Mapping[str, Any]) -> tuple[str, str]:
    """:return: the body as text, and how it was made of it."""
    body = message['body']
    if isinstance(body, _BYTES):
        # A compressed body says of itself that it is UTF-8, too.
        is_text = message.get('content-encoding') == 'utf-8' and 'compression' not in (
            message.get('headers') or ()
        )
        try:
            if is_text:
                return bytes(body).decode(), 'utf-8'
        except UnicodeDecodeError:
            pass
        return base64.b64encode(body).decode('ascii'), 'base64'
    return body, 'utf-8'


def _metadata(
    properties: Mapping[str, Any],
    headers: Mapping[str, Any],
    exchange: str,
    routing_key: str,
    *,
    delayed: bool,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if exchange:
        metadata |= {'exchange': exchange, 'routing_key': routing_key}
    if priority := _priority(properties.get('priority')):
        metadata['priority'] = priority
    if (expiration := properties.get('expiration')) not in (None, ''):
        metadata['ttl'] = _milliseconds(expiration) / 1000
    for key in ('reply_to', 'correlation_id'):
        if isinstance(value := properties.get(key), str):
            metadata[key] = value
    if delayed and (ready_s := _eta_s(headers.get('eta'))) is not None:
        metadata['not_before'] = ready_s
    return metadata


def _milliseconds(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnserializableError(f'expiration: {str(value)[:40]!r} is no number of milliseconds') from error


def _priority(value: Any) -> int:
    try:
        return max(0, min(int(value), HIGHEST_PRIORITY))
    except (TypeError, ValueError, OverflowError):  # the last for an infinite one
        return 0


def wait_s(headers: Mapping[str, Any]) -> float:
    """:return: seconds until the time of a task has come; 0 if it has, or if it names none."""
    ready_s = _eta_s(headers.get('eta'))
    return 0.0 if ready_s is None else max(0.0, ready_s - time.time())


def _eta_s(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        eta = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (eta if eta.tzinfo else eta.replace(tzinfo=UTC)).timestamp()


# Tuples and numbers as keys become what JSON makes of them, as with all of kombu's transports that write JSON.
_dumps = json.JSONEncoder(separators=(',', ':'), allow_nan=False).encode


def encoded(payload: Mapping[str, Any]) -> EncodedBody:
    """:return: the payload as it is stored; once for all queues that it goes to.

    :raises UnserializableError: JSON alone does not hold it.
    """
    try:
        text = _dumps(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnserializableError(f'{_FIELDS}: {error}') from error
    if text.count('[') + text.count('{') > MAX_DEPTH and is_too_deep(payload):
        raise UnserializableError(f'{_FIELDS}: nested too deeply')
    if f'"{TAG}"' in text:  # a dictionary of a user's, which is to come back as it was
        return EncodedBody('json', dump_json(json.loads(text)))
    return EncodedBody('json', text.encode('ascii'))


def encoded_by_kombu(payload: Mapping[str, Any]) -> EncodedBody:
    """:return: the payload in kombu's own form, for what JSON alone does not hold.

    :raises TypeError: nor does that.
    :raises UnserializableError: no consumer could read it, for kombu writes more (``NaN``, any depth, a user's dictionary that looks like a tag) than
        can be read.
    """
    try:
        body = kombu_json.dumps(payload).encode('ascii')
        parse_json(body, _FIELDS)
        kombu_json.loads(body)
    except TypeError:
        raise
    except Exception as error:  # each type that kombu was taught has errors of its own
        raise UnserializableError(f'{_FIELDS}: {error}') from error
    return EncodedBody('json', body)


def unpack(msg: Any, msgdata: Mapping[str, Any], entry: Entry, tag: Any, queue: str) -> dict[str, Any]:
    """Make what `kombu.transport.virtual.Message` is made from.

    :param entry: the entry that the message was read from.
    :param tag: of this delivery; another one each time.
    """
    if not is_kombu_message(msg):
        payload = _wrapped(msg, msgdata, entry)
    elif msgdata.get(TYPED):
        payload = kombu_json.loads(entry.body)  # by kombu, which may have been taught more types
    else:
        payload = {**msg}
    records = entry.records
    properties = payload['properties'] = {**_property_values(msgdata), **payload['properties']}
    properties['delivery_tag'] = tag
    properties['delivery_info'] = {
        'exchange': str(msgdata.get('exchange', '')),
        'routing_key': str(msgdata.get('routing_key', queue)),
        **(properties.get('delivery_info') or {}),
        'redelivered': was_delivered(records),
        'attempts': 1 + count_since_retry(records, *FAILED),
        'queue': queue,
    }
    if deaths := _deaths(records, properties['delivery_info'], properties.get('expiration')):
        properties.pop('expiration', None)  # published again, it would die of it again
        payload['headers'] = {**(payload.get('headers') or {}), **deaths}
    return payload


def _property_values(msgdata: Mapping[str, Any]) -> dict[str, Any]:
    """:return: the metadata that kombu calls properties of a message."""
    properties = {key: msgdata[key] for key in ('reply_to', 'correlation_id') if key in msgdata}
    properties['priority'] = msgdata.get('priority', 0)
    return properties


def _wrapped(msg: Any, msgdata: Mapping[str, Any], entry: Entry) -> dict[str, Any]:
    """Read a message of another program: its bytes as they are stored, under the content type of its kind.

    kombu's consumers read it by their own registry, and only if they accept the type.
    """
    body = entry.body
    content_type, content_encoding = CONTENT_TYPES.get(entry.kind, ('application/data', 'binary'))
    if isinstance(msg, Mail):  # of Mailman's two pickles, too
        body, content_type, content_encoding = mail_bytes(msg), *CONTENT_TYPES['mail']
    text = None
    if content_encoding == 'utf-8':
        with suppress(UnicodeDecodeError):  # JSON may be UTF-16, text hold lone surrogates
            text = body.decode()
    if text is None:
        content_encoding = 'binary'
    return {
        'body': base64.b64encode(body).decode('ascii') if text is None else text,
        'content-type': content_type,
        'content-encoding': content_encoding,
        'headers': {key: value for key, value in msgdata.items() if key not in FIXED_METADATA},
        'properties': {'body_encoding': 'base64' if text is None else 'utf-8'},
    }


def was_delivered(records: Sequence[Record]) -> bool:
    """Was the message handed to a consumer before this delivery?"""
    return any(one.get('event') in _DELIVERED for one in records)


def _deaths(records: Sequence[Record], published: Mapping[str, Any], expiration: Any) -> dict[str, Any]:
    """Make the headers that RabbitMQ gives a dead letter, of a history: ``x-death``, with one table for each queue and reason, the last first; and the first death.

    Of a death for the same reason in the same queue once more, only the count says it.

    :param published: the ``exchange`` and the ``routing_key`` by which the message came to the queue of its first death.
    :param expiration: the message's own, of which it can have died.
    :return: nothing for a message that has never died.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    first: dict[str, Any] = {}
    # Without an exchange a key is the queue's name.
    came = exchange, key = published['exchange'], published['routing_key'] if published['exchange'] else ''
    for one in records:
        if one.get('event') == 'retried':
            exchange, key = came
        if one.get('event') != _DEAD:
            continue
        queue, cause = str(one.get('queue', '')), str(one.get('cause', ''))
        death: dict[str, Any] = {
            'queue': queue,
            'reason': _REASONS.get(cause, cause),
            'count': 0,
            'exchange': str(exchange),
            'routing-keys': [str(key or queue)],
        }
        if (died_ns := time_ns(one.get('time'))) is not None:
            death['time'] = datetime.fromtimestamp(died_ns // NS_PER_S, UTC).replace(
                tzinfo=None
            )  # as AMQP's are read
        if not first:
            first = {f'x-first-death-{field}': death[field] for field in ('queue', 'reason', 'exchange')}
            if expiration not in (None, ''):
                death['original-expiration'] = str(expiration)
        death = found.pop((queue, cause), death)
        death['count'] += 1
        found[queue, cause] = death
        exchange, key = one.get('exchange', ''), one.get('routing_key', '')
    return {'x-death': [*reversed(found.values())], **first} if found else {}
