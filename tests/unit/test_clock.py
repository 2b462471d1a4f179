"""Waits that double, and time limits."""

from __future__ import annotations

import math

from switchboard.clock import Backoff, TimeLimit


def test_a_wait_doubles_from_the_first_to_the_last_until_it_is_reset() -> None:
    backoff = Backoff(0.5, 3.0)
    assert backoff.wait_s == 0
    assert [backoff.next() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    backoff.reset()
    assert (backoff.wait_s, backoff.next()) == (0, 0.5)


def test_the_wait_after_so_many_failures_is_the_same_and_never_too_large_to_be_said() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.after(times) for times in (1, 2, 3, 4, 10**9)] == [0.5, 1, 2, 3, 3]
    assert backoff.wait_s == 0


def test_a_time_limit_ends_after_its_time() -> None:
    now_s = [100.0]
    limit = TimeLimit(2.5, lambda: now_s[0])
    waits = []
    while limit.remaining_s() > 0:
        waits.append(limit.wait_s())
        now_s[0] += waits[-1]
    assert waits == [1, 1, 0.5]


def test_time_in_which_nobody_looked_counts_for_one_look() -> None:
    now_s = [100.0]
    limit = TimeLimit(10.0, lambda: now_s[0])
    now_s[0] += 3600
    assert limit.remaining_s() == 9


def test_a_time_limit_without_an_end_does_not_end() -> None:
    now_s = [100.0]
    limit = TimeLimit(None, lambda: now_s[0])
    now_s[0] += 3600
    assert (limit.remaining_s(), limit.wait_s()) == (math.inf, 1)
