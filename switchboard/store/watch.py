"""Sleeping on descriptors, and on directories in which something may appear."""

from __future__ import annotations

import select
from collections.abc import Sequence


def readable(descriptors: Sequence[int], timeout_s: float | None) -> list[int]:
    """Wait until one of some descriptors can be read.

    :param timeout_s: how long at most; None for ever.
    :return: those that can be read; none if the time is over.
    """
    if hasattr(select, 'poll'):
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        # Rounded up: waking a moment too early would mean a round for nothing.
        return [
            fd for fd, _ in poll.poll(None if timeout_s is None else int(timeout_s * 1000) + (timeout_s > 0))
        ]
    # eventlet takes `poll` and `epoll` away; its `select` lets other green threads run, and knows no limit of descriptors.
    return select.select(descriptors, (), (), timeout_s)[0]
