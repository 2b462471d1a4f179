"""Runners whose ``dispose`` is a coroutine."""

from __future__ import annotations

import asyncio
import threading

import pytest

from switchboard import Spool
from switchboard.asyncrunner import AsyncRunner
from switchboard.errors import ConfigError, TemporaryFailure
from switchboard.options import RunnerOptions


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path, 'lazy')


def make(cls: type[AsyncRunner], spool: Spool, **options) -> AsyncRunner:
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
    make(Judge, spool, max_seconds=0.05).run(until_empty=True)
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
    assert begun.wait(10)
    runner.stop()
    runner.loop.call_soon_threadsafe(runner.go.set)
    thread.join(10)
    assert not thread.is_alive()
    assert len(spool['out'].files) == 2
    assert len(spool['in'].files) == 4
    assert spool['in'].get_files('.bak') == []


def test_an_idle_runner_is_woken_by_a_message(spool):
    begun.clear()
    runner = make(Slow, spool, rescan_s=3600)
    thread = threading.Thread(target=runner.run)
    thread.start()
    spool['in'].enqueue('wake up')
    assert begun.wait(10)
    runner.loop.call_soon_threadsafe(runner.go.set)
    runner.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert len(spool['out'].files) == 1


def test_a_concurrency_of_nothing_is_refused(spool):
    with pytest.raises(ConfigError, match='at least 1'):
        make(Count, spool, settings={'concurrency': '0'})
