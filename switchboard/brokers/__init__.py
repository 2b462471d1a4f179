"""Queues on RabbitMQ and Redis, with the same runners: for when one machine is no longer enough.

::

    connection = connect('amqp://guest:guest@localhost//')
    connection.publish(encode('hello', {}, message_id='1'), routing_key='in')
    if (delivery := connection.get('in')) is not None:
        entry = entry_of(delivery)
        msg, msgdata = entry.load(Serializers())
        connection.ack(delivery)

From below:

- message (what goes to a broker and what comes, and the names of our headers), encode (an entry becomes one) and decode (and back);
- url (the address of a broker, and how the way there is encrypted);
- connection over a driver, of which the rooms rabbitmq and redis have one each; :func:`connect` makes one;
- producer, consumer and queue (a queue on a broker), delivery_counts (who died with a message), transaction (what goes from a directory to a
  broker, and back).

It imports handoff and below, and, for a connection, the libraries of kombu and Redis.  Only extra, operating and spool import it: spool where a queue
has a ``url``, and operating to check one.  Of the shipped runners, the bridge imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from switchboard.brokers.connection import Connection
    from switchboard.brokers.url import BrokerUrl

__all__ = ['connect', 'need_library']


def need_library(url: BrokerUrl) -> None:
    """:raises ConfigError: the library for a broker is not installed."""
    from switchboard.errors import ConfigError
    from switchboard.installing import install_advice

    extra = {'rabbitmq': 'kombu', 'redis': 'redis'}[url.kind]
    for library in ('kombu', extra):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise ConfigError(
                install_advice(f'a connection to {url.kind}', library, extra), key='url'
            ) from error


def connect(url: str | BrokerUrl, **keys: Any) -> Connection:
    """Make a connection object; it connects when it is first used.

    :param keys: see `Connection`.
    :raises ConfigError: the URL is of no known kind, or a library is missing.
    """
    from switchboard.brokers.url import read_broker_url

    broker = read_broker_url(url) if isinstance(url, str) else url
    need_library(broker)
    from switchboard.brokers.connection import Connection

    if broker.kind == 'rabbitmq':
        from switchboard.brokers.rabbitmq.driver import RabbitDriver

        return Connection(broker, RabbitDriver, **keys)
    from switchboard.brokers.redis.driver import RedisDriver

    return Connection(broker, RedisDriver, **keys)
