"""Waiting ends when the condition holds, and says what was waited for when it does not."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from switchboard import Spool
from tests.helpers import waiting
from tests.helpers.waiting import eventually, shell_until, take_next


def test_the_first_true_value_is_what_was_waited_for() -> None:
    values = iter([None, '', 'there', 'later'])
    assert eventually(lambda: next(values), 'there', every=0.0) == 'there'


@pytest.mark.parametrize('what', ['all there', lambda: 'all there'])
def test_what_does_not_come_is_named(what: str) -> None:
    with pytest.raises(AssertionError, match='still not all there'):
        eventually(lambda: False, what, every=0.0, within_s=0.0)


def test_a_message_that_is_there_is_taken_and_one_that_comes_is_waited_for(spool: Spool) -> None:
    queue = spool['in']
    queue.enqueue('there')
    assert take_next(queue).msg == 'there'
    timer = threading.Timer(0.05, queue.enqueue, ['comes'])
    timer.start()
    assert take_next(queue).msg == 'comes'
    timer.join()


def test_a_message_that_does_not_come_is_not_waited_for_for_ever(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, 'PATIENCE_S', 0.1)
    with pytest.raises(AssertionError, match='nothing came into in: the log says so'):
        take_next(spool['in'], lambda: 'the log says so')


def test_a_shell_waits_for_a_condition_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / 'there'
    begun = subprocess.Popen(
        ['sh', '-c', f'echo; {shell_until(f"[ -e {there} ]")}; echo $n'], stdout=subprocess.PIPE
    )
    assert begun.stdout is not None
    assert begun.stdout.readline() == b'\n'
    there.touch()
    assert int(begun.communicate(timeout=waiting.PATIENCE_S)[0]) < waiting.PATIENCE_S / waiting.SHELL_REST_S
    monkeypatch.setattr(waiting, 'PATIENCE_S', 0.1)
    ended = subprocess.run(
        ['sh', '-c', f'{shell_until("false")}; echo $n'], stdout=subprocess.PIPE, timeout=60, check=True
    )
    assert ended.stdout == b'3\n'
