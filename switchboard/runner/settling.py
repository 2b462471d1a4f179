"""The end of a claimed message: judged, carried out, committed.

`Runner` and `AsyncRunner` differ in how they call ``dispose``; a `Work` is what both put around the call, and a `Settler` ends it.  Queues
are known by their interface only: a directory, memory in a test, or a broker.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from switchboard.clock import TROUBLE_WAIT_S, Backoff, Clock
from switchboard.errors import (
    DestinationDown,
    DisposeResultError,
    DurabilityError,
    EntryTakenError,
    QueueDrainingError,
    QueueError,
    QueueFullError,
    QueueMismatchError,
)
from switchboard.events import FILEBASE_AT_WORK, log_event, refusal_log_level
from switchboard.interfaces import ISpool, ISwitchboard, ITransaction, Taken
from switchboard.message.journal import Record
from switchboard.message.naming import NS_PER_S, digest_of, parse_filebase
from switchboard.options import RunnerOptions
from switchboard.runner.verdict import Verdict, judge
from switchboard.status.scoreboard import Counted, NullSlot
from switchboard.store.forks import after_fork
from switchboard.trace_context import inject_context

log = logging.getLogger('switchboard.runner')

# After so many waits of the whole runner the trouble may be one message's: the others get their turn.
WAITS_BEFORE_PASSING = 2
# Of so many messages in a row that meet trouble, it is not theirs: the whole runner waits.
MAX_PASSED_OVER = 8
# For so long only, where it is a target that takes nothing: others may take something.
TARGET_WAIT_S = 1.0
# After so many waits of the whole runner, some minutes, the disk may be well for others all the same.
WAITS_BEFORE_ALONE = 20
# Those that wait alone, each for its own trouble, are tried so often together, or as often as the longest wait has it.
TRIES_ALONE_PER_S = 4.0
# How long a message that `dispose` kept queued is left alone: it doubles, up to the longest wait of the queue's retry policy.
KEPT_WAIT_S = 1.0
# A message that was kept so often is shown in the status.
KEPT_NOTED = 3
# Counts of messages that have gone another way are of no use: with so many, begin again.
MAX_COUNTED = 10_000


class TroubleBackoff:
    """The waits of a runner whose disk or destination is in trouble.

    First the whole runner waits, which keeps the order of messages.  When that has not helped, a message waits alone and the next ones
    are tried: a target that is full, or one message that is too much for it, does not hold back what goes elsewhere.  However many messages
    meet such trouble, those that are known to do so say nothing about the rest, and what comes behind them gets its turn.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._backoff = Backoff(*TROUBLE_WAIT_S)
        self._until_ns = 0
        # The wait of the whole runner this time; 0 if it does not wait.
        self.wait_s = 0.0
        self._waits = 0
        self._passed_over = 0
        # How often each message has met trouble, and which of them have trouble of their own.
        self._times: dict[str, int] = {}
        self._alone: set[str] = set()

    def remaining_s(self) -> float:
        """:return: for how much longer the whole runner waits."""
        return max(0.0, (self._until_ns - self._clock.monotonic_ns()) / NS_PER_S)

    def is_waiting(self) -> bool:
        """Does the whole runner wait?"""
        return self._until_ns > self._clock.monotonic_ns()

    def begin_wait(self, longest_s: float = TROUBLE_WAIT_S[1]) -> None:
        """Have the whole runner wait, longer than before; all messages of a batch meet the same trouble."""
        if self.is_waiting():
            return
        self._waits += 1
        self._passed_over = 0
        self.wait_s = min(longest_s, self._backoff.next())
        self._until_ns = self._clock.monotonic_ns() + int(self.wait_s * NS_PER_S)

    def wait_alone_s(self, filebase: str, error: BaseException | None) -> float:
        """:return: how long this message waits alone; 0 if the whole runner waits."""
        digest, is_of_target = digest_of(filebase), _is_of_target(error)
        is_down = isinstance(error, DestinationDown) and error.affects_every_message
        if len(self._times) > MAX_COUNTED:
            self._times.clear()
            self._alone.clear()
        times = self._times[digest] = self._times.get(digest, 0) + 1
        is_impatient = max(times - 1, self._waits) >= WAITS_BEFORE_PASSING
        is_known = digest in self._alone
        if is_down or not is_impatient:
            self.begin_wait()
            return 0.0
        if is_of_target or self._waits >= WAITS_BEFORE_ALONE:
            self._alone.add(digest)
        if not is_known:
            if self._passed_over >= MAX_PASSED_OVER:
                self.begin_wait(TARGET_WAIT_S if is_of_target else TROUBLE_WAIT_S[1])
                return 0.0
            self._passed_over += 1
        return max(self._backoff.after(times), len(self._alone) / TRIES_ALONE_PER_S)

    def forget(self, filebase: str) -> None:
        """Forget a message that was handled."""
        if self._times:
            digest = digest_of(filebase)
            self._times.pop(digest, None)
            self._alone.discard(digest)

    def reset(self) -> None:
        """Something was handled, or there is nothing to handle: the place is well."""
        self._backoff.reset()
        self.wait_s = 0.0
        self._until_ns = self._waits = self._passed_over = 0


def _is_of_target(error: BaseException | None) -> bool:
    """Has one destination or this message alone to wait, while the disk is well?"""
    if isinstance(error, QueueFullError):
        return not error.is_disk_full
    if isinstance(error, DestinationDown):
        return not error.affects_every_message
    return isinstance(error, QueueDrainingError | QueueMismatchError)


def exit_status(code: object) -> int:
    """:return: the status of a process that is left with ``sys.exit(code)``, as Python has it; `os._exit` refuses text, None, and large numbers."""
    return code & 0xFF if isinstance(code, int) else int(code is not None)


class Work:
    """One message at work: the taken entry, and the messages emitted for it.

    A context manager around the call of ``dispose``: whatever leaves it is about this message.

    :ivar verdict: the fate of the message; None: commit it.
    :ivar takes_outputs: ``dispose`` has not ended.
    :ivar is_over: ``dispose`` has ended, and so has `on_error`, if the message failed.
    """

    __slots__ = (
        '_began_ns',
        '_settler',
        '_span',
        '_token',
        'is_over',
        'taken',
        'takes_outputs',
        'transaction',
        'verdict',
    )

    def __init__(self, settler: Settler, taken: Taken, transaction: ITransaction) -> None:
        self._settler = settler
        self.taken = taken
        self.transaction = transaction
        self.verdict: Verdict | None = None
        self.takes_outputs, self.is_over = True, False
        self._began_ns = 0
        self._span: Any = None

    def __enter__(self) -> Work:
        self._token = FILEBASE_AT_WORK.set(self.taken.filebase)
        if self._settler.tracing is not None:
            history = self._settler.history(self.taken.filebase)
            self._span = self._settler.tracing.begin(self.taken.filebase, self.taken.msgdata, history)
        self._began_ns = self._settler.clock.monotonic_ns()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        self.takes_outputs = False
        self._settler.end_forked_child(error)
        self._settler.report_duration(self.taken.filebase, self._began_ns)
        try:
            return error is None or self.failed(error)
        finally:
            self.is_over = True
            FILEBASE_AT_WORK.reset(self._token)
            del self._token  # it knows the task's context, and that this one
            if self._span is not None:
                outcome = 'done' if self.verdict is None else self.verdict.outcome
                self._settler.tracing.end(*self._span, outcome, error)

    @property
    def span(self) -> Any:
        """The span of its being at work; None without one."""
        return None if self._span is None else self._span[0]

    def returned(self, result: object) -> None:
        """Take what ``dispose`` returned for what it means.

        :raises DisposeResultError: it means nothing.
        """
        if result is None or result is False:
            return
        if result is True:
            self.verdict = self._settler.keep(self)
            return
        close = getattr(result, 'close', None)
        if hasattr(result, '__await__') and callable(close):
            close()  # or it would be said later, and elsewhere, that nobody awaited it
        raise DisposeResultError(result)

    def failed(self, error: BaseException) -> bool:
        """Judge the message by what its hook raised.

        :return: False if the process is being stopped and the message counts as not begun.
        """
        settler = self._settler
        self.transaction.discard()
        if settler.is_ending(error):
            if not settler.is_dying():
                settler.give_back(self.taken.filebase)
            return False
        self.verdict = settler.judge(self.taken, error)
        return True


class Settler:
    """Ends what a runner has claimed.

    :param on_error: the runner's hook.
    :param is_stopping: is the runner being stopped?  Then a raised object that is no `Exception` is not about the message.
    :param is_dying: is the process about to end because of a message, of which nobody knows?  Then those at work stay claimed: recovery counts
        their owner's death.
    """

    def __init__(
        self,
        spool: ISpool,
        queue: ISwitchboard | None,
        options: RunnerOptions,
        slot: NullSlot,
        clock: Clock,
        *,
        on_error: Callable[[Any, dict[str, Any], BaseException], object],
        is_stopping: Callable[[], bool],
        is_dying: Callable[[], bool] = lambda: False,
    ) -> None:
        self.trouble = TroubleBackoff(clock)
        self._spool = spool
        self._queue = queue
        self._name = options.name
        self.slot = slot
        self.clock = clock
        self._on_error = on_error
        self._is_stopping = is_stopping
        self.is_dying = is_dying
        # Is this process one that `dispose` has forked?
        self.is_forked_child = False
        _SETTLERS.add(self)
        # Set in the process that works, where spans are wanted: see `tracing`.
        self.tracing: Any = None
        # Claimed, and the disk does not let them go: each with its verdict, and its transaction if all that is to be done is to commit that.
        self._stuck: list[tuple[str, Verdict, ITransaction | None]] = []
        # How often in a row a message was kept.
        self._kept: dict[str, int] = {}

    def _was_forked(self) -> None:
        self.is_forked_child = True

    def end_forked_child(self, error: BaseException | None) -> None:
        """End this process, if it is one that `dispose` has forked: nothing here is its own, and it must not go on as a second runner."""
        if not self.is_forked_child:
            return
        status = 0
        try:
            if isinstance(error, SystemExit):
                status = exit_status(error.code)
            elif error is not None:
                status = 1
                traceback.print_exception(error)
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # nobody reads them any more, and the status counts
                    stream.flush()
        finally:
            os._exit(status)

    @property
    def queue(self) -> ISwitchboard:
        """The queue of the messages."""
        assert self._queue is not None
        return self._queue

    def begin(self, taken: Taken) -> Work:
        """:return: the context managers around the call of ``dispose``."""
        return Work(self, taken, self._spool.transaction(self.queue, taken.filebase))

    def report_duration(self, filebase: str, began_ns: int) -> None:
        """Tell the scoreboard how long ``dispose`` took, and how long the message could have been taken before that."""
        took_ns = max(0, self.clock.monotonic_ns() - began_ns)
        name = parse_filebase(filebase)  # one of a broker need not say since when it is ready
        waited_ns = None if name is None else max(0, self.clock.time_ns() - took_ns - name.when_ns)
        self.slot.measured(took_ns, waited_ns)

    def history(self, filebase: str) -> list[Record]:
        """:return: the history of a message at work; nothing if it is not ours any more."""
        try:
            return self.queue.history(filebase)
        except QueueError:
            return []

    def is_ending(self, error: BaseException) -> bool:
        """Was an error raised because the process is to end, and not by the message?"""
        return not isinstance(error, Exception) and self._is_stopping()

    # Judging.

    def judge(self, taken: Taken, error: BaseException) -> Verdict:
        """Decide the fate of a message whose ``dispose`` raised."""
        verdict = self._verdict(taken.filebase, error)
        if self.tracing is not None and verdict.record:
            span: dict[str, Any] = {}
            inject_context(span)  # the next attempt is linked to this one
            verdict = verdict._replace(record={**verdict.record, **span})
        try:
            self._on_error(taken.msg, taken.msgdata, error)
        except BaseException as another:
            if self.is_ending(another):
                raise
            log_event(log, logging.ERROR, taken.filebase, 'on_error failed', runner=self._name, exc_info=True)
        try:
            changed = self.queue.metadata_changes(taken.filebase, taken.msgdata, strict=False)
        except QueueError:
            changed = {}  # it is not ours any more
        return verdict._replace(record={**verdict.record, **changed})

    def _verdict(self, filebase: str, error: BaseException) -> Verdict:
        now_s = self.queue.expiry_clock.time_ns() / NS_PER_S
        return judge(error, self.history(filebase), self.queue.options, now_s)

    def keep(self, work: Work) -> Verdict:
        """Give a message back that ``dispose`` wants to see again, after a wait that grows."""
        taken = work.taken
        try:
            filebase = work.transaction.keep(taken.msg, taken.msgdata)
        except (DurabilityError, QueueFullError) as error:
            # What `dispose` has noted in the metadata it has done.
            changed = self.queue.metadata_changes(taken.filebase, taken.msgdata, strict=False)
            if not changed or self.queue.is_message_changed(taken.filebase, taken.msg):
                raise
            return Verdict('kept', str(error), record={'event': 'kept', **changed})
        digest = digest_of(filebase)
        if len(self._kept) > MAX_COUNTED:
            self._kept.clear()
        # A message that was changed has another name.
        times = self._kept[digest] = self._kept.pop(digest_of(work.taken.filebase), 0) + 1
        wait_s = Backoff(KEPT_WAIT_S, max(KEPT_WAIT_S, self.queue.options.retry.cap_s)).after(times)
        self.queue.defer(filebase, wait_s)
        if times >= KEPT_NOTED:
            self.slot.error(f'{filebase} was kept {times} times, and is looked at again in {wait_s:g} s')
        return Verdict('kept')

    # Carrying out.

    def end(self, works: Iterable[Work]) -> int:
        """Commit the handled messages, with one flush, and carry out the verdicts on the others.

        :return: how many left the queue.
        """
        left = 0
        done: dict[ITransaction, Work] = {}
        for work in works:
            if work.verdict is None:
                done[work.transaction] = work
            else:
                left += self._settle(work, work.verdict)
        began_ns = self.clock.time_ns()
        alone = {transaction for transaction in done if not transaction.has_outputs}
        failed = self._spool.commit_all(list(done)) if done else dict[ITransaction, Any]()
        for transaction, work in done.items():
            if transaction in failed:
                verdict = self._verdict(work.taken.filebase, failed[transaction])
                if transaction in alone and verdict.outcome == 'requeued':
                    self._keep_for_later(work.taken.filebase, verdict, failed[transaction], transaction)
                    self.slot.end('kept')
                else:
                    left += self._settle(work, verdict)
            else:
                left += 1
                self._forget(work.taken.filebase)
                self.slot.end('done')
                if work.span is not None:
                    self.tracing.settled('ack', work.span, work.taken.filebase, began_ns)
        if left:
            self.trouble.reset()
        return left

    def _forget(self, filebase: str) -> None:
        self.trouble.forget(filebase)
        if self._kept:
            self._kept.pop(digest_of(filebase), None)

    def _settle(self, work: Work, verdict: Verdict) -> bool:
        """Release or preserve a message that was not handled.

        :return: True if it left the queue.
        """
        filebase = work.taken.filebase
        if verdict.text:
            self.slot.error(verdict.text)
        began_ns = self.clock.time_ns()
        is_settled = True
        try:
            self._carry_out(filebase, verdict)
            if work.span is not None and verdict.outcome == 'failed':
                self.tracing.settled('shunt', work.span, filebase, began_ns)
        except QueueError as error:
            self._keep_for_later(filebase, verdict, error)
            is_settled = False
        if verdict.outcome not in ('kept', 'requeued'):
            self._forget(filebase)
        outcome: Counted = 'kept' if verdict.outcome == 'requeued' else verdict.outcome
        self.slot.end(outcome, str(verdict.record.get('error', '')))
        return is_settled and verdict.outcome in ('failed', 'retried')

    def _carry_out(self, filebase: str, verdict: Verdict, *, is_noted: bool = False) -> None:
        """:param is_noted: its record is in the history already."""
        queue, text = self.queue, verdict.text
        record = None if is_noted else verdict.record or None
        if verdict.outcome == 'failed':
            log_event(log, logging.ERROR, filebase, 'failed', runner=self._name, error=text)
            if record is not None:
                queue.annotate(filebase, record)
            queue.finish(filebase, preserve=True, reason=text, cause=verdict.cause)
        elif verdict.outcome == 'retried':
            log_event(
                log,
                logging.WARNING,
                filebase,
                'retried',
                delay_s=verdict.delay_s,
                runner=self._name,
                error=text,
            )
            queue.release(filebase, delay_s=verdict.delay_s, record=record)
        elif verdict.outcome == 'kept' and verdict.record:
            queue.release(filebase, record=record)
        elif verdict.outcome == 'requeued':
            # Of a batch that meets one trouble, one line tells of it.
            level = logging.DEBUG if self.trouble.is_waiting() else refusal_log_level(verdict.error)
            alone_s = self.trouble.wait_alone_s(filebase, verdict.error)
            wait_s = alone_s or self.trouble.wait_s
            log_event(log, level, filebase, 'requeued', wait_s=wait_s, runner=self._name, error=text)
            queue.release(filebase)
            if alone_s:
                queue.defer(filebase, alone_s)

    def give_back(self, filebase: str) -> None:
        """Release an entry that was claimed and not begun: as if it never was."""
        try:
            self.queue.release(filebase)
        except QueueError as error:
            self._keep_for_later(filebase, Verdict('requeued'), error)

    def _keep_for_later(
        self, filebase: str, verdict: Verdict, error: Exception, transaction: ITransaction | None = None
    ) -> None:
        """Hold an entry that the disk does not let go, with its verdict: the acts of `dispose` are neither forgotten nor done twice."""
        log_event(log, logging.ERROR, filebase, 'outcome not stored', runner=self._name, error=error)
        self.slot.error(f'{filebase} is held, for the disk does not take what became of it: {error}')
        self._stuck.append((filebase, verdict, transaction))
        if len(self._stuck) >= MAX_PASSED_OVER:
            self.trouble.begin_wait()

    def settle_stuck(self) -> None:
        """Try again to settle the messages that the disk did not let go."""
        stuck, self._stuck = self._stuck, []
        for filebase, verdict, transaction in stuck:
            try:
                if transaction is not None:
                    self._finish(filebase, transaction)
                elif verdict.outcome == 'requeued':
                    self.queue.release(filebase)
                else:
                    self._carry_out(filebase, verdict, is_noted=self._is_noted(filebase, verdict))
            except EntryTakenError:
                pass  # it is not ours any more
            except QueueError as error:
                self._keep_for_later(filebase, verdict, error, transaction)

    def _finish(self, filebase: str, transaction: ITransaction) -> None:
        """:raises QueueError: the disk still refuses."""
        for error in self._spool.commit_all([transaction]).values():
            raise error
        self._forget(filebase)
        self.slot.end('done')

    def _is_noted(self, filebase: str, verdict: Verdict) -> bool:
        """Was its record written before the rest was refused?"""
        wanted = verdict.record.items()
        # The record of its being preserved may be the last.
        return any(
            all(one.get(key) == value for key, value in wanted) for one in self.queue.history(filebase)[-2:]
        )

    def note_queue_unavailable(self, error: Exception) -> None:
        """The queue cannot be read."""
        self.trouble.begin_wait()
        self.slot.error(str(error))
        log_event(
            log,
            logging.ERROR,
            None,
            'cannot take messages',
            wait_s=self.trouble.wait_s,
            runner=self._name,
            error=error,
        )


_SETTLERS = after_fork(Settler._was_forked)
