"""An operator's requests to a running master, by a signal or over the control socket: reload, restart, scale, stop.

Each becomes a `Rollout`: one replacement after another, one slice at a time.  They are done in the order in which they were asked
for, so two requests never pull at one slice.

A reload reads and checks everything first.  If anything is wrong the old configuration stays in force, the error is logged
and stands in ``status`` until a reload succeeds.  Then only what changed is restarted: the runners whose section or whose queue
changed, and those that had given up.  Runners that only publish to a changed queue notice it as every publisher does (see `activate`): they
read the new exchanges and options within a tenth of a second, and go on with their message.  What will be restarted, and why, is
known before it is done (``plan``).
A slice count that was changed while running stays until the configuration names another one.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple

from switchboard.config.config import Config
from switchboard.config.keys import MAX_INSTANCES
from switchboard.errors import ConfigError, MasterError
from switchboard.events import log_event
from switchboard.master.control import SHUTDOWN, ControlRequest, Reply, unexpected_error_text
from switchboard.master.rollout import ConfigPropagation, Replacement, Rollout, RolloutStep, Stopping
from switchboard.master.slices import Slices
from switchboard.options import RunnerOptions
from switchboard.spool.active_config import activate
from switchboard.status import log
from switchboard.status.record import ProcessState

logger = log.logger('master')

# The beginnings of what `status` says of a reload that has failed.
OLD_IN_FORCE = 'the old configuration is in force'
NEW_IN_FORCE = 'the new configuration is in force, but not in every runner'


class PlannedChange(NamedTuple):
    """The effect of a reload on one runner, and why."""

    runner: str
    act: Literal['start', 'end', 'restart', 'scale']
    reason: str


def no_reply(_answer: Mapping[str, object]) -> None:
    """Signals get none."""


@dataclass(eq=False)
class Requests:
    """Takes requests and works them off.

    :param on_reload: called after each try, with the empty string, or with which configuration is in force and the error.
    :param around_reload: called when a reload begins, and when it is over, however it went.
    :param shut_down: stops the master.
    :param is_foreground: whether another program, such as a service manager, waits for the end of this process.
    """

    slices: Slices
    _: KW_ONLY
    on_reload: Callable[[str], object]
    around_reload: tuple[Callable[[], object], Callable[[], object]]
    shut_down: Callable[[], object]
    reopen: Callable[[], list[str]]
    is_foreground: bool

    def __post_init__(self) -> None:
        self._begin_reload, self._end_reload = self.around_reload
        self._rollouts: deque[Rollout] = deque()
        # How many slices each runner is to have when all that is asked for is done.
        self._counts: dict[str, int] = {}
        self._closed = False

    def tick(self, now_s: float) -> None:
        """Go on as far as possible; called whenever something has happened."""
        while self._rollouts:
            first = self._rollouts[0]
            try:
                if not first.tick(now_s):
                    return
            except Exception as error:
                # A mistake of ours ends the request, and not the runners.
                log_event(logger, logging.ERROR, None, 'request failed', request=first.title, exc_info=True)
                self._rollouts.popleft().cancel(unexpected_error_text(error))
            else:
                self._rollouts.popleft()

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock, should nothing happen before."""
        return self._rollouts[0].due_s() if self._rollouts else math.inf

    def cancel(self) -> None:
        """Begin nothing new: the master stops."""
        self._closed = True
        while self._rollouts:
            self._rollouts.popleft().cancel('the master is stopping')

    def handle(self, request: ControlRequest, reply: Reply) -> None:
        """Do what a request over the control socket asks for.

        :raises MasterError: it cannot be done.
        """
        do, runner = request.do, request.runner
        if do == 'status':
            under_way = [each.title for each in self._rollouts]
            reply({'ok': True, 'errors': [], 'under_way': under_way, 'is_foreground': self.is_foreground})
        elif self._closed:
            raise MasterError('the master is stopping')
        elif do in ('reload', 'plan'):
            (self.reload if do == 'reload' else self.plan)(reply)
        elif do == 'reopen':
            errors = self.reopen()
            reply({'ok': not errors, 'errors': errors})
        elif do == SHUTDOWN:
            reply({'ok': True, 'errors': []})
            self.shut_down()
        elif do == 'restart' and runner is None:
            self.restart_all(reply)
        elif do not in ('scale', 'restart', 'start', 'stop'):
            raise MasterError(f'unknown request {do!r}')
        elif runner is None or runner not in self.slices.config.runners:
            known = ', '.join(self.slices.config.runners) or 'none'
            raise MasterError(f'no such runner {runner!r}; there are: {known}')
        elif do == 'scale':
            self.scale(runner, request.instances, reply)
        elif do == 'stop':
            self.stop(runner, reply)
        elif do == 'start' and any(each.pid for each in self.slices.of_runner(runner)):
            self._queue_rollout(f'start {runner}', [], reply, runner=runner)
        else:
            self.restart(runner, reply, request.slice)

    def _queue_rollout(
        self, title: str, steps: Iterable[RolloutStep], reply: Reply, **answer: object
    ) -> None:
        def on_end(errors: list[str]) -> None:
            for error in errors:
                log_event(logger, logging.ERROR, None, 'request failed', request=title, error=error)
            log_event(logger, logging.INFO, None, 'request finished', request=title)
            if errors:  # later plans start from the real state
                self._counts.clear()
            reply({'ok': not errors, 'errors': errors, **answer})

        log_event(logger, logging.INFO, None, 'request began', request=title)
        self._rollouts.append(Rollout(title, steps, on_end))

    def _count(self, name: str) -> int:
        planned = self._counts.get(name)
        return len({each.slice_index for each in self.slices.of_runner(name)}) if planned is None else planned

    def _options(self, name: str) -> RunnerOptions:
        return self.slices.config.runners[name]

    def restart_all(self, reply: Reply = no_reply) -> None:
        """Restart every slice, one by one; those that somebody has stopped stay stopped."""
        names = dict.fromkeys(each.name for each in self.slices)
        steps = [step for name in names for step in self._one_by_one(name)]
        self._queue_rollout('restart', steps, reply)

    def restart(self, name: str, reply: Reply, slice_number: int | None = None) -> None:
        """Restart the slices of one runner, one by one, or start them if they do not run.

        :param slice_number: only this slice, counted from 1.
        :raises MasterError: there is no such slice.
        """
        if not self.slices.of_runner(name):
            count = self._options(name).instances
            self._queue_rollout(
                f'start {name}', [Replacement(self.slices, self._options(name), count)], reply, runner=name
            )
            return
        steps = self._one_by_one(name, starts_stopped=True)
        if slice_number is not None:
            if not 1 <= slice_number <= len(steps):
                raise MasterError(f'there is no slice {slice_number} of {name}, which has {len(steps)}')
            steps = [steps[slice_number - 1]]
        what = name if slice_number is None else f'{name} {slice_number}'
        self._queue_rollout(f'restart {what}', steps, reply, runner=name)

    def _one_by_one(self, name: str, *, starts_stopped: bool = False) -> list[Replacement]:
        options, count = self._options(name), self._count(name)
        return [
            Replacement(self.slices, options, count, slice_index=slice_index, starts_stopped=starts_stopped)
            for slice_index in range(count)
        ]

    def stop(self, name: str, reply: Reply) -> None:
        """Stop the slices of one runner; they stay EXITED until somebody starts them."""
        self._queue_rollout(f'stop {name}', [Stopping(self.slices, name)], reply, runner=name)

    def scale(self, name: str, count: int | None, reply: Reply = no_reply) -> None:
        """Give a runner another number of slices.

        :raises MasterError: there are no such numbers.
        """
        if count is None or not 0 <= count <= MAX_INSTANCES:
            raise MasterError(f'instances must be a number from 0 to {MAX_INSTANCES}')
        # Even when nothing is to be done the answer takes its turn: an earlier request may be the one that makes it true.
        steps = []
        if count != self._count(name):
            self._counts[name] = count
            steps.append(Replacement(self.slices, self._options(name), count, starts_stopped=True))
        self._queue_rollout(f'scale {name}={count}', steps, reply, runner=name, instances=count)

    def scale_by(self, difference: int) -> None:
        """One slice more or less of the runner that the configuration names for it, or of the first with a queue."""
        config = self.slices.config
        with_queue = (name for name, options in config.runners.items() if options.queue)
        name = config.master.scale_runner or next(with_queue, None)
        if name is None or name not in config.runners:
            log_event(logger, logging.WARNING, None, 'nothing to scale')
            return
        # A signal that came once too often must not stop the queue altogether.
        self.scale(name, max(1, min(MAX_INSTANCES, self._count(name) + difference)))

    def _read_again(self) -> Config:
        """:raises ConfigError: it cannot be used."""
        old = self.slices.config
        try:
            new = Config.load(old.path)
        except (ConfigError, OSError) as error:
            raise ConfigError(str(error)) from error
        except Exception as error:
            log_event(logger, logging.ERROR, None, 'internal error', exc_info=True)
            raise ConfigError(f'{type(error).__name__}: {error}') from error
        if new.spool != old.spool:
            raise ConfigError(
                'a running master cannot move to another spool', section='switchboard', key='spool'
            )
        return new

    def plan(self, reply: Reply) -> None:
        """Say what a reload would do, and why; nothing is done."""
        try:
            new = self._read_again()
        except ConfigError as error:
            reply({'ok': False, 'errors': [str(error)], 'has_mistakes': True})
            return
        old = self.slices.config
        steps = [each._asdict() for each in self._planned(old, new)]
        reply({'ok': True, 'errors': [], 'changes': str(old.changes(new)), 'plan': steps})

    def reload(self, reply: Reply = no_reply) -> None:
        """Read the configuration again, and restart changed runners."""
        self._begin_reload()
        old = self.slices.config
        try:
            new = self._read_again()
        except ConfigError as error:
            log_event(logger, logging.ERROR, None, 'reload failed', error=error)
            self.on_reload(f'{OLD_IN_FORCE}: {error}')
            self._end_reload()
            reply({'ok': False, 'errors': [str(error)], 'has_mistakes': True})
            return
        changes = old.changes(new)
        log_event(logger, logging.INFO, None, 'reloaded', changes=changes)
        planned = self._planned(old, new)
        for each in planned:
            log_event(
                logger,
                logging.INFO,
                None,
                'reload planned',
                act=each.act,
                runner=each.runner,
                reason=each.reason,
            )
        self.on_reload('')
        self.slices.config = new
        try:
            activate(new)
        except OSError as error:
            log_event(logger, logging.ERROR, None, 'configuration not published', error=error)
        steps: list[RolloutStep] = [step for each in planned for step in self._steps(each, old, new)]
        if changes.exchanges or changes.queues:
            steps.append(ConfigPropagation())
        self._queue_rollout('reload', steps, self._noting_result(reply), changes=str(changes))

    def _noting_result(self, reply: Reply) -> Reply:
        def note_and_reply(answer: Mapping[str, Any]) -> None:
            if answer['errors']:
                self.on_reload(f'{NEW_IN_FORCE}: {"; ".join(answer["errors"])}')
            self._end_reload()
            reply(answer)

        return note_and_reply

    def _planned(self, old: Config, new: Config) -> list[PlannedChange]:
        changes = old.changes(new)
        planned = [PlannedChange(name, 'end', 'its section is gone') for name in changes.removed]
        planned += [PlannedChange(name, 'start', 'its section is new') for name in changes.added]
        stayed = set(old.queue_names()) & set(new.queue_names())
        # Connections to a broker are shared by all that publish there, and know nothing of another address.
        moved = sorted(
            name
            for name in stayed & set(changes.queues)
            if old.queue_options(name).url or new.queue_options(name).url
        )
        for name in (each for each in new.runners if each in old.runners):
            before, after = old.runners[name], new.runners[name]
            if before.instances != after.instances:
                planned.append(PlannedChange(name, 'scale', f'instances = {after.instances}'))
            elif before != after:
                planned.append(PlannedChange(name, 'restart', 'its section has changed'))
            elif name in changes.changed:
                planned.append(
                    PlannedChange(name, 'restart', f'the options of queue {after.queue} have changed')
                )
            elif moved:
                planned.append(
                    PlannedChange(name, 'restart', f'queue {moved[0]} is on a broker and has changed')
                )
            elif any(each.state is ProcessState.FATAL for each in self.slices.of_runner(name)):
                planned.append(PlannedChange(name, 'restart', 'it had given up'))
        return planned

    def _steps(self, planned: PlannedChange, old: Config, new: Config) -> list[Replacement]:
        if planned.act == 'end':
            return [Replacement(self.slices, old.runners[planned.runner], 0)]
        options = new.runners[planned.runner]
        if planned.act == 'restart':
            return self._one_by_one(planned.runner)
        if planned.act == 'scale':
            self._counts[planned.runner] = options.instances
        return [Replacement(self.slices, options, options.instances)]
