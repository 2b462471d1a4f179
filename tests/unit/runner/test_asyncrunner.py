"""Runners whose ``dispose`` is a coroutine."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import ConfigError, DestinationDown, RunnerError, TemporaryFailure
from switchboard.options import QueueOptions, RunnerOptions
from switchboard.runner.asyncrunner import AsyncRunner
from switchboard.runner.runner import Runner
from switchboard.store.disk import Disk
from tests.helpers.processes import Child

# What is waited for comes in less than a second.
OLD_AGE_S = 30


def make(cls, spool: Spool, **options):
    return cls(spool, RunnerOptions('r', '', queue='in', **options))


class Together(AsyncRunner):
    """Ends no message before ``wanted`` of them are at work."""

    wanted = 10

    async def setup(self) -> None:
        self.at_work = 0
        self.all_here = asyncio.Event()

    async def dispose(self, msg, msgdata):
        self.at_work += 1
        if self.at_work >= self.wanted:
            self.all_here.set()
        before = self.filebase
        await self.all_here.wait()
        assert self.filebase == before
        assert self.idempotency_key in before
        self.emit('out', msg, msgdata)


def test_as_many_messages_as_allowed_are_at_work_at_once(spool):
    for number in range(10):
        spool['in'].enqueue(number)
    assert make(Together, spool).run(until_empty=True) == 0
    assert sorted(spool['out'].dequeue(one)[0] for one in spool['out'].files) == list(range(10))
    assert spool['in'].get_files() == spool['in'].get_files('.bak') == []


class Awaited(AsyncRunner):
    """Its message ``long`` waits for the message ``last``; the first time there is trouble, if that is wanted."""

    is_down = False

    async def setup(self) -> None:
        self.is_last_here = asyncio.Event()

    async def dispose(self, msg, msgdata):
        if msg == 'long':
            async with asyncio.timeout(OLD_AGE_S):
                await self.is_last_here.wait()
        elif msg == 'last':
            if self.is_down:
                self.is_down = False
                raise DestinationDown
            self.is_last_here.set()


@pytest.mark.parametrize('waits_for', ['delay', 'rate', 'trouble'])
def test_what_becomes_due_while_others_are_at_work_is_begun_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_for: str
) -> None:
    monkeypatch.setattr('switchboard.runner.asyncrunner.HEARTBEAT_INTERVAL_S', 3600)  # no help
    options = QueueOptions(rate=4.0 if waits_for == 'rate' else None)
    spool = Spool(tmp_path / 'spool', 'lazy', options=options)
    before = (
        ['long', 'one', 'two', 'three'] if waits_for == 'rate' else ['long']
    )  # as many as it lets through at once
    spool['in'].enqueue_many(before)
    spool['in'].enqueue('last', delay=0.2 if waits_for == 'delay' else 0)
    runner = make(Awaited, spool)
    runner.is_down = waits_for == 'trouble'
    runner.run(until_empty=True)
    assert spool['in'].get_files() == spool['in'].get_files('.bak') == []
    assert spool['bad'].get_files('.psv') == []


class Ticks(Runner):
    """Is stopped by its third `periodic`, which asks for the next one by ``waits_for``."""

    ticks = 0
    waits_for = ''

    def periodic(self) -> None:
        self.ticks += 1
        if self.waits_for == 'wake_after':
            self.wake_after(0.01)
        if self.ticks == 3:
            self.stop()

    def dispose(self, msg, msgdata):
        raise DestinationDown


class AsyncTicks(AsyncRunner):
    """The same, whose message ``long`` is at work until then."""

    ticks = 0
    waits_for = ''

    async def setup(self) -> None:
        self.is_over = asyncio.Event()
        if self.waits_for == 'wake_after':
            self.wake_after(0.01)

    async def periodic(self) -> None:
        Ticks.periodic(self)
        if self.is_stopping:
            self.is_over.set()

    async def dispose(self, msg, msgdata):
        if msg != 'long':
            raise DestinationDown
        async with asyncio.timeout(OLD_AGE_S):
            await self.is_over.wait()


@pytest.mark.parametrize('waits_for', ['wake_after', 'poll_interval'])
@pytest.mark.parametrize(
    ('cls', 'message', 'settings'),
    [
        (Ticks, None, {}),
        (Ticks, 'trouble', {}),
        (AsyncTicks, None, {}),
        (AsyncTicks, 'trouble', {}),
        (AsyncTicks, 'long', {'concurrency': '1'}),
        (AsyncTicks, 'long', {'concurrency': '2'}),
    ],
)
def test_whatever_a_runner_sleeps_for_its_own_times_wake_it(
    spool, monkeypatch, cls, message, settings, waits_for
):
    monkeypatch.setattr('switchboard.runner.asyncrunner.HEARTBEAT_INTERVAL_S', 3600)  # no help
    monkeypatch.setattr('switchboard.runner.settling.TROUBLE_WAIT_S', (OLD_AGE_S, OLD_AGE_S))
    if message is not None:
        spool['in'].enqueue(message)
    poll_interval_s = 0.01 if waits_for == 'poll_interval' else 3600
    runner = make(
        cls,
        spool,
        settings=settings,
        poll_interval_s=poll_interval_s,
        recovery_interval_s=3600,
        hang_timeout_s=9999,
    )
    runner.waits_for = waits_for
    timer = threading.Timer(OLD_AGE_S, runner.stop)
    timer.start()
    runner.run()
    timer.cancel()
    assert runner.ticks >= 3


class Hooks(Runner):
    """Notes its hooks; a message has it stopped, if that is wanted."""

    stops = False

    def dispose(self, msg, msgdata):
        if self.stops:
            self.stop()
        self.hooks = ['dispose']

    def periodic(self) -> None:
        self.hooks = [*getattr(self, 'hooks', ()), 'periodic']

    def cleanup(self) -> None:
        self.hooks.append('cleanup')


class AsyncHooks(AsyncRunner):
    """The same, whose messages end after the stop was heard."""

    stops = False

    async def setup(self) -> None:
        self.is_heard = asyncio.Event()

    async def dispose(self, msg, msgdata):
        if self.stops:
            self.stop()
            await self.is_heard.wait()
        Hooks.dispose(self, msg, msgdata)

    async def periodic(self) -> None:
        Hooks.periodic(self)
        if self.is_stopping:
            self.is_heard.set()

    async def cleanup(self) -> None:
        Hooks.cleanup(self)


@pytest.mark.parametrize('cls', [Hooks, AsyncHooks])
@pytest.mark.parametrize(
    ('ends', 'queue', 'messages'),
    [
        ('once', '', 0),
        ('once', 'in', 0),
        ('once', 'in', 3),
        ('until_empty', '', 0),
        ('until_empty', 'in', 0),
        ('until_empty', 'in', 3),
        ('max_messages_per_process', 'in', 3),
        ('stop', 'in', 3),
    ],
)
def test_each_pass_ends_with_periodic_the_last_one_too(spool, cls, ends, queue, messages):
    spool['in'].enqueue_many(range(messages))
    runner = cls(
        spool,
        RunnerOptions(
            'r', '', queue=queue, max_messages_per_process=2 if ends == 'max_messages_per_process' else None
        ),
    )
    runner.stops = ends == 'stop'
    runner.run(once=ends == 'once', until_empty=ends == 'until_empty')
    begins = ['dispose'] if messages else []
    assert [name for name, _ in itertools.groupby(runner.hooks)] == [*begins, 'periodic', 'cleanup']


class Count(AsyncRunner):
    """Notes how many messages were at work at once."""

    most = at_work = 0

    async def dispose(self, msg, msgdata):
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.at_work -= 1


def test_no_more_messages_than_allowed_are_at_work_at_once(spool):
    for number in range(20):
        spool['in'].enqueue(number)
    runner = make(Count, spool, settings={'concurrency': '3'})
    runner.run(until_empty=True)
    assert runner.most == 3
    assert spool['in'].files == []


class Judge(AsyncRunner):
    """Does with each message what it says."""

    async def dispose(self, msg, msgdata):
        self.emit('out', msg)
        await asyncio.sleep(0)
        if msg == 'fail':
            raise ValueError('poison')
        if msg == 'later':
            raise TemporaryFailure(retry_after_s=60)
        if msg == 'hang':
            await asyncio.Event().wait()
        return msg == 'keep'


def test_what_a_coroutine_raises_is_about_its_own_message(spool):
    for msg in ('good', 'fail', 'later', 'keep', 'good'):
        spool['in'].enqueue(msg)
    make(Judge, spool).run(until_empty=True)
    assert [spool['out'].peek(one).body for one in spool['out'].files] == [b'good', b'good']
    [bad] = spool['bad'].get_files('.psv')
    assert spool['bad'].history(bad)[0]['error'] == 'ValueError'
    assert sorted(spool['in'].peek(one).body for one in spool['in'].get_files()) == [b'keep', b'later']


def test_a_message_that_takes_too_long_fails_and_the_others_do_not(spool):
    spool['in'].enqueue('hang')
    spool['in'].enqueue('good')
    make(Judge, spool, message_time_limit_s=0.05).run(until_empty=True)
    [bad] = spool['bad'].get_files('.psv')
    assert spool['bad'].history(bad)[0]['error'] == 'TimeoutError'
    assert len(spool['out'].files) == 1


class Slow(AsyncRunner):
    """Tells that it has begun, and goes on when it is let."""

    async def setup(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.go = asyncio.Event()

    async def dispose(self, msg, msgdata):
        begun.set()
        await self.go.wait()
        self.emit('out', msg)


begun = threading.Event()


def test_a_stop_waits_for_the_messages_that_are_at_work_and_begins_no_others(spool):
    begun.clear()
    for number in range(6):
        spool['in'].enqueue(number)
    runner = make(Slow, spool, settings={'concurrency': '2'})
    thread = threading.Thread(target=runner.run)
    thread.start()
    assert begun.wait(60)
    runner.stop()
    runner.loop.call_soon_threadsafe(runner.go.set)
    thread.join(60)
    assert not thread.is_alive()
    assert len(spool['out'].files) == 2
    assert len(spool['in'].files) == 4
    assert spool['in'].get_files('.bak') == []


def test_an_idle_runner_is_woken_by_a_message(spool):
    begun.clear()
    runner = make(Slow, spool, poll_interval_s=3600)
    thread = threading.Thread(target=runner.run)
    thread.start()
    spool['in'].enqueue('wake up')
    assert begun.wait(60)
    runner.loop.call_soon_threadsafe(runner.go.set)
    runner.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert len(spool['out'].files) == 1


def test_a_concurrency_of_nothing_is_refused(spool):
    with pytest.raises(ConfigError, match='at least 1'):
        make(Count, spool, settings={'concurrency': '0'})


class Cancelled(AsyncRunner):
    """Meets what cancels coroutines: a future that others have cancelled, and itself."""

    async def dispose(self, msg, msgdata):
        self.emit('out', msg)
        if msg == 'future':
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        elif msg == 'itself':
            asyncio.current_task().cancel()
            await asyncio.sleep(3600)


def test_a_coroutine_that_is_cancelled_by_what_it_does_has_failed_and_the_others_go_on(spool):
    spool['in'].enqueue_many(['future', 'good', 'itself', 'good'])
    assert make(Cancelled, spool).run(until_empty=True) == 0
    assert [spool['out'].take().msg for _ in spool['out'].files] == ['good', 'good']
    errors = [spool['bad'].history(one)[0]['error'] for one in spool['bad'].get_files('.psv')]
    assert errors == ['CancelledError', 'CancelledError']


class EndsTheLoop(AsyncRunner):
    """Stops the event loop, or cancels all that is in it."""

    async def dispose(self, msg, msgdata):
        if msg == 'stop':
            asyncio.get_running_loop().stop()
        elif msg == 'cancel':
            for task in asyncio.all_tasks():
                task.cancel()
        await asyncio.sleep(0 if msg in ('stop', 'cancel') else 0.001)  # others begin meanwhile


def run_as_a_child_does(runner):
    """Run in a thread: no interrupt from a keyboard comes there."""
    ends = []

    def run():
        try:
            runner.run(until_empty=True)
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return ends


@pytest.mark.parametrize('way', ['stop', 'cancel'])
def test_a_message_that_ends_the_event_loop_is_counted_as_one_that_kills(spool, way):
    spool['in'].enqueue_many(['good', way, 'good'])
    deaths = 0
    while run_as_a_child_does(make(EndsTheLoop, spool)):
        deaths += 1
        assert deaths <= 3
        spool['in'].recover_backup_files()  # as the next process does
    assert deaths == 3
    [bad] = spool['bad'].get_files('.psv')
    assert spool['bad'].peek(bad).load(spool['bad'].serializers)[0] == way
    assert spool['in'].files == spool['in'].get_files('.bak') == []


class Leaves(AsyncRunner):
    """Is in the middle of its messages."""

    cleaned_up_with = None

    async def dispose(self, msg, msgdata):
        self.emit('out', msg)
        await asyncio.sleep(3600)

    async def cleanup(self):
        self.cleaned_up_with = len(self._tasks)


def test_what_would_end_the_process_is_about_its_own_message(spool):
    spool['in'].enqueue_many(['leave', 'good'])

    class LeavesAlone(AsyncRunner):
        async def dispose(self, msg, msgdata):
            if msg == 'leave':
                raise SystemExit(3)

    assert make(LeavesAlone, spool).run(until_empty=True) == 0
    [bad] = spool['bad'].get_files('.psv')
    assert spool['bad'].history(bad)[0]['error'] == 'SystemExit'
    assert spool['in'].get_files() == []


def test_a_process_that_is_told_to_end_at_once_gives_back_what_was_at_work(spool):
    class Interrupted(Leaves):
        async def periodic(self):
            asyncio.current_task().cancel()

    spool['in'].enqueue_many(['other', 'leave', 'other'])
    runner = make(Interrupted, spool)
    with pytest.raises(asyncio.CancelledError):
        runner.run()
    assert (len(spool['in'].files), spool['in'].get_files('.bak'), spool['out'].files) == (3, [], [])
    assert all(spool['in'].history(one) == [] for one in spool['in'].files)
    assert runner.cleaned_up_with == 0


def test_an_error_of_periodic_while_it_stops_takes_no_message_from_those_at_work(spool):
    class Fails(AsyncRunner):
        async def dispose(self, msg, msgdata):
            if msg == 'first':
                self.begun = asyncio.Event()
                await self.begun.wait()
            elif msg == 'second':
                self.stop()
            self.emit('out', msg)

        async def periodic(self):
            if self.is_stopping:
                self.begun.set()
                raise ValueError('no')

    spool['in'].enqueue('first')
    spool['in'].enqueue('second')
    with pytest.raises(ValueError, match='no'):
        make(Fails, spool).run()
    assert sorted(spool['out'].dequeue(one)[0] for one in spool['out'].files) == ['first', 'second']
    assert spool['in'].files == []


@pytest.mark.parametrize(
    ('options', 'ends'),
    [({}, {}), ({}, {'once': True}), ({}, {'until_empty': True}), ({'max_messages_per_process': 2}, {})],
    ids=str,
)
def test_an_error_of_periodic_takes_no_message_from_those_at_work_and_begins_no_other(spool, options, ends):
    class Fails(AsyncRunner):
        async def dispose(self, msg, msgdata):
            if msg == 0:
                self.begun = asyncio.Event()
                await self.begun.wait()
            self.emit('out', msg)

        async def periodic(self):
            self.begun.set()
            raise ValueError('no')

    for number in range(4):
        spool['in'].enqueue(number)
    with pytest.raises(ValueError, match='no'):
        make(Fails, spool, settings={'concurrency': '2'}, **options).run(**ends)
    assert sorted(spool['out'].dequeue(one)[0] for one in spool['out'].files) == [0, 1]
    assert (len(spool['in'].files), spool['in'].get_files('.bak')) == (2, [])


def test_a_message_that_waits_for_a_periodic_that_fails_is_given_back_in_time(spool):
    class Waits(AsyncRunner):
        async def dispose(self, msg, msgdata):
            await asyncio.Event().wait()

        async def periodic(self):
            raise ValueError('no')

    filebase = spool['in'].enqueue('x')
    with pytest.raises(ValueError, match='no'):
        make(Waits, spool, hang_timeout_s=0.1).run()
    assert spool['in'].files == [filebase]
    assert spool['in'].history(filebase) == []


def test_what_leaves_a_message_while_the_runner_is_being_stopped_gives_it_back(spool):
    class Stops(AsyncRunner):
        async def dispose(self, msg, msgdata):
            self.stop()
            raise SystemExit(3)

    filebase = spool['in'].enqueue('x')
    assert make(Stops, spool).run() == 0
    assert spool['in'].files == [filebase]
    assert spool['in'].history(filebase) == []


@pytest.mark.parametrize('result', [{'status': 200}, 1, 'done'])
def test_what_dispose_returns_and_means_nothing_is_a_failure(spool, result):
    class Answers(AsyncRunner):
        async def dispose(self, msg, msgdata):
            self.emit('out', msg)
            return result

    spool['in'].enqueue('x')
    make(Answers, spool).run(until_empty=True)
    [bad] = spool['bad'].get_files('.psv')
    assert spool['bad'].history(bad)[0]['error'] == 'DisposeResultError'
    assert spool['out'].files == []


class Deadly(Count):
    """Ends its process as the kernel would, with one of the messages."""

    async def dispose(self, msg, msgdata):
        await super().dispose(msg, msgdata)
        if msg == 'deadly':
            os._exit(9)
        await asyncio.sleep(0.01)  # others begin meanwhile


def test_a_message_that_kills_takes_no_others_with_it_into_the_bad_queue(spool):
    spool['in'].enqueue_many(['a', 'b', 'deadly', 'c', 'd'])
    for _ in range(4):
        with Child(lambda: make(Deadly, Spool(spool.directory, 'lazy')).run(until_empty=True)) as child:
            child.wait()
        spool['in'].recover(include_own=False)
    assert spool['in'].get_files() == []
    [bad] = spool['bad'].get_files('.psv')
    assert spool['bad'].peek(bad).body == b'deadly'
    assert spool['bad'].history(bad)[-1]['cause'] == 'recoveries'


class Long(AsyncRunner):
    """Has its first message at work for many turns of the event loop."""

    turns = 0

    async def dispose(self, msg, msgdata):
        for _ in range(1000 if msg == 0 else 0):
            await asyncio.sleep(0)

    async def periodic(self):
        self.turns += 1


def test_one_that_has_to_be_alone_is_waited_for_in_sleep(spool):
    _, second = spool['in'].enqueue_many([0, 1])
    for _ in range(2):
        spool['in'].dequeue(second)
        spool['in'].recover_backup_files()
    runner = make(Long, spool)
    runner.run(until_empty=True)
    assert spool['in'].get_files() == []
    assert runner.turns < 10


class Broken(Disk):
    """Opens nothing in queues for a while."""

    left = 0

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        if self.left and str(path).endswith('.pck'):
            self.left -= 1
            raise OSError(5, 'Input/output error')
        return os.open(path, flags, mode, dir_fd=dir_fd)


def test_trouble_with_the_disk_makes_it_wait_and_not_end(tmp_path, caplog):
    disk = Broken()
    spool = Spool(tmp_path, 'lazy', disk=disk)
    for number in range(8):
        spool['in'].enqueue(number)
    disk.left = 8
    runner = make(Slow, spool)
    begun.clear()
    thread = threading.Thread(target=runner.run)
    thread.start()
    spool['in'].enqueue('one that can be had')
    assert begun.wait(60)
    runner.loop.call_soon_threadsafe(runner.go.set)
    runner.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert 'cannot take messages wait_s=0.500' in caplog.text


def test_a_process_that_has_done_enough_does_not_turn_while_the_last_messages_are_at_work(spool):
    class Looks(Slow):
        looks = 0

        def _begin(self):
            self.looks += 1
            return super()._begin()

    begun.clear()
    for number in range(6):
        spool['in'].enqueue(number)
    runner = make(Looks, spool, max_messages_per_process=2)
    thread = threading.Thread(target=runner.run)
    thread.start()
    assert begun.wait(60)
    runner.loop.call_soon_threadsafe(runner.loop.call_later, 0.3, runner.go.set)
    thread.join(60)
    assert not thread.is_alive()
    assert (len(spool['out'].files), len(spool['in'].files)) == (2, 4)
    assert runner.looks < 10


def test_one_pass_goes_through_the_queue_however_few_messages_are_at_work_at_once(spool):
    class Hands(AsyncRunner):
        async def dispose(self, msg, msgdata):
            await asyncio.sleep(0)
            self.emit('out', msg)

    for number in range(7):
        spool['in'].enqueue(number)
    assert make(Hands, spool, settings={'concurrency': '2'}).run(once=True) == 0
    assert (len(spool['out'].files), len(spool['in'].files)) == (7, 0)


class InThreads(AsyncRunner):
    """Emits by ``way``, and fails if the message says so."""

    way = 'to_thread'

    async def dispose(self, msg, msgdata):
        if self.way == 'to_thread':
            await asyncio.to_thread(self.emit, 'out', msg)
        else:
            await asyncio.get_running_loop().run_in_executor(None, self.emit, 'out', msg)
        if msg == 'fail':
            raise ValueError

    async def periodic(self):
        self.spool.publish('by itself', routing_key='other')


def test_what_a_thread_of_a_message_emits_is_published_with_it_or_not_at_all(spool):
    spool['in'].enqueue_many(['fail', 'done'])
    make(InThreads, spool).run(until_empty=True)
    assert [spool['out'].dequeue(one)[0] for one in spool['out'].files] == ['done']


def test_a_thread_that_is_of_no_message_cannot_emit(spool):
    class InExecutor(InThreads):
        way = 'run_in_executor'

    filebase = spool['in'].enqueue('done')
    make(InExecutor, spool).run(until_empty=True)
    assert spool['out'].files == []
    [record, *_] = spool['bad'].history(filebase)
    assert (record['error'], 'to_thread' in record['message']) == ('RunnerError', True)


def test_what_a_task_emits_after_its_message_has_ended_is_refused_and_not_lost(spool):
    caught = []

    class Later(AsyncRunner):
        async def dispose(self, msg, msgdata):
            if msg == 'second':
                await self.later
                return
            self.is_over = asyncio.Event()
            self.later = asyncio.create_task(self.emit_later())
            asyncio.current_task().add_done_callback(lambda _task: self.is_over.set())

        async def emit_later(self):
            await self.is_over.wait()
            with pytest.raises(RunnerError, match='has ended') as error:
                self.emit('out', 'too late')
            caught.append(error)

    spool['in'].enqueue_many(['first', 'second'])
    make(Later, spool, settings={'concurrency': '1'}).run(until_empty=True)
    assert len(caught) == 1
    assert spool['out'].files == spool['in'].get_files() == []
