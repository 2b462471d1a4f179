"""The options that a queue on a broker, one whose section says ``url``, cannot have."""

from __future__ import annotations

from collections.abc import Iterator

from switchboard.options import QueueOptions

# Of these, a queue on a broker can have the default only: the field, which is the key as well, and why.
_LOCAL_ONLY = (
    ('strict_order', 'a broker gives out the next message, whatever became of the one before'),
    ('maildir', 'a maildir is a directory, and this queue has none'),
    ('scrub', 'what a broker leaves on its disk is out of our hands'),
)


def unsupported_options(options: QueueOptions, url: str) -> Iterator[tuple[str, str]]:
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
