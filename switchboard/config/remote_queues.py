"""Queues that are not in the spool's directory: those whose section says ``url``.

What knows brokers is an extra, above all that is here, and loads kombu.  So it is found by name, as a runner's class is, and only where a
queue has a ``url``: a spool without one neither loads it nor asks twice.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from switchboard.errors import ConfigError
from switchboard.installing import install_advice
from switchboard.options import QueueOptions

IMPLEMENTATION = 'switchboard.brokers.attach'


def load() -> ModuleType:
    """:return: the module that serves such queues: ``make_queue``, ``BrokerTransaction``, ``commit_all``, ``publish_many``, each of a spool.

    :raises ConfigError: kombu is not installed.
    """
    try:
        return importlib.import_module(IMPLEMENTATION)
    except ImportError as error:
        if (error.name or '').partition('.')[0] == 'switchboard':
            raise
        raise ConfigError(
            install_advice('a queue on a broker', error.name or 'kombu', 'kombu'), key='url'
        ) from error


def requeue_claimed(config: Any, name: str, keys: Sequence[str]) -> None:
    """Have a broker deliver again the messages of a process that was killed on request, without counting its death.

    :param keys: as that process has noted them.
    """
    load().requeue_claimed(config, name, keys)


# Of these, a queue on a broker can have the default only: the field, which is the key as well, and why.
_LOCAL_ONLY = (
    ('strict_order', 'a broker gives out the next message, whatever became of the one before'),
    ('maildir', 'a maildir is a directory, and this queue has none'),
    ('scrub', 'what a broker leaves on its disk is out of our hands'),
)


def impossible(options: QueueOptions, url: str) -> Iterator[tuple[str, str]]:
    """Find the options that would silently not hold: a queue that is believed to be bounded, or in strict order, and is not, is found out
    about when it hurts.

    :param url: where the queue is.
    :return: their keys, and why they cannot be had.
    """
    for field, reason in _LOCAL_ONLY:
        if getattr(options, field):
            yield field, f'not for a queue with `url`: {reason}'
    if options.min_free_space_bytes:
        yield 'min_free_space', "not for a queue with `url`: it is the broker's disk that matters"
    if options.overflow == 'dead-letter':
        yield 'overflow', 'a broker refuses or drops messages beyond its limits: say reject or drop-oldest'
    if not url.startswith('redis'):
        return
    if options.max_bytes is not None:
        yield 'max_bytes', 'Redis does not count the bytes of a queue: say max_messages'
    if options.max_messages is not None and options.overflow == 'drop-oldest':
        yield 'overflow', 'on Redis, a full queue can only refuse: say reject'
