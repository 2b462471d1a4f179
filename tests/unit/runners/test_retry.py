"""The runner that sends dead letters back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchboard import Runner
from switchboard.errors import ConfigError, TemporaryFailure
from switchboard.handoff.moving import send_back
from switchboard.runners.retry import Retry
from tests.unit.runners.pipelines import Pipeline

CONFIGURATION = """
[runner.work]
class = tests:Work
queue = in
[queue.in]
dead_letter = retry
[runner.retry]
class = runners.retry:Retry
queue = retry
wait = 10m..1h x3 jitter 0%
max_retries = 2
"""


class Work(Runner):
    failing = True

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        if self.failing:
            raise ConnectionError('the other side is down')


class Fine(Work):
    failing = False


def pipeline(directory: Path, keys: str = '') -> Pipeline:
    return Pipeline(directory, CONFIGURATION + keys)


def failed_once(case: Pipeline) -> None:
    case.spool['in'].enqueue('text', colour='blue')
    case.work(Work, 'work')
    assert len(case.waiting('retry')) == 1


def test_a_dead_letter_waits_and_goes_back_to_where_it_came_from(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    failed_once(case)
    case.work(Retry, 'retry')
    case.clock.advance(599)
    case.work(Retry, 'retry')
    assert len(case.waiting('retry')) == 1
    case.clock.advance(1)
    case.work(Retry, 'retry')
    assert case.waiting('retry') == []
    assert len(case.spool['in'].files) == 1
    case.work(Fine, 'work')
    assert case.waiting('in') == case.spool['bad'].get_files('.psv') == []


def test_the_waits_grow_and_after_the_last_try_it_goes_to_bad(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    failed_once(case)
    for wait_s in (600, 1800):
        case.work(Retry, 'retry')
        case.clock.advance(wait_s - 1)
        case.work(Retry, 'retry')
        assert case.waiting('in') == []
        case.clock.advance(1)
        case.work(Retry, 'retry')
        assert len(case.waiting('in')) == 1
        case.work(Work, 'work')
    case.work(Retry, 'retry')
    assert 'sent back to in 2 times' in case.reason()
    history = case.history('bad', '.psv')
    assert [record['event'] for record in history].count('retried') == 2
    assert 'ConnectionError' in {record.get('error') for record in history}


def test_each_try_counts_failures_from_nothing(tmp_path: Path) -> None:
    case = Pipeline(
        tmp_path, CONFIGURATION.replace('dead_letter = retry', 'dead_letter = retry\nmax_attempts = 2')
    )
    case.spool['in'].enqueue('text')
    for _ in range(2):
        case.work(Work, 'work')
        assert len(case.waiting('in')) == 1, 'the first failure is not the last'
        case.clock.advance(3600)
        case.work(Work, 'work')
        assert len(case.waiting('retry')) == 1
        case.work(Retry, 'retry')
        case.clock.advance(1800)
        case.work(Retry, 'retry')


def test_what_failed_for_days_before_it_came_is_not_given_up_here(tmp_path: Path) -> None:
    class Down(Work):
        def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
            raise TemporaryFailure('down', retry_after_s=86400.0)

    case = pipeline(tmp_path)
    case.spool['in'].enqueue('text')
    case.work(Down, 'work')
    case.clock.advance(8 * 86400)
    case.work(Down, 'work')
    assert [record['event'] for record in case.history('retry')][-1] == 'dead-lettered', (
        'given up in its queue'
    )
    case.work(Retry, 'retry')
    assert len(case.waiting('retry')) == 1
    case.clock.advance(600)
    case.work(Retry, 'retry')
    assert len(case.waiting('in')) == 1


def test_an_operator_who_sends_it_back_starts_the_count_anew(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    failed_once(case)
    for _ in range(3):
        case.work(Retry, 'retry')
        case.clock.advance(3600)
        case.work(Retry, 'retry')
        case.work(Work, 'work')
    [filebase] = case.spool['bad'].get_files('.psv')
    send_back(case.spool['bad'], filebase, case.spool['in'])
    case.work(Work, 'work')
    case.work(Retry, 'retry')
    assert len(case.waiting('retry')) == 1


def test_only_what_there_is_hope_for_is_sent_back(tmp_path: Path) -> None:
    case = pipeline(tmp_path, 'retry_on = TimeoutError, recoveries\n')
    failed_once(case)
    case.work(Retry, 'retry')
    assert 'ConnectionError is none of TimeoutError, recoveries' in case.reason()


@pytest.mark.parametrize('retry_on', ['ConnectionError', 'TimeoutError attempts'])
def test_hope_is_by_error_class_or_by_cause(tmp_path: Path, retry_on: str) -> None:
    case = pipeline(tmp_path, f'retry_on = {retry_on}\n')
    failed_once(case)
    case.work(Retry, 'retry')
    assert len(case.waiting('retry')) == 1


def test_everything_may_go_to_one_queue_instead(tmp_path: Path) -> None:
    case = pipeline(tmp_path, 'to = second\n[queue.second]\n')
    failed_once(case)
    case.work(Retry, 'retry')
    case.clock.advance(600)
    case.work(Retry, 'retry')
    assert case.take('second')[1]['colour'] == 'blue'


def test_a_message_without_an_origin_goes_to_bad(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    case.spool['retry'].enqueue('put here by hand')
    case.work(Retry, 'retry')
    assert 'does not say where it came from' in case.reason()


def test_an_unknown_queue_is_found_before_the_first_message(tmp_path: Path) -> None:
    case = pipeline(tmp_path, 'to = nowhere\n')
    with pytest.raises(ConfigError, match='nowhere'):
        case.work(Retry, 'retry')


def test_a_plan_is_kept_by_the_process_that_comes_after(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    failed_once(case)
    case.work(Retry, 'retry')
    [filebase] = case.waiting('retry')
    case.clock.advance(600)
    case.spool['retry'].dequeue(filebase)  # and this process dies
    case.spool['retry'].recover_backup_files()
    case.work(Retry, 'retry')
    assert len(case.waiting('in')) == 1
    assert [record['event'] for record in case.history('in')].count('retried') == 1
