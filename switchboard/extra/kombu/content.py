"""Bodies as kombu's registries write and read them, for programs that use a spool without kombu's connections.

A runner reads what Celery or any kombu producer has put into its queue, and puts messages in that they can read::

    class Index(Runner):
        def dispose(self, msg, msgdata):
            value = content.read(msg, accept=['json', 'msgpack'])
            self.emit('out', content.write(value, compression='zstd'))

The serializers and compressions are those of kombu, with what the installation adds to them: json, yaml, msgpack; gzip, bzip2, lzma, brotli, zstd.
A body is only read if its serializer is accepted by name, so a pickle runs nothing unless somebody has said ``pickle``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kombu.compression import compress, decompress
from kombu.serialization import dumps, loads, prepare_accept_content
from kombu.transport.virtual import Base64

from switchboard.errors import CorruptEntryError
from switchboard.extra.kombu.payload import pack

DEFAULT_ACCEPT = ('json',)


def write(
    value: Any,
    *,
    serializer: str = 'json',
    compression: str | None = None,
    headers: Mapping[str, Any] | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """:return: a message to be put into a queue, which kombu's consumers can read.

    :param properties: as of `kombu.Producer.publish`: ``correlation_id``, ``reply_to``, ``message_id``.
    :raises kombu.exceptions.EncodeError: the serializer does not hold the value.
    """
    content_type, content_encoding, body = dumps(value, serializer=serializer)
    told = dict(headers or {})
    if compression:
        body, told['compression'] = compress(body, compression)
    message = {
        'body': body,
        'content-type': content_type,
        'content-encoding': content_encoding,
        'headers': told,
        'properties': {'delivery_mode': 2, 'priority': 0, **properties},
    }
    return pack(message, '', '', delayed=False)[0]


def read(msg: Mapping[str, Any], accept: Sequence[str] = DEFAULT_ACCEPT) -> Any:
    """:return: the value in a message that kombu's producers, or :func:`write`, have written.

    :param accept: serializers by name; what is written by another one is not read.
    :raises kombu.exceptions.ContentDisallowed: it is.
    :raises CorruptEntryError: it is no message of kombu.
    """
    try:
        body, properties = msg['body'], msg['properties']
        if properties.get('body_encoding') == 'base64':
            body = Base64().decode(body)
        compression = (msg.get('headers') or {}).get('compression')
        if compression:
            body = decompress(body, compression)
        content_type, content_encoding = msg['content-type'], msg['content-encoding']
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptEntryError(f'no message of kombu: {error!r}') from error
    return loads(body, content_type, content_encoding, accept=prepare_accept_content(accept))
