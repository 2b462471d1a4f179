"""One slice under supervision, without processes where none are needed."""

from __future__ import annotations

import errno
import math
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from switchboard.master.child import GO, PREPARED, READY
from switchboard.master.supervision import ENDS_WITHIN_S, ChildDescriptors, RunnerSlice
from switchboard.options import RestartOptions, RetryPolicy, RunnerOptions
from switchboard.status.scoreboard import PAGE_BYTES, ProcessState, Scoreboard, Slot
from tests.helpers.processes import few_descriptors

# No system gives out pids this high: signals to it go nowhere.
NOBODY = 1 << 30


class Bench:
    """A scoreboard, and forks that make no process."""

    def __init__(self, path: Path) -> None:
        self.scoreboard = Scoreboard.create(path, 4)
        self.selector = selectors.DefaultSelector()
        self.channels: list[socket.socket] = []
        self.error: OSError | None = None
        self.left: list[int] = []
        self.notes = False

    def fork_all(self, to_start: Sequence[tuple[RunnerSlice, ChildDescriptors]]) -> list[int | OSError]:
        if self.error is not None:
            return [self.error for _ in to_start]
        self.channels += [ends.channel.dup() for _, ends in to_start]
        return [NOBODY for _ in to_start]

    def slice(
        self, slice_index: int = 0, count: int = 1, *, waits_for_turn: bool = False, **options: object
    ) -> RunnerSlice:
        restart = RestartOptions(RetryPolicy(1, 60, jitter=0))
        made = RunnerOptions('in', 'jobs:Job', restart=restart, **options)
        return RunnerSlice(
            made,
            slice_index,
            count,
            scoreboard=self.scoreboard,
            index=0,
            selector=self.selector,
            fork_all=self.fork_all,
            kill_orphans=lambda _pid: self.left,
            kill_with_note=lambda _pid: self.notes,
            start_timeout_s=100,
            waits_for_turn=waits_for_turn,
        )

    def damage(self) -> None:
        """Write nonsense over all slots."""
        size = self.scoreboard.path.stat().st_size
        with self.scoreboard.path.open('r+b') as stream:
            stream.seek(PAGE_BYTES)
            stream.write(b'\xa5' * (size - PAGE_BYTES))

    def close(self) -> None:
        self.selector.close()
        self.scoreboard.close()
        for channel in self.channels:
            channel.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / 'scoreboard')
    yield bench
    bench.close()


@pytest.fixture
def start(bench: Bench) -> Iterator[Callable[..., RunnerSlice]]:
    started: list[RunnerSlice] = []

    def start(*said: bytes, **options: object) -> RunnerSlice:
        made = bench.slice(**options)
        made.start(0)
        started.append(made)
        for word in said:
            bench.channels[-1].send(word)
            made.on_readable(1)
        return made

    yield start
    for each in started:
        if each.pid:
            each.stop(0)
            each.ended(0, 0)


Start = Callable[..., RunnerSlice]


def test_a_process_that_ends_is_not_taken_for_one_that_has_become_another_program(
    bench: Bench, start: Start
) -> None:
    made = start(PREPARED, READY, stop_timeout_s=0.001)
    assert bench.channels[-1].recv(16) == GO
    bench.channels[-1].close()
    made.on_readable(2)
    made.tick(3)  # the rest of its end takes a moment on a busy machine
    assert made.state is ProcessState.RUNNING
    made.tick(2 + ENDS_WITHIN_S)
    assert (made.state, made.reason) == (
        ProcessState.STOPPING,
        'it has closed its files, or become another program by exec',
    )


def test_when_no_process_can_be_made_it_waits_and_tries_again(bench: Bench) -> None:
    bench.error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    made = bench.slice()
    made.start(0)
    assert (made.state, made.pid, made.due_s()) == (ProcessState.BACKOFF, 0, 1)
    assert made.reason == 'cannot start a process: Resource temporarily unavailable'
    bench.error = None
    made.tick(1)
    assert (made.state, made.pid) == (ProcessState.STARTING, NOBODY)
    made.ended(0, 2)


def test_when_no_descriptor_is_left_it_waits_and_tries_again(bench: Bench) -> None:
    made = bench.slice()
    with few_descriptors(0):
        made.start(0)
    assert (made.state, made.pid, made.due_s()) == (ProcessState.BACKOFF, 0, 1)
    assert made.reason == 'cannot start a process: Too many open files'
    for allowed in (1, 2, 3):  # not enough for all that a process needs, and nothing of it is kept
        with few_descriptors(allowed):
            made.tick(1000 * allowed)
        assert (made.state, made.descriptors()) == (ProcessState.BACKOFF, [])
    made.tick(10_000)
    assert (made.state, made.pid) == (ProcessState.STARTING, NOBODY)
    made.ended(0, 10_001)


def test_a_damaged_scoreboard_ends_nobody(bench: Bench, start: Start) -> None:
    made = start(PREPARED, READY, hang_timeout_s=10.0)
    bench.damage()
    made.tick(11)
    assert (made.state, made.due_s()) == (ProcessState.RUNNING, 21)
    made.ended(1, 12)
    assert made.state is ProcessState.BACKOFF


def test_a_prepared_process_is_let_go_at_once_unless_it_is_held(bench: Bench, start: Start) -> None:
    start(PREPARED)
    assert bench.channels[-1].recv(1) == GO
    held = start(PREPARED, waits_for_turn=True)
    bench.channels[-1].setblocking(False)
    with pytest.raises(BlockingIOError):
        bench.channels[-1].recv(1)
    held.give_turn(2)
    assert bench.channels[-1].recv(1) == GO


def test_a_process_that_waits_for_its_turn_does_not_hang(start: Start) -> None:
    made = start(PREPARED, waits_for_turn=True)
    made.tick(10_000)
    assert made.state is ProcessState.STARTING


def test_the_last_word_of_a_process_that_has_ended_is_heard(bench: Bench, start: Start) -> None:
    made = start(PREPARED)
    bench.channels[-1].send(READY)
    made.ended(0, 2)
    # It had begun its loop, so it has retired and is no failure.
    assert (made.state, made.due_s()) == (ProcessState.STARTING, 2)


def test_a_loop_that_beats_is_looked_at_when_its_next_beat_is_overdue(bench: Bench, start: Start) -> None:
    made = start(PREPARED, READY, hang_timeout_s=10.0)
    assert made.due_s() == 11
    heart = Slot(bench.scoreboard, 0, clock_ns=lambda: 7_000_000_000, pid=NOBODY)
    heart.heartbeat()
    made.tick(11)
    assert (made.state, made.due_s()) == (ProcessState.RUNNING, 17)
    made.tick(17)
    assert (made.state, made.reason) == (ProcessState.STOPPING, 'no heartbeat for 10.0 s')
    assert made.due_s() == 27
    made.ended(-signal.SIGKILL, 28)
    assert (made.state, made.reason) == (ProcessState.BACKOFF, 'no heartbeat for 10.0 s')


def test_a_heartbeat_that_was_cut_off_with_the_scoreboard_is_awaited(bench: Bench, start: Start) -> None:
    made = start(PREPARED, READY, hang_timeout_s=10.0)
    times_ns = [1_007_000_000_000]
    heart = Slot(bench.scoreboard, 0, clock_ns=lambda: times_ns[-1], pid=NOBODY)
    heart.heartbeat()
    os.truncate(bench.scoreboard.path, 100)
    assert bench.scoreboard.repair()
    made.rewrite_record()
    made.tick(1_008)
    assert (made.state, made.due_s()) == (ProcessState.RUNNING, 1_018)
    times_ns.append(1_016_000_000_000)
    heart.heartbeat()
    made.tick(1_018)
    assert (made.state, made.due_s()) == (ProcessState.RUNNING, 1_026)
    os.truncate(bench.scoreboard.path, 100)
    assert bench.scoreboard.repair()
    made.rewrite_record()
    for now_s in (1_026, 1_036):
        made.tick(now_s)
    assert (made.state, made.reason) == (ProcessState.STOPPING, 'no heartbeat for 10.0 s')


def test_a_message_is_looked_at_before_its_time_is_up_whenever_it_began(bench: Bench, start: Start) -> None:
    made = start(PREPARED, READY, hang_timeout_s=60.0, message_time_limit_s=5.0)
    assert made.due_s() == 6
    heart = Slot(bench.scoreboard, 0, time_limit_s=5, clock_ns=lambda: 4_000_000_000, pid=NOBODY)
    heart.begin('x')
    made.tick(6)
    assert made.due_s() == 9
    made.tick(9)
    assert made.reason == 'x took longer than 5 s'


def test_a_time_that_the_master_did_not_see_counts_against_nobody(bench: Bench, start: Start) -> None:
    made = start(PREPARED, READY, hang_timeout_s=10.0)
    heart = Slot(bench.scoreboard, 0, clock_ns=lambda: 7_000_000_000, pid=NOBODY)
    heart.heartbeat()
    made.extend_deadlines(1000.0, 1011.0)  # it should have looked at 11
    made.tick(1011.0)
    assert made.due_s() == 1016
    made.tick(1016.0)
    assert (made.state, made.due_s()) == (ProcessState.RUNNING, 1017)
    made.tick(1017.0)  # ten seconds that both of them lived through
    assert made.state is ProcessState.STOPPING


def test_a_message_gets_the_time_back_that_was_lost_while_it_was_at_work(bench: Bench, start: Start) -> None:
    made = start(PREPARED, READY, hang_timeout_s=60.0, message_time_limit_s=5.0)
    heart = Slot(bench.scoreboard, 0, time_limit_s=5, clock_ns=lambda: 4_000_000_000, pid=NOBODY)
    heart.begin('x')
    made.extend_deadlines(100.0, 106.0)
    made.tick(108.0)
    assert (made.state, made.due_s()) == (ProcessState.RUNNING, 111)
    made.tick(111.0)
    assert made.reason == 'x took longer than 5 s'


def test_a_runner_that_was_asked_to_stop_gets_the_lost_time_too(start: Start) -> None:
    made = start(PREPARED, READY, stop_timeout_s=5.0)
    made.stop(10)
    made.extend_deadlines(100.0, 111.0)
    assert made.due_s() == 115


def test_a_stop_is_asked_for_once_and_has_its_time(start: Start) -> None:
    made = start(PREPARED, READY, stop_timeout_s=5.0)
    made.stop(10)
    made.stop(12)
    assert (made.state, made.due_s()) == (ProcessState.STOPPING, 15)
    made.tick(15)
    assert made.due_s() == math.inf
    made.ended(-signal.SIGKILL, 16)
    assert (made.state, made.due_s()) == (ProcessState.EXITED, math.inf)


def test_a_kill_on_request_is_noted_and_done_without_a_note_if_that_takes_too_long(
    bench: Bench, start: Start
) -> None:
    bench.notes = True
    made = start(PREPARED, READY, stop_timeout_s=5.0)
    made.stop(10)
    made.tick(15)
    assert made.due_s() == 20
    made.tick(20)
    assert made.due_s() == math.inf
    made.ended(-signal.SIGKILL, 21)
    assert made.state is ProcessState.EXITED


def test_a_slice_starts_again_only_when_nothing_that_it_has_started_is_left(
    bench: Bench, start: Start
) -> None:
    made = start(PREPARED, READY)
    bench.left = [os.getpid()]
    made.ended(1, 10)
    assert (made.is_gone, made.pid) == (False, 0)
    made.tick(11.5)
    assert made.pid == 0
    assert made.reason.startswith(f'waits for process {os.getpid()} (')
    bench.left = []
    made.look_for_orphans(12)
    assert made.is_gone
    made.tick(12)
    assert made.pid == NOBODY


def test_what_gave_up_stays_fatal_when_the_master_stops(start: Start) -> None:
    made = start()
    made.ended(78, 1)
    made.stop(2)
    assert made.state is ProcessState.FATAL


def test_a_message_that_ends_its_process_with_78_does_not_stop_the_slice_for_ever(
    bench: Bench, start: Start
) -> None:
    made = start(PREPARED, READY)
    made.ended(78, 1)
    assert made.state is ProcessState.BACKOFF
    assert (made.state, made.reason) == (ProcessState.BACKOFF, 'exited with status 78')


def test_one_that_says_in_the_middle_of_its_work_that_it_cannot_go_on_is_not_started_again(
    bench: Bench, start: Start
) -> None:
    made = start(PREPARED, READY)
    Slot(bench.scoreboard, 0, pid=NOBODY).fatal('the password is gone')
    made.ended(78, 2)
    assert (made.state, made.reason) == (ProcessState.FATAL, 'the password is gone')


@pytest.mark.parametrize(
    ('one', 'other', 'overlap'),
    [
        ((0, 1), (2, 3), True),
        ((0, 2), (1, 2), False),
        ((0, 2), (1, 3), True),
        ((0, 2), (2, 3), False),
        ((1, 3), (1, 3), True),
        ((1, 7), (1, 3), False),
        ((2, 7), (1, 3), True),
    ],
)
def test_ranges_overlap_as_their_entries_do(
    bench: Bench, one: tuple[int, int], other: tuple[int, int], *, overlap: bool
) -> None:
    first, second = bench.slice(*one), bench.slice(*other)
    assert first.overlaps(second) is overlap
    assert second.overlaps(first) is overlap
