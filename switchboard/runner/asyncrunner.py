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
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, ClassVar

from switchboard.clock import TimeLimit
from switchboard.errors import RunnerError
from switchboard.interfaces import ITransaction
from switchboard.runner.runner import HookCall, Runner, is_ended_by_interrupt
from switchboard.runner.settings import Setting
from switchboard.runner.settling import Work
from switchboard.store.forks import after_fork

# While messages are at work, how often the scoreboard is written to, as a sign that the loop turns.
HEARTBEAT_INTERVAL_S = 1.0


def _concurrency(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError('give a whole number of at least 1')
    return number


# What the asking task is at.
_work: ContextVar[Work | None] = ContextVar('work', default=None)


class _Timeout:
    """`asyncio.timeout`, without the time in which the process was frozen."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(None)
        self._limit = TimeLimit(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._look_later()

    async def __aexit__(self, *exception: Any) -> None:
        self._next_look.cancel()
        await self._timeout.__aexit__(*exception)

    def _look_later(self) -> None:
        self._next_look = asyncio.get_running_loop().call_later(self._limit.wait_s(), self._look)

    def _look(self) -> None:
        if self._limit.remaining_s() > 0:
            self._look_later()
        else:
            self._timeout.reschedule(0)


class AsyncRunner(Runner):
    """The loop over one slice of one queue, with ``concurrency`` messages at work at once.  See `IRunner`.

    ``setup``, ``cleanup``, ``periodic`` and ``dispose`` are coroutines here.
    """

    settings: ClassVar[Mapping[str, Setting]] = {'concurrency': Setting(_concurrency, default=10)}

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self._tasks: dict[asyncio.Task[None], Work] = {}
        self._woken = asyncio.Event()
        self._main_task: asyncio.Task[Any] | None = None
        self._loop_thread = 0
        # Was the loop cancelled, and would an interrupt by its user do that?
        self._was_cancelled = self._is_interruptible = False
        # Claimed, and their tasks have not run yet: one that is cancelled before it runs never knows.
        self._not_begun: set[Work] = set()
        self._given_back: set[Work] = set()

    @classmethod
    def _base(cls) -> type[Runner]:
        return AsyncRunner

    def _takes_many(self) -> bool:
        return True

    def _work(self) -> Work | None:
        return _work.get()

    def _transaction(self) -> ITransaction | None:
        work = _work.get()
        if work is not None and work.is_over:
            raise RunnerError(
                'the message of this task has ended: await what dispose() begins, or what it emits later would be lost'
            )
        if work is None and self._main_task is not None and self._loop_thread != threading.get_ident():
            raise RunnerError(
                'this thread is of no message: call it by asyncio.to_thread(); for what waits for no message, there is spool.publish()'
            )
        return super()._transaction()

    async def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        """Handle one message.  See `IRunner`."""

    async def setup(self) -> None:
        """Called once, before the first message: open connections here."""

    async def cleanup(self) -> None:
        """Called once, after the last message."""

    async def periodic(self) -> None:
        """Called when messages have ended, and at least every ``poll_interval_s`` seconds."""

    def run(self, *, once: bool = False, until_empty: bool = False) -> int:
        """See `IRunner`."""
        self._was_cancelled = False
        self._is_interruptible = is_ended_by_interrupt()
        return asyncio.run(self._main(once=once or until_empty))

    async def _main(self, *, once: bool) -> int:
        loop = self._loop
        events = asyncio.get_running_loop()
        self._main_task = asyncio.current_task()
        _turning.add(self)
        self._loop_thread = threading.get_ident()
        descriptors = loop.wakeup.descriptors()
        for descriptor in descriptors:
            events.add_reader(descriptor, self._on_readable)
        with HookCall(self, 'setup'):
            await self.setup()
        try:
            try:
                self._enter_loop()
                while not loop.is_stopping:
                    self._begin()
                    if self._tasks:
                        await self._wait_for_work()
                        await self._call_periodic()
                    else:
                        await self._call_periodic()
                        if once or loop.lifetime.is_over():
                            break
                        await self._wait_for_messages()
                    self._next_turn()
                while self._tasks:
                    await self._wait_for_work()
                    await self._call_periodic()
            finally:
                for descriptor in descriptors:
                    events.remove_reader(descriptor)
                self._was_cancelled = self._is_cancelled()
                self._main_task = None
                try:
                    await self._cancel()
                finally:
                    self._leave_loop()
        finally:
            with HookCall(self, 'cleanup'):
                await self.cleanup()
        return 0

    def _on_readable(self) -> None:
        if self._loop.wakeup.wait(0):
            self._woken.set()

    async def _call_periodic(self) -> None:
        try:
            with HookCall(self, 'periodic'):
                await self.periodic()
        except Exception:
            # The messages at work end first.  What waits for this very hook would wait for ever: it is given back in the end.
            limit = TimeLimit(self.options.hang_timeout_s)
            while self._tasks and (self._loop.is_stopping or limit.remaining_s() > 0):
                await self._sleep(HEARTBEAT_INTERVAL_S, is_looking=False)
                self._settle_done()
                self.slot.heartbeat()
            raise

    def _is_cancelled(self) -> bool:
        """Is the loop itself being cancelled, or over?  Then all tasks are, in no order."""
        return self._main_task is None or self._main_task.cancelling() > 0

    def _is_ending(self) -> bool:
        return super()._is_ending() or self._is_cancelled()

    def _is_dying(self) -> bool:
        """Has one of the messages stopped the event loop, or cancelled all of its tasks?"""
        was_cancelled = self._was_cancelled if self._main_task is None else self._is_cancelled()
        return was_cancelled and not self._is_interruptible and not self._loop.is_stopping

    async def _cancel(self) -> None:
        """End at once: the messages at work were not begun, unless one of them is the reason."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for work in self._not_begun:
            work.transaction.discard()
            self._settler.give_back(work.taken.filebase)
        for task in [task for task in self._tasks if task.cancelled() or task.exception() is not None]:
            del self._tasks[task]
        self._settle_done()

    def _may_begin(self) -> bool:
        """May another message be begun, if there is one?"""
        loop = self._loop
        return (
            loop.queue is not None
            and not loop.is_stopping
            and not loop.must_be_alone(len(self._tasks))
            and len(self._tasks) < self.setting_values['concurrency']
            and not loop.lifetime.is_over()
        )

    def _begin(self) -> None:
        """Begin as many messages as may be at work at once."""
        while self._may_begin() and (taken := self._loop.take(len(self._tasks))) is not None:
            work = self._settler.begin(taken)
            self._loop.lifetime.messages += 1
            self._not_begun.add(work)
            self._tasks[asyncio.create_task(self._dispose_in_task(work))] = work

    async def _dispose_in_task(self, work: Work) -> None:
        if self._settler.is_forked_child:
            # A message of the parent's, begun by the event loop that its child has inherited: the child ends with what it was forked by.
            # It has no running event loop by asyncio's reckoning, and goes on turning its parent's.
            assert self._main_task is not None
            await self._main_task.get_loop().create_future()
        _work.set(work)
        self._not_begun.discard(work)
        limit_s = self.options.message_time_limit_s
        try:
            with work:
                async with _Timeout(limit_s) if limit_s else nullcontext():
                    result = await self.dispose(work.taken.msg, work.taken.msgdata)
                work.returned(result)
        except BaseException:
            # Given back, because the process is to end: at once, or when the others have ended.
            self._given_back.add(work)
            if self._is_cancelled():
                raise

    def end_forked_child(self) -> None:
        """In a forked child: have it end when it comes back to the event loop, which it has inherited in the middle of a turn."""
        if self._main_task is not None:
            error = RuntimeError('a forked child cannot await: the event loop is that of its parent')
            self._main_task.get_loop().call_soon(self._settler.end_forked_child, error)

    async def _wait_for_work(self) -> None:
        """Wait until a message has ended, or another one can be begun, and settle those that have ended."""
        await self._sleep(HEARTBEAT_INTERVAL_S, is_looking=self._may_begin())
        self._settle_done()

    def _settle_done(self) -> None:
        done = [task for task in self._tasks if task.done()]
        works = [self._tasks.pop(task) for task in done]
        for task in done:
            task.result()
        self._settler.end(work for work in works if work not in self._given_back)
        self._given_back.clear()

    async def _wait_for_messages(self) -> None:
        with HookCall(self, 'snooze'):
            self.snooze(0)
        self.slot.flush()
        await self._sleep(self.options.hang_timeout_s / 3, is_looking=True)

    async def _sleep(self, longest_s: float, *, is_looking: bool) -> None:
        """Wait until a message has ended, something wakes, or the time is over.

        :param is_looking: a message that is there, or comes, or becomes due, wakes, unless there is trouble.
        """
        loop = self._loop
        waiter = asyncio.create_task(self._woken.wait())
        timeout_s = min(loop.arm(is_looking=is_looking), longest_s)
        await asyncio.wait({*self._tasks, waiter}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        self._woken.clear()  # of what woke
        loop.wakeup.wait(0)
        loop.wakeup.disarm()


# Its event loop turns.  In a forked child the loop would turn on, or, from Python 3.14 on, do nothing for ever: there a task can run only in the
# loop that is known to run, and a child has none.
_turning = after_fork(AsyncRunner.end_forked_child)
