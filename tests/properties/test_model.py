"""Random sequences of everything that processes do to a spool, against a simple model of what must be there.

A process is a spool with a disk of its own; it dies by losing its descriptors, at any of its calls, as the kernel would have
it.  The clock is turned forth and back.  After each step the directories are read and compared with the model.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from switchboard.message.entry import read_entry
from switchboard.message.naming import CLAIMED, NS_PER_S, READY, parse_filebase, reset_process_number
from switchboard.options import MAX_RECOVERIES
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from switchboard.testing.clock import FakeClock
from switchboard.testing.faults import FaultyDisk, Killed

READY_, CLAIMED_, ORPHANED, BAD, GONE = 'ready', 'claimed', 'orphaned', 'bad', 'gone'
QUEUES = ('in', 'out')
# What is unique to a name has a part in choosing its slice, and so in what can be taken: the same steps have to find the same.
CHANCE = random.Random()


@dataclass
class Message:
    """What must be there of one message."""

    text: str
    queue: str
    state: str = READY_
    filebase: str = ''
    owner: Process | None = None
    recoveries: int = 0


@dataclass(eq=False)
class Process:
    """A living process: its disk, and the slice that it works on."""

    disk: FaultyDisk
    spool: Spool
    queues: dict[str, Switchboard] = field(default_factory=dict)

    def work_on(self, index: int, count: int) -> None:
        self.queues = {name: self.spool.queue(name, index, count) for name in QUEUES}


class SpoolMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        CHANCE.seed(0)
        reset_process_number()
        self.path = Path(tempfile.mkdtemp(prefix='switchboard-model-'))
        self.clock = FakeClock()
        self.set_back = False
        self.messages: dict[str, Message] = {}
        self.processes: list[Process] = []
        self.numbers = itertools.count(1)

    @initialize(data=st.data(), messages=st.integers(2, 8), claims=st.integers(0, 4))
    def begin(self, data: st.DataObject, messages: int, claims: int) -> None:
        self.start_process(0, 1)
        self.enqueue_many(data, messages)
        self.take(data, 'in', claims)

    # Processes.

    @precondition(lambda self: len(self.processes) < 4)
    @rule(index=st.integers(0, 2), count=st.sampled_from([1, 1, 1, 3]))
    def start_process(self, index: int, count: int) -> None:
        disk = FaultyDisk()
        process = Process(disk, Spool(self.path, 'lazy', disk=disk, clock=self.clock))
        process.work_on(index % count, count)
        self.processes.append(process)

    @rule(data=st.data(), index=st.integers(0, 4), count=st.sampled_from([1, 1, 2, 5]))
    def change_slices(self, data: st.DataObject, index: int, count: int) -> None:
        self._process(data).work_on(index % count, count)

    @precondition(lambda self: len(self.processes) > 1)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self._bury(self._process(data))

    def _process(self, data: st.DataObject) -> Process:
        return data.draw(st.sampled_from(self.processes))

    def _bury(self, process: Process) -> None:
        process.disk.end_process()
        self.processes.remove(process)
        for message in self.messages.values():
            if message.owner is process:
                message.owner, message.state = None, ORPHANED
        if not self.processes:
            self.start_process(0, 1)

    # What they do.

    def _new(self) -> str:
        return f'message {next(self.numbers)}'

    @rule(data=st.data(), delay=st.sampled_from([None, 0, 5, 500]), priority=st.integers(0, 2))
    def enqueue(self, data: st.DataObject, delay: int | None, priority: int) -> None:
        metadata = {} if delay is None else {'delay': delay}
        text = self._new()
        filebase = self._process(data).queues['in'].enqueue(text, metadata, priority=priority)
        self.messages[text] = Message(text, 'in', filebase=filebase)

    @rule(data=st.data(), count=st.integers(1, 4))
    def enqueue_many(self, data: st.DataObject, count: int) -> None:
        texts = [self._new() for _ in range(count)]
        for text, filebase in zip(texts, self._process(data).queues['in'].enqueue_many(texts), strict=True):
            self.messages[text] = Message(text, 'in', filebase=filebase)

    @precondition(lambda self: self._in_state(READY_))
    @rule(data=st.data(), queue=st.sampled_from(('in', 'in', 'out')), count=st.integers(1, 3))
    def take(self, data: st.DataObject, queue: str, count: int) -> None:
        process = self._process(data)
        source = process.queues[queue]
        for _ in range(count):
            taken = source.take()
            if taken is None:
                return
            message = self.messages[taken.msg]
            assert (message.state, message.queue) == (READY_, queue)
            assert source.slice.contains(taken.filebase)
            name = parse_filebase(taken.filebase)
            assert name is not None
            assert self.set_back or name.when_ns <= self.clock.time_ns() + NS_PER_S
            message.state, message.owner, message.filebase = CLAIMED_, process, taken.filebase

    def _in_state(self, state: str) -> list[Message]:
        return [message for message in self.messages.values() if message.state == state]

    def _held(self, data: st.DataObject) -> tuple[Message, Process, Switchboard]:
        message = data.draw(st.sampled_from(self._in_state(CLAIMED_)))
        assert message.owner is not None
        return message, message.owner, message.owner.queues[message.queue]

    @precondition(lambda self: self._in_state(CLAIMED_))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        message, _, queue = self._held(data)
        queue.finish(message.filebase)
        message.state, message.owner = GONE, None

    @precondition(lambda self: self._in_state(CLAIMED_))
    @rule(data=st.data())
    def preserve(self, data: st.DataObject) -> None:
        message, _, queue = self._held(data)
        queue.finish(message.filebase, preserve=True, reason='the model says so')
        message.state, message.owner = BAD, None

    @precondition(lambda self: self._in_state(CLAIMED_))
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 3.0, 300.0]), noted=st.booleans())
    def release(self, data: st.DataObject, delay_s: float, noted: bool) -> None:
        message, _, queue = self._held(data)
        record = {'event': 'kept'} if noted else None
        message.filebase = queue.release(message.filebase, delay_s=delay_s, record=record)
        message.state, message.owner = READY_, None

    @precondition(lambda self: self._in_state(CLAIMED_))
    @rule(data=st.data(), outputs=st.integers(0, 3))
    def hand_on(self, data: st.DataObject, outputs: int) -> None:
        self._hand_on(*self._held(data), [self._new() for _ in range(outputs)])

    def _hand_on(self, message: Message, process: Process, queue: Switchboard, texts: list[str]) -> None:
        transaction = process.spool.transaction(queue, message.filebase)
        made = [
            Message(text, 'out', filebase=transaction.emit(process.spool['out'], text, {})) for text in texts
        ]
        transaction.commit()
        message.state, message.owner = GONE, None
        self.messages |= {one.text: one for one in made}

    @precondition(lambda self: self._in_state(CLAIMED_))
    @rule(data=st.data())
    def forward(self, data: st.DataObject) -> None:
        message, process, queue = self._held(data)
        transaction = process.spool.transaction(queue, message.filebase)
        transaction.forward(process.spool['out'])
        transaction.commit()
        message.state, message.owner, message.queue = READY_, None, 'out'

    @rule(data=st.data())
    def recover(self, data: st.DataObject) -> None:
        process = self._process(data)
        process.spool.recover()
        for name, queue in process.queues.items():
            queue.recover_backup_files(include_own=False)
            for message in self.messages.values():
                if (
                    message.state == ORPHANED
                    and message.queue == name
                    and queue.slice.contains(message.filebase)
                ):
                    message.recoveries += 1
                    message.state = READY_ if message.recoveries < MAX_RECOVERIES else BAD

    @precondition(lambda self: self._in_state(CLAIMED_))
    @rule(data=st.data(), call=st.integers(1, 35), outputs=st.integers(0, 3))
    def die_while_handing_on(self, data: st.DataObject, call: int, outputs: int) -> None:
        message, process, queue = self._held(data)
        texts = [self._new() for _ in range(outputs)]
        self._die_at(process, call, lambda: self._hand_on(message, process, queue, texts))
        found = self._read()
        if message.text not in found:
            message.state, message.owner = GONE, None
            assert {text for text in texts if text in found} == set(texts)
            for text in texts:
                self.messages[text] = Message(text, 'out', filebase=found[text][2])
        else:
            assert not set(texts) & set(found)

    @rule(data=st.data(), call=st.integers(1, 15))
    def die_while_enqueueing(self, data: st.DataObject, call: int) -> None:
        process = self._process(data)
        text = self._new()
        self._die_at(process, call, lambda: process.queues['in'].enqueue(text))
        found = self._read()
        if text in found:
            self.messages[text] = Message(text, 'in', filebase=found[text][2])

    def _die_at(self, process: Process, call: int, act: Callable[[], Any]) -> None:
        """Let a process die at one of its calls, or after the last; others recover the stage."""
        process.disk.kill = 'simulated'
        process.disk.arm(call)
        try:
            act()
        except Killed:
            pass
        self._bury(process)
        self.processes[0].spool.recover()

    # Time.

    @rule(seconds=st.sampled_from([0.001, 1, 10, 1000]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([1, 60, 86400]))
    def clock_is_set_back(self, seconds: float) -> None:
        self.clock.set_back(seconds)
        self.set_back = True

    # What must be there.

    def _read(self) -> dict[str, tuple[str, str, str]]:
        """Each message's queue, state and filebase; each is there once."""
        found: dict[str, tuple[str, str, str]] = {}
        for folder in self.path.iterdir():
            if folder.name.startswith('.'):
                continue
            for file in folder.iterdir():
                entry = read_entry(file.stem, file.read_bytes())
                assert entry.damage is None
                text = entry.body.decode()
                assert text not in found
                state = {READY: READY_, CLAIMED: CLAIMED_}.get(file.suffix, BAD)
                found[text] = folder.name, state, file.stem
        return found

    @invariant()
    def what_is_there_is_what_the_model_says(self) -> None:
        expected = {}
        for text, message in self.messages.items():
            if message.state == BAD:
                expected[text] = 'bad', BAD, message.filebase
            elif message.state != GONE:
                state = READY_ if message.state == READY_ else CLAIMED_
                expected[text] = message.queue, state, message.filebase
        assert self._read() == expected

    def teardown(self) -> None:
        """In the end everybody dies, and one process finds all that is left, once."""
        for process in self.processes[:]:
            self._bury(process)
        process = self.processes[0]
        found = {message.text for message in self.messages.values() if message.state not in (GONE, BAD)}
        # Twice: a wait whose end a clock that was set back has put into the future begins when it is first seen.
        for _ in range(2):
            self.clock.advance(10**6)
            for queue in process.queues.values():
                queue.recover_backup_files()
                while (taken := queue.take()) is not None:
                    found.discard(taken.msg)
                    queue.finish(taken.filebase)
        bad = {text for text, (queue, _, _) in self._read().items() if queue == 'bad'}
        assert found <= bad
        process.disk.end_process()
        shutil.rmtree(self.path)


THIRDS = range(3)
IN_THIRDS = (pytest.mark.slow, pytest.mark.in_turns('third', THIRDS))


@pytest.mark.parametrize(
    ('examples', 'third'), [(20, -1), *(pytest.param(100, third, marks=IN_THIRDS) for third in THIRDS)]
)
@pytest.mark.timeout(600)
def test_a_spool_behaves_as_the_model_says(
    examples: int, third: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, 'urandom', CHANCE.randbytes)
    run_state_machine_as_test(
        seed(third)(type('Machine', (SpoolMachine,), {})),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
