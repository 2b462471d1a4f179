"""A runner: the loop that works one slice of one queue, and the hooks that a program fills in.

::

    class Archive(Runner):
        def dispose(self, msg, msgdata):
            self.emit('out', msg, msgdata)

The loop claims an entry, calls ``dispose``, and finishes the entry together with what was emitted, as one step.  Whatever
``dispose`` raises is about its own message: it is tried again, or preserved, and the loop goes on.  How a
failure is judged is in ``verdict``; how the loop sleeps, in ``wakeup``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from zope.interface import implementer

from switchboard.board import NullSlot
from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.entry import NS, digest_of
from switchboard.errors import QueueError
from switchboard.handoff import Transaction
from switchboard.interfaces import IRunner
from switchboard.keeping import changes, keep
from switchboard.options import RunnerOptions
from switchboard.settings import Setting, read_settings
from switchboard.switchboard import Taken
from switchboard.verdict import Verdict, judge
from switchboard.wakeup import POLL_S, Wakeup
from switchboard.wear import Wear

if TYPE_CHECKING:
    from switchboard.spool import Spool

log = logging.getLogger('switchboard.runner')

# What a full or failing disk is given before the next try: it doubles from the first to the last.
TROUBLE_WAIT_S = (0.5, 30.0)
# How long a message that `dispose` kept queued is left alone.
KEPT_WAIT_S = 1.0


@implementer(IRunner)
class Runner:
    """The loop over one slice of one queue.  See `IRunner`.

    :param spool: where the queue is, and what is emitted goes.
    :param options: the section of the configuration.
    :param slice: which of `numslices` this process works on.
    :param slot: where it reports to its master.
    :raises ConfigError: the section has a key that this class does not declare, lacks one, or has a bad value.
    """

    # The keys of the section that belong to this class.
    settings: ClassVar[Mapping[str, Setting]] = {}

    def __init__(
        self,
        spool: Spool,
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
        self.clock = clock or SYSTEM_CLOCK
        self.setting = read_settings(self.settings, options, type(self).__name__)
        self.board = spool.board(options.queue, slice, numslices) if options.queue else None
        # The entry at work: its name, and a key that stays the same each time it is tried.
        self.filebase = ''
        self.idempotency_key = ''
        self._wakeup = self.board.wakeup() if self.board is not None else Wakeup()
        self._transaction: Transaction | None = None
        self._stopping = False
        self._troubled_s = 0.0
        self._stuck: list[str] = []
        self._next_recovery_ns = 0
        self._wear = Wear(options, self.clock)

    # Hooks.

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        """Handle one message; this is the hook that must be written.  See `IRunner`."""
        raise NotImplementedError(
            f'{type(self).__name__} does not say what to do with a message: write dispose()'
        )

    def setup(self) -> None:
        """Called once, before the first message, in the runner's own process: open connections here."""

    def cleanup(self) -> None:
        """Called once, at the end."""

    def periodic(self) -> None:
        """Called after each pass over the queue, and at least every ``rescan_s`` seconds."""

    def snooze(self, filecnt: int) -> None:
        """Called before the loop sleeps.

        :param filecnt: how many messages the last pass handled.
        """

    def on_error(self, msg: Any, msgdata: dict[str, Any], error: BaseException) -> None:
        """Called when ``dispose`` raised, before the message is released or preserved."""

    # For use in dispose().

    def emit(
        self,
        routing_key: str,
        msg: Any,
        metadata: Mapping[str, Any] | None = None,
        *,
        exchange: str = '',
        **metadata_keys: Any,
    ) -> dict[str, str]:
        """Send a message on.  It becomes visible if and only if the input is finished.

        :param routing_key: the name of a queue or, with `exchange`, the key by which that exchange routes.
        :return: filebases by queue.
        :raises NoRouteError: the exchange has no queue for it.
        :raises QueueFullError: no room: the input stays where it is, and the runner waits.
        """
        merged = {**(metadata or {}), **metadata_keys}
        queues = self.spool.exchanges.route(exchange, routing_key, merged)
        if exchange:
            merged |= {'exchange': exchange, 'routing_key': routing_key}
        if self._transaction is None:  # not in dispose(): there is no input to wait for
            return self.spool.publish(msg, merged, exchange=exchange, routing_key=routing_key)
        return {queue: self._transaction.emit(self.spool[queue], msg, dict(merged)) for queue in queues}

    def forward(self, *queues: str) -> None:
        """Hand the input itself on, unread and unchanged: to one queue by one rename, to several by copies."""
        if self._transaction is None:
            raise RuntimeError('forward() is for use in dispose()')
        self._transaction.forward(*(self.spool[queue] for queue in queues))

    # The loop.

    def stop(self) -> None:
        """See `IRunner`."""
        self._stopping = True
        self._wakeup.wake()

    def run(self, *, once: bool = False, until_empty: bool = False) -> int:
        """See `IRunner`."""
        self.setup()
        try:
            self._recover()
            self.slot.beat()
            while not self._stopping:
                handled = self._pass()
                self.periodic()
                if once or (until_empty and not handled) or self._wear.is_out():
                    break
                if not handled and not self._stopping:
                    self._sleep(handled)
                self._recover()
                self.slot.beat()
        finally:
            self.cleanup()
        return 0

    def _pass(self) -> int:
        """Work until nothing can be had now.

        :return: how many messages left the queue.
        """
        left = 0
        while not self._stopping and self.board is not None and not self._wear.is_out():
            batch: list[Taken] = []
            while len(batch) < self.options.batch_size and (taken := self.board.take()) is not None:
                batch.append(taken)
            if not batch:
                break
            left += self._work(batch)
            if self._troubled_s:
                break
        return left

    def _work(self, batch: list[Taken]) -> int:
        """Handle claimed entries and commit them with one flush.

        :return: how many left the queue.
        """
        assert self.board is not None
        done: dict[Transaction, Taken] = {}
        left = 0
        for position, taken in enumerate(batch):
            if self._stopping and position:
                self.board.release(taken.filebase)  # claimed and not begun: as if it never was
                continue
            transaction = self.spool.transaction(self.board, taken.filebase)
            verdict = self._dispose(taken, transaction)
            if verdict is None:
                done[transaction] = taken
            else:
                left += self._settle(taken, verdict)
        failed = self.spool.commit_all(list(done))
        for transaction, taken in done.items():
            if transaction in failed:
                left += self._settle(taken, judge(failed[transaction], [], self.board.options))
            else:
                left += 1
                self.slot.end('done')
        if left:
            self._troubled_s = 0.0
        return left

    def _dispose(self, taken: Taken, transaction: Transaction) -> Verdict | None:
        """Call the hook.

        :return: what is to become of the message; None: commit it.
        """
        board = self.board
        assert board is not None
        self._wear.messages += 1
        self.filebase, self.idempotency_key = taken.filebase, digest_of(taken.filebase)
        self._transaction = transaction
        before = dict(taken.msgdata)
        self.slot.begin(taken.filebase)
        try:
            if not self.dispose(taken.msg, taken.msgdata):
                return None
            transaction.discard()
            board.hold(keep(board, taken, before, transaction), KEPT_WAIT_S)
            return Verdict('kept')
        except Exception as error:
            transaction.discard()
            verdict = judge(error, board.history(taken.filebase), board.options)
            self._tell_of(error, taken)
            return replace(verdict, record={**verdict.record, **changes(before, taken.msgdata)})
        except BaseException:  # the process is told to end: the message was not begun
            transaction.discard()
            board.release(taken.filebase)
            raise
        finally:
            self._transaction = None
            self.filebase = self.idempotency_key = ''

    def _tell_of(self, error: Exception, taken: Taken) -> None:
        try:
            self.on_error(taken.msg, taken.msgdata, error)
        except Exception:
            log.exception('%s: on_error failed too runner=%s', taken.filebase, self.name)

    def _settle(self, taken: Taken, verdict: Verdict) -> bool:
        """Release or preserve a message that was not handled.

        :return: True if it left the queue.
        """
        filebase, text = taken.filebase, verdict.text
        if text:
            self.slot.error(text)
        try:
            self._carry_out(filebase, verdict)
        except QueueError as error:
            log.error('%s: left claimed for now runner=%s error=%s', filebase, self.name, error)
            self._stuck.append(filebase)
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
            first_s, last_s = TROUBLE_WAIT_S
            self._troubled_s = min(last_s, max(first_s, self._troubled_s * 2))
            log.error(
                '%s: queued, waiting %.1f s runner=%s error=%s', filebase, self._troubled_s, self.name, text
            )
            board.release(filebase)

    def _recover(self) -> None:
        """Now and then, repair what dead processes left, and what this one could not put right before."""
        now_ns = self.clock.monotonic_ns()
        if self.board is None or now_ns < self._next_recovery_ns:
            return
        self._next_recovery_ns = now_ns + int(self.options.recovery_s * NS)
        try:
            for filebase in self._stuck:
                self.board.release(filebase)
            self._stuck.clear()
            self.spool.recover()
            self.board.recover_backup_files(own=False)
        except (QueueError, OSError) as error:
            log.error('recovery failed runner=%s queue=%s error=%s', self.name, self.board.name, error)

    def _sleep(self, handled: int) -> None:
        """Wait for a message, a timer or a signal; on trouble with the disk, for the time it is given."""
        self.snooze(handled)
        if self._troubled_s:
            self._wakeup.wait(self._troubled_s)
            return
        self._wakeup.arm()
        try:
            if self.board is None or not self.board.ready():
                self._wakeup.wait(self._timeout_s())
        finally:
            self._wakeup.disarm()

    def _timeout_s(self) -> float:
        now_ns = self.clock.monotonic_ns()
        # A sleeper that missed its heartbeat would be taken for one that hangs.
        waits = [self.options.rescan_s, self.options.hang_timeout_s / 3]
        if self.board is not None:
            waits.append((self._next_recovery_ns - now_ns) / NS)
            if (wait_s := self.board.wait_s()) is not None:
                waits.append(wait_s)
            if not self._wakeup.watches:
                waits.append(POLL_S)
        return max(0.0, min(waits))
