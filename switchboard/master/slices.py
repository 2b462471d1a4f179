"""All runner slices of one master: who they are, which slot of the board each has, and which process is whose."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from switchboard.config.config import Config
from switchboard.errors import MasterError
from switchboard.master import child
from switchboard.master.signals import blocked
from switchboard.master.supervision import RunnerSlice
from switchboard.options import RunnerOptions
from switchboard.status import log
from switchboard.status.scoreboard import Scoreboard

if TYPE_CHECKING:
    from switchboard.spool.spool import Spool

logger = log.logger('master')


class Slices:
    """The slices, in the order in which they were hired.

    :param work: what each process does.
    :param foreign: the master's own descriptors, which a new process has to close.
    """

    def __init__(
        self,
        config: Config,
        board: Scoreboard,
        selector: selectors.BaseSelector,
        *,
        work: child.Work,
        foreign: Callable[[], Iterable[int]],
        rng: random.Random,
    ) -> None:
        self.config = config
        self.board = board
        self.slices: list[RunnerSlice] = []
        # Made for the first processes, to be forgotten when they run.
        self.spool: Spool | None = None
        # Those that are just being forked, all at once.
        self._unborn: dict[RunnerSlice, child.Child] = {}
        self._mask: set[Any] = set()
        self._selector = selector
        self._work = work
        self._foreign = foreign
        self._rng = rng
        self._master = os.getpid()
        self._free = list(range(board.slots))

    def __iter__(self) -> Iterator[RunnerSlice]:
        return iter(tuple(self.slices))

    def of(self, name: str) -> list[RunnerSlice]:
        """:return: the slices of one runner."""
        return [each for each in self.slices if each.name == name]

    @property
    def names(self) -> list[str]:
        """The runners that have slices, each once."""
        return list(dict.fromkeys(each.name for each in self.slices))

    @property
    def alive(self) -> bool:
        """Whether any process is left."""
        return any(each.pid for each in self.slices)

    def hire(self, options: RunnerOptions, count: int, part: int, *, held: bool = False) -> RunnerSlice:
        """Make a slice; it has no process yet.

        :raises MasterError: the board has no room for it.
        """
        if not self._free:
            raise MasterError(
                f'there is room for {self.board.slots} runner slices, not for {options.name} too'
            )
        hired = RunnerSlice(
            options,
            part,
            count,
            board=self.board,
            index=self._free.pop(0),
            selector=self._selector,
            # A slice that is started again is what it was, even if the configuration has moved on without it.
            fork=functools.partial(self._fork, self.config),
            rng=self._rng,
            start_timeout_s=self.config.master.start_timeout_s,
            held=held,
        )
        self.slices.append(hired)
        return hired

    def start_all(self) -> None:
        """Start every runner of the configuration.

        :raises MasterError: the board has no room for them.
        """
        hired = [
            self.hire(options, options.instances, part)
            for options in self.config.runners.values()
            for part in range(options.instances)
        ]
        now_s = time.monotonic()
        for each in hired:
            each.open_ends(now_s)
        # One right after the other: a page that this process writes to between two forks is one that the two do not share.
        self._unborn = {each: self._child(self.config, each) for each in hired}
        gc.freeze()  # what is young as well: the collector writes into each object that it looks at
        with blocked() as mask:
            self._mask = mask
            for each in hired:
                each.fork()
        self._unborn.clear()
        for each in hired:
            each.watch(now_s)

    def dismiss(self, gone: RunnerSlice) -> None:
        """Forget a slice and free its place.  Assumes that it has no process."""
        assert not gone.pid
        self.slices.remove(gone)
        self.board.clear(gone.index)
        # The lowest place first, so that readers find the board's used part in front.
        self._free = sorted([*self._free, gone.index])

    def _fork(self, config: Config, born: RunnerSlice) -> int:
        unborn = self._unborn.get(born)
        if unborn is not None:
            return child.fork(unborn, self._work, self._mask)
        unborn = self._child(config, born)
        with blocked() as mask:
            return child.fork(unborn, self._work, mask)

    def _child(self, config: Config, born: RunnerSlice) -> child.Child:
        assert born.its_ends is not None
        channel, lifeline = born.its_ends
        own = [each.lifeline for each in self.slices if each.lifeline is not None]
        own += [each.channel.fileno() for each in self.slices if each.channel is not None]
        for each in self.slices:
            if each.its_ends is not None and each is not born:
                own += [each.its_ends[0].fileno(), each.its_ends[1]]
        return child.Child(
            config=config,
            options=born.options,
            slice=born.part,
            numslices=born.count,
            board=self.board,
            index=born.index,
            master=self._master,
            channel=channel,
            lifeline=lifeline,
            foreign=(*self._foreign(), *own),
            spool=self.spool if self.spool is not None and self.spool.config is config else None,
        )

    def reap(self, now_s: float) -> None:
        """Take note of every process that has ended."""
        while (dead := _peek()) is not None:
            pid, code = dead
            owner = next((each for each in self.slices if each.pid == pid), None)
            if owner is not None and code != os.EX_OK:
                # What it had started goes with it.  The pid cannot be another's yet: the process is not waited for.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if owner is not None:
                owner.ended(code, now_s)

    def tick(self, now_s: float) -> None:
        """Do what is due."""
        for each in self:
            each.tick(now_s)

    def due_s(self) -> float | None:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        return min((due for each in self.slices if (due := each.due_s()) is not None), default=None)

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to every process."""
        for each in self:
            each.signal(signum)

    def stop(self) -> None:
        """Ask every slice to finish its message and go."""
        now_s = time.monotonic()
        for each in self:
            each.stop(now_s)

    def kill(self) -> None:
        """End every process now."""
        for each in self:
            each.kill()


def _peek() -> tuple[int, int] | None:
    """:return: a process that has ended, and its exit status or minus its signal; it stays to be waited for."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_pid, found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
