"""A queue's rate: how many messages one process may take in a second."""

from __future__ import annotations

import pytest

from switchboard import Switchboard
from switchboard.options import QueueOptions
from switchboard.queue.throttle import Throttle
from switchboard.testing.clock import FakeClock


def test_without_a_rate_everything_may_be_taken():
    throttle = Throttle(None, FakeClock())
    for _ in range(1000):
        assert throttle.allows()
        throttle.took()
    assert throttle.wait_s() is None


def test_a_second_holds_as_many_as_the_rate_says():
    clock = FakeClock()
    throttle = Throttle(3.0, clock)
    taken = 0
    while throttle.allows():
        throttle.took()
        taken += 1
    assert taken == 3
    assert throttle.wait_s() == pytest.approx(1 / 3)
    clock.advance(1 / 3 + 0.001)
    assert throttle.allows()


def test_a_slow_rate_still_lets_one_through():
    clock = FakeClock()
    throttle = Throttle(0.1, clock)
    assert throttle.allows()
    throttle.took()
    clock.advance(9)
    assert not throttle.allows()
    clock.advance(1.1)
    assert throttle.allows()


def test_a_long_rest_saves_up_no_more_than_a_second_holds():
    clock = FakeClock()
    throttle = Throttle(2.0, clock)
    clock.advance(3600)
    taken = 0
    while throttle.allows():
        throttle.took()
        taken += 1
    assert taken == 2


def test_the_slices_of_a_queue_share_its_rate(tmp_path):
    clock = FakeClock()
    options = QueueOptions(durability='lazy', rate=4.0)
    everything = Switchboard('in', tmp_path / 'in', options=options, clock=clock)
    for number in range(40):
        everything.enqueue(number)
    taken = 0
    for index in range(2):
        queue = Switchboard('in', tmp_path / 'in', index, 2, options=options, clock=clock)
        while queue.take() is not None:
            taken += 1
        assert 0 < queue.wait_s() <= 0.5
    assert taken == 4
