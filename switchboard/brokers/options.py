"""How a queue's options are told to its broker.  Which of them no broker can keep is known below, where configurations are checked."""

from __future__ import annotations

from switchboard.brokers.remote import QueueLimits
from switchboard.brokers.url import BrokerUrl
from switchboard.config.remote_queues import impossible
from switchboard.errors import ConfigError
from switchboard.options import QueueOptions


def limits_of(options: QueueOptions, url: BrokerUrl) -> QueueLimits:
    """Say how much the broker's queue may hold.

    :raises ConfigError: an option asks for what this broker cannot do.
    """
    for key, reason in impossible(options, url.address):
        raise ConfigError(reason, key=key)
    if url.queue_type == 'quorum' and options.priority:
        raise ConfigError('a quorum queue has no priorities; one of type=classic has', key='priority')
    # Each of the broker's queues counts for itself.
    return QueueLimits(
        max_messages=None if options.max_messages is None else max(1, options.max_messages // url.slices),
        max_bytes=None if options.max_bytes is None else max(1, options.max_bytes // url.slices),
        overflow=options.overflow,
        priorities=url.queue_type == 'classic',
    )
