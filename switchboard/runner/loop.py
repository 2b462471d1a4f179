"""The loop of one process around the handling of messages: taking them, sleeping, and recovering claims of dead owners.

A `Loop` belongs to one runner and works one slice of one queue; what becomes of a message is the `Settler`'s.
"""

from __future__ import annotations

import logging
from dataclasses import KW_ONLY, dataclass
from typing import Any

from switchboard.clock import Clock
from switchboard.errors import QueueError
from switchboard.events import log_event
from switchboard.interfaces import ISpool, ISwitchboard, Taken
from switchboard.message.journal import count_since_retry
from switchboard.message.naming import NS_PER_S
from switchboard.options import RunnerOptions
from switchboard.queue.wakeup import Wakeup
from switchboard.queue.watch import POLL_S
from switchboard.runner.retirement import Lifetime
from switchboard.runner.settling import Settler

log = logging.getLogger('switchboard.runner')

# Looking for claims of exited processes walks over the whole queue; in one of a million entries, that takes its time.
RECOVERY_SHARE = 50


@dataclass(eq=False)
class Loop:
    """One process's place at one slice of one queue.

    :param queue: None for a runner without one.
    :param takes_many: several messages are at work at once: a batch, or coroutines.
    """

    spool: ISpool
    queue: ISwitchboard | None
    options: RunnerOptions
    clock: Clock
    settler: Settler
    _: KW_ONLY
    takes_many: bool

    def __post_init__(self) -> None:
        self.trouble = self.settler.trouble
        self.wakeup: Wakeup = self.queue.make_wakeup() if self.queue is not None else Wakeup()
        self.lifetime = Lifetime(self.options, self.clock)
        self.is_stopping = False
        # The message at work may be what kills, and is worked on without others.
        self._is_one_alone = False
        # One that must be alone was given back, because it was not.
        self._has_deferred = False
        self._next_recovery_ns = 0
        self._has_begun = False
        self._wake_ns: int | None = None
        self._ticket: Any = None

    def stop(self) -> None:
        """Take no more messages.  Safe to call from a signal handler."""
        self.is_stopping = True
        self.wakeup.wake()

    def wake_after(self, seconds: float) -> None:
        """Have the next sleep end after so many seconds at the latest."""
        self._wake_ns = self.clock.monotonic_ns() + int(seconds * NS_PER_S)

    def start_consuming(self) -> None:
        """This process is the one that works here, and counts as a consumer of the queue."""
        self.settler.is_forked_child = False
        self.trouble.reset()
        register = getattr(self.spool, 'register_consumer', None)
        if self.queue is None or register is None:
            return
        try:
            self._ticket = register(self.options.queue)
        except (QueueError, OSError) as error:
            # A full disk, or a queue that is its owner's alone: it works all the same.
            log_event(log, logging.WARNING, None, 'consumer not added', runner=self.options.name, error=error)

    def stop_consuming(self) -> None:
        """Undo :meth:`start_consuming`."""
        self.settler.settle_stuck()
        ticket, self._ticket = self._ticket, None
        try:
            if ticket is not None:
                ticket.close()
        except (QueueError, OSError) as error:  # the janitor does it later
            log_event(
                log, logging.WARNING, None, 'consumer not removed', runner=self.options.name, error=error
            )
        # A queue on a broker: messages looked at and not taken are given back.
        if (close := getattr(self.queue, 'close', None)) is not None:
            close()

    def take(self, at_work: int) -> Taken | None:
        """Claim the next entry, in a span if spans are wanted: see `_claim`."""
        tracing = self.settler.tracing
        return self._claim(at_work) if tracing is None else tracing.receive(lambda: self._claim(at_work))

    def _claim(self, at_work: int) -> Taken | None:
        """Claim the next entry.

        One that is preserved if a process dies with it once more is worked on alone: should it be what kills, the others must not be
        counted with it.

        :param at_work: how many messages are at work already.
        :return: None if nothing is to be had now, or what there is must be alone and is not.
        """
        queue = self.queue
        if queue is None or self.must_be_alone(at_work) or self.trouble.is_waiting():
            return None
        self._is_one_alone = False
        try:
            if self._has_deferred:
                # Looking anew finds it in its place again, before those that were read behind it.
                if not queue.has_ready():
                    return None
                self._has_deferred = False
            found = queue.take()
            if found is None:
                if not at_work:
                    self.trouble.reset()
            elif self.takes_many and self._may_be_poison(found.filebase):
                if at_work:
                    self.settler.give_back(found.filebase)
                    self._has_deferred = True
                    return None
                self._is_one_alone = True
            return found
        except (QueueError, OSError) as error:
            self.settler.note_queue_unavailable(error)
            return None

    def must_be_alone(self, at_work: int) -> bool:
        """Is nothing to be taken beside the messages at work, because one of them, or the next one, has to be alone?"""
        return at_work > 0 and (self._is_one_alone or self._has_deferred)

    def _may_be_poison(self, filebase: str) -> bool:
        assert self.queue is not None
        deaths = count_since_retry(self.queue.history(filebase), 'recovered')
        return bool(0 < deaths >= self.queue.options.max_recoveries - 1)

    def recover(self) -> None:
        """Now and then, repair what dead processes left, and what this one could not put right before."""
        now_ns = self.clock.monotonic_ns()
        if self.queue is None or now_ns < self._next_recovery_ns:
            return
        self._next_recovery_ns = now_ns + int(self.options.recovery_interval_s * NS_PER_S)
        self.settler.settle_stuck()
        try:
            # Another process may be publishing what a predecessor committed, or recovering what it held: this one must not pass that.
            wait, self._has_begun = not self._has_begun, True
            self.spool.recover(wait=wait)
            self.settler.slot.recovered(len(self.queue.recover(include_own=False, wait=wait)))
        except (QueueError, OSError) as error:
            log_event(
                log,
                logging.ERROR,
                None,
                'not recovered',
                runner=self.options.name,
                queue=self.queue.name,
                error=error,
            )
        ended_ns = self.clock.monotonic_ns()
        rested_ns = ended_ns + (ended_ns - now_ns) * RECOVERY_SHARE
        self._next_recovery_ns = max(self._next_recovery_ns, rested_ns)

    def has_ready(self) -> bool:
        """Look anew: is there anything to take?  A queue that cannot be read has nothing, for now."""
        try:
            return self.queue is not None and self.queue.has_ready()
        except (QueueError, OSError) as error:
            self.settler.note_queue_unavailable(error)
            return False

    def sleep(self) -> None:
        """Wait for a message, a timer or a signal; on trouble, for the time it is given."""
        try:
            if timeout_s := self.arm():
                self.wakeup.wait(timeout_s)
        finally:
            self.wakeup.disarm()

    def arm(self, *, is_looking: bool = True) -> float:
        """Have a message end the sleep that begins now, unless there is trouble.

        The hooks' own times end every sleep.

        :param is_looking: False while no message could be begun beside those at work.
        :return: how long the sleep may last.
        """
        # A sleeper that missed its heartbeat would be taken for one that hangs.
        waits = [self.options.poll_interval_s, self.options.hang_timeout_s / 3]
        if self.queue is not None and is_looking:
            if not (is_in_trouble := self.trouble.is_waiting()):
                self.wakeup.arm()
                if self.has_ready():
                    return 0.0
                is_in_trouble = self.trouble.is_waiting()
            if is_in_trouble:
                waits.append(self.trouble.remaining_s())
            else:
                waits.append((self._next_recovery_ns - self.clock.monotonic_ns()) / NS_PER_S)
                if (wait_s := self.queue.wait_s()) is not None:
                    waits.append(wait_s)
                if not self.wakeup.is_watching:
                    waits.append(POLL_S)
        if self._wake_ns is not None:
            waits.append((self._wake_ns - self.clock.monotonic_ns()) / NS_PER_S)
            self._wake_ns = None
        return max(0.0, min(waits))
