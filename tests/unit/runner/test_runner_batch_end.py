"""What a runner may do for many messages at once, and what else may wake it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from switchboard import Runner, Spool
from switchboard.errors import ConfigError, DestinationDown, PermanentFailure, TemporaryFailure
from switchboard.options import QueueOptions, RetryPolicy, RunnerOptions
from switchboard.testing import FakeClock
from tests.helpers.runs import RecordingSlot, preserved


@pytest.fixture
def spool(tmp_path: Path) -> Any:
    options = QueueOptions(retry=RetryPolicy(10, 10, 1, 0))
    return Spool(tmp_path / 'spool', 'lazy', clock=FakeClock(), options=options)


class Batches(Runner):
    """Gathers in `dispose`, and answers in `on_batch_end` what the test says."""

    def __init__(self, *args: Any, answers: Mapping[Any, Exception] | None = None, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.answers = answers or {}
        self.gathered: dict[str, Any] = {}
        self.batches: list[list[Any]] = []

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        if msg == 'bad':
            raise PermanentFailure('bad from the start')
        self.emit('out', msg)
        self.gathered[self.filebase] = msg

    def on_batch_end(self) -> Mapping[str, Exception]:
        gathered, self.gathered = self.gathered, {}
        self.batches.append(list(gathered.values()))
        if 'all' in self.answers:
            raise self.answers['all']
        return {filebase: self.answers[msg] for filebase, msg in gathered.items() if msg in self.answers}


def work(spool: Any, messages: list[Any], answers: Mapping[Any, Exception] | None = None) -> Batches:
    spool['in'].enqueue_many(messages)
    options = RunnerOptions('r', '', 'in', batch_size=10)
    runner = Batches(spool, options, answers=answers, slot=RecordingSlot())
    runner.run(once=True)
    return runner


def contents(spool: Any, queue: str) -> list[Any]:
    return [taken.msg for taken in iter(spool[queue].take, None)]


class Unmapped(dict[str, Exception]):
    def __contains__(self, key: object) -> bool:
        raise SystemExit(3)


@pytest.mark.parametrize('result', [5, True, [], 'filebase', iter(()), object(), Unmapped()])
def test_a_result_that_means_nothing_is_a_failure_of_the_whole_batch(spool: Any, result: Any) -> None:
    class Wrong(Batches):
        def on_batch_end(self) -> Any:
            return result

    spool['in'].enqueue_many(['a', 'b'])
    Wrong(spool, RunnerOptions('r', '', 'in', batch_size=10)).run(once=True)
    assert contents(spool, 'out') == []
    assert len(preserved(spool)) == 2
    assert spool['in'].get_files('.bak') == []


def test_none_means_that_none_has_failed(spool: Any) -> None:
    class Silent(Batches):
        def on_batch_end(self) -> Any:
            return None

    spool['in'].enqueue_many(['a', 'b'])
    Silent(spool, RunnerOptions('r', '', 'in', batch_size=10)).run(once=True)
    assert contents(spool, 'out') == ['a', 'b']


def test_it_is_asked_once_for_a_batch_and_not_for_those_that_failed_before(spool: Any) -> None:
    runner = work(spool, ['a', 'bad', 'b'])
    assert runner.batches == [['a', 'b']]
    assert list(preserved(spool).values()) == ['PermanentFailure: bad from the start']
    assert contents(spool, 'out') == ['a', 'b']
    assert contents(spool, 'in') == []


def test_it_is_not_asked_about_nothing(spool: Any) -> None:
    assert work(spool, ['bad']).batches == []
    assert work(spool, []).batches == []


def test_what_it_says_of_a_message_is_judged_as_if_dispose_had_raised_it(spool: Any) -> None:
    answers = {'b': PermanentFailure('no'), 'c': TemporaryFailure('later')}
    runner = work(spool, ['a', 'b', 'c', 'd'], answers)
    assert contents(spool, 'out') == ['a', 'd']
    assert list(preserved(spool).values()) == ['PermanentFailure: no']
    assert contents(spool, 'in') == []
    spool.clock.advance(11)
    assert contents(spool, 'in') == ['c']
    assert isinstance(runner.slot, RecordingSlot)
    assert runner.slot.calls.count('done') == 2


def test_what_it_raises_is_about_all_of_them_and_an_outage_changes_none(spool: Any) -> None:
    work(spool, ['a', 'b'], {'all': DestinationDown('away')})
    for taken in iter(spool['in'].take, None):
        assert spool['in'].history(taken.filebase) == []
        spool['in'].finish(taken.filebase)
    assert contents(spool, 'out') == []
    assert preserved(spool) == {}


def test_what_would_end_the_process_is_about_all_of_them(spool: Any) -> None:
    work(spool, ['a', 'b'], {'all': KeyboardInterrupt()})
    assert contents(spool, 'in') == contents(spool, 'out') == []
    assert sorted(preserved(spool).values()) == ['KeyboardInterrupt: ', 'KeyboardInterrupt: ']


class Idler(Runner):
    """Counts how often it is woken; has no queue."""

    def periodic(self) -> None:
        self.times = getattr(self, 'times', 0) + 1
        if self.times == 3:
            self.stop()


def test_a_descriptor_and_a_time_of_its_own_end_a_runners_sleep(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    runner = Idler(Spool(tmp_path / 'spool', 'lazy'), RunnerOptions('r', '', poll_interval_s=50))
    try:
        os.write(writing, b'x')
        runner.wake_when_readable(reading)
        runner.run()
        assert runner.times == 3
        runner.wake_when_readable()
        os.close(reading)
        runner = Idler(Spool(tmp_path / 'spool', 'lazy'), RunnerOptions('r', '', poll_interval_s=50))
        runner.snooze = lambda filecnt: runner.wake_after(0.01)
        runner.run()
        assert runner.is_stopping
    finally:
        os.close(writing)


def test_what_is_wrong_between_keys_is_found_before_it_runs(tmp_path: Path) -> None:
    class Choosy(Runner):
        @classmethod
        def check(cls, values: Any, options: RunnerOptions, runners: Any) -> None:
            raise ConfigError(f'not beside {len(runners)} others', section=f'runner.{options.name}')

    with pytest.raises(ConfigError, match='not beside 0 others'):
        Choosy(Spool(tmp_path / 'spool', 'lazy'), RunnerOptions('r', ''))
