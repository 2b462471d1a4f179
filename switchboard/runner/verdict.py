"""The verdict on a message whose ``dispose`` raised: a pure function of the error, the history and the queue's options.

============================  ==========================================================================================
raised                        verdict
============================  ==========================================================================================
`TemporaryFailure`            tried again later, until ``max_retry_time`` seconds after its first failure
`PermanentFailure`            preserved
`MessageTooLargeError`        preserved: no queue of that kind will ever take it
`DestinationDown`             left where it is, unwritten; the runner waits
a full or failing disk        left where it is, unwritten; the runner waits
`QueueMismatchError`          the same: no message for that queue fares better, until somebody makes it agree
anything else                 tried again later until it has failed ``max_attempts`` times, then preserved
============================  ==========================================================================================
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from switchboard.errors import (
    DestinationDown,
    DurabilityError,
    MessageTooLargeError,
    PermanentFailure,
    QueueDrainingError,
    QueueFullError,
    QueueMismatchError,
    TemporaryFailure,
)
from switchboard.message.journal import Record, count_since_retry
from switchboard.message.naming import LONGEST_DELAY_S
from switchboard.options import QueueOptions

# Of a traceback, the end is kept: it names the error.
MAX_TRACEBACK_CHARACTERS = 8192
MAX_TEXT_CHARACTERS = 1000
# So often a message may ask to be tried again at once.  After that a second goes by each time, or what the queue's policy begins with if that is
# less: or it would keep a processor busy for days, and its history would grow with each round.
TRIES_AT_ONCE = 10
SHORTEST_WAIT_S = 1.0

Outcome = Literal['kept', 'retried', 'failed', 'requeued']


class Verdict(NamedTuple):
    """The fate of a message.

    ``requeued`` is for an error about the disk or the destination, not about the message: it stays where it is, as if it never was claimed.
    """

    outcome: Outcome
    text: str = ''
    delay_s: float = 0.0
    record: Mapping[str, Any] = {}
    cause: str = 'rejected'
    error: BaseException | None = None


def judge(error: BaseException, history: Sequence[Record], options: QueueOptions, now_s: float) -> Verdict:
    """Decide the fate of a message.

    :param error: the error that ``dispose``, or the commit, raised.
    :param history: the entry's records so far.
    :param now_s: seconds since the epoch.
    """
    message = _message(error)
    text = f'{type(error).__name__}: {message}'[:MAX_TEXT_CHARACTERS]
    if isinstance(
        error, QueueFullError | DurabilityError | QueueMismatchError | QueueDrainingError | DestinationDown
    ):
        return Verdict('requeued', text, error=error)
    failures = count_since_retry(history, 'failed') + 1
    attempt = failures + count_since_retry(history, 'deferred')
    record = {'attempt': attempt, 'error': type(error).__name__, 'message': message}
    if isinstance(error, TemporaryFailure):
        record['event'] = 'deferred'
        first_s = _first_failure_s(history)
        if (
            options.max_retry_time_s is not None
            and first_s is not None
            and now_s - first_s > options.max_retry_time_s
        ):
            return Verdict(
                'failed', f'given up after {attempt} attempts: {text}', record=record, cause='attempts'
            )
        asked_s = _finite(error.retry_after_s)  # out of a remote server's answer, perhaps
        if asked_s is None:
            delay_s = options.retry.delay_s(attempt)
        else:
            least_s = 0.0 if attempt <= TRIES_AT_ONCE else min(SHORTEST_WAIT_S, options.retry.first_s)
            delay_s = min(max(asked_s, least_s), LONGEST_DELAY_S)
        return Verdict('retried', text, delay_s, record | {'retry_after_s': round(delay_s, 3)})
    record['event'] = 'failed'
    record['traceback'] = _traceback(error)
    if isinstance(error, PermanentFailure | MessageTooLargeError):
        return Verdict('failed', text, record=record)
    if failures >= options.max_attempts:
        return Verdict('failed', text, record=record, cause='attempts')
    delay_s = options.retry.delay_s(failures)
    return Verdict('retried', text, delay_s, record | {'retry_after_s': round(delay_s, 3)})


def _finite(value: object) -> float | None:
    """:return: a number that can be calculated with; None if it is none."""
    if not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _message(error: BaseException) -> str:
    try:
        return str(error)[:MAX_TEXT_CHARACTERS]
    except BaseException:  # an error class may have a mistake of its own
        return '(this error cannot be written as text)'


def _traceback(error: BaseException) -> str:
    try:
        return ''.join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARACTERS:]
    except BaseException:  # the same
        return ''


def _first_failure_s(history: Sequence[Record]) -> float | None:
    """The time of the first failure since an operator last sent the entry back."""
    first: float | None = None
    for record in history:
        if record.get('event') == 'retried':
            first = None
        elif first is None and record.get('event') in ('deferred', 'failed'):
            first = _finite(record.get('time'))
    return first
