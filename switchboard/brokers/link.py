"""A connection to a broker, for queues that live there and for bridges.

::

    link = open_link('amqp://guest:guest@localhost//')
    link.publish(letter_of('hello', {}, message_id='1'), routing_key='in')
    if (delivery := link.get('in')) is not None:
        msg, msgdata, history = read_delivery(delivery)
        link.ack(delivery)
"""

from __future__ import annotations

import importlib.util
from typing import Any

from switchboard.brokers.linking import Link
from switchboard.brokers.remote import QueueLimits
from switchboard.brokers.url import RABBITMQ, REDIS, BrokerUrl, read_broker_url
from switchboard.brokers.wire import Delivery, Letter
from switchboard.errors import ConfigError
from switchboard.installing import needs

__all__ = ['Delivery', 'Letter', 'Link', 'QueueLimits', 'open_link']


def need_library(url: BrokerUrl) -> None:
    """:raises ConfigError: the library for a broker is not installed."""
    library, extra = {RABBITMQ: ('amqp', 'kombu'), REDIS: ('redis', 'redis')}[url.kind]
    if importlib.util.find_spec(library) is None:
        raise ConfigError(needs(f'a queue on {url.kind}', library, extra), key='url')


def open_link(url: str | BrokerUrl, **keys: Any) -> Link:
    """Make a link, without a connection yet.

    :param keys: see `Link`.
    :raises ConfigError: the URL is of no known kind, or a library is missing.
    """
    broker = read_broker_url(url) if isinstance(url, str) else url
    need_library(broker)
    if broker.kind == RABBITMQ:
        from switchboard.brokers.amqplink import AmqpLink

        return AmqpLink(broker, **keys)
    from switchboard.brokers.redislink import RedisLink

    return RedisLink(broker, **keys)
