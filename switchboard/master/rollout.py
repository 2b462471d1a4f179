"""The replacement of a runner's slices by new ones, and doing several such things one after another.

The new processes are prepared first (class imported, object made).  Only when all of them are, the old ones are asked to
finish their message and go; a new one begins as soon as no living old slice shares a part of its range.  So a version that cannot start
never takes the place of what works, and messages with one key keep their order.  A runner that holds something only one process can
hold, such as a port, takes it in ``setup`` and lets it go in ``cleanup``, which follow each other here.

Starting the new process fully before the old one goes was rejected for both reasons; stopping the old one first was
rejected because a typing error in a module would then stop the mail.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass

from switchboard.errors import MasterError
from switchboard.events import log_event
from switchboard.master.slices import Slices
from switchboard.master.supervision import RunnerSlice
from switchboard.message.naming import NS_PER_S
from switchboard.options import RunnerOptions
from switchboard.spool.active_config import LOOK_EVERY_NS
from switchboard.status import log
from switchboard.status.record import ProcessState

logger = log.logger('master')
BROKEN = (ProcessState.BACKOFF, ProcessState.FATAL, ProcessState.EXITED)


class RolloutStep:
    """One thing that takes a while.

    :ivar name: the runner's name, if it is about one.
    :ivar error: empty if all went well.
    """

    name = ''
    error = ''
    over = False

    def begin(self, now_s: float) -> None:
        """Take the steps that need no waiting."""

    def tick(self, now_s: float) -> None:
        """Go on as far as possible; called whenever something has happened."""

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock, should nothing happen before."""
        return math.inf


class Stopping(RolloutStep):
    """Slices finish their message and go.  They stay on the scoreboard, EXITED."""

    def __init__(self, slices: Slices, name: str) -> None:
        self.slices = slices
        self.name = name

    def begin(self, now_s: float) -> None:
        """See `RolloutStep`."""
        for each in self.slices.of_runner(self.name):
            each.stop(now_s)

    def tick(self, _now_s: float) -> None:
        """See `RolloutStep`."""
        self.over = all(each.is_gone for each in self.slices.of_runner(self.name))


class ConfigPropagation(RolloutStep):
    """The time until every publisher has looked at the configuration in force."""

    def begin(self, now_s: float) -> None:
        """See `RolloutStep`."""
        self._ends_s = now_s + LOOK_EVERY_NS / NS_PER_S

    def tick(self, now_s: float) -> None:
        """See `RolloutStep`."""
        self.over = now_s >= self._ends_s

    def due_s(self) -> float:
        """See `RolloutStep`."""
        return self._ends_s


@dataclass(eq=False)
class Replacement(RolloutStep):
    """One change of slices.

    :param count: how many slices the runner has afterwards; 0 ends it.
    :param slice_index: replace this slice only; nothing happens if the runner has another count by then.
    :param starts_stopped: start slices that somebody has stopped, too.
    """

    slices: Slices
    options: RunnerOptions
    count: int
    _: KW_ONLY
    slice_index: int | None = None
    starts_stopped: bool = False

    def __post_init__(self) -> None:
        self.name = self.options.name
        self._old: list[RunnerSlice] = []
        self._new: list[RunnerSlice] = []
        self._preparing = False

    def begin(self, now_s: float) -> None:
        """Add the new slices, and start them."""
        self._old = [
            each for each in self.slices.of_runner(self.name) if self.slice_index in (None, each.slice_index)
        ]
        if self.slice_index is not None and [each.count for each in self._old] != [self.count]:
            self.over = True
            return
        asleep = (
            bool(self._old)
            and all(each.state is ProcessState.EXITED for each in self._old)
            and not self.starts_stopped
        )
        self._preparing = any(each.pid for each in self._old) and self.count > 0
        slice_indexes = range(self.count) if self.slice_index is None else (self.slice_index,)
        try:
            for slice_index in slice_indexes:
                self._new.append(self.slices.add(self.options, self.count, slice_index, waits_for_turn=True))
        except MasterError as error:
            self._give_up(str(error), now_s)
            return
        for added in self._new:
            if asleep:
                added.stop(now_s)
            else:
                added.start(now_s)
        if not self._preparing:
            self._ask_old_to_go(now_s)

    def tick(self, now_s: float) -> None:
        """See `RolloutStep`."""
        if self.over:
            return
        if self._preparing:
            broken = next((each for each in self._new if each.state in BROKEN), None)
            if broken is not None:
                self._give_up(f'{broken.title} cannot start, the old one goes on: {broken.reason}', now_s)
            elif all(each.is_prepared for each in self._new):
                self._ask_old_to_go(now_s)
        if not self._preparing:
            self._hand_over(now_s)

    def _ask_old_to_go(self, now_s: float) -> None:
        self._preparing = False
        for each in self._old:
            each.stop(now_s)

    def _hand_over(self, now_s: float) -> None:
        if ended := [each for each in self._old if each.is_gone]:
            # In one go: a reader that looks all the time is not to look again for each.
            with self.slices.scoreboard.replacing_slices():
                for gone in ended:
                    self._old.remove(gone)
                    self.slices.remove(gone, self._successor_of(gone))
        if self.error:  # the failed new ones are going
            self.over = not self._old
            return
        for each in self._new:
            if each.waits_for_turn and not any(each.overlaps(other) for other in self._old):
                each.give_turn(now_s)
        if not self._old and all(each.start_is_over for each in self._new):
            self.over = True
            failed = [each for each in self._new if each.state in (ProcessState.BACKOFF, ProcessState.FATAL)]
            self.error = '; '.join(f'{each.title}: {each.reason}' for each in failed)

    def _successor_of(self, gone: RunnerSlice) -> RunnerSlice | None:
        """:return: the slice that goes on counting; among several, whose range is another anyway, the first: their sum stays right."""
        same = (
            each for each in self._new if (each.slice_index, each.count) == (gone.slice_index, gone.count)
        )
        return next(same, self._new[0] if self._new else None)

    def _give_up(self, error: str, now_s: float) -> None:
        """Leave the old slices as they are, and take back the new ones."""
        log_event(logger, logging.ERROR, None, 'replacement failed', runner=self.name, error=error)
        self.error = error
        self._old, self._new = self._new, []
        self._ask_old_to_go(now_s)
        self._hand_over(now_s)


class Rollout:
    """Several steps, one after the other; after one fails, the others of its runner are left out.

    :param on_end: called with the errors, when the last one is over.
    """

    def __init__(
        self, title: str, steps: Iterable[RolloutStep], on_end: Callable[[list[str]], object]
    ) -> None:
        self.title = title
        self.errors: list[str] = []
        self._steps = deque(steps)
        self._on_end = on_end
        self._begun: RolloutStep | None = None

    def tick(self, now_s: float) -> bool:
        """Go on as far as possible.

        :return: whether all is over.
        """
        while self._steps:
            step = self._steps[0]
            if step is not self._begun:
                self._begun = step
                step.begin(now_s)
            step.tick(now_s)
            if not step.over:
                return False
            self._steps.popleft()
            if step.error:
                self.errors.append(step.error)
                self._steps = deque(each for each in self._steps if each.name != step.name)
        self._on_end(self.errors)
        return True

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock, should nothing happen before."""
        return math.inf if self._begun is None else self._begun.due_s()

    def cancel(self, reason: str) -> None:
        """Do no more; a step that has begun is left as it is."""
        self._on_end([*self.errors, reason])
