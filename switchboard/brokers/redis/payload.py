"""A message as kombu writes it into a list of Redis, and reads it there."""

from __future__ import annotations

from typing import Any

from kombu.transport.virtual import Base64
from kombu.utils import json as kombu_json

from switchboard.brokers.message import Delivery, OutgoingMessage
from switchboard.brokers.redis.keys import message_key


def pack(channel: Any, outgoing: OutgoingMessage, exchange: str, routing_key: str) -> str:
    """:return: the value that kombu's consumers read."""
    properties = dict(outgoing.properties)
    content = {name: properties.pop(name, None) for name in ('content_type', 'content_encoding')}
    message = channel.prepare_message(
        outgoing.body, headers=outgoing.headers, properties=properties, **content
    )
    channel._inplace_augment_message(message, exchange, routing_key)
    text: str = kombu_json.dumps(message)
    return text


def unpack(
    queue: str, message: bytes, *, deaths: int = 0, tag: str = '', connection_number: int = 0
) -> Delivery:
    """Read an item of a list.  Never raises: one that is no message of kombu's is a body."""
    try:
        payload = kombu_json.loads(message.decode())
        properties = dict(payload['properties'])
        delivery_info = dict(properties.pop('delivery_info', None) or {})
        body = payload['body']
        body = Base64().decode(body) if properties.pop('body_encoding', None) == 'base64' else body.encode()
        headers = dict(payload.get('headers') or {})
    except Exception:  # anything may be in a list
        payload, properties, delivery_info, body, headers = {}, {}, {}, bytes(message), {}
    redelivered = bool(headers.pop('redelivered', False)) or deaths > 0
    for name in ('content-type', 'content-encoding'):
        if payload.get(name):
            properties[name.replace('-', '_')] = payload[name]
    # Each has a tag of kombu's, which stays the same: as good as an id, where the producer gave none.
    kombus_tag = properties.pop('delivery_tag', None)
    if not properties.get('message_id') and kombus_tag:
        properties['message_id'] = str(kombus_tag)
    return Delivery(
        queue,
        body,
        headers,
        properties,
        str(delivery_info.get('exchange') or ''),
        str(delivery_info.get('routing_key') or ''),
        redelivered,
        deaths,
        tag,
        connection_number,
        message_key(tag) if tag else '',
    )
