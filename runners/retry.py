"""Sends dead letters back to where they came from: after a wait, and a few times only.

Most failures of a night are over in the morning: a server was down, a disk was full.  A queue whose dead letters go to a queue
with this runner gets them back when there is hope again; what still fails then ends in bad, for a person to look at::

    [queue.out]
    dead_letter = retry

    [runner.retry]
    class = retry
    queue = retry
    wait = 15m..6h x4
    max_retries = 3

``wait`` is the time before each try, growing as written; ``retry_on`` names the error classes or causes (``attempts``, ``recoveries``,
``rejected``, ``expired``, ``overflow``) that there is hope for, and what failed otherwise goes to bad at once; ``to`` names a
queue where the messages go instead of their own.

The history of a message knows where it came from, why, and how often it was sent back by this runner since a person last did.
So nothing has to be remembered elsewhere, and a crash forgets nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from switchboard import Runner
from switchboard.errors import ConfigError, PermanentFailure, TemporaryFailure, UnknownQueueError
from switchboard.runner.api import NS_PER_S, Setting, integer, retry_policy, word_list

Record = Mapping[str, Any]

# How an entry came here.
ARRIVAL_EVENTS = ('dead-lettered', 'moved', 'preserved')


class Retry(Runner):
    """Sends each message back to the queue that its history names."""

    settings = {  # noqa: RUF012  a mapping that nobody changes, as the base class says
        'wait': Setting(retry_policy, retry_policy('15m..6h x4')),
        'max_retries': Setting(integer(1), 3),
        'retry_on': Setting(word_list, (), old_name='only'),
        'to': Setting(),
    }

    def setup(self) -> None:
        """See `Runner`.

        :raises ConfigError: there is no such queue.
        """
        if self.setting_values['to']:
            try:
                self.spool[self.setting_values['to']]
            except UnknownQueueError as error:
                raise ConfigError(str(error), key='to') from error

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """See `IRunner`.

        :raises TemporaryFailure: its time has not come.
        :raises PermanentFailure: there is no hope for it.
        """
        assert self.queue is not None
        history = self.queue.history(self.filebase)
        plan = self._plan(history) or self._make_plan(history)
        now_s = self.clock.time_ns() / NS_PER_S
        if plan['due'] > now_s:
            raise TemporaryFailure(
                f'waits to be sent back to {plan["to"]}', retry_after_s=plan['due'] - now_s
            )
        try:
            self.forward(plan['to'])
        except UnknownQueueError as error:
            raise PermanentFailure(f'it came from a queue that is no more: {error}') from error

    def _plan(self, history: Sequence[Record]) -> Record | None:
        """:return: the plan for this entry since it came here; None if there is none."""
        for record in reversed(history):
            if record.get('event') in ARRIVAL_EVENTS:
                return None
            if self._is_ours(record):
                return record
        return None

    def _make_plan(self, history: Sequence[Record]) -> Record:
        """Decide, and write the decision into the history: it starts the count of failures anew.

        :raises PermanentFailure: it is not to be sent back.
        """
        assert self.queue is not None
        arrival: Record = next((one for one in reversed(history) if one.get('event') in ARRIVAL_EVENTS), {})
        target = self.setting_values['to'] or arrival.get('queue')
        if not isinstance(target, str) or target == self.queue.name:
            raise PermanentFailure('its history does not say where it came from')
        self._check_retry_on(history, arrival)
        times = self._count_retries(history)
        if times >= self.setting_values['max_retries']:
            raise PermanentFailure(f'it was sent back to {target} {times} times, and failed each time')
        wait_s = self.setting_values['wait'].delay_s(times + 1)
        plan = {
            'event': 'retried',
            'queue': self.queue.name,
            'to': target,
            'by': self.name,
            'before': times,
            'due': self.clock.time_ns() / NS_PER_S + wait_s,
        }
        self.queue.annotate(self.filebase, plan)
        return plan

    def _check_retry_on(self, history: Sequence[Record], arrival: Record) -> None:
        retry_on = self.setting_values['retry_on']
        failure: Record = next((one for one in reversed(history) if 'error' in one), {})
        if retry_on and failure.get('error') not in retry_on and arrival.get('cause') not in retry_on:
            why = failure.get('error') or arrival.get('cause') or 'an unknown cause'
            raise PermanentFailure(f'{why} is none of {", ".join(retry_on)}, for which there is hope')

    def _count_retries(self, history: Sequence[Record]) -> int:
        """The number of times that this runner has sent it back since somebody else did."""
        times = 0
        for record in history:
            if record.get('event') == 'retried':
                times = times + 1 if self._is_ours(record) else 0
        return times

    def _is_ours(self, record: Record) -> bool:
        return record.get('event') == 'retried' and record.get('by') == self.name
