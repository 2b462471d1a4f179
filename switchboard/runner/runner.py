"""A runner: the loop that works one slice of one queue, and the hooks that a program fills in.

::

    class Archive(Runner):
        def dispose(self, msg, msgdata):
            self.emit('out', msg, msgdata)

The loop claims an entry, calls ``dispose``, and finishes the entry together with the emitted messages, as one step.  Whatever
leaves ``dispose`` is about its own message: it is tried again, or preserved, and the loop goes on.  How a failure is judged is in
``verdict``; how that is carried out, in ``settling``; how the loop takes and sleeps, in ``loop``.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import proxy

from zope.interface import implementer

from switchboard.clock import Clock
from switchboard.errors import ConfigError, RunnerError, UnknownQueueError
from switchboard.installing import install_advice
from switchboard.interfaces import IRunner, ISpool, ISwitchboard, ITransaction, Taken
from switchboard.message.journal import first_digest
from switchboard.message.metadata import merge_keys
from switchboard.message.naming import digest_of
from switchboard.options import RunnerOptions
from switchboard.runner.hooks import check_hooks
from switchboard.runner.loop import Loop
from switchboard.runner.settings import Setting, name_place, read_settings
from switchboard.runner.settling import Settler, Work
from switchboard.status.scoreboard import NullSlot

if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # `signal` tries to make an enum's member of a handler, which takes pages of each child's own


def is_ended_by_interrupt() -> bool:
    """:return: whether Ctrl-C raises `KeyboardInterrupt` in this thread."""
    is_default = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    return is_default and threading.current_thread() is threading.main_thread()


class HookCall:
    """The call of a hook: its ``SystemExit`` and its like become an error that is logged, and a mistake of the configuration names its section."""

    def __init__(self, runner: Runner, name: str) -> None:
        self._runner = runner
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ConfigError):
            name_place(error, self._runner.settings, self._runner.options)
        if error is None or isinstance(error, Exception) or self._runner._is_ending():
            return
        raise RunnerError(f'{self._name} raised {type(error).__name__}: {error}') from error


@implementer(IRunner)
class Runner:
    """The loop over one slice of one queue.  See `IRunner`.

    :param spool: the spool of the queue, and of the emitted messages.
    :param options: the section of the configuration.
    :param slice: which of `numslices` this process works on.
    :param slot: where it reports to its master.
    :param clock: the spool's by default.
    :raises ConfigError: the class cannot work, or the section has a key that it does not declare, lacks one, or has a bad value.
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
        self.spool = spool
        self.options = options
        self.name = options.name
        self.slot = slot or NullSlot()
        self.clock: Clock = clock or spool.clock
        self.queue: ISwitchboard | None = (
            spool.queue(options.queue, slice, numslices) if options.queue else None
        )
        self.setting_values = read_settings(self.settings, options, type(self).__name__)
        try:
            self.check(self.setting_values, options, getattr(getattr(spool, 'config', None), 'runners', {}))
        except ConfigError as error:
            name_place(error, self.settings, options)
            raise
        self.check_class(options)
        # Without a circle of references, a runner that is let go of gives its descriptors back at once.
        me = proxy(self)
        self._settler = Settler(
            spool,
            self.queue,
            options,
            self.slot,
            self.clock,
            on_error=lambda *about: me.on_error(*about),
            is_stopping=lambda: me._is_ending(),
            is_dying=lambda: me._is_dying(),
        )
        self._loop = Loop(
            spool, self.queue, options, self.clock, self._settler, takes_many=self._takes_many()
        )
        self._working: Work | None = None
        self._slice_name = f'{(slice or 0) + 1}/{numslices}'

    def _trace(self) -> None:
        """Have a span for each message, if that is wanted: in the process that works, because an SDK does not survive a fork.

        :raises ConfigError: the library is missing.
        """
        if self.options.tracing == 'off' or self.queue is None:
            return
        try:
            from switchboard.runner.tracing import Tracing
        except ModuleNotFoundError as error:
            reason = install_advice('tracing', 'opentelemetry-api', 'tracing')
            raise ConfigError(reason, section=f'runner.{self.name}', key='tracing') from error
        self._settler.tracing = Tracing(self.options, self._slice_name)

    @classmethod
    def check_class(cls, options: RunnerOptions) -> None:
        """Look at how the hooks are written; also called by ``switchboard check --imports``.

        :raises ConfigError: one of them could never be called.
        """
        check_hooks(cls, cls._base(), f'runner.{options.name}', has_queue=bool(options.queue))

    @classmethod
    def _base(cls) -> type[Runner]:
        """:return: the class whose hooks do nothing."""
        return Runner

    def _takes_many(self) -> bool:
        """Are several messages at work at once?"""
        return self.options.batch_size > 1

    def _work(self) -> Work | None:
        """:return: the hook that is running, for an error."""
        return self._working

    def _transaction(self) -> ITransaction | None:
        """:return: the transaction of the message at work; None outside of ``dispose``, `on_error` included, where nothing waits for an input.

        :raises RunnerError: the caller belongs to no message.
        """
        work = self._work()
        return work.transaction if work is not None and work.takes_outputs else None

    @property
    def board(self) -> ISwitchboard | None:
        """The queue, under the name that it had before."""
        return self.queue

    @property
    def filebase(self) -> str:
        """The entry at work; empty outside of ``dispose``."""
        work = self._work()
        return '' if work is None else work.taken.filebase

    @property
    def idempotency_key(self) -> str:
        """A key that stays the same each time the message at work is tried."""
        filebase = self.filebase
        if not filebase:
            return ''
        return first_digest(self._settler.history(filebase), digest_of(filebase))

    @cached_property
    def log(self) -> logging.Logger:
        """A logger of this runner's name; under a master its lines stand in the master's log, with the entry at work."""
        return logging.getLogger(f'switchboard.runner.{self.name}')

    @property
    def is_stopping(self) -> bool:
        """Was the runner asked to stop?"""
        return self._loop.is_stopping

    def wake_when_readable(self, *descriptors: int) -> None:
        """Have the loop's sleep end when one of these descriptors is readable, and no longer for those given before."""
        self._loop.wakeup.watch_also(*descriptors)

    def wake_after(self, seconds: float) -> None:
        """Have the loop's next sleep end after so many seconds at the latest."""
        self._loop.wake_after(seconds)

    # Hooks.

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        """Handle one message; this is the hook that must be written.  See `IRunner`."""

    @classmethod
    def check(
        cls, values: Mapping[str, Any], options: RunnerOptions, runners: Mapping[str, RunnerOptions]
    ) -> None:
        """Look for mistakes between the keys of a section; also called by ``switchboard check --imports``.

        :param values: the values of the keys that belong to this class.
        :param runners: all runners of the configuration.
        :raises ConfigError: it cannot work.
        """

    @classmethod
    def warnings(cls, values: Mapping[str, Any], options: RunnerOptions) -> list[ConfigError]:
        """Look for what works and is hardly meant; called by ``switchboard check --imports``."""
        limit_s = cls.message_time_limit_s(values, options)
        if limit_s is None or limit_s <= options.stop_timeout_s:
            return []
        reason = (
            f'a message may take {limit_s:g} s, and a stop waits for {options.stop_timeout_s:g} s: one that takes longer is '
            'killed, and tried again'
        )
        return [ConfigError(reason, section=f'runner.{options.name}', key='stop_timeout')]

    @classmethod
    def message_time_limit_s(cls, values: Mapping[str, Any], options: RunnerOptions) -> float | None:
        """:return: how long one message may take; None if nothing says."""
        return options.message_time_limit_s

    def setup(self) -> Awaitable[None] | None:
        """Called once, before the first message, in the runner's own process: open connections here."""

    def on_batch_end(self) -> Mapping[str, BaseException]:
        """Called when the messages of a batch were disposed of, before they are finished.

        For work that is best done for many at once: send the requests in `dispose`, and wait for all the answers here.

        :return: errors, by filebase: judged as if `dispose` had raised them.  None: there are none.  An error raised here, or a result of
            another kind, is about all of them.
        """
        return {}

    def cleanup(self) -> Awaitable[None] | None:
        """Called once, at the end."""

    def periodic(self) -> Awaitable[None] | None:
        """Called after each pass over the queue, and at least every ``poll_interval_s`` seconds."""

    def snooze(self, filecnt: int) -> None:
        """Called before the loop sleeps.

        :param filecnt: how many messages the last pass handled.
        """

    def on_error(self, msg: Any, msgdata: dict[str, Any], error: BaseException) -> None:
        """Called when ``dispose`` failed, before the message is released or preserved."""

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
        :raises TypeError: as of `ISpool.publish`.
        :raises NoRouteError: the exchange has no queue for it.
        :raises QueueFullError: no room: the input stays where it is, and the runner waits.
        :raises OutputsNeverFitError: there never will be room for all that is emitted for this input.
        :raises RunnerError: an `AsyncRunner` is asked by a task of a message that has ended, or by a thread that is of no message.
        """
        merged = merge_keys(metadata, metadata_keys)
        queues = self.spool.exchanges.route(exchange, routing_key, merged)
        if exchange:
            merged |= {'exchange': exchange, 'routing_key': routing_key}
        transaction = self._transaction()
        if transaction is None:  # not in dispose(): there is no input to wait for
            return self.spool.publish(msg, merged, exchange=exchange, routing_key=routing_key)
        if 'dedupe_key' not in metadata_keys:
            # The input's own key must not be handed down: of many messages made from one, only the first would be stored.
            merged.pop('dedupe_key', None)
        targets = [self.spool[queue] for queue in queues]
        return dict(zip(queues, transaction.emit_all(targets, msg, merged), strict=True))

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
        :raises TypeError: as of `ISpool.publish`.
        :raises UnknownQueueError: the program that asked is gone, and its queue with it.
        """
        queue = msgdata.get('reply_to')
        if not queue:
            return False
        if queue not in self.spool:
            raise UnknownQueueError(
                'the program that asked is gone, and with it the queue for the answer', queue=str(queue)
            )
        merged = merge_keys(metadata, metadata_keys)
        if (question := msgdata.get('correlation_id')) is not None:
            merged['correlation_id'] = question
        self.emit(str(queue), answer, merged)
        return True

    def forward(self, *queues: str) -> None:
        """Hand the input itself on, unread and unchanged: to one queue by one rename, to several by copies."""
        transaction = self._transaction()
        if transaction is None:
            raise RuntimeError('forward() is for use in dispose()')
        transaction.forward(*(self.spool[queue] for queue in queues))

    # The loop.

    def stop(self) -> None:
        """See `IRunner`."""
        self._loop.stop()

    def _is_ending(self) -> bool:
        """Is what leaves a hook about the process, and not about a message?"""
        return self._loop.is_stopping

    def _is_dying(self) -> bool:
        """Has one of the messages at work ended the loop?"""
        return False

    def run(self, *, once: bool = False, until_empty: bool = False) -> int:
        """See `IRunner`.

        Ctrl-C, where the program has no handler of its own, ends it after the message at work, and is raised then.
        """
        if is_ended_by_interrupt():
            with self._stopped_by_interrupt():
                self._run(once=once, until_empty=until_empty)
        else:
            self._run(once=once, until_empty=until_empty)
        return 0

    def _run(self, *, once: bool, until_empty: bool) -> None:
        loop = self._loop
        with HookCall(self, 'setup'):
            self.setup()
        try:
            try:
                self._enter_loop()
                while not loop.is_stopping:
                    handled = self._pass()
                    with HookCall(self, 'periodic'):
                        self.periodic()
                    if once or (until_empty and not handled) or loop.lifetime.is_over():
                        break
                    if not handled and not loop.is_stopping:
                        with HookCall(self, 'snooze'):
                            self.snooze(handled)
                        self.slot.flush()
                        loop.sleep()
                    self._next_turn()
            finally:
                self._leave_loop()
        finally:
            with HookCall(self, 'cleanup'):
                self.cleanup()

    def _enter_loop(self) -> None:
        """Begin the loop."""
        self._trace()
        self._loop.start_consuming()
        self._next_turn()

    def _leave_loop(self) -> None:
        """End the loop, also if it could not begin."""
        self.slot.flush()
        if self._settler.tracing is not None:
            self._settler.tracing.flush()
        self._loop.stop_consuming()

    def _next_turn(self) -> None:
        """Do what each turn of the loop begins with."""
        self._loop.recover()
        self.slot.heartbeat()

    @contextmanager
    def _stopped_by_interrupt(self) -> Iterator[None]:
        was_interrupted = False

        def stop(signum: int, frame: FrameType | None) -> None:
            nonlocal was_interrupted
            if was_interrupted:
                signal.default_int_handler(signum, frame)
            was_interrupted = True
            self.stop()

        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if was_interrupted:
            raise KeyboardInterrupt

    def _pass(self) -> int:
        """Work until nothing can be had now.

        :return: how many messages left the queue.
        """
        left = 0
        while not self._loop.is_stopping and not self._loop.lifetime.is_over():
            batch = self._take()
            if not batch:
                break
            left += self._handle(batch)
        return left

    def _take(self) -> list[Taken]:
        """Claim the next entries: as many as a batch holds."""
        batch = list[Taken]()
        while len(batch) < self.options.batch_size and (taken := self._loop.take(len(batch))) is not None:
            batch.append(taken)
        return batch

    def _handle(self, batch: list[Taken]) -> int:
        """Handle claimed entries and commit them with one flush.

        :return: how many left the queue.
        """
        waiting = deque(batch)
        works: list[Work] = []
        left = 0
        try:
            while waiting and not self._loop.is_stopping:
                work = self._settler.begin(waiting.popleft())
                self._dispose(work)
                if work.verdict is None:
                    works.append(work)
                else:
                    left += self._settler.end((work,))
        finally:  # also when the process is to end: finished messages are finished, and the others were not begun
            for taken in waiting:
                self._settler.give_back(taken.filebase)
            self._end_batch(works)
            left += self._settler.end(works)
        return left

    def _dispose(self, work: Work) -> None:
        self._loop.lifetime.messages += 1
        self._working = work
        self.slot.begin(work.taken.filebase)
        try:
            with work:
                work.returned(self.dispose(work.taken.msg, work.taken.msgdata))
        finally:
            self._working = None

    def _end_batch(self, works: list[Work]) -> None:
        """Ask the hook, and judge the messages that have failed by its word."""
        if not works:
            return
        filebases = [work.taken.filebase for work in works]
        failed: Mapping[str, BaseException]
        try:
            failed = self._failed_of(filebases)
        except BaseException as error:
            failed = dict.fromkeys(filebases, error)
            if self._settler.is_ending(error):  # what came of them, nobody knows
                for work in works:
                    work.failed(error)
                works.clear()
                raise
        for work in works:
            if work.taken.filebase in failed:
                work.failed(failed[work.taken.filebase])

    def _failed_of(self, filebases: list[str]) -> Mapping[str, BaseException]:
        """:raises RunnerError: the hook has returned what means nothing."""
        failed: object = self.on_batch_end()
        if failed is None:  # as `dispose` returns it
            return {}
        if not isinstance(failed, Mapping):
            raise RunnerError(
                f'on_batch_end returned an object of type {type(failed).__name__}: return a mapping of the errors, by filebase'
            )
        return {one: failed[one] for one in filebases if one in failed}
