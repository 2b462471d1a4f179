"""When a process has done enough to be replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from switchboard.options import RunnerOptions
from switchboard.runner.retirement import MEMORY_LOOK_NS, Lifetime, resident_bytes
from switchboard.testing import FakeClock


def lifetime(
    clock: FakeClock | None = None, memory_bytes: Callable[[], int] | None = None, **options: Any
) -> Lifetime:
    return Lifetime(RunnerOptions(name='x', class_path='', **options), clock or FakeClock(), memory_bytes)


def test_without_limits_a_process_lives_for_ever() -> None:
    clock = FakeClock()
    one = lifetime(clock)
    one.messages = 10**9
    clock.advance(10**9)
    assert not one.is_over()


@pytest.mark.parametrize('limit', [1, 2, 100])
def test_it_ends_after_about_so_many_messages(limit: int) -> None:
    for _ in range(50):
        one = lifetime(max_messages_per_process=limit)
        one.messages = max(0, int(limit * 0.89) - 1)
        assert not one.is_over()
        one.messages = round(limit * 1.1) or 1
        assert one.is_over()


def test_it_ends_at_about_such_an_age() -> None:
    for _ in range(50):
        clock = FakeClock()
        one = lifetime(clock, max_process_age_s=1000)
        clock.advance(899)
        assert not one.is_over()
        clock.advance(202)
        assert one.is_over()


def test_sisters_do_not_end_together() -> None:
    clock = FakeClock()
    sisters = [lifetime(clock, max_process_age_s=1000) for _ in range(50)]
    clock.advance(1000)
    assert 5 < sum(one.is_over() for one in sisters) < 45


def test_it_ends_when_it_holds_too_much_memory_and_looks_now_and_then() -> None:
    assert resident_bytes() > 1_000_000
    assert lifetime(max_process_memory_bytes=1).is_over()
    clock = FakeClock()
    held = [1000]
    one = lifetime(clock, lambda: held[-1], max_process_memory_bytes=2000)
    assert not one.is_over()
    held.append(2000)
    assert not one.is_over()  # it has just looked
    clock.advance(MEMORY_LOOK_NS / 1e9 + 0.1)
    assert one.is_over()
