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

from switchboard.errors import EntryTakenError, QueueError
from switchboard.interfaces import ITransaction, Taken
from switchboard.message.journal import count_since_retry
from switchboard.message.naming import NS, digest_of
from switchboard.runner.runner import Runner
from switchboard.runner.settings import Setting
from switchboard.runner.verdict import Verdict

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
        # What is at work is a message that may be what kills, and no other.
        self._is_one_alone = False
        self._main_task: asyncio.Task[Any] | None = None
        # Claimed, and their tasks have not run yet: one that is cancelled before it runs never knows.
        self._not_begun: set[str] = set()
        self._troubled_until_ns = 0

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
        self._main_task = asyncio.current_task()
        descriptors = self._wakeup.descriptors()
        for descriptor in descriptors:
            loop.add_reader(descriptor, self._woken.set)
        await self.setup()
        try:
            self._enter()
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
            self._main_task = None
            await self._cancel()
            self._leave()
            await self.cleanup()
        return 0

    def _is_ending(self) -> bool:
        """Is the loop itself being cancelled, or over?  Then all tasks are, in no order."""
        return self._main_task is None or self._main_task.cancelling() > 0

    async def _cancel(self) -> None:
        """The process is told to end at once: what is at work was not begun."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for filebase in self._not_begun:
            self._give_back(filebase)
        for task in [task for task in self._tasks if task.cancelled() or task.exception() is not None]:
            del self._tasks[task]
        self._settle_done()

    def _may_begin(self) -> bool:
        """May another message be begun, if there is one?"""
        return (
            self.board is not None
            and not self._stopping
            and not self._is_one_alone
            and not (self._alone and self._tasks)
            and len(self._tasks) < self.setting['concurrency']
            and self.clock.monotonic_ns() >= self._troubled_until_ns
            and not self._wear.is_out()
        )

    def _begin(self) -> int:
        """Begin as many messages as may be at work at once.

        :return: how many were begun.
        """
        begun = 0
        self._is_one_alone &= bool(self._tasks)
        while self._may_begin() and (taken := self._take_one()) is not None:
            assert self.board is not None
            work = _Work(taken, self.spool.transaction(self.board, taken.filebase))
            self._wear.messages += 1
            self._not_begun.add(taken.filebase)
            self._tasks[asyncio.create_task(self._handle(work))] = work
            begun += 1
        return begun

    def _take_one(self) -> Taken | None:
        """Claim the next entry.

        One that is preserved if a process dies with it once more is worked on alone: should it be what kills, the others must not be
        counted with it.
        """
        board = self.board
        assert board is not None
        self._is_troubled = False
        try:
            while self._alone:
                filebase = self._alone.pop()
                try:
                    taken = Taken(filebase, *board.dequeue(filebase))
                except EntryTakenError:
                    continue
                self._is_one_alone = True
                return taken
            taken_now = board.take()
            if taken_now is not None and self._has_one_life(taken_now):
                if self._tasks:
                    board.release(taken_now.filebase)
                    self._alone.append(taken_now.filebase)
                    return None
                self._is_one_alone = True
            return taken_now
        except (QueueError, OSError) as error:
            self._wait_longer()
            log.error(
                'nothing to be had, waiting %.1f s runner=%s error=%s', self._troubled_s, self.name, error
            )
            return None

    def _has_one_life(self, taken: Taken) -> bool:
        board = self.board
        assert board is not None
        deaths = count_since_retry(board.history(taken.filebase), 'recovered')
        return bool(0 < deaths >= board.options.max_recoveries - 1)

    def _wait_longer(self) -> None:
        super()._wait_longer()
        self._troubled_until_ns = self.clock.monotonic_ns() + int(self._troubled_s * NS)

    async def _handle(self, work: _Work) -> Verdict | None:
        """Call the hook.

        :return: what is to become of the message; None: commit it.
        """
        _work.set(work)
        taken, transaction = work
        self._not_begun.discard(taken.filebase)
        try:
            async with asyncio.timeout(self.options.max_seconds):
                try:
                    keeps = await self.dispose(taken.msg, taken.msgdata)
                finally:
                    self._end_child()
            return self._keep(taken, transaction) if keeps else None
        except Exception as error:
            transaction.discard()
            return self._judge(taken, error)
        except BaseException as error:
            transaction.discard()
            if isinstance(error, asyncio.CancelledError) and not self._is_ending():
                # It has waited for something that was cancelled, or has cancelled itself: that is about this message.
                return self._judge(taken, error)
            self._give_back(taken.filebase)  # the process is told to end: it was not begun
            raise

    async def _wait_for_work(self) -> None:
        """Wait until a message has ended, or another one can be begun, and settle those that have ended."""
        waiter = asyncio.create_task(self._woken.wait())
        if self._may_begin():
            self._wakeup.arm()
            if self.board is not None and self.board.ready():
                self._woken.set()
        await asyncio.wait({*self._tasks, waiter}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
        self._rest(waiter)
        self._settle_done()

    def _settle_done(self) -> None:
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
            self._troubled_until_ns = 0

    async def _wait_for_messages(self) -> None:
        self.snooze(0)
        waiter = asyncio.create_task(self._woken.wait())
        timeout_s = (self._troubled_until_ns - self.clock.monotonic_ns()) / NS
        if timeout_s <= 0:
            self._wakeup.arm()
            timeout_s = 0.0 if self.board is not None and self.board.ready() else self._timeout_s()
        await asyncio.wait({waiter}, timeout=min(timeout_s, self.options.hang_timeout_s / 3))
        self._rest(waiter)

    def _rest(self, waiter: asyncio.Task[Any]) -> None:
        """Stop waiting, and forget what woke."""
        waiter.cancel()
        self._woken.clear()
        self._wakeup.wait(0)
        self._wakeup.disarm()
