"""The records of the scoreboard, of a master and of each runner slice: the words of `status`, for people and programs alike."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class ProcessState(enum.StrEnum):
    """The state of one runner slice, as a reader may conclude it."""

    STARTING = 'STARTING'  # a process is there and has not begun its loop
    RUNNING = 'RUNNING'  # it loops
    BACKOFF = 'BACKOFF'  # it ended against our will and will be started again
    STOPPING = 'STOPPING'  # it was asked to go and finishes its message
    EXITED = 'EXITED'  # it was asked to go, and went
    FATAL = 'FATAL'  # it will not be started again unless somebody asks; `reason` says why


class MasterRecord(NamedTuple):
    """The master's record of itself.  Times are wall clock nanoseconds, 0 for never."""

    pid: int = 0
    state: ProcessState = ProcessState.STARTING
    started_ns: int = 0
    reloaded_ns: int = 0
    ready_ns: int = 0
    reload_error: str = ''


@dataclass(frozen=True, slots=True)
class SupervisorRecord:
    """The master's record of one slice.  Times are wall clock nanoseconds, 0 for never.

    ``inherited`` are the counters (done, failed, retried, kept) of the slices in whose place this one stands.
    """

    runner: str
    slice: int = 0
    numslices: int = 1
    pid: int = 0
    state: ProcessState = ProcessState.STARTING
    started_ns: int = 0
    restarts: int = 0
    next_restart_ns: int = 0
    reason: str = ''
    inherited: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def title(self) -> str:
        """``in 1/2``: the name by which people see this slice, in `ps` too."""
        return f'{self.runner} {self.slice + 1}/{self.numslices}'


@dataclass(frozen=True, slots=True)
class SliceRecord(SupervisorRecord):
    """One runner slice as a reader sees it: what its master says of it, and what it says itself.

    ``last_error_ns`` is wall clock; ``heartbeat_ns``, ``current_since_ns`` and ``deadline_ns`` are the monotonic clock of
    this boot.  0 and the empty string say "none".  The counters have the inherited ones in them.
    """

    index: int = 0
    heartbeat_ns: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    kept: int = 0
    current: str = ''
    current_since_ns: int = 0
    deadline_ns: int = 0
    last_error: str = ''
    last_error_ns: int = 0
    fatal: bool = False

    @property
    def counters(self) -> tuple[int, int, int, int]:
        """Messages done, failed, retried and kept."""
        return self.done, self.failed, self.retried, self.kept
