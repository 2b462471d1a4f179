"""One runner slice under supervision: its process, its state, and the next step that is due.

The mechanism to `policy`'s decisions.  Nothing here waits: the master's loop calls in when a process ended, sent a byte, or
when the time that `due_s` named has come.

A slice has two clocks.  While it works on a message, only the deadline of that message counts (``message_time_limit``, none
if unset), because a job of thirty minutes is no hang.  Otherwise its loop must beat within ``hang_timeout``.  A process that has closed its end of the
channel and lives on, as one does that its own code has made another program (``exec``), is no runner any more.  A slice that hangs has to
write where it is into its log, then to stop, then killed with its group.

A master that was late itself (stopped by a signal, frozen with its container) has no ground to judge: what it did not see counts for
nobody.  `extend_deadlines` puts all that is due off by the time that was lost, and nothing is called a hang at the first look after it.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, NamedTuple

from switchboard.errors import ScoreboardError
from switchboard.events import log_event
from switchboard.master import child
from switchboard.master.policy import Decision, ProcessEnd, RestartHistory, decide
from switchboard.options import RunnerOptions
from switchboard.status import log
from switchboard.status.captured_output import OutputPipes
from switchboard.status.measurements import Measurements, sum_of
from switchboard.status.processes import process_name
from switchboard.status.scoreboard import ProcessState, Scoreboard, SliceRecord, SupervisorRecord

logger = log.logger('master')

# A process that hangs does not get the whole of `stop_timeout`: it had its time.
HANG_GRACE_S = 10.0
# A process whose channel is closed ends within this time, or has become another program.
ENDS_WITHIN_S = 5.0
# A killed process has ended a moment later; one that has not is reported.
LOOK_AGAIN_S, TELL_AFTER_S = 0.02, 1.0
# How long it may take to note in the entries of a process that it is killed on request.
NOTE_S = 5.0
# After a freeze a process gets at least this long to beat again, or its whole `hang_timeout` if that is shorter.
LATE_MASTER_S = 5.0
# Of a message that is at work for so long that the master was late more often, the earlier times do not matter.
MAX_LOST = 100


class ChildDescriptors(NamedTuple):
    """The descriptors that a process to be takes over: its ends of the channel, of the pipe that ends it with the master, and of its output."""

    channel: socket.socket
    lifeline: int
    output: OutputPipes

    def descriptors(self) -> tuple[int, ...]:
        """:return: all of them."""
        return self.channel.fileno(), self.lifeline, *self.output.ends()

    def close(self) -> None:
        """Let them go: they are the child's now, or nobody's."""
        self.channel.close()
        os.close(self.lifeline)
        self.output.close_ends()


# Makes the processes, and returns for each its process id or why there is none.
ForkAll = Callable[[Sequence[tuple['RunnerSlice', ChildDescriptors]]], Sequence[int | OSError]]


class Phase(enum.IntEnum):
    """The stages of a slice's process, in this order."""

    NONE = 0  # there is no process
    PREPARING = 1  # it imports its class and makes its object
    PREPARED = 2  # it waits for its turn, which is no hang
    RELEASED = 3  # it has its turn, and begins its loop
    LOOPING = 4
    HANGING = 5  # it was found to hang, and is being ended
    STOPPING = 6  # it was asked to go


def start_all(slices: Iterable[RunnerSlice], fork_all: ForkAll, now_s: float) -> None:
    """Start a process for each slice.

    The forks follow one right after the other: a page of memory that the master writes to between two forks is copied, and no
    longer shared.
    """
    to_start = []
    for each in slices:
        try:
            to_start.append((each, each.make_child_descriptors(now_s)))
        except OSError as error:
            each.start_failed(error, now_s)
    forked_ns = time.time_ns()  # before: what a process says of itself is later
    for (each, ends), started in zip(to_start, fork_all(to_start) if to_start else (), strict=True):
        ends.close()
        if isinstance(started, OSError):
            each.start_failed(started, now_s)
        else:
            each.watch(started, forked_ns, now_s)


class PastCounters(NamedTuple):
    """The counters of slices that are gone: messages by outcome, restarts, and what they measured."""

    counters: tuple[int, ...]
    restarts: int
    measurements: Measurements


@dataclass(eq=False)
class RunnerSlice:
    """A slice of a runner and its process, if it has one.

    :param selector: where the channel is registered while there is one, with this object as its data.
    :param fork_all: makes the process.
    :param kill_orphans: kills what a process that has ended has left behind, and returns what it was.
    :param kill_with_note: has a process killed by somebody who notes in its entries that an operator wanted it; False if it cannot be had.
    :param waits_for_turn: whether a prepared process waits for `give_turn`, because another still works on the slice.
    """

    options: RunnerOptions
    slice_index: int
    count: int
    _: KW_ONLY
    scoreboard: Scoreboard
    index: int
    selector: selectors.BaseSelector
    fork_all: ForkAll
    kill_orphans: Callable[[int], Sequence[int]]
    kill_with_note: Callable[[int], bool]
    start_timeout_s: float
    waits_for_turn: bool = False

    def __post_init__(self) -> None:
        self.channel: socket.socket | None = None
        self.phase = Phase.NONE
        self._lifeline: int | None = None
        self._output: OutputPipes | None = None
        self._history = RestartHistory()
        self._started_s = 0.0
        self._hung = ''
        self._is_being_killed = False
        # The last process whose orphans may still live, when to look for them, and since when; the end of time is never.
        self._ended_pid = 0
        self._look_at_s = math.inf
        self._ended_s = 0.0
        self._start_at_s = math.inf
        self._kill_at_s = math.inf
        self._check_at_s = math.inf
        # Since when the scoreboard has shown no heartbeat of a process that had one: somebody has cut it.
        self._no_beat_since_s: float | None = None
        # When the master was late last, and how much of which time was lost: (until, seconds).
        self._lost: list[tuple[float, float]] = []
        self._supervisor_record = SupervisorRecord(self.name, self.slice_index, self.count)
        self._inherited = Measurements()
        self.update_record()

    @property
    def name(self) -> str:
        """The runner's name."""
        return self.options.name

    @property
    def title(self) -> str:
        """``in 1/2``"""
        return self._supervisor_record.title

    @property
    def state(self) -> ProcessState:
        """The state as the scoreboard shows it."""
        return self._supervisor_record.state

    @property
    def reason(self) -> str:
        """The reason for this state, if there is something to say."""
        return self._supervisor_record.reason

    @property
    def pid(self) -> int:
        """Its process, 0 for none."""
        return self._supervisor_record.pid

    @property
    def is_gone(self) -> bool:
        """True if neither a process of it is left, nor anything that one has started."""
        return not self.pid and self._look_at_s == math.inf

    def is_alive(self, now_s: float) -> bool:
        """:return: whether there is a process, or orphans of one that were killed a moment ago."""
        return bool(self.pid) or (self._look_at_s < math.inf and now_s - self._ended_s < TELL_AFTER_S)

    @property
    def start_is_over(self) -> bool:
        """True if the last start has come to something, good or bad."""
        return self.state is not ProcessState.STARTING

    @property
    def is_prepared(self) -> bool:
        """True if its process is known to work."""
        return self.phase >= Phase.PREPARED

    def descriptors(self) -> list[int]:
        """:return: the master's ends, which every child closes at once."""
        ends = [] if self._lifeline is None else [self._lifeline]
        if self._output is not None:
            ends += self._output.descriptors()
        return ends if self.channel is None else [*ends, self.channel.fileno()]

    def overlaps(self, other: RunnerSlice) -> bool:
        """:return: whether the two ranges have an entry in common, in integer arithmetic as everywhere."""
        return (
            self.slice_index * other.count < (other.slice_index + 1) * self.count
            and other.slice_index * self.count < (self.slice_index + 1) * other.count
        )

    def record(self) -> SliceRecord | None:
        """:return: this slice as the scoreboard shows it; None if it cannot be read, which ends nobody."""
        try:
            return self.scoreboard.record(self.index)
        except ScoreboardError as error:
            log_event(logger, logging.ERROR, None, 'scoreboard unreadable', runner=self.title, error=error)
            return None

    def update_record(self, **fields: Any) -> None:
        """Change what the scoreboard says."""
        self._supervisor_record = replace(self._supervisor_record, **fields)
        self.scoreboard.write_supervisor_record(self.index, self._supervisor_record)

    def rewrite_record(self) -> None:
        """Say all of it once more: somebody has cut the scoreboard."""
        self.update_record()
        self.scoreboard.write_inherited(self.index, self._inherited)

    def past_counters(self) -> PastCounters:
        """:return: the counters of this slice until now, with those of slices that it replaces."""
        record = self.record()
        if record is None:
            return PastCounters(
                self._supervisor_record.inherited, self._supervisor_record.restarts, self._inherited
            )
        try:
            measurements = self.scoreboard.measurements(self.index)
        except ScoreboardError:
            measurements = self._inherited
        return PastCounters(record.counters, record.restarts, measurements)

    def inherit_counters(self, past: PastCounters) -> None:
        """Go on counting from where others of this runner have stopped.

        Of more errors than a slice has room for, those keep their counters that the runner as a whole has.
        """
        before = self._supervisor_record
        counters = tuple(map(sum, zip(before.inherited, past.counters, strict=True)))
        try:
            shown = self.scoreboard.measurements_of(self.name).errors or None
        except ScoreboardError:
            shown = None
        self._inherited = sum_of((self._inherited, past.measurements), keep=shown)
        self.scoreboard.write_inherited(self.index, self._inherited)
        self.update_record(inherited=counters, restarts=before.restarts + past.restarts)

    def start(self, now_s: float) -> None:
        """Start a process."""
        start_all([self], self.fork_all, now_s)

    def make_child_descriptors(self, now_s: float) -> ChildDescriptors:
        """Make the channel and the lifeline of a process to be.  Assumes that there is none.

        :raises OSError: no descriptor is left for it, no memory, or no room on the disk.
        """
        assert not self.pid
        # A runner whose signs of life could not be written would count as one that hangs.
        self.scoreboard.reserve(self.index)
        self.phase, self._hung, self._is_being_killed = Phase.NONE, '', False
        self._no_beat_since_s = None
        self._start_at_s = self._kill_at_s = math.inf
        self._started_s = now_s
        self.channel, theirs = socket.socketpair()
        reading = -1
        try:
            self.channel.setblocking(False)
            reading, self._lifeline = os.pipe2(os.O_CLOEXEC)
            self._output = OutputPipes(self.selector, self.title)
            self.selector.register(self.channel, selectors.EVENT_READ, self)
        except OSError:
            theirs.close()
            if reading >= 0:
                os.close(reading)
            if self._output is not None:
                self._output.close_ends()
            raise
        return ChildDescriptors(theirs, reading, self._output)

    def start_failed(self, error: OSError, now_s: float) -> None:
        """Wait before the next try: what the machine lacks now it may have then, so that is a failure like another."""
        self._close_all()
        self._apply(self._decide(ProcessEnd(os.EX_OSERR, now_s, now_s)), now_s)
        self.update_record(reason=f'cannot start a process: {error.strerror}')
        log_event(logger, logging.ERROR, None, 'not started', runner=self.title, error=error.strerror)

    def watch(self, pid: int, forked_ns: int, now_s: float) -> None:
        """Look after the new process from now on."""
        self.phase = Phase.PREPARING
        if self._output is not None:
            self._output.pid = pid
        self._check_at_s = now_s + self.start_timeout_s
        self.update_record(
            pid=pid, state=ProcessState.STARTING, started_ns=forked_ns, next_restart_ns=0, reason=''
        )

    def on_readable(self, now_s: float) -> None:
        """Take what the process has sent."""
        if self.channel is None:  # its end was noticed a moment ago
            return
        try:
            received = self.channel.recv(16)
        except (BlockingIOError, ConnectionError):
            return
        if not received:
            self._close_channel()  # it is about to end; the exit status follows, unless it has become another program
            if self.phase is Phase.LOOPING:
                self._check_at_s = now_s + ENDS_WITHIN_S
        if child.PREPARED in received:
            self._go_on_to(Phase.PREPARED)
            if not self.waits_for_turn:
                self.give_turn(now_s)
        if child.READY in received:
            self._go_on_to(Phase.LOOPING)
            self._check_at_s = now_s + self._look_every_s
            if self.state is ProcessState.STARTING:
                self.update_record(state=ProcessState.RUNNING)
                log_event(logger, logging.INFO, None, 'running', runner=self.title, runner_pid=self.pid)

    def _go_on_to(self, phase: Phase) -> None:
        # A process that is being ended stays so, whatever it says meanwhile.
        self.phase = max(self.phase, phase)

    def give_turn(self, now_s: float) -> None:
        """Let the process begin its loop, now if it is prepared, else as soon as it is."""
        self.waits_for_turn = False
        if self.phase is Phase.PREPARED and self.channel is not None:
            self.phase = Phase.RELEASED
            self._check_at_s = now_s + self.start_timeout_s
            with contextlib.suppress(OSError):  # it has ended, of which SIGCHLD tells
                self.channel.send(child.GO)

    def stop(self, now_s: float) -> None:
        """Ask it to finish its message and go; it will be EXITED, soon or at once."""
        self._start_at_s = math.inf
        if not self.pid:
            if self.state is not ProcessState.FATAL:
                self.update_record(state=ProcessState.EXITED, next_restart_ns=0)
            return
        if self.phase is Phase.STOPPING:
            return
        self.phase = Phase.STOPPING
        self._check_at_s = math.inf
        if not self._hung:
            self._kill_at_s = now_s + self.options.stop_timeout_s
        self.update_record(state=ProcessState.STOPPING)
        self.signal(signal.SIGTERM)
        log_event(logger, logging.INFO, None, 'stopping', runner=self.title, runner_pid=self.pid)

    def kill_on_request(self, now_s: float) -> None:
        """Kill its process, with a note in its entries if it was asked to stop: then its death is not the fault of these."""
        if (
            self.phase is Phase.STOPPING
            and not (self._hung or self._is_being_killed)
            and self.kill_with_note(self.pid)
        ):
            # Should that not come about, it is killed without a note.
            self._is_being_killed, self._kill_at_s = True, now_s + NOTE_S
            log_event(logger, logging.WARNING, None, 'killing', runner=self.title, runner_pid=self.pid)
        else:
            self.kill()

    def kill(self) -> None:
        """End its process and all that the process has started, now."""
        if self.pid:
            self._kill_at_s = math.inf
            log_event(logger, logging.WARNING, None, 'killing', runner=self.title, runner_pid=self.pid)
            # In its first instants the process has no group of its own yet.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.signal(signal.SIGKILL)

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to its process, if it has one."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signum)

    def ended(self, code: int, now_s: float) -> None:
        """Decide what follows, now that the process is gone; `code` as in `ProcessEnd`."""
        self.on_readable(now_s)  # its last word may still be there: that it had begun its loop
        end = ProcessEnd(
            code,
            self._started_s,
            now_s,
            loop_started=self.phase is Phase.LOOPING,
            gave_up=bool(self._fatal_reason()),
            was_requested=self.phase is Phase.STOPPING,
            hung=self._hung,
        )
        pid = self.pid
        self._close_all()
        self._kill_at_s = self._check_at_s = math.inf
        self.phase = Phase.NONE
        decision = self._decide(end)
        self.update_record(pid=0)
        self._apply(decision, now_s)
        self._ended_pid, self._ended_s, self._look_at_s = pid, now_s, now_s
        self.look_for_orphans(now_s)
        # Said last, so that who acts on the line finds the scoreboard as it says.
        level = logging.INFO if end.was_requested or (code == 0 and end.loop_started) else logging.WARNING
        log_event(logger, level, None, 'ended', runner=self.title, runner_pid=pid, how=end.describe())
        if decision.state is ProcessState.FATAL:
            log_event(logger, logging.ERROR, None, 'gave up', runner=self.title, reason=decision.reason)

    def look_for_orphans(self, now_s: float) -> None:
        """End what the last process has left behind, and look again until nothing is left: only then may another one start."""
        if self._look_at_s == math.inf:
            return
        left = self.kill_orphans(self._ended_pid)
        if not left:
            self._look_at_s = math.inf
            return
        waited_s = now_s - self._ended_s
        self._look_at_s = now_s + min(1.0, max(LOOK_AGAIN_S, waited_s))
        if waited_s < TELL_AFTER_S:
            return
        name = process_name(left[0])
        process = f'{left[0]} ({name})' if name else str(left[0])
        reason = f'waits for process {process}, which it has started and which does not end'
        if reason != self.reason:
            self.update_record(reason=reason)
            log_event(logger, logging.ERROR, None, 'cannot kill', runner=self.title, process=process)

    def _decide(self, end: ProcessEnd) -> Decision:
        decision = decide(end, self._history, self.options.restart)
        if decision.state is ProcessState.FATAL and (reason := self._fatal_reason()):
            decision = decision._replace(reason=reason)
        return decision

    def _fatal_reason(self) -> str:
        """:return: why its process cannot work, in its own words; empty if it has not said so."""
        record = self.record()
        if record is None or not record.fatal or record.last_error_ns < self._supervisor_record.started_ns:
            return ''
        return record.last_error

    def _apply(self, decision: Decision, now_s: float) -> None:
        self._history = decision.history
        wait_ns = int(decision.wait_s * 1e9)
        again_ns = time.time_ns() + wait_ns if decision.starts_again else 0
        self._start_at_s = now_s + decision.wait_s if decision.starts_again else math.inf
        restarts = self._supervisor_record.restarts + decision.starts_again
        self.update_record(
            state=decision.state, restarts=restarts, next_restart_ns=again_ns, reason=decision.reason
        )

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        start_at_s = self._start_at_s if self._look_at_s == math.inf else math.inf
        return min(start_at_s, self._kill_at_s, self._check_at_s, self._look_at_s)

    def extend_deadlines(self, lost_s: float, now_s: float) -> None:
        """Count the last `lost_s` seconds against nobody."""
        self._kill_at_s += lost_s
        self._check_at_s = max(self._check_at_s + lost_s, now_s + min(self._look_every_s, LATE_MASTER_S))
        self._lost = [*self._lost[-MAX_LOST + 1 :], (now_s, lost_s)]

    def _lost_since(self, began_s: float) -> float:
        return sum(lost_s for until_s, lost_s in self._lost if until_s > began_s)

    def tick(self, now_s: float) -> None:
        """Take the step that is due."""
        if now_s >= self._look_at_s:
            self.look_for_orphans(now_s)
        if now_s >= self._start_at_s and self.is_gone:
            self.start(now_s)
        if now_s >= self._kill_at_s:
            self.kill_on_request(now_s)
        if now_s >= self._check_at_s:
            self._check(now_s)

    @property
    def _look_every_s(self) -> float:
        # Often enough to see each message before its time is up, and not more often.
        return min(self.options.hang_timeout_s, self.options.message_time_limit_s or math.inf)

    def _check(self, now_s: float) -> None:
        """Look whether it hangs, and when to look next."""
        self._check_at_s = math.inf
        if self.phase in (Phase.PREPARING, Phase.RELEASED):
            self._declare_hung(f'did not begin its work within {self.start_timeout_s:g} s', now_s)
        if self.phase is not Phase.LOOPING:
            return
        if self.channel is None:
            # Its lock on the message is gone, too, and somebody else may be working on it.
            self._declare_hung('it has closed its files, or become another program by exec', now_s)
            return
        self._check_at_s = now_s + self._look_every_s
        record = self.record()
        if record is None:
            return
        if record.current:
            if record.deadline_ns:
                deadline_s = record.deadline_ns / 1e9 + self._lost_since(record.current_since_ns / 1e9)
                if now_s >= deadline_s:
                    allowed_s = (record.deadline_ns - record.current_since_ns) / 1e9
                    self._declare_hung(f'{record.current} took longer than {allowed_s:g} s', now_s)
                    return
                self._check_at_s = min(self._check_at_s, deadline_s)
            return
        if record.heartbeat_ns:
            self._no_beat_since_s = None
            beat_s = record.heartbeat_ns / 1e9
        else:
            self._no_beat_since_s = beat_s = now_s if self._no_beat_since_s is None else self._no_beat_since_s
        silent_s = now_s - beat_s - self._lost_since(beat_s)
        if silent_s >= self.options.hang_timeout_s:
            self._declare_hung(f'no heartbeat for {silent_s:.1f} s', now_s)
        else:
            self._check_at_s = min(self._check_at_s, now_s + self.options.hang_timeout_s - silent_s)

    def _declare_hung(self, reason: str, now_s: float) -> None:
        log_event(logger, logging.ERROR, None, 'hangs', runner=self.title, runner_pid=self.pid, reason=reason)
        self._hung = reason
        self.phase = Phase.HANGING
        self._check_at_s = math.inf
        self._kill_at_s = now_s + min(self.options.stop_timeout_s, HANG_GRACE_S)
        self.update_record(state=ProcessState.STOPPING, reason=reason)
        self.signal(child.DUMP_SIGNAL)
        self.signal(signal.SIGTERM)

    def _close_channel(self) -> None:
        if self.channel is not None:
            with contextlib.suppress(KeyError):  # there was no memory to register it
                self.selector.unregister(self.channel)
            self.channel.close()
            self.channel = None

    def _close_all(self) -> None:
        self._close_channel()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if self._output is not None:
            self._output.close()
            self._output = None
