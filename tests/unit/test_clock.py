"""Waits that double."""

from __future__ import annotations

from switchboard.clock import Backoff


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
