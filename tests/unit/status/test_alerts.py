"""What is told of, how often, and how a command is ended: with a clock of its own, and with real commands."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from switchboard.status import alerts
from switchboard.status.alerts import LIMIT_S, MINUTE_S, PER_MINUTE, QUIET_S, Alerts, run_alert_command

FACTS = {'alert': 'bad-grew', 'state': 'problem', 'subject': 'bad', 'reason': 'it "grew"\n', 'number': 3}


class Told:
    """Starts processes that do nothing, and notes what they were to tell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[int] = []
        self.facts: list[tuple[object, ...]] = []
        self.command: tuple[str, ...] = ('mail',)
        monkeypatch.setattr(alerts, 'run_alert_command', self._note)
        self.alerts = Alerts(lambda: self.command, {'spool': Path('/s')}, self._start)

    def _note(self, _command: tuple[str, ...], facts: dict[str, object], die_with_parent: object) -> None:
        self.facts.append((facts['alert'], facts['subject'], facts['state'], facts.get('number')))

    def _start(self, work: Callable[[], object]) -> int:
        work()
        pid = os.posix_spawn('/bin/true', ['true'], {})
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.started.append(pid)
        return pid

    def tick(self, now_s: float) -> list[tuple[object, ...]]:
        """:return: what was told since the last time."""
        before = len(self.facts)
        for _ in range(50):
            self.alerts.tick(now_s)
        return self.facts[before:]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    made = Told(monkeypatch)
    yield made
    for pid in made.started:
        os.waitpid(pid, 0)


def test_a_condition_is_told_of_once_and_when_it_is_over(told: Told) -> None:
    for _ in range(3):
        told.alerts.note('runner-fatal', {'in 1/1': 'crashes'})
        now = told.tick(0)
    assert now == []
    assert told.facts == [('runner-fatal', 'in 1/1', 'problem', None)]
    told.alerts.note('runner-fatal', {})
    assert told.tick(QUIET_S) == [('runner-fatal', 'in 1/1', 'resolved', None)]
    assert told.tick(9 * QUIET_S) == []


def test_what_comes_and_goes_in_the_quiet_is_not_told_of(told: Told) -> None:
    told.alerts.note('reload-failed', {'': 'a'})
    assert len(told.tick(0)) == 1
    told.alerts.note('reload-failed', {})
    assert told.tick(1) == []
    assert told.alerts.due_s() == QUIET_S
    told.alerts.note('reload-failed', {'': 'b'})
    assert told.tick(2 * QUIET_S) == []
    assert told.alerts.due_s() == math.inf


def test_a_number_is_told_of_again_only_when_it_grows(told: Told) -> None:
    numbers = [(3, True), (3, False), (2, False), (3, True), (0, False), (1, True)]
    said = []
    for turn, (number, _) in enumerate(numbers):
        told.alerts.note('bad-grew', {'bad': ('there are some', number)})
        said.append(bool(told.tick(turn * QUIET_S)))
    assert said == [is_told for _, is_told in numbers]


def test_many_at_once_wait_for_their_minute_and_are_all_told(told: Told) -> None:
    told.alerts.note('runner-fatal', {f'r {number}/30': 'crashes' for number in range(PER_MINUTE + 5)})
    assert len(told.tick(0)) == PER_MINUTE
    assert told.alerts.due_s() == MINUTE_S
    assert told.tick(MINUTE_S - 1) == []
    assert len(told.tick(MINUTE_S)) == 5


def test_without_a_command_nothing_is_told_and_nothing_is_due(told: Told) -> None:
    told.command = ()
    told.alerts.note('reload-failed', {'': 'a'})
    assert told.tick(0) == []
    assert told.alerts.due_s() == math.inf
    told.command = ('mail',)
    assert len(told.tick(1)) == 1


def test_a_command_gets_the_facts_in_its_environment_and_on_its_input(tmp_path: Path) -> None:
    script = f'cat >{tmp_path}/in; printf "%s|%s" "$SWITCHBOARD_REASON" "$SWITCHBOARD_NUMBER" >{tmp_path}/env'
    assert run_alert_command(['sh', '-c', script], FACTS)
    assert json.loads((tmp_path / 'in').read_text()) == FACTS
    assert (tmp_path / 'env').read_text() == 'it "grew"\n|3'


def test_a_command_that_reads_nothing_or_writes_without_end_ends_all_the_same() -> None:
    assert run_alert_command(['true'], FACTS)
    assert run_alert_command(['sh', '-c', 'head -c 1000000 /dev/zero'], FACTS)
    assert not run_alert_command(['yes'], FACTS, limit_s=0.2)


def test_a_command_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert not run_alert_command(['sh', '-c', f'(echo lives; sleep 600) >{fifo} & wait'], FACTS, limit_s=0.5)
    os.set_blocking(reading, True)
    # The end of the stream comes when nobody has it open any more.
    while os.read(reading, 100):
        pass
    os.close(reading)


def test_what_a_command_leaves_in_the_background_does_not_count_as_its_own_time() -> None:
    assert run_alert_command(['sh', '-c', 'sleep 5 & exit 0'], FACTS, limit_s=LIMIT_S)
