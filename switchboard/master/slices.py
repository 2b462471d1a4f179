"""All runner slices of one master: who they are, which slot of the scoreboard each has, and which process is whose."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from switchboard.config.config import Config
from switchboard.errors import MasterError
from switchboard.events import log_event
from switchboard.master import child, orphans
from switchboard.master.loading import run_before_fork
from switchboard.master.signals import signals_blocked
from switchboard.master.supervision import ChildDescriptors, PastCounters, RunnerSlice, start_all
from switchboard.options import RunnerOptions
from switchboard.status import captured_output, log
from switchboard.status.scoreboard import Scoreboard, Slot

logger = log.logger('master')


@dataclass(eq=False)
class Slices:
    """The slices, in the order in which they were added.

    :param work: the work of each process.
    :param own_descriptors: the master's own, which a new process has to close.
    :param other_children: the master's children that are no runners, and were started by none.
    """

    config: Config
    scoreboard: Scoreboard
    selector: selectors.BaseSelector
    _: KW_ONLY
    work: child.ChildWork
    own_descriptors: Callable[[], Iterable[int]]
    other_children: Callable[[], Collection[int]]

    def __post_init__(self) -> None:
        self._slices: list[RunnerSlice] = []
        # What runners have counted that have no slices now.
        self._past: dict[str, list[PastCounters]] = {}
        # Made for the first processes, to be forgotten when they run.
        self.prefork: child.PreforkObjects | None = None
        # By the process that notes why: the one that it kills.
        self._helpers: dict[int, int] = {}
        self._master = os.getpid()
        self._free = list(range(self.scoreboard.slots))
        # Of these, the ones that the disk did not let be cleared.
        self._uncleared: set[int] = set()

    def __iter__(self) -> Iterator[RunnerSlice]:
        return iter(tuple(self._slices))

    def __len__(self) -> int:
        return len(self._slices)

    def of_runner(self, name: str) -> list[RunnerSlice]:
        """:return: the slices of one runner."""
        return [each for each in self._slices if each.name == name]

    @property
    def any_alive(self) -> bool:
        """True while any process is left."""
        now_s = time.monotonic()
        return any(each.is_alive(now_s) for each in self._slices)

    def add(
        self, options: RunnerOptions, count: int, slice_index: int, *, waits_for_turn: bool = False
    ) -> RunnerSlice:
        """Make a slice; it has no process yet.

        :raises MasterError: the scoreboard has no room for it.
        """
        if not self._free:
            raise MasterError(
                f'there is room for {self.scoreboard.slots} runner slices, not for {options.name} too'
            )
        index = self._free.pop(0)
        self._uncleared.discard(index)
        added = RunnerSlice(
            options,
            slice_index,
            count,
            scoreboard=self.scoreboard,
            index=index,
            selector=self.selector,
            fork_all=self._fork_all,
            kill_orphans=self._kill_orphans,
            kill_with_note=self._kill_with_note,
            start_timeout_s=self.config.master.start_timeout_s,
            waits_for_turn=waits_for_turn,
        )
        self._slices.append(added)
        for past in self._past.pop(options.name, ()):
            added.inherit_counters(past)
        return added

    def start_all(self) -> None:
        """Start every runner of the configuration.

        :raises MasterError: the scoreboard has no room for them.
        """
        added = [
            self.add(options, options.instances, slice_index)
            for options in self.config.runners.values()
            for slice_index in range(options.instances)
        ]
        start_all(added, functools.partial(self._fork_all, freeze=True), time.monotonic())

    def remove(self, gone: RunnerSlice, successor: RunnerSlice | None = None) -> None:
        """Forget a slice and free its place.  Assumes that it has no process.

        :param successor: counts on from where it has stopped; by default another slice of its runner.  If there is none, the next ones do,
            however much later they come.
        """
        assert not gone.pid
        with self.scoreboard.replacing_slices():
            self._slices.remove(gone)
            successor = successor or next(iter(self.of_runner(gone.name)), None)
            if successor is not None:
                successor.inherit_counters(gone.past_counters())
            else:
                self._past.setdefault(gone.name, []).append(gone.past_counters())
            try:
                self.scoreboard.clear(gone.index)
            except OSError as error:
                # It is shown, and counted twice, until it can be cleared or its place is used again.
                self._uncleared.add(gone.index)
                log_event(
                    logger, logging.WARNING, None, 'scoreboard not cleared', runner=gone.title, error=error
                )
        # The lowest place first, so that readers find the scoreboard's used part in front.
        self._free = sorted([*self._free, gone.index])

    def _fork_all(
        self, to_start: Sequence[tuple[RunnerSlice, ChildDescriptors]], *, freeze: bool = False
    ) -> list[int | OSError]:
        """Make a process for each, one right after the other: see `start_all`."""
        # A slice that is started again has its own options as before, and publishes by the configuration in force now.
        config, prefork = self.config, self.prefork
        held = [each for one in self._slices for each in one.descriptors()]
        inherited = {
            *self.own_descriptors(),
            *held,
            *(each for _, ends in to_start for each in ends.descriptors()),
        }
        streams, spool = captured_output.LoggedStreams(), str(config.spool)
        children = [
            child.ChildArguments(
                title=each.title,
                config=config,
                options=each.options,
                slice=each.slice_index,
                numslices=each.count,
                slot=Slot(
                    self.scoreboard,
                    each.index,
                    time_limit_s=each.options.message_time_limit_s,
                    on_ready=functools.partial(ends.channel.send, child.READY),
                    pid=0,
                ),
                spool=spool,
                master=self._master,
                channel=ends.channel,
                lifeline=ends.lifeline,
                streams=ends.output.ends(),
                text_streams=streams,
                inherited=inherited,
                prefork=prefork if prefork is not None and prefork.config is config else None,
            )
            for each, ends in to_start
        ]
        if freeze and children:
            run_before_fork(
                config,
                set(prefork.classes.values()) if prefork else (),
                functools.partial(child.detach, children[0], child.StopHandler()),
            )
            # All objects of this moment are there for good: the collector, which writes into each that it looks at, leaves the children's pages alone.
            gc.collect()
            gc.freeze()
        with signals_blocked() as mask:
            return [child.fork(each, self.work, mask) for each in children]

    def _kill_orphans(self, owner: int) -> list[int]:
        living = {each.pid for each in self._slices if each.pid}
        left = orphans.kill_orphans(owner, living, {*self.other_children(), *self._helpers})
        # The helper holds the lock of a copy that it has written until the one that it kills is dead, and a moment longer: a successor would
        # take the entry for one that somebody works on, and leave it for a minute.
        writing = (each for each, killed in self._helpers.items() if killed == owner)
        return left + [each for each in writing if orphans.has_claims_open(each)]

    def _kill_with_note(self, pid: int) -> bool:
        config, spool = self.config, str(self.config.spool)
        try:
            helper = child.fork_helper(
                lambda: orphans.kill_with_note(
                    pid,
                    spool,
                    'killed on request, its time to stop was over',
                    functools.partial(_requeue_claimed, config),
                )
            )
        except OSError:
            return False
        self._helpers[helper] = pid
        return True

    def reap(self, now_s: float) -> None:
        """Take note of every process that has ended."""
        while (dead := _peek()) is not None:
            pid, code = dead
            owner = next((each for each in self._slices if each.pid == pid), None)
            if owner is not None and code != os.EX_OK:
                # What it had started goes with it.  The pid cannot be another's yet: the process is not waited for.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._helpers.pop(pid, None)
            if owner is not None:
                owner.ended(code, now_s)
            else:
                for each in self._slices:
                    each.look_for_orphans(now_s)

    def extend_deadlines(self, lost_s: float, now_s: float) -> None:
        """The master itself was late: see `RunnerSlice.extend_deadlines`."""
        for each in self:
            each.extend_deadlines(lost_s, now_s)

    def tick(self, now_s: float) -> None:
        """Take the steps that are due, of all slices."""
        for index in tuple(self._uncleared):
            with contextlib.suppress(OSError), self.scoreboard.replacing_slices():  # as before
                self.scoreboard.clear(index)
                self._uncleared.discard(index)
        for each in self:
            try:
                each.tick(now_s)
            except Exception:
                # A mistake of ours in one slice is not to stop the others.
                log_event(logger, logging.ERROR, None, 'internal error', runner=each.title, exc_info=True)

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        return min((each.due_s() for each in self._slices), default=math.inf)


def _requeue_claimed(config: Config, queue: str, keys: Collection[str]) -> None:
    """Have a broker deliver again the messages of a process that was killed on request, without counting its death."""
    from switchboard.spool.spool import Spool

    remote: Any = Spool.from_config(config).queue(queue)
    with contextlib.closing(remote):
        remote.requeue_uncounted(keys)


def _peek() -> tuple[int, int] | None:
    """:return: a process that has ended, and its exit status or minus its signal; it stays to be waited for."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_pid, found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
