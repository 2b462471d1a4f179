"""Bodies as kombu's registries write and read them, for programs that use a spool without kombu's connections.

A runner reads what Celery or any kombu producer has put into its queue, and puts messages in that they can read::

    class Index(Runner):
        def dispose(self, msg, msgdata):
            value = content.read(msg, accept=['json', 'msgpack'])
            self.emit('out', content.write(value, compression='zstd'))

The serializers and compressions are those of kombu, with what the installation adds to them: json, yaml, msgpack, pickle; zlib, bz2, lzma, zstd, brotli.
A body is only read if its serializer is accepted by name, so a pickle runs nothing unless somebody has said ``pickle``; it is not even
decompressed.

The other way round nothing needs to be said: what a program has put into a queue in one of the spool's own kinds reaches kombu's consumers
under the content type of that kind (see ``payload``).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from kombu.compression import compress
from kombu.exceptions import ContentDisallowed
from kombu.serialization import SKIP_DECODE, TRUSTED_CONTENT, dumps, loads, prepare_accept_content

from switchboard.errors import CorruptEntryError
from switchboard.kombu_transport.payload import pack
from switchboard.message.content_types import check_encoding, decompress
from switchboard.message.metadata import MISSPELLED

# Text needs no serializer.
DEFAULT_ACCEPT = ('json', 'text/plain')
# As Python's module is called; kombu knows it by two other names.
_ALIASES = {'bz2': 'bzip2'}
# What means something to the queue, and nothing to kombu.
QUEUE_KEYS = {*MISSPELLED, *MISSPELLED.values()}


def write(
    value: Any,
    *,
    serializer: str | None = 'json',
    compression: str | None = None,
    headers: Mapping[str, Any] | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """:return: a message to be put into a queue, which kombu's consumers can read.

    :param serializer: by kombu's name; None for text and bytes as they are.
    :param compression: zlib, bz2, lzma, zstd or brotli, as far as they are installed; kombu's other names for them are known, too.
    :param properties: as of `kombu.Producer.publish`: ``correlation_id``, ``reply_to``, ``message_id``.
    :raises kombu.exceptions.EncodeError: the serializer does not hold the value.
    :raises kombu.exceptions.SerializerNotInstalled: there is no such serializer.
    :raises LookupError: there is no such compression.
    :raises TypeError: a keyword is one of the queue's, as ``delay``, which no message of kombu has.
    """
    if keys := sorted(properties.keys() & QUEUE_KEYS):
        raise TypeError(
            f'{", ".join(keys)}: what the queue is to do is said where the message is put: enqueue, emit, publish'
        )
    content_type, content_encoding, body = dumps(value, serializer=serializer)
    all_headers = dict(headers or {})
    if compression:
        try:
            body, all_headers['compression'] = compress(body, _ALIASES.get(compression, compression))
        except KeyError as error:
            raise LookupError(f'compression {compression!r} is not installed') from error
    message = {
        'body': body,
        'content-type': content_type,
        'content-encoding': content_encoding,
        'headers': all_headers,
        'properties': {'delivery_mode': 2, **properties},
    }
    packed = pack(message, '', '', delayed=False)[0]
    del packed['properties']['delivery_info']  # the producer says where
    return packed


def read(
    msg: Mapping[str, Any], accept: Sequence[str] = DEFAULT_ACCEPT, *, max_bytes: int | None = None
) -> Any:
    """:return: the value in a message that kombu's producers, or :func:`write`, have written.

    :param accept: serializers by name, or content types; a body written by another one is not read.
    :param max_bytes: how long a compressed body may be when it is decompressed; by default 128 MiB.
    :raises kombu.exceptions.ContentDisallowed: it is.
    :raises kombu.exceptions.SerializerNotInstalled: one of those named is not there.
    :raises CorruptEntryError: it is no message of kombu, or its body is not what it says, or by something that is not installed, or
        longer than `max_bytes`.
    """
    accepted = prepare_accept_content(accept)
    try:
        properties, headers = msg['properties'], msg.get('headers') or {}
        content_type, encoding = msg['content-type'], msg['content-encoding']
        body, compression = msg['body'], headers.get('compression')
        if content_type in accepted | TRUSTED_CONTENT:
            if properties.get('body_encoding') == 'base64':
                body = base64.b64decode(body, validate=True)
            if compression:
                body = decompress(body, compression, max_bytes)
            if str(encoding).lower() not in SKIP_DECODE:
                check_encoding(str(encoding))
        return loads(body, content_type, encoding, accept=accepted)
    except (ContentDisallowed, CorruptEntryError):
        raise
    except Exception as error:  # each library has errors of its own
        raise CorruptEntryError(f'no message of kombu: {error!r}') from error
