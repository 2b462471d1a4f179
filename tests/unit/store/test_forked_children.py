"""What a child of a runner inherits: nothing that would outlive its parent, and nothing that it could spoil."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.handoff.transaction import Transaction
from switchboard.options import RunnerOptions
from switchboard.runner.asyncrunner import AsyncRunner
from switchboard.store.publishing import DRAFT_OWNERS
from switchboard.testing import Signal
from tests.helpers.processes import Child, in_child
from tests.helpers.runs import make_runner


def fork_and_wait(forked: Signal, end: Signal) -> None:
    """Leave a process behind that does nothing until it is told to end."""
    if os.fork() == 0:
        try:
            forked.set()
            end.wait_or_timeout()
        finally:
            os._exit(0)


def uncommitted(path: Path) -> tuple[Spool, Transaction]:
    spool = Spool(path, 'lazy')
    queue = spool['in']
    transaction = spool.transaction(queue, queue.take().filebase)
    transaction.emit_all([spool['out'], spool['copies']], 'made', {})
    return spool, transaction


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path, 'lazy')
    spool['in'].enqueue('x')
    return spool


def test_what_its_dead_parent_had_committed_arrives_though_the_child_lives(
    spool: Spool, tmp_path: Path
) -> None:
    forked, committed, end = Signal(), Signal(), Signal()

    def live() -> None:
        _, transaction = uncommitted(tmp_path)
        fork_and_wait(forked, end)
        forked.wait_or_timeout()
        transaction.stage_outputs()
        transaction.rename_input()
        committed.set()
        Signal().wait_or_timeout()

    with Child(live) as parent:
        committed.wait_or_timeout()
        assert spool.recover() == 0
        parent.kill()
        spool.recover()
    assert [spool[queue].take().msg for queue in ('out', 'copies')] == ['made', 'made']
    assert (spool['in'].recover(), os.listdir(tmp_path / '.stage')) == ([], [])
    end.set()


def test_what_its_dead_parent_had_staged_only_is_thrown_away_though_the_child_lives(
    spool: Spool, tmp_path: Path
) -> None:
    forked, staged, end = Signal(), Signal(), Signal()

    def live() -> None:
        _, transaction = uncommitted(tmp_path)
        fork_and_wait(forked, end)
        forked.wait_or_timeout()
        transaction.stage_outputs()
        staged.set()
        Signal().wait_or_timeout()

    with Child(live) as parent:
        staged.wait_or_timeout()
        parent.kill()
        assert spool.recover() == 2
    assert (len(spool['in'].recover()), spool['out'].files, os.listdir(tmp_path / '.stage')) == (1, [], [])
    end.set()


def test_a_child_that_throws_away_what_it_inherited_throws_nothing_away(spool: Spool, tmp_path: Path) -> None:
    _, transaction = uncommitted(tmp_path)
    in_child(transaction.discard)
    transaction.commit()
    assert spool['out'].take().msg == 'made'
    assert transaction not in DRAFT_OWNERS


def test_a_child_that_leaves_a_batch_throws_nothing_away(spool: Spool) -> None:
    with spool['in'].batch() as batch:
        filebase = spool['in'].enqueue('y')
        in_child(batch.discard)
    assert filebase in spool['in'].files
    assert batch not in DRAFT_OWNERS


def returns() -> None:
    pass


def leaves() -> None:
    sys.exit(3)


def leaves_with_more_than_a_status_can_be() -> None:
    sys.exit(2**40 + 3)


def fails() -> None:
    raise ValueError('in the child')


@pytest.mark.parametrize(
    ('ending', 'status'),
    [(returns, 0), (leaves, 3), (leaves_with_more_than_a_status_can_be, 3), (fails, 1)],
)
@pytest.mark.parametrize('is_async', [False, True])
def test_a_child_that_comes_back_from_dispose_does_not_go_on_as_a_second_runner(
    spool: Spool, tmp_path: Path, ending: Callable[[], None], status: int, is_async: bool
) -> None:
    spool['in'].enqueue('y')

    def handle(runner: Any, msg: Any, msgdata: Any) -> None:
        runner.emit('out', msg)
        pid = os.fork()
        if pid == 0:
            ending()
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status

    class Async(AsyncRunner):
        async def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
            handle(self, msg, msgdata)

    def work() -> None:
        own = Spool(tmp_path, 'lazy')
        if is_async:
            Async(own, RunnerOptions(name='r', class_path='', queue='in')).run(until_empty=True)
        else:
            make_runner(own, handle).run(until_empty=True)

    in_child(work)
    assert [spool['out'].dequeue(one)[0] for one in spool['out'].files] == ['x', 'y']
    assert spool['in'].get_files() == spool['in'].get_files('.bak') == spool['bad'].get_files('.psv') == []


def test_a_child_that_awaits_in_dispose_is_ended_with_an_error(
    spool: Spool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spool['in'].enqueue('y')

    class Async(AsyncRunner):
        async def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
            self.emit('out', msg)
            pid = os.fork()
            await asyncio.sleep(0)
            if pid == 0:
                self.emit('out', 'of the child')
            else:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1

    def work() -> None:
        own = Spool(tmp_path, 'lazy')
        Async(own, RunnerOptions(name='r', class_path='', queue='in')).run(until_empty=True)

    in_child(work)
    assert [spool['out'].dequeue(one)[0] for one in spool['out'].files] == ['x', 'y']
    assert spool['in'].get_files() == spool['in'].get_files('.bak') == spool['bad'].get_files('.psv') == []
    assert 'RuntimeError: a forked child cannot await' in capfd.readouterr().err


def test_a_runner_counts_as_a_consumer_of_its_queue_as_long_as_it_runs(spool: Spool, tmp_path: Path) -> None:
    at_work = Signal()
    counted = []

    def work() -> None:
        def wait(_runner: Any, _msg: Any, _msgdata: Any) -> None:
            at_work.set()
            Signal().wait_or_timeout()

        make_runner(Spool(tmp_path, 'lazy'), wait).run()

    with Child(work) as child:
        at_work.wait_or_timeout()
        assert spool.consumer_count('in') == 1
        child.kill()
    assert spool.consumer_count('in') == 0
    spool['in'].recover()
    make_runner(spool, lambda *_args: counted.append(spool.consumer_count('in')) and None).run(
        until_empty=True
    )
    assert (counted, spool.consumer_count('in')) == ([1], 0)
