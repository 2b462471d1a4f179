"""Waiting for messages in a queue, by the events that its runners sleep on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from switchboard.interfaces import Taken
from switchboard.queue.switchboard import Switchboard

# Longer than any mail server here keeps a mail before it tries again.
PATIENCE_S = 120.0


def subjects(taken: Sequence[Taken]) -> list[str]:
    """:return: the subjects of mails, sorted."""
    return sorted(str(one.msg['subject']) for one in taken)


def arrive(queue: Switchboard, number: int, told: Callable[[], str] = str) -> list[Taken]:
    """Take messages as they come, and finish them, until there were `number`.

    :param told: what to show if they do not come.
    """
    give_up_s = time.monotonic() + PATIENCE_S
    found: list[Taken] = []
    wakeup = queue.wakeup()
    try:
        while True:
            while (taken := queue.take()) is not None:
                found.append(taken)
                queue.finish(taken.filebase)
            if len(found) >= number:
                return found
            wakeup.arm()
            if not queue.ready():
                left_s = give_up_s - time.monotonic()
                assert left_s > 0, f'{len(found)} of {number} have arrived: {subjects(found)}\n{told()}'
                wakeup.wait(min(1.0, left_s))
            wakeup.disarm()
    finally:
        wakeup.close()
