"""The order of what one runner hands from one queue to another: of a key, as it was handed on, whether emitted or forwarded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.handoff.stage import LastOutputTimes
from switchboard.options import QueueOptions
from switchboard.testing import FakeClock, MemorySpool
from tests.helpers.runs import make_runner

Way = Callable[[Any, Any, Any], object]


def emit(runner: Any, msg: Any, msgdata: Any) -> None:
    runner.emit('out', msg, msgdata)


def forward(runner: Any, msg: Any, msgdata: Any) -> None:
    runner.forward('out')


def forward_to_two(runner: Any, msg: Any, msgdata: Any) -> None:
    runner.forward('out', 'aside')


def forward_beside_another_output(runner: Any, msg: Any, msgdata: Any) -> None:
    runner.emit('aside', msg, msgdata)
    runner.forward('out')


WAYS = (emit, forward, forward_to_two, forward_beside_another_output)


@pytest.fixture(params=['strict', 'plain', 'memory'])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == 'memory':
        return MemorySpool()
    return Spool(tmp_path / 'spool', 'lazy', options=QueueOptions(strict_order=request.param == 'strict'))


def taken(spool: Any, queue: str) -> list[Any]:
    found = []
    spool[queue].has_ready()
    while (one := spool[queue].take()) is not None:
        found.append(one.msg)
        spool[queue].finish(one.filebase)
    return found


@pytest.mark.parametrize('batch_size', [1, 4])
@pytest.mark.parametrize('ways', list(product(WAYS, repeat=2)))
def test_messages_of_a_key_come_as_they_were_handed_on(
    spool: Any, ways: tuple[Way, Way], batch_size: int
) -> None:
    for number in range(4):
        spool['in'].enqueue(number, order_key='k')

    def dispose(runner: Any, msg: Any, msgdata: Any) -> None:
        ways[msg % 2](runner, msg, msgdata)

    make_runner(spool, dispose, batch_size=batch_size).run(until_empty=True)
    assert taken(spool, 'out') == [0, 1, 2, 3]


@pytest.mark.parametrize('in_memory', [False, True])
def test_also_when_the_clock_is_set_back_between_two(tmp_path: Path, in_memory: bool) -> None:
    clock = FakeClock()
    spool = MemorySpool(clock=clock) if in_memory else Spool(tmp_path / 'spool', 'lazy', clock=clock)
    for number in range(4):
        spool['in'].enqueue(number, order_key='k')

    def dispose(runner: Any, msg: Any, msgdata: Any) -> None:
        (emit, forward)[msg % 2](runner, msg, msgdata)
        if msg == 0:
            clock.set_back(3600)

    make_runner(spool, dispose).run(until_empty=True)
    assert taken(spool, 'out') == [0, 1, 2, 3]


def test_what_was_emitted_for_later_holds_nothing_back(spool: Any) -> None:
    first = spool['in'].enqueue('first', order_key='k')
    second = spool['in'].enqueue('second', order_key='k')

    def dispose(runner: Any, msg: Any, msgdata: Any) -> None:
        if msg == 'first':
            runner.emit('out', msg, msgdata, delay=3600)
        else:
            runner.forward('out')

    make_runner(spool, dispose).run(until_empty=True)
    assert first < second
    assert second in spool['out'].files


def test_what_others_have_put_there_is_passed(spool: Any) -> None:
    first = spool['in'].enqueue('first', order_key='k')
    spool['out'].enqueue('second', order_key='k')
    make_runner(spool, forward).run(until_empty=True)
    assert taken(spool, 'out') == ['first', 'second']
    assert first


def test_another_key_keeps_its_time(spool: Any) -> None:
    spool['in'].enqueue('a', order_key='j')
    second = spool['in'].enqueue('b', order_key='k')

    def dispose(runner: Any, msg: Any, msgdata: Any) -> None:
        (emit if msg == 'a' else forward)(runner, msg, msgdata)

    make_runner(spool, dispose).run(until_empty=True)
    assert second in spool['out'].files


def test_of_so_many_keys_the_oldest_are_forgotten_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('switchboard.handoff.stage.MAX_LAST_OUTPUT_TIMES', 10)
    last = LastOutputTimes()
    for number in range(100):
        last.note('in', 'out', f'1732242000.5+{number:08x}')
    known = [
        number for number in range(100) if last.would_overtake('in', 'out', f'1732242000.4+{number:08x}')
    ]
    assert known == list(range(80, 100))
