"""The expiry of messages that are too old to be worth anything.

A producer's ``ttl`` (seconds) becomes the metadata key ``expires`` (seconds since the epoch), which travels with the message.
A queue's own ``ttl`` becomes ``queue_expires``, which does not: the next queue writes its own, or none.  Both count from the time
the message is ready.  A message that expires between two looks is found when it is claimed, so nobody is handed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from switchboard.message.naming import NS_PER_S

EXPIRES, QUEUE_EXPIRES = 'expires', 'queue_expires'


class TimeOfDay(Protocol):
    """A `Clock`, or an `ExpiryClock`, by which messages are thrown away."""

    def time_ns(self) -> int: ...


def is_expired(metadata: Mapping[str, Any], clock: TimeOfDay) -> bool:
    """Is the message's time over?"""
    if EXPIRES not in metadata and QUEUE_EXPIRES not in metadata:
        return False
    ends = (metadata.get(EXPIRES), metadata.get(QUEUE_EXPIRES))
    now_s = clock.time_ns() / NS_PER_S
    return any(isinstance(end, int | float) and end <= now_s for end in ends)


def expiry_after_move(
    metadata: Mapping[str, Any], ttl_s: float | None, ready_ns: int, *, forgiven: bool
) -> dict[str, Any]:
    """Say how long a message may live in the queue to which it moves.

    :param ttl_s: that queue's own time to live.
    :param forgiven: the message's own time does not count there: a dead letter must not die again on arrival.
    :return: the fields ``set`` and ``drop`` of a record.
    """
    fields: dict[str, Any] = {}
    dropped = [EXPIRES] if forgiven and EXPIRES in metadata else []
    if ttl_s is not None:
        fields['set'] = {QUEUE_EXPIRES: ready_ns / NS_PER_S + ttl_s}
    elif QUEUE_EXPIRES in metadata:
        dropped.append(QUEUE_EXPIRES)
    return fields | ({'drop': dropped} if dropped else {})
