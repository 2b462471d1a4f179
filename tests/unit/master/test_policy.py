"""The restart policy, without a process, a clock or dice."""

from __future__ import annotations

import random

import pytest

from switchboard.master.policy import Decision, ProcessEnd, RestartHistory, decide
from switchboard.options import RestartOptions, RetryPolicy
from switchboard.status.record import ProcessState

EVEN = RestartOptions(RetryPolicy(1, 60, jitter=0))


def after(*ends: ProcessEnd, options: RestartOptions = EVEN) -> list[Decision]:
    rng = random.Random(1)
    history = RestartHistory()
    decisions = []
    for end in ends:
        decisions.append(decide(end, history, options, rng))
        history = decisions[-1].history
    return decisions


def crash(at_s: float, *, ran_s: float = 1, code: int = 1) -> ProcessEnd:
    return ProcessEnd(code, at_s - ran_s, at_s)


def test_a_runner_that_was_asked_to_go_stays_away_whatever_its_status() -> None:
    for code in (0, 1, 78, -9):
        [decision] = after(ProcessEnd(code, 0, 5, was_requested=True))
        assert (decision.state, decision.starts_again) == (ProcessState.EXITED, False)


def test_exit_78_is_fatal_at_once() -> None:
    [decision] = after(ProcessEnd(78, 0, 5000, loop_started=False))
    assert (decision.state, decision.starts_again) == (ProcessState.FATAL, False)
    assert '78' in decision.reason


def test_exit_78_in_the_middle_of_the_work_is_fatal_only_if_the_runner_has_said_so() -> None:
    [decision] = after(ProcessEnd(78, 0, 5, loop_started=True, gave_up=True))
    assert decision.state is ProcessState.FATAL
    [decision] = after(ProcessEnd(78, 0, 5, loop_started=True))
    assert (decision.state, decision.reason) == (ProcessState.BACKOFF, 'exited with status 78')


def test_waits_double_up_to_the_cap() -> None:
    decisions = after(*(crash(at_s) for at_s in range(1, 10)))
    assert [decision.wait_s for decision in decisions] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert {decision.state for decision in decisions} == {ProcessState.BACKOFF}


def test_the_eleventh_end_within_the_window_is_fatal_and_says_why() -> None:
    decisions = after(*(crash(at_s, code=-11) for at_s in range(1, 12)))
    assert [decision.state for decision in decisions] == [ProcessState.BACKOFF] * 10 + [ProcessState.FATAL]
    assert decisions[-1].reason == 'ended 11 times within 600 s, gave up: killed by SIGSEGV'


def test_ends_that_lie_behind_the_window_do_not_count() -> None:
    decisions = after(*(crash(at_s * 100) for at_s in range(1, 40)))
    assert {decision.state for decision in decisions} == {ProcessState.BACKOFF}


def test_a_healthy_run_forgives_what_was_before_it() -> None:
    *_, last = after(*(crash(at_s) for at_s in range(1, 11)), crash(90, ran_s=60))
    assert (last.state, last.wait_s) == (ProcessState.BACKOFF, 1)


def test_a_runner_that_retires_is_back_at_once_and_at_no_cost() -> None:
    decisions = after(*(ProcessEnd(0, at_s, at_s + 2) for at_s in range(100)))
    assert {(decision.state, decision.wait_s) for decision in decisions} == {(ProcessState.STARTING, 0)}
    assert decisions[-1].history == RestartHistory()


def test_a_runner_that_retires_all_the_time_is_held_to_one_start_a_second() -> None:
    decisions = after(*(ProcessEnd(0, at_s, at_s + 0.25) for at_s in range(100)))
    assert [decision.wait_s for decision in decisions] == [0, 0] + [0.75] * 98
    assert {decision.state for decision in decisions[2:]} == {ProcessState.BACKOFF}


def test_a_runner_that_exits_0_before_its_loop_has_failed() -> None:
    [decision] = after(ProcessEnd(0, 0, 1, loop_started=False))
    assert (decision.state, decision.wait_s) == (ProcessState.BACKOFF, 1)
    assert decision.reason == 'exited before it began to work'


def test_a_hang_counts_as_a_failure_even_if_it_went_politely_in_the_end() -> None:
    [decision] = after(ProcessEnd(0, 0, 30, hung='no heartbeat for 61 s'))
    assert (decision.state, decision.reason) == (ProcessState.BACKOFF, 'no heartbeat for 61 s')


def test_no_restarts_at_all_can_be_asked_for() -> None:
    [decision] = after(crash(1), options=RestartOptions(max_restarts=0))
    assert decision.state is ProcessState.FATAL


def test_jitter_spreads_the_waits_around_their_mean_and_no_further() -> None:
    rng = random.Random(7)
    options = RestartOptions()
    waits = [options.retry.delay_s(4, rng) for _ in range(200)]
    assert 7.2 <= min(waits) < 7.4
    assert 8.6 < max(waits) <= 8.8


def test_a_very_long_streak_still_waits_the_cap() -> None:
    assert EVEN.retry.delay_s(100_001, random.Random(1)) == 60


@pytest.mark.parametrize(
    ('code', 'words'),
    [(3, 'exited with status 3'), (-9, 'killed by SIGKILL'), (-63, 'killed by signal 63')],
)
def test_an_end_has_words(code: int, words: str) -> None:
    assert ProcessEnd(code, 0, 1).describe() == words
