"""Delays on RabbitMQ.

A delay is a queue in which nobody reads, whose messages expire into the one they are for.  RabbitMQ lets only the first of a queue
expire, so there is one for each length of time, and lengths are rounded up.  It is a quorum queue with dead letters *at least once*:
the broker lets go of a message when the queue that it is for has confirmed it.  While that one is full, or deleted, or its node is away,
the message stays, and is offered again every three minutes.

A queue for delays stays for good, for nobody but the broker could delete it at the right time: AMQP does not tell how much of it is
expired and still refused, RabbitMQ deletes no quorum queue on condition that it is empty, and ``x-expires`` asks for nothing but time.  So
there must be few: eight in each doubling, and none below a tenth of a second apart.

Rejected: classic queues, whose dead letters are thrown away when they are refused, and may be when the broker dies.  ``x-expires``: after the broker was
away for longer, it deletes the queue with the messages that have expired meanwhile.  One ladder of powers of two for all queues of a broker, for then one that
is full holds up the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

# How far two lengths of a delay are apart at least, and in how many each doubling is divided.
SHORTEST_STEP_MS, STEPS = 100, 8
# RabbitMQ counts milliseconds in 32 bits.
MAX_DELAY_MS = 40 * 86_400_000


def rounded_delay_ms(delay_s: float) -> int:
    """:return: the milliseconds of a delay, rounded up to one of few lengths."""
    wait_ms = max(1.0, min(delay_s * 1000, MAX_DELAY_MS))
    step_ms = SHORTEST_STEP_MS
    while wait_ms > 2 * STEPS * step_ms:
        step_ms *= 2
    return math.ceil(wait_ms / step_ms) * step_ms


def delay_queue_name(queue: str, delay_s: float) -> str:
    """:return: the queue in which a message waits that is delayed on its way to another one."""
    return f'{queue}.delay.{rounded_delay_ms(delay_s)}'


class DelayQueues:
    """The queues for delays that are known to be there.

    :param declare: declares a queue with arguments.
    """

    def __init__(self, declare: Callable[[str, None, Mapping[str, Any]], None]) -> None:
        self._declare = declare
        self._declared: set[str] = set()

    def forget_declared(self) -> None:
        """Ask again: the connection is another one."""
        self._declared.clear()

    def declare(self, queue: str, delay_s: float, *, redeclare: bool = False) -> str:
        """Make a queue for delays, if it is not there; once a connection.

        :return: its name.
        """
        waiting = delay_queue_name(queue, delay_s)
        if redeclare or waiting not in self._declared:
            arguments = {
                'x-queue-type': 'quorum',
                'x-message-ttl': rounded_delay_ms(delay_s),
                'x-dead-letter-exchange': '',
                'x-dead-letter-routing-key': queue,
                'x-dead-letter-strategy': 'at-least-once',
                'x-overflow': 'reject-publish',  # without a limit; RabbitMQ wants it for `at-least-once`
            }
            self._declare(waiting, None, arguments)
            self._declared.add(waiting)
        return waiting
