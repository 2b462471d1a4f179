"""In which order messages are delivered, against a model: first in, first out, with priorities that age, delays, retries and keys.

The model knows times, priorities and keys, and no files.  What is taken next must be what it says, whoever works on what.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from switchboard import Switchboard
from switchboard.message.naming import NS_PER_S, Slice
from switchboard.options import QueueOptions
from switchboard.queue.ready_queue import SLOW_LISTING_NS
from switchboard.testing import FakeClock

pytestmark = pytest.mark.slow

STEP_S = 60
# Longer than a listing is good for, and than an entry is left alone that must wait for others of its key.
A_MOMENT_S = 1.1


@dataclass
class Message:
    """One that waits, or is at work."""

    filebase: str
    when_ns: int
    priority: int
    key: str
    at_work: bool = False
    # Of strict order: until when it holds its key.
    waits_until_ns: int = 0

    @property
    def rank(self) -> int:
        return self.when_ns - self.priority * STEP_S * NS_PER_S


class Delivery(RuleBasedStateMachine):
    strict = False
    slices = 1
    read_seldom = False

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.mkdtemp()
        self.clock = FakeClock(1_800_000_000)
        options = QueueOptions(
            durability='lazy', priority_step_s=STEP_S, strict_order=self.strict, max_recoveries=1000
        )
        self.everything = Switchboard('in', f'{self.home}/in', options=options, clock=self.clock)
        self.queues = [
            Switchboard(
                'in',
                f'{self.home}/in',
                index,
                self.slices,
                options=options,
                clock=self.clock,
                # A directory that is treated as one that takes long to read.
                slow_listing_ns=0 if self.read_seldom else SLOW_LISTING_NS,
            )
            for index in range(self.slices)
        ]
        self.wakeups = [queue.make_wakeup() for queue in self.queues if self.read_seldom]
        self.messages: dict[str, Message] = {}

    def teardown(self) -> None:
        for wakeup in self.wakeups:
            wakeup.close()
        for message in self.at_work():
            self.everything.finish(message.filebase)
        shutil.rmtree(self.home)

    def at_work(self) -> list[Message]:
        return [one for one in self.messages.values() if one.at_work]

    @rule(
        priority=st.sampled_from([0, 0, 0, 1, 5, 9]),
        key=st.sampled_from('abc'),
        delay=st.sampled_from([0, 0, 0, 0.5, 30, 200]),
        pause=st.sampled_from([0, 0.3, 20]),
    )
    def enqueue(self, priority: int, key: str, delay: float, pause: float) -> None:
        self.clock.advance(pause)
        now_ns = self.clock.time_ns()
        keys: dict[str, Any] = {'delay': delay} if delay else {}
        filebase = self.everything.enqueue('x', priority=priority, order_key=key, **keys)
        when_ns = int(filebase[:10]) * NS_PER_S + int(filebase[11:20])
        assert 0 <= when_ns - now_ns - int(delay * NS_PER_S) <= NS_PER_S // 1000
        self.messages[filebase] = Message(filebase, when_ns, priority, key)

    @rule(seconds=st.sampled_from([1, 10, 45, 100, 1000]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(number=st.integers(0, 9))
    def take(self, number: int) -> None:
        index = number % self.slices
        self.clock.advance(A_MOMENT_S)
        queue = self.queues[index]
        queue.has_ready()
        taken = queue.take()
        expected = self.expected(Slice(index, self.slices))
        assert (taken and taken.filebase) == (expected and expected.filebase)
        if expected is not None:
            expected.at_work = True

    def expected(self, slice_: Slice) -> Message | None:
        """The message that is to be taken next."""
        now_ns = self.clock.time_ns()
        ours = [one for one in self.messages.values() if slice_.contains(one.filebase)]
        due = [one for one in ours if not one.at_work and one.when_ns <= now_ns]
        free = [one for one in due if one.waits_until_ns <= now_ns]
        if self.strict:
            free = [one for one in free if self.is_first(one)]
        return min(free, key=lambda one: (one.rank, one.filebase[20:]), default=None)

    def is_first(self, message: Message) -> bool:
        return not any(
            one.key == message.key and one.filebase < message.filebase for one in self.messages.values()
        )

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.at_work()))
        self.holder(message).finish(message.filebase)
        del self.messages[message.filebase]

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def preserve(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.at_work()))
        self.holder(message).finish(message.filebase, preserve=True)
        del self.messages[message.filebase]

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.at_work()))
        assert self.holder(message).release(message.filebase) == message.filebase
        message.at_work = False

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), delay=st.sampled_from([3, 60, 500]))
    def retry_later(self, data: st.DataObject, delay: float) -> None:
        message = data.draw(st.sampled_from(self.at_work()))
        until_ns = self.clock.time_ns() + int(delay * NS_PER_S)
        filebase = self.holder(message).release(message.filebase, delay_s=delay, record={'event': 'failed'})
        message.at_work = False
        if self.strict:
            message.waits_until_ns = until_ns
        else:
            message.when_ns = until_ns
        del self.messages[message.filebase]
        message.filebase = filebase
        self.messages[filebase] = message

    def holder(self, message: Message) -> Switchboard:
        [queue] = [queue for queue in self.queues if queue.slice.contains(message.filebase)]
        return queue


@pytest.mark.parametrize('strict', [False, True], ids=['by priority', 'in strict order'])
@pytest.mark.parametrize('slices', [1, 3])
@pytest.mark.parametrize('read_seldom', [False, True], ids=['read each time', 'read seldom'])
def test_what_is_taken_next_is_what_the_model_says(strict: bool, slices: int, read_seldom: bool) -> None:
    kind = type('Case', (Delivery,), {'strict': strict, 'slices': slices, 'read_seldom': read_seldom})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
