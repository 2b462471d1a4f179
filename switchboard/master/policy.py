"""The restart policy, and nothing else: the fate of a runner slice whose process has ended.

Pure functions over plain values.  The clock, the dice and the processes belong to the caller, so every rule here is
tested without any of them, and the loop in `master` holds no policy.

The rules, in this order:

1. Somebody asked it to go: EXITED.
2. It exited 78 (EX_CONFIG): FATAL at once, for it says itself that another start would end the same way.  Once its loop has begun, the
   scoreboard has to say so too: a library that ends the process in the middle of a message may do that with any status.
3. It exited 0 after it had begun its loop: it made room for a fresh process (messages, age, memory, a ``kill`` by hand) and is
   started again at once, at no cost.  Only when it does so several times within a second of its start is it held to one
   start a second, so that a limit below what a fresh process needs does not burn a processor.
4. Anything else counts: it waits in BACKOFF, 1, 2, 4 ... 60 seconds with jitter.  More than ``max_restarts`` such ends
   within ``window_s`` make it FATAL.  A run of ``stable_s`` forgives everything before it.

A count for the life of the master, as Mailman has it, was rejected: ten crashes in a year are no reason to stop.
"""

from __future__ import annotations

import os
import random
from typing import NamedTuple

from switchboard.options import RestartOptions
from switchboard.status.processes import signal_name
from switchboard.status.record import ProcessState

# A process that retires this soon after its start, this often in a row, is held to one start a second.
QUICK_RETIREMENT_S = 1.0
QUICK_RETIREMENTS = 3


class ProcessEnd(NamedTuple):
    """The end of one process.  ``code`` is its exit status, or minus the number of the signal that killed it.

    ``loop_started`` says that it had begun its loop, ``gave_up`` that it has noted on the scoreboard that it cannot work, ``was_requested`` that it was asked to
    go, ``hung`` why it had to be killed.
    """

    code: int
    started_s: float
    ended_s: float
    loop_started: bool = True
    gave_up: bool = False
    was_requested: bool = False
    hung: str = ''

    @property
    def ran_s(self) -> float:
        """Its running time in seconds."""
        return self.ended_s - self.started_s

    def describe(self) -> str:
        """:return: the end in words, as `status` shows it."""
        if self.hung:
            return self.hung
        if self.code < 0:
            return f'killed by {signal_name(-self.code)}'
        if self.code == os.EX_OK and not (self.loop_started or self.was_requested):
            return 'exited before it began to work'
        return f'exited with status {self.code}'


class RestartHistory(NamedTuple):
    """The failures of a slice that are not forgiven yet."""

    failures_s: tuple[float, ...] = ()
    streak: int = 0
    retirements: int = 0


class Decision(NamedTuple):
    """The fate of a slice: its state, the wait before the next start (if any), and why."""

    state: ProcessState
    history: RestartHistory
    wait_s: float = 0.0
    reason: str = ''

    @property
    def starts_again(self) -> bool:
        """True if a new process follows, now or after ``wait_s``."""
        return self.state in (ProcessState.STARTING, ProcessState.BACKOFF)


def decide(
    end: ProcessEnd, history: RestartHistory, options: RestartOptions, rng: random.Random | None = None
) -> Decision:
    """:return: the fate of a slice with this `history` after this `end`."""
    if end.was_requested:
        return Decision(ProcessState.EXITED, RestartHistory())
    if end.code == os.EX_CONFIG and (end.gave_up or not end.loop_started):
        return Decision(ProcessState.FATAL, history, reason='its configuration cannot work (exit status 78)')
    if end.ran_s >= options.stable_s:
        history = RestartHistory()
    if end.code == os.EX_OK and end.loop_started and not end.hung:
        return _retired(end, history)
    return _failed(end, history, options, rng)


def _retired(end: ProcessEnd, history: RestartHistory) -> Decision:
    quick = end.ran_s < QUICK_RETIREMENT_S
    history = history._replace(retirements=history.retirements + 1 if quick else 0)
    if history.retirements < QUICK_RETIREMENTS:
        return Decision(ProcessState.STARTING, history)
    wait_s = QUICK_RETIREMENT_S - end.ran_s
    return Decision(ProcessState.BACKOFF, history, wait_s, 'exits with status 0 within a second of its start')


def _failed(
    end: ProcessEnd, history: RestartHistory, options: RestartOptions, rng: random.Random | None
) -> Decision:
    since_s = end.ended_s - options.window_s
    failures_s = (*(at_s for at_s in history.failures_s if at_s > since_s), end.ended_s)
    reason = end.describe()
    if len(failures_s) > options.max_restarts:
        many = f'ended {len(failures_s)} times within {options.window_s:g} s, gave up: {reason}'
        return Decision(ProcessState.FATAL, RestartHistory(failures_s), reason=many)
    wait_s = options.retry.delay_s(history.streak + 1, rng)
    return Decision(ProcessState.BACKOFF, RestartHistory(failures_s, history.streak + 1), wait_s, reason)
