"""The one way in which tests wait for what sends no event: a log that is written to, shared memory, a server that comes up; and for a message."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar('T')

# Longer than anything takes on a machine that is busy with something else: a test that waits so long has failed.
PATIENCE_S = 120.0
# Between two looks lies so many times what the first took, but not more than some time: what is waited for needs the processor, too.
RESTS, REST_S = 3, 1.0
SHELL_REST_S = 0.05
# An event that was missed is found so much later.
MISSED_S = 0.5


def eventually(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    every: float = 0.01,
    *,
    within_s: float = PATIENCE_S,
) -> T:
    """Look until a condition holds.

    Where something gives an event (a process that ends, a pipe, a directory), wait for the event instead.

    :param what: ends the sentence "still not ..."; a function is asked when it is too late, to show a log.
    :param every: seconds between two looks; more where a look takes long.
    :return: the first true value of the condition.
    :raises AssertionError: it has not come to hold in time.
    """
    began_s = looked_s = time.monotonic()
    while not (value := condition()):
        now_s = time.monotonic()
        if now_s - began_s >= within_s:
            raise AssertionError(f'still not {what if isinstance(what, str) else what()}')
        # The one place where tests look again and again: what is waited for here sends no event.
        time.sleep(max(every, min(REST_S, RESTS * (now_s - looked_s))))
        looked_s = time.monotonic()
    return value


def take_next(queue: Any, what: Callable[[], str] = str) -> Any:
    """Take the next message, and sleep until there is one as a runner does: by the events of the queue.

    :param what: what to show if none comes.
    :raises AssertionError: none has come in time.
    """
    give_up_s = time.monotonic() + PATIENCE_S
    wakeup = queue.make_wakeup()
    try:
        while (taken := queue.take()) is None:
            if (left_s := give_up_s - time.monotonic()) <= 0:
                raise AssertionError(f'nothing came into {queue.name}: {what()}')
            wakeup.arm()
            if not queue.has_ready():
                wakeup.wait(min(MISSED_S, left_s, queue.wait_s() or MISSED_S))
            wakeup.disarm()
    finally:
        wakeup.close()
    return taken


def shell_until(condition: str) -> str:
    """:return: a shell's words that wait until a condition holds, but no longer than `PATIENCE_S`: a shell outlives a test that has failed."""
    looks = int(PATIENCE_S / SHELL_REST_S)
    return f'n=0; until {condition} || [ $((n += 1)) -gt {looks} ]; do sleep {SHELL_REST_S}; done'
