"""Pinned names of `switchboard.brokers`, each imported when it is asked for: a queue on a broker, a connection, an address."""

from __future__ import annotations

from switchboard.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.brokers import connect
    from switchboard.brokers.queue import BrokerQueue
    from switchboard.brokers.url import BrokerUrl, read_broker_url

__all__ = ['BrokerQueue', 'BrokerUrl', 'connect', 'read_broker_url']

__getattr__ = lazy(
    __name__,
    {
        'switchboard.brokers': 'connect',
        'switchboard.brokers.queue': 'BrokerQueue',
        'switchboard.brokers.url': 'BrokerUrl read_broker_url',
    },
)
