"""AMQP's arguments of queues and bindings, as RabbitMQ knows them, in our words.

What RabbitMQ does with an argument we do, where we have the thing; what we have not (``x-queue-type``, ``x-max-priority``: all queues have
ten priorities) is kept and compared when a queue is declared again, and means nothing else.  What only tells RabbitMQ how to keep a queue is
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amqp.exceptions import PreconditionFailed

from switchboard.message.typed_json import tagged
from switchboard.routing.headers import HeaderMatch, comparable_text

DELIVERY_LIMIT = 'x-delivery-limit'
ALTERNATE = 'alternate-exchange'
# Stands among the arguments of a declaration, to be compared with them.
DURABLE = 'durable'

# How RabbitMQ is to keep a queue: nothing that a program can see.
_STORAGE = frozenset(('x-queue-mode', 'x-queue-version', 'x-queue-master-locator', 'x-queue-leader-locator'))

# What AMQP's longest number holds.
_MAX_NUMBER = (1 << 63) - 1

# AMQP's default: the oldest makes room.  Where dead letters go nowhere, it is dropped.
_OVERFLOW = {
    None: 'dead-letter',
    'drop-head': 'dead-letter',
    'reject-publish': 'reject',
    'reject-publish-dlx': 'reject',
}
# Without a dead-letter exchange these are dropped, as AMQP's users expect; rejected messages go to the bad queue.
DROPPED = ('expired', 'overflow')


def normalized(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """:return: arguments as they are when they are read from a declaration again.

    :raises UnserializableError: a value is none that can be written.
    """
    values: dict[str, Any] = tagged(dict(arguments or {}), 'arguments')
    return values


def queue_keys(arguments: Mapping[str, Any], *, durable: bool, directory: Any) -> dict[str, Any]:
    """Make the arguments of `Spool.declare`.

    :param directory: makes a queue's name of what the arguments name.
    :raises PreconditionFailed: an argument has no sense.
    :raises UnserializableError: one cannot be written.
    """
    options: dict[str, Any] = {} if durable else {'durability': 'lazy'}
    if (ttl_ms := _number(arguments, 'x-message-ttl')) is not None:
        options['ttl_s'] = ttl_ms / 1000
    if (messages := _number(arguments, 'x-max-length')) is not None:
        options['max_messages'] = int(messages)
    if (size := _number(arguments, 'x-max-length-bytes')) is not None:
        options['max_bytes'] = int(size)
    if 'max_messages' in options or 'max_bytes' in options:
        overflow = arguments.get('x-overflow')
        if overflow not in _OVERFLOW:
            raise PreconditionFailed(f'x-overflow: there is no {overflow!r}')
        options['overflow'] = _OVERFLOW[overflow]
    if (limit := _number(arguments, DELIVERY_LIMIT)) is not None:
        options['max_recoveries'] = max(1, int(limit))
    kept = normalized({key: value for key, value in arguments.items() if key not in _STORAGE})
    keys: dict[str, Any] = {'arguments': {**kept, DURABLE: durable}, 'options': options}
    if (expires_ms := _number(arguments, 'x-expires')) is not None:
        keys['expires_s'] = expires_ms / 1000
    return keys | _dead_letters(arguments, options, directory)


def same_arguments(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Are the arguments of two declarations the same, but for the queue's being durable?"""
    return {**one, DURABLE: None} == {**other, DURABLE: None}


def _dead_letters(arguments: Mapping[str, Any], options: dict[str, Any], directory: Any) -> dict[str, Any]:
    exchange, key = arguments.get('x-dead-letter-exchange'), arguments.get('x-dead-letter-routing-key')
    if exchange is None:
        if key is not None:
            raise PreconditionFailed('x-dead-letter-routing-key without x-dead-letter-exchange')
        return {'discard_causes': DROPPED}
    options['dead_letter'] = f'exchange:{exchange}'
    # The default exchange delivers to the queue that the key names, by its directory's name.
    return {'dead_letter_routing_key': directory(key) if exchange == '' and key is not None else key}


def _number(arguments: Mapping[str, Any], key: str) -> float | None:
    value = arguments.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_NUMBER:
        raise PreconditionFailed(f'{key}: {str(value)[:40]!r} is no number from 0 to {_MAX_NUMBER}')
    return value


def binding_match(kind: str, routing_key: str, arguments: Mapping[str, Any]) -> str | HeaderMatch:
    """Say what a binding asks of a message.

    :param kind: the type of the exchange.
    :raises PreconditionFailed: ``x-match`` or a value is not one that can be compared.
    """
    if kind != 'headers':
        return routing_key
    mode = str(arguments.get('x-match', 'all'))
    with_x = mode.endswith('-with-x')
    mode = mode.removesuffix('-with-x')
    if mode not in ('all', 'any'):
        raise PreconditionFailed(f'x-match: there is no {mode!r}')
    conditions = []
    for key, value in arguments.items():
        if key == 'x-match' or (key.startswith('x-') and not with_x):
            continue
        text = None if value is None else comparable_text(value)
        if value is not None and text is None:
            raise PreconditionFailed(f'{key}: {value!r} cannot be compared')
        conditions.append((key, text))
    return HeaderMatch('all' if mode == 'all' else 'any', tuple(conditions))
