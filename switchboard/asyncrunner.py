"""A runner whose ``dispose`` is a coroutine: one process, many messages at once, for work that waits for the network.

::

    class Notify(AsyncRunner):
        async def dispose(self, msg, msgdata):
            await self.client.post(msgdata['url'], msg)

Claims, hand-off, failures and stopping are those of `Runner`: what a coroutine emits is published with the end of its own
message, an exception is about its own message, and a stop waits for the messages that are at work.  Messages that end
in the same moment are committed with one flush.

Not for work that computes: one process has one processor.  Order is that in which messages are begun, not ended.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple

from switchboard.entry import digest_of
from switchboard.interfaces import ITransaction, Taken
from switchboard.runner import Runner
from switchboard.settings import Setting
from switchboard.verdict import Verdict

log = logging.getLogger('switchboard.runner')

# While messages are at work, how often the board is told that the loop turns.
BEAT_S = 1.0


def _concurrency(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError('give a whole number of at least 1')
    return number


class _Work(NamedTuple):
    """What one task is at."""

    taken: Taken
    transaction: ITransaction


_NOTHING = _Work(Taken('', None, {}), None)  # type: ignore[arg-type]  # stands for "not in dispose()"
_work: ContextVar[_Work] = ContextVar('work', default=_NOTHING)


class AsyncRunner(Runner):
    """The loop over one slice of one queue, with ``concurrency`` messages at work at once.  See `IRunner`.

    ``setup``, ``cleanup``, ``periodic`` and ``dispose`` are coroutines here.
    """

    settings: ClassVar[dict[str, Setting]] = {'concurrency': Setting(_concurrency, default=10)}

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self._tasks: dict[asyncio.Task[Verdict | None], _Work] = {}
        self._woken = asyncio.Event()

    async def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        """Handle one message.  See `IRunner`."""
        raise NotImplementedError(
            f'{type(self).__name__} does not say what to do with a message: write dispose()'
        )

    async def setup(self) -> None:  # type: ignore[override]  # a coroutine here
        """Called once, before the first message: open connections here."""

    async def cleanup(self) -> None:  # type: ignore[override]  # a coroutine here
        """Called once, after the last message."""

    async def periodic(self) -> None:  # type: ignore[override]  # a coroutine here
        """Called when messages have ended, and at least every ``rescan_s`` seconds."""

    # What a coroutine asks of its runner is about its own message.

    @property
    def filebase(self) -> str:
        """The entry that the asking coroutine is at."""
        return _work.get().taken.filebase

    @filebase.setter
    def filebase(self, value: str) -> None:
        pass  # the loop of `Runner` sets it; here each task has its own

    @property
    def idempotency_key(self) -> str:
        """A key that stays the same each time the asking coroutine's message is tried."""
        filebase = self.filebase
        return digest_of(filebase) if filebase else ''

    @idempotency_key.setter
    def idempotency_key(self, value: str) -> None:
        pass

    @property
    def _transaction(self) -> ITransaction | None:
        return _work.get().transaction

    @_transaction.setter
    def _transaction(self, value: ITransaction | None) -> None:
        pass

    def run(self, *, once: bool = False, until_empty: bool = False) -> int:
        """See `IRunner`."""
        return asyncio.run(self._main(once=once, until_empty=until_empty))

    async def _main(self, *, once: bool, until_empty: bool) -> int:
        loop = asyncio.get_running_loop()
        descriptors = self._wakeup.descriptors()
        for descriptor in descriptors:
            loop.add_reader(descriptor, self._woken.set)
        await self.setup()
        try:
            self._recover()
            self.slot.beat()
            while not self._stopping:
                begun = self._begin()
                if self._tasks:
                    await self._wait_for_work()
                    await self.periodic()
                elif once or until_empty or self._wear.is_out():
                    break
                else:
                    await self.periodic()
                    await self._wait_for_messages()
                if once and begun:
                    break
                self._recover()
                self.slot.beat()
            while self._tasks:
                await self._wait_for_work()
        finally:
            for descriptor in descriptors:
                loop.remove_reader(descriptor)
            await self.cleanup()
        return 0

    def _begin(self) -> int:
        """Begin as many messages as may be at work at once.

        :return: how many were begun.
        """
        begun = 0
        while (
            self.board is not None
            and len(self._tasks) < self.setting['concurrency']
            and not self._troubled_s
            and not self._wear.is_out()
            and (taken := self.board.take()) is not None
        ):
            work = _Work(taken, self.spool.transaction(self.board, taken.filebase))
            self._wear.messages += 1
            self._tasks[asyncio.create_task(self._handle(work))] = work
            begun += 1
        return begun

    async def _handle(self, work: _Work) -> Verdict | None:
        """Call the hook.

        :return: what is to become of the message; None: commit it.
        """
        _work.set(work)
        taken, transaction = work
        try:
            async with asyncio.timeout(self.options.max_seconds):
                keeps = await self.dispose(taken.msg, taken.msgdata)
            return self._keep(taken, transaction) if keeps else None
        except Exception as error:
            transaction.discard()
            return self._judge(taken, error)
        except BaseException:  # cancelled: the message was not begun
            transaction.discard()
            if self.board is not None:
                self.board.release(taken.filebase)
            raise

    async def _wait_for_work(self) -> None:
        """Wait until a message has ended, or another one can be begun, and settle those that have ended."""
        waiter = asyncio.create_task(self._woken.wait())
        if len(self._tasks) < self.setting['concurrency'] and not self._stopping:
            self._wakeup.arm()
            if self.board is not None and self.board.ready() and not self._troubled_s:
                self._woken.set()
        await asyncio.wait({*self._tasks, waiter}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
        self._rest(waiter)
        done: dict[ITransaction, Taken] = {}
        for task in [task for task in self._tasks if task.done()]:
            work = self._tasks.pop(task)
            verdict = task.result()
            if verdict is None:
                done[work.transaction] = work.taken
            else:
                self._settle(work.taken, verdict)
        if done and self._commit(done):
            self._troubled_s = 0.0

    async def _wait_for_messages(self) -> None:
        self.snooze(0)
        waiter = asyncio.create_task(self._woken.wait())
        timeout_s = self._troubled_s
        if not timeout_s:
            self._wakeup.arm()
            timeout_s = 0.0 if self.board is not None and self.board.ready() else self._timeout_s()
        await asyncio.wait({waiter}, timeout=timeout_s)
        self._rest(waiter)
        self._troubled_s = 0.0

    def _rest(self, waiter: asyncio.Task[Any]) -> None:
        """Stop waiting, and forget what woke."""
        waiter.cancel()
        self._woken.clear()
        self._wakeup.wait(0)
        self._wakeup.disarm()
