"""Clocks: the machine's, and the one that a test turns; and what else the testing package brings."""

from __future__ import annotations

import os
import time

import pytest

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.testing import FakeClock, Signal


def test_the_system_clock_is_the_machines() -> None:
    before = time.time_ns(), time.monotonic_ns()
    now = SYSTEM_CLOCK.time_ns(), SYSTEM_CLOCK.monotonic_ns()
    after = time.time_ns(), time.monotonic_ns()
    assert before[0] <= now[0] <= after[0]
    assert before[1] <= now[1] <= after[1]


class TestFakeClock:
    def test_it_is_a_clock_that_starts_near_the_present_and_stands_still(self) -> None:
        clock = FakeClock()
        assert isinstance(clock, Clock)
        assert abs(clock.time_ns() - time.time_ns()) < 60 * 10**9
        assert (clock.time_ns(), clock.monotonic_ns()) == (clock.time_ns(), clock.monotonic_ns())

    def test_it_can_start_anywhere(self) -> None:
        assert FakeClock(1_732_242_000.5).time_ns() == 1_732_242_000_500_000_000

    def test_time_passes_on_both_hands(self) -> None:
        clock = FakeClock()
        before = clock.time_ns(), clock.monotonic_ns()
        clock.advance(1.5)
        assert (clock.time_ns() - before[0], clock.monotonic_ns() - before[1]) == (1_500_000_000,) * 2

    def test_setting_it_back_leaves_the_monotonic_hand_alone(self) -> None:
        clock = FakeClock()
        before = clock.time_ns(), clock.monotonic_ns()
        clock.set_back(60)
        assert (clock.time_ns() - before[0], clock.monotonic_ns() - before[1]) == (-60 * 10**9, 0)

    def test_time_does_not_pass_backwards(self) -> None:
        with pytest.raises(ValueError, match='set_back'):
            FakeClock().advance(-1)


class TestSignal:
    def test_it_stays_set_for_all_who_wait(self) -> None:
        signal = Signal()
        assert not signal.is_set()
        signal.set()
        signal.wait_or_timeout()
        signal.wait_or_timeout()
        assert signal.is_set()

    def test_one_that_does_not_come_is_an_error(self) -> None:
        with pytest.raises(TimeoutError, match=r'0\.01 seconds'):
            Signal().wait_or_timeout(0.01)

    def test_it_crosses_a_fork(self) -> None:
        asked, answered = Signal(), Signal()
        pid = os.fork()
        if pid == 0:
            try:
                asked.wait_or_timeout()
                answered.set()
            finally:
                os._exit(0)
        assert not answered.is_set()
        asked.set()
        answered.wait_or_timeout()
        os.waitpid(pid, 0)

    def test_setting_it_more_often_than_the_pipe_holds_does_not_block(self) -> None:
        signal = Signal()
        for _ in range(70_000):
            signal.set()
        assert signal.is_set()
