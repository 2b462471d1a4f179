"""A message in a list of Redis, as kombu's transport writes and reads it."""

from __future__ import annotations

from typing import Any

from kombu.transport.virtual import Base64
from kombu.utils import json as kombu_json

from switchboard.brokers.wire import Delivery, Letter


def pack(channel: Any, letter: Letter, exchange: str, routing_key: str) -> str:
    """:return: what kombu's consumers read."""
    properties = dict(letter.properties)
    told = {name: properties.pop(name, None) for name in ('content_type', 'content_encoding')}
    message = channel.prepare_message(letter.body, headers=letter.headers, properties=properties, **told)
    channel._inplace_augment_message(message, exchange, routing_key)
    text: str = kombu_json.dumps(message)
    return text


def unpack(queue: str, message: bytes, *, deaths: int = 0, tag: str = '', generation: int = 0) -> Delivery:
    """Read what is in a list.  Never raises: what is no message of kombu's is a body."""
    try:
        payload = kombu_json.loads(message.decode())
        properties = dict(payload['properties'])
        told = dict(properties.pop('delivery_info', None) or {})
        body = payload['body']
        body = Base64().decode(body) if properties.pop('body_encoding', None) == 'base64' else body.encode()
        headers = dict(payload.get('headers') or {})
    except Exception:  # anything may be in a list
        payload, properties, told, body, headers = {}, {}, {}, bytes(message), {}
    redelivered = bool(headers.pop('redelivered', False)) or deaths > 0
    for name in ('content-type', 'content-encoding'):
        if payload.get(name):
            properties[name.replace('-', '_')] = payload[name]
    # Each has a tag of kombu's, which stays the same: as good as an id, for those who gave none.
    kombus_tag = properties.pop('delivery_tag', None)
    if not properties.get('message_id') and kombus_tag:
        properties['message_id'] = str(kombus_tag)
    return Delivery(
        queue,
        body,
        headers,
        properties,
        str(told.get('exchange') or ''),
        str(told.get('routing_key') or ''),
        redelivered,
        deaths,
        tag,
        generation,
    )
