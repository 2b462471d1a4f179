"""What becomes of a message whose ``dispose`` raised."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.errors import (
    DurabilityError,
    EntryTakenError,
    MessageTooLargeError,
    PermanentFailure,
    QueueDrainingError,
    QueueFullError,
    QueueMismatchError,
    TemporaryFailure,
    UnserializableError,
)
from switchboard.message.naming import LONGEST_DELAY_S
from switchboard.options import QueueOptions, RetryPolicy
from switchboard.runner.verdict import (
    MAX_TEXT_CHARACTERS,
    MAX_TRACEBACK_CHARACTERS,
    SHORTEST_WAIT_S,
    TRIES_AT_ONCE,
    Verdict,
    judge,
)

STEADY = RetryPolicy(first_s=10, factor=2, cap_s=60, jitter=0)


def raised(error: BaseException) -> BaseException:
    """The same, with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def say(error: BaseException, history: list[dict[str, Any]] | None = None, **options: Any) -> Verdict:
    return judge(raised(error), history or [], QueueOptions(retry=STEADY, **options), now_s=1000.0)


def times(count: int, event: str = 'failed', **fields: Any) -> list[dict[str, Any]]:
    return [{'event': event, 'time': 0.0, **fields}] * count


class TestOtherErrors:
    def test_by_default_the_first_one_is_the_last(self) -> None:
        verdict = say(ValueError('no'))
        assert (verdict.outcome, verdict.text, verdict.cause) == ('failed', 'ValueError: no', 'attempts')

    def test_they_are_tried_again_until_they_were_often_enough(self) -> None:
        outcomes = [say(KeyError('x'), times(count), max_attempts=3).outcome for count in range(4)]
        assert outcomes == ['retried', 'retried', 'failed', 'failed']

    def test_each_wait_is_longer_up_to_a_limit(self) -> None:
        waits = [say(KeyError('x'), times(count), max_attempts=99).delay_s for count in range(6)]
        assert waits == [10, 20, 40, 60, 60, 60]

    def test_what_was_sent_back_begins_anew(self) -> None:
        history = [*times(2), {'event': 'retried'}, *times(1)]
        verdict = say(KeyError('x'), history, max_attempts=3)
        assert (verdict.outcome, verdict.delay_s) == ('retried', 20)

    def test_recoveries_are_no_failures(self) -> None:
        assert say(KeyError('x'), times(2, 'recovered'), max_attempts=2).outcome == 'retried'

    def test_the_record_has_class_message_and_the_end_of_the_traceback(self) -> None:
        record = say(ValueError('no'), times(1), max_attempts=5).record
        assert (record['event'], record['error'], record['message'], record['attempt']) == (
            'failed',
            'ValueError',
            'no',
            2,
        )
        assert record['retry_after_s'] == 20
        assert record['traceback'].startswith('Traceback')
        assert record['traceback'].endswith('ValueError: no\n')

    def test_long_texts_are_cut(self) -> None:
        verdict = say(ValueError('x' * 100_000))
        assert len(verdict.text) == len(verdict.record['message']) == MAX_TEXT_CHARACTERS
        assert len(verdict.record['traceback']) == MAX_TRACEBACK_CHARACTERS

    @pytest.mark.parametrize(
        'error', [UnserializableError('x'), EntryTakenError('x'), ExceptionGroup('x', [KeyError()])]
    )
    def test_errors_of_the_queue_about_a_message_are_like_others(self, error: Exception) -> None:
        assert say(error).outcome == 'failed'

    def test_an_error_that_cannot_be_written_is_judged_all_the_same(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError('no text')

        verdict = say(Mute())
        assert verdict.outcome == 'failed'
        assert verdict.text.startswith('Mute: (this error')


class TestPermanentFailure:
    def test_it_is_the_last_one_at_once(self) -> None:
        verdict = say(PermanentFailure('no such user'), max_attempts=99)
        assert (verdict.outcome, verdict.text, verdict.cause) == (
            'failed',
            'PermanentFailure: no such user',
            'rejected',
        )
        assert verdict.record['message'] == 'no such user'


class TestTemporaryFailure:
    def test_it_is_tried_again_however_often(self) -> None:
        verdict = say(TemporaryFailure('busy'), times(50, 'deferred'), max_retry_time_s=None)
        assert (verdict.outcome, verdict.delay_s, verdict.record['attempt']) == ('retried', 60, 51)
        assert verdict.record['event'] == 'deferred'
        assert 'traceback' not in verdict.record

    def test_it_may_say_when(self) -> None:
        assert say(TemporaryFailure(retry_after_s=7.5)).delay_s == 7.5
        assert say(TemporaryFailure(retry_after_s=0)).delay_s == 0
        assert say(TemporaryFailure(retry_after_s=-5)).delay_s == 0

    def test_who_wants_to_be_tried_at_once_again_and_again_keeps_no_processor_busy(self) -> None:
        hasty = TemporaryFailure(retry_after_s=0)
        assert say(hasty, times(TRIES_AT_ONCE - 1, 'deferred')).delay_s == 0
        assert say(hasty, times(TRIES_AT_ONCE, 'deferred')).delay_s == SHORTEST_WAIT_S
        assert say(TemporaryFailure(retry_after_s=2), times(TRIES_AT_ONCE, 'deferred')).delay_s == 2

    @pytest.mark.parametrize('asked', [float('nan'), float('inf'), 'soon', [5]])
    def test_a_time_that_is_none_is_the_policys(self, asked: Any) -> None:
        assert say(TemporaryFailure(retry_after_s=asked)).delay_s == 10

    def test_a_time_in_words_of_a_server_is_understood(self) -> None:
        assert say(TemporaryFailure(retry_after_s='120')).delay_s == 120

    def test_it_is_given_up_when_the_first_one_is_long_ago(self) -> None:
        history = [{'event': 'deferred', 'time': 100.0}, {'event': 'deferred', 'time': 990.0}]
        assert say(TemporaryFailure('x'), history, max_retry_time_s=901).outcome == 'retried'
        verdict = say(TemporaryFailure('x'), history, max_retry_time_s=899)
        assert (verdict.outcome, verdict.cause) == ('failed', 'attempts')
        assert verdict.text == 'given up after 3 attempts: TemporaryFailure: x'

    def test_the_first_one_counts_from_when_it_was_sent_back(self) -> None:
        history = [
            {'event': 'deferred', 'time': 0.0},
            {'event': 'retried', 'time': 980.0},
            {'event': 'failed', 'time': 990.0},
        ]
        assert say(TemporaryFailure('x'), history, max_retry_time_s=20).outcome == 'retried'
        assert say(TemporaryFailure('x'), history, max_retry_time_s=5).outcome == 'failed'

    def test_a_record_without_a_time_is_no_reason_to_give_up(self) -> None:
        assert (
            say(TemporaryFailure('x'), [{'event': 'deferred', 'time': 'x'}], max_retry_time_s=1).outcome
            == 'retried'
        )


@pytest.mark.parametrize(
    'error',
    [
        QueueFullError('full'),
        DurabilityError('io', step='rename'),
        QueueDrainingError('drained'),
        QueueMismatchError('other arguments'),
    ],
)
def test_trouble_with_a_queue_or_the_disk_is_not_the_messages_fault(error: Exception) -> None:
    verdict = say(error, times(50))
    assert (verdict.outcome, verdict.record, verdict.delay_s) == ('requeued', {}, 0)


class TestRetryPolicy:
    @given(st.integers(1, 10**9), st.floats(1, 1e9), st.floats(0.001, 1e6), st.floats(0, 1))
    def test_a_wait_is_never_longer_than_the_cap_and_its_jitter(
        self, attempt: int, factor: float, first_s: float, jitter: float
    ) -> None:
        policy = RetryPolicy(first_s=first_s, factor=factor, cap_s=3600, jitter=jitter)
        assert 0 <= policy.delay_s(attempt) <= 3600 * (1 + jitter)

    def test_jitter_spreads_a_herd(self) -> None:
        waits = {RetryPolicy(first_s=100, jitter=0.1).delay_s(1) for _ in range(50)}
        assert len(waits) > 10
        assert all(90 <= wait <= 110 for wait in waits)


@pytest.mark.parametrize(
    'asked', ['1e300', 1e300, 10**400, '9' * 400, math.inf, '-inf', 'nan', -1e300, [], 'soon', True]
)
def test_whatever_wait_is_asked_for_one_comes_out_that_can_be_waited_for(asked: Any) -> None:
    verdict = say(TemporaryFailure(retry_after_s=asked))
    assert 0 <= verdict.delay_s <= LONGEST_DELAY_S


@pytest.mark.parametrize('when', [10**400, math.inf, math.nan, 'yesterday', None])
def test_a_time_in_the_history_that_is_none_is_no_first_failure(when: Any) -> None:
    history = [{'event': 'failed', 'time': when}]
    assert say(TemporaryFailure(), history, max_retry_time_s=1.0).outcome == 'retried'


def test_a_message_that_is_too_large_for_a_queue_is_not_tried_again() -> None:
    verdict = say(MessageTooLargeError('2 MB'), max_attempts=5)
    assert (verdict.outcome, verdict.record['error']) == ('failed', 'MessageTooLargeError')
