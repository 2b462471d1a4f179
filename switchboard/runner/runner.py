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

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

from zope.interface import implementer

from switchboard.clock import Clock
from switchboard.errors import UnknownQueueError
from switchboard.interfaces import IRunner, ISpool, ITransaction, Taken
from switchboard.message.naming import digest_of
from switchboard.options import RunnerOptions
from switchboard.runner.settings import Setting, read_settings
from switchboard.runner.verdict import Verdict
from switchboard.runner.worker import Worker
from switchboard.status.scoreboard import NullSlot


@implementer(IRunner)
class Runner(Worker):
    """The loop over one slice of one queue.  See `IRunner`.

    :param spool: where the queue is, and what is emitted goes.
    :param options: the section of the configuration.
    :param slice: which of `numslices` this process works on.
    :param slot: where it reports to its master.
    :param clock: the spool's by default.
    :raises ConfigError: the section has a key that this class does not declare, lacks one, or has a bad value.
    """

    # The keys of the section that belong to this class.
    settings: ClassVar[Mapping[str, Setting]] = {}

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
        super().__init__(spool, options, slice=slice, numslices=numslices, slot=slot, clock=clock)
        self.setting = read_settings(self.settings, options, type(self).__name__)
        self.check(self.setting, options, getattr(getattr(spool, 'config', None), 'runners', {}))
        # The entry at work: its name, and a key that stays the same each time it is tried.
        self.filebase = ''
        self.idempotency_key = ''
        self._transaction: ITransaction | None = None

    # Hooks.

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        """Handle one message; this is the hook that must be written.  See `IRunner`."""
        raise NotImplementedError(
            f'{type(self).__name__} does not say what to do with a message: write dispose()'
        )

    @classmethod
    def check(
        cls, setting: Mapping[str, Any], options: RunnerOptions, others: Mapping[str, RunnerOptions]
    ) -> None:
        """Look for what is wrong between the keys of a section; also called by ``switchboard check --imports``.

        :param setting: the values of the keys that belong to this class.
        :param others: all runners of the configuration.
        :raises ConfigError: it cannot work.
        """

    def setup(self) -> None:
        """Called once, before the first message, in the runner's own process: open connections here."""

    def confirm(self) -> Mapping[str, Exception]:
        """Called when the messages of a batch were disposed of, before they are finished.

        For what is best done for many at once: say what is wanted in `dispose`, and wait for all the answers here.

        :return: what went wrong, by filebase: judged as if `dispose` had raised it.  What this raises is about all of them.
        """
        return {}

    def cleanup(self) -> None:
        """Called once, at the end."""

    def periodic(self) -> None:
        """Called after each pass over the queue, and at least every ``rescan_s`` seconds."""

    def snooze(self, filecnt: int) -> None:
        """Called before the loop sleeps.

        :param filecnt: how many messages the last pass handled.
        """

    # And `on_error`, which `Worker` calls.

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
        :param metadata: for the message; a ``dedupe_key`` in it, which may be the input's, does not count: give it by keyword.
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
        if 'dedupe_key' not in metadata_keys:
            # The input's own key must not be handed down: of many messages made from one, only the first would be stored.
            merged.pop('dedupe_key', None)
        boards = [self.spool[queue] for queue in queues]
        return dict(zip(queues, self._transaction.emit_all(boards, msg, merged), strict=True))

    def reply(
        self,
        msgdata: Mapping[str, Any],
        answer: Any,
        metadata: Mapping[str, Any] | None = None,
        **metadata_keys: Any,
    ) -> bool:
        """Answer a request: the answer goes to the queue that its ``reply_to`` names, with its ``correlation_id``.

        :param msgdata: the metadata of the request.
        :return: False if it asks for no answer; nothing was sent.
        :raises UnknownQueueError: who asked is gone, and his queue with him.
        """
        queue = msgdata.get('reply_to')
        if not queue:
            return False
        if queue not in self.spool:
            raise UnknownQueueError(
                'who asked is gone, and with him the queue for the answer', queue=str(queue)
            )
        merged = {**(metadata or {}), **metadata_keys}
        if (question := msgdata.get('correlation_id')) is not None:
            merged['correlation_id'] = question
        self.emit(str(queue), answer, merged)
        return True

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
            self._enter()
            self._recover()
            self.slot.beat()
            while not self._stopping:
                troubles = self._troubles
                handled = self._pass()
                if self._troubles == troubles:
                    self._troubled_s = 0.0
                self.periodic()
                if once or (until_empty and not handled) or self._wear.is_out():
                    break
                if not handled and not self._stopping:
                    self._sleep(handled)
                self._recover()
                self.slot.beat()
        finally:
            self._leave()
            self.cleanup()
        return 0

    def _pass(self) -> int:
        """Work until nothing can be had now.

        :return: how many messages left the queue.
        """
        left = 0
        while not self._stopping and self.board is not None and not self._wear.is_out():
            batch = self._take()
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
        done: dict[ITransaction, Taken] = {}
        waiting = deque(batch)
        left = 0
        try:
            while waiting and not self._stopping:
                taken = waiting.popleft()
                transaction = self.spool.transaction(self.board, taken.filebase)
                verdict = self._dispose(taken, transaction)
                if verdict is None:
                    done[transaction] = taken
                else:
                    left += self._settle(taken, verdict)
        finally:  # also when the process is told to end: what is done is done, and the others were not begun
            for taken in waiting:
                self._give_back(taken.filebase)
            left += self._confirm(done)
            left += self._commit(done)
        if left:
            self._troubled_s = 0.0
        return left

    def _dispose(self, taken: Taken, transaction: ITransaction) -> Verdict | None:
        """Call the hook.

        :return: what is to become of the message; None: commit it.
        """
        self._wear.messages += 1
        self.filebase, self.idempotency_key = taken.filebase, digest_of(taken.filebase)
        self._transaction = transaction
        self.slot.begin(taken.filebase)
        try:
            return self._keep(taken, transaction) if self._call(taken) else None
        except Exception as error:
            transaction.discard()
            return self._judge(taken, error)
        except BaseException:  # the process is told to end: the message was not begun
            transaction.discard()
            self._give_back(taken.filebase)
            raise
        finally:
            self._transaction = None
            self.filebase = self.idempotency_key = ''

    def _call(self, taken: Taken) -> object:
        try:
            return self.dispose(taken.msg, taken.msgdata)
        finally:
            self._end_child()

    def _confirm(self, done: dict[ITransaction, Taken]) -> int:
        """Call the hook, and leave in `done` what may be committed.

        :return: how many of the others left the queue.
        """
        if not done:
            return 0
        left = 0
        try:
            failed = self.confirm()
        except Exception as error:
            failed = dict.fromkeys((taken.filebase for taken in done.values()), error)
        except BaseException:  # the process is told to end: what came of them, nobody knows
            for transaction, taken in done.items():
                transaction.discard()
                self._give_back(taken.filebase)
            done.clear()
            raise
        for transaction, taken in list(done.items()):
            if taken.filebase in failed:
                del done[transaction]
                transaction.discard()
                left += self._settle(taken, self._judge(taken, failed[taken.filebase]))
        return left

    def _sleep(self, handled: int) -> None:
        """Wait for a message, a timer or a signal; on trouble with the disk, for the time it is given."""
        self.snooze(handled)
        if self._troubled_s:
            self._wakeup.wait(min(self._troubled_s, self.options.hang_timeout_s / 3))
            return
        self._wakeup.arm()
        try:
            if self.board is None or not self.board.ready():
                self._wakeup.wait(self._timeout_s())
        finally:
            self._wakeup.disarm()
