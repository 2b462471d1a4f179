"""What surrounds the handling of a message: taking it, carrying out what is to become of it, and repairing what went wrong.

`Runner` and `AsyncRunner` differ in how they call ``dispose``; this is what they share.  It knows queues by their interface only,
so it runs over a directory, over memory in a test, or over a broker.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from switchboard.clock import Clock
from switchboard.errors import EntryTakenError, QueueError
from switchboard.interfaces import ISpool, ISwitchboard, ITransaction, Taken
from switchboard.message.journal import Record, count_since_retry
from switchboard.message.naming import NS
from switchboard.options import RunnerOptions
from switchboard.queue.wakeup import POLL_S, Wakeup
from switchboard.runner.retirement import Wear
from switchboard.runner.verdict import Verdict, judge
from switchboard.status.scoreboard import NullSlot

log = logging.getLogger('switchboard.runner')

# What a full or failing disk is given before the next try: it doubles from the first to the last.
TROUBLE_WAIT_S = (0.5, 30.0)
# Looking for the claims of the dead walks over the whole queue; in one of a million entries, that takes its time.
RECOVERY_SHARE = 50
# How long a message that `dispose` kept queued is left alone.
KEPT_WAIT_S = 1.0


# How many forks lie between this process and the one that has loaded this module.
_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Worker:
    """One process's work on one slice of one queue, but for the handling of its messages.

    :param spool: where the queue is, and what is emitted goes.
    :param options: the section of the configuration.
    :param slice: which of `numslices` this process works on.
    :param slot: where it reports to its master.
    :param clock: the spool's by default.
    """

    def __init__(
        self,
        spool: ISpool,
        options: RunnerOptions,
        *,
        slice: int | None = None,
        numslices: int = 1,
        slot: NullSlot | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.spool = spool
        self.options = options
        self.name = options.name
        self.slot = slot or NullSlot()
        self.clock: Clock = clock or spool.clock
        self.board: ISwitchboard | None = (
            spool.board(options.queue, slice, numslices) if options.queue else None
        )
        self._wakeup: Wakeup = self.board.wakeup() if self.board is not None else Wakeup()
        self._stopping = False
        # How often there was trouble with the disk, and how long to wait for it to pass.
        self._troubles = 0
        self._troubled_s = 0.0
        self._is_troubled = False
        self._alone: list[str] = []
        self._stuck: list[str] = []
        self._next_recovery_ns = 0
        self._wake_ns: int | None = None
        self._wear = Wear(options, self.clock)
        self._forks = _forks
        self._ticket: Any = None

    @property
    def is_stopping(self) -> bool:
        """Was it asked to stop?"""
        return self._stopping

    def wake_on(self, *descriptors: int) -> None:
        """Have the loop's sleep end when one of these descriptors is readable, and no longer for those given before."""
        self._wakeup.watch_also(*descriptors)

    def wake_in(self, seconds: float) -> None:
        """Have the loop's next sleep end after so many seconds at the latest."""
        self._wake_ns = self.clock.monotonic_ns() + int(seconds * NS)

    def on_error(self, msg: Any, msgdata: dict[str, Any], error: BaseException) -> None:
        """Called when ``dispose`` raised, before the message is released or preserved."""

    def _enter(self) -> None:
        """This process is the one that works here, and counts as a consumer of the queue."""
        self._forks = _forks
        consume = getattr(self.spool, 'consume', None)
        if self.board is None or consume is None:
            return
        try:
            self._ticket = consume(self.options.queue)
        except (
            QueueError,
            OSError,
        ) as error:  # a full disk, or a queue that is its owner's alone: it works all the same
            log.warning('not counted as a consumer runner=%s error=%s', self.name, error)

    def _leave(self) -> None:
        ticket, self._ticket = self._ticket, None
        try:
            if ticket is not None:
                ticket.leave()
        except (QueueError, OSError) as error:  # the janitor does what is due
            log.warning('left without a word runner=%s error=%s', self.name, error)
        # A queue on a broker: what was looked at and not taken is given back.
        if (close := getattr(self.board, 'close', None)) is not None:
            close()

    def _end_child(self) -> None:
        """End this process, if it is one that `dispose` has forked: nothing here is its own, and it must not go on as a second runner."""
        if self._forks == _forks:
            return
        error = sys.exception()
        code: object = 0
        if isinstance(error, SystemExit):
            code = error.code
        elif error is not None:
            traceback.print_exc()
            code = 1
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))

    def _take(self) -> list[Taken]:
        """Claim the next entries: as many as a batch holds.

        An entry that was recovered is taken alone: should it be what kills, the others must not be counted with it.
        """
        board, batch = self.board, list[Taken]()
        self._is_troubled = False
        if board is None:
            return batch
        try:
            while self._alone:
                filebase = self._alone.pop()
                try:
                    return [Taken(filebase, *board.dequeue(filebase))]
                except EntryTakenError:
                    continue
            while len(batch) < self.options.batch_size and (taken := board.take()) is not None:
                batch.append(taken)
                if self.options.batch_size > 1 and _was_recovered(board.history(taken.filebase)):
                    if len(batch) > 1:
                        board.release(batch.pop().filebase)
                        self._alone.append(taken.filebase)
                    break
        except (QueueError, OSError) as error:
            self._wait_longer()
            self.slot.error(str(error))
            log.error(
                'nothing to be had, waiting %.1f s runner=%s error=%s', self._troubled_s, self.name, error
            )
        return batch

    def _wait_longer(self) -> None:
        self._troubles += 1
        if self._is_troubled:
            return  # all entries of a batch meet the same trouble
        self._is_troubled = True
        first_s, last_s = TROUBLE_WAIT_S
        self._troubled_s = min(last_s, max(first_s, self._troubled_s * 2))

    def _give_back(self, filebase: str) -> None:
        """Release an entry that was claimed and not begun: as if it never was."""
        assert self.board is not None
        try:
            self.board.release(filebase)
        except QueueError as error:
            self._keep_for_later(filebase, error)

    def _keep_for_later(self, filebase: str, error: QueueError) -> None:
        log.error('%s: left claimed for now runner=%s error=%s', filebase, self.name, error)
        self._stuck.append(filebase)

    def _commit(self, done: Mapping[ITransaction, Taken]) -> int:
        """Commit what was handled, with one flush.

        :return: how many left the queue.
        """
        left = 0
        failed = self.spool.commit_all(list(done))
        for transaction, taken in done.items():
            if transaction in failed:
                left += self._settle(taken, self._verdict(taken.filebase, failed[transaction]))
            else:
                left += 1
                self.slot.end('done')
        return left

    def _keep(self, taken: Taken, transaction: ITransaction) -> Verdict:
        """Give a message back that ``dispose`` wants to see again."""
        assert self.board is not None
        self.board.defer(transaction.keep(taken.msg, taken.msgdata), KEPT_WAIT_S)
        return Verdict('kept')

    def _verdict(self, filebase: str, error: BaseException) -> Verdict:
        assert self.board is not None
        try:
            history = self.board.history(filebase)
        except QueueError:
            history = []
        return judge(error, history, self.board.options, self.clock.time_ns() / NS)

    def _judge(self, taken: Taken, error: BaseException) -> Verdict:
        """Say what is to become of a message whose ``dispose`` raised."""
        assert self.board is not None
        verdict = self._verdict(taken.filebase, error)
        try:
            self.on_error(taken.msg, taken.msgdata, error)
        except Exception:
            log.exception('%s: on_error failed too runner=%s', taken.filebase, self.name)
        try:
            changed = self.board.changes(taken.filebase, taken.msgdata, strict=False)
        except QueueError:
            changed = {}  # it is not ours any more
        return replace(verdict, record={**verdict.record, **changed})

    def _settle(self, taken: Taken, verdict: Verdict) -> bool:
        """Release or preserve a message that was not handled.

        :return: True if it left the queue.
        """
        if verdict.text:
            self.slot.error(verdict.text)
        try:
            self._carry_out(taken.filebase, verdict)
        except QueueError as error:
            self._keep_for_later(taken.filebase, error)
        self.slot.end('kept' if verdict.outcome == 'trouble' else verdict.outcome)
        return verdict.outcome in ('failed', 'retried')

    def _carry_out(self, filebase: str, verdict: Verdict) -> None:
        board, text = self.board, verdict.text
        assert board is not None
        if verdict.outcome == 'failed':
            log.error('%s: failed runner=%s error=%s', filebase, self.name, text)
            board.annotate(filebase, verdict.record)
            board.finish(filebase, preserve=True, reason=text, cause=verdict.cause)
        elif verdict.outcome == 'retried':
            log.warning('%s: again in %.1f s runner=%s error=%s', filebase, verdict.delay_s, self.name, text)
            board.release(filebase, delay_s=verdict.delay_s, record=verdict.record)
        elif verdict.outcome == 'trouble':
            # Of a batch that meets one trouble, one line tells of it.
            level = logging.DEBUG if self._is_troubled else logging.ERROR
            self._wait_longer()
            log.log(
                level,
                '%s: queued, waiting %.1f s runner=%s error=%s',
                filebase,
                self._troubled_s,
                self.name,
                text,
            )
            board.release(filebase)

    def _recover(self) -> None:
        """Now and then, repair what dead processes left, and what this one could not put right before."""
        now_ns = self.clock.monotonic_ns()
        if self.board is None or now_ns < self._next_recovery_ns:
            return
        self._next_recovery_ns = now_ns + int(self.options.recovery_s * NS)
        stuck, self._stuck = self._stuck, []
        for filebase in stuck:
            try:
                self.board.release(filebase)
            except EntryTakenError:
                pass  # it is not ours any more
            except QueueError as error:
                self._keep_for_later(filebase, error)
        try:
            self.spool.recover()
            self.board.recover(own=False)
        except (QueueError, OSError) as error:
            log.error('recovery failed runner=%s queue=%s error=%s', self.name, self.board.name, error)
        ended_ns = self.clock.monotonic_ns()
        rested_ns = ended_ns + (ended_ns - now_ns) * RECOVERY_SHARE
        self._next_recovery_ns = max(self._next_recovery_ns, rested_ns)

    def _timeout_s(self) -> float:
        now_ns = self.clock.monotonic_ns()
        # A sleeper that missed its heartbeat would be taken for one that hangs.
        waits = [self.options.rescan_s, self.options.hang_timeout_s / 3]
        if self._wake_ns is not None:
            waits.append((self._wake_ns - now_ns) / NS)
            self._wake_ns = None
        if self.board is not None:
            waits.append((self._next_recovery_ns - now_ns) / NS)
            if (wait_s := self.board.wait_s()) is not None:
                waits.append(wait_s)
            if not self._wakeup.watches:
                waits.append(POLL_S)
        return max(0.0, min(waits))


def _was_recovered(history: Sequence[Record]) -> bool:
    return count_since_retry(history, 'recovered') > 0
