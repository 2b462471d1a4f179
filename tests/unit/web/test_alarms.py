"""Command line and desk say the same of the same thing: it is judged once, in `operating.health`."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from switchboard.spool.active_config import activate
from switchboard.status.alive import master_directory
from switchboard.status.scoreboard import MasterRecord, ProcessState, Scoreboard, Slot, SupervisorRecord
from switchboard.store.layout import MASTER_LOCK, SCOREBOARD
from tests.helpers.commands import switchboard
from tests.helpers.desk_installation import install
from tests.unit.web.desks import Browser, browser

NOW_NS = time.time_ns()
AT_WORK = MasterRecord(os.getpid(), ProcessState.RUNNING, NOW_NS)
MORE = '[runner.more]\nclass = null\nqueue = out\n'
OUT = SupervisorRecord('out', pid=os.getpid(), state=ProcessState.RUNNING)


@dataclass(frozen=True)
class State:
    """What a master has left, or shows: its record (None: it has no scoreboard), its slices, and which alarms that is."""

    alarms: dict[str, str]
    is_alive: bool = True
    master: MasterRecord | None = AT_WORK
    slices: tuple[SupervisorRecord, ...] = (OUT,)
    last_error: str = ''
    sections: str = ''


STATES = {
    'none ever': State({'master: not running; none was ever started here': 'warn'}, False, None),
    'starts': State({'master: is starting': 'warn'}, master=None),
    'is at work': State({}),
    'was stopped': State(
        {'master: not running; it was stopped': 'warn'}, False, MasterRecord(12, ProcessState.EXITED, 1)
    ),
    'died': State(
        {r'master: NOT RUNNING; it died \(pid 12\)': 'bad'},
        False,
        MasterRecord(12, ProcessState.STOPPING, 1),
    ),
    'could not start': State(
        {r'master: NOT RUNNING; the last start failed; `switchboard -C \S+ start` says why': 'bad'},
        False,
        MasterRecord(),
    ),
    'read nothing': State(
        {'reload: failed .* ago, the old one is in force: no such queue': 'bad'},
        master=AT_WORK._replace(reloaded_ns=NOW_NS, reload_error='the old one is in force: no such queue'),
    ),
    'FATAL': State(
        {'out 1/1: FATAL: no such class; 2 messages wait': 'bad'},
        slices=(SupervisorRecord('out', state=ProcessState.FATAL, reason='no such class'),),
    ),
    'BACKOFF': State(
        {r'out 1/1: starts again in \S+: exited with status 1; 2 messages wait': 'bad'},
        slices=(
            SupervisorRecord(
                'out',
                state=ProcessState.BACKOFF,
                reason='exited with status 1',
                next_restart_ns=NOW_NS + 3600 * 10**9,
            ),
        ),
    ),
    'hangs': State(
        {'out 1/1: hangs': 'warn'},
        slices=(replace(OUT, state=ProcessState.STOPPING, reason='hangs'),),
    ),
    'has no slice': State(
        {'out: has no process; `switchboard -C .* scale out=1` gives it one; 2 messages wait': 'bad'},
        slices=(),
    ),
    'was stopped alone': State(
        {'out: stopped; `switchboard -C .* restart out` starts it; 2 messages wait': 'bad'},
        slices=(SupervisorRecord('out', state=ProcessState.EXITED),),
    ),
    'was stopped beside another one': State(
        {},
        slices=(SupervisorRecord('out', state=ProcessState.EXITED), replace(OUT, runner='more')),
        sections=MORE,
    ),
    'gave up beside another one': State(
        {'out 1/1: FATAL: no such class': 'bad'},
        slices=(
            SupervisorRecord('out', state=ProcessState.FATAL, reason='no such class'),
            replace(OUT, runner='more'),
        ),
        sections=MORE,
    ),
    'has no slice beside another one': State({}, slices=(replace(OUT, runner='more'),), sections=MORE),
    'has failed once': State({}, last_error='ValueError: x'),
    'died with a runner': State(
        {r'master: NOT RUNNING; it died \(pid 12\)': 'bad'},
        False,
        MasterRecord(12, ProcessState.RUNNING, 1),
        slices=(SupervisorRecord('out', state=ProcessState.FATAL, reason='no such class'),),
    ),
}


@contextmanager
def a_master(spool: Path, state: State) -> Iterator[None]:
    """Hold a spool as a master does, and show a state on its scoreboard."""
    own = master_directory(spool)
    own.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if state.is_alive:
            fcntl.flock(stack.enter_context((own / MASTER_LOCK).open('w')), fcntl.LOCK_EX)
        if state.master is not None:
            scoreboard = stack.enter_context(closing(Scoreboard.create(own / SCOREBOARD, 4)))
            if state.master.pid:
                scoreboard.write_master_record(state.master)
            for index, record in enumerate(state.slices):
                scoreboard.write_supervisor_record(index, record)
            if state.last_error:
                Slot(scoreboard, 0).error(state.last_error)
        yield


def compare(here: Browser, alarms: dict[str, str]) -> None:
    """See that the desk has these alarms, and that `status` has a line of the same words for each."""
    for _ in range(2):  # a runner that a reload is about to start is missing once
        here.count()
    page = here.json('/runners')['alarms']
    assert [one['level'] for one in page] == [*alarms.values()]
    # The command line goes on to show it.
    lines = switchboard('-C', here.config, 'status').out.replace('; its last state follows', '')
    for one, wanted in zip(page, alarms, strict=True):
        assert re.fullmatch(wanted, one['text'])
        # The command line counts no queues to show the state.
        alike = re.sub(r'\d\S*(?= ago|: exited)', '@', one['text'].partition('; 2 messages wait')[0])
        assert alike in [re.sub(r'\d\S*(?= ago|: exited)', '@', line) for line in lines.splitlines()]


@pytest.mark.parametrize('state', STATES.values(), ids=STATES.keys())
def test_an_alarm_of_the_desk_is_a_line_of_status(tmp_path: Path, state: State) -> None:
    install(tmp_path, state.sections)
    with browser(tmp_path) as here:
        for number in range(2):
            here.spool['out'].enqueue(number)
        assert here.spool.config is not None
        activate(here.spool.config)
        with a_master(here.desk.directory, state):
            compare(here, state.alarms)


def test_a_master_that_a_signal_has_stopped_is_an_alarm(tmp_path: Path) -> None:
    with (
        browser(tmp_path) as here,
        subprocess.Popen(['switchboard: master', '600'], executable='/bin/sleep') as process,
    ):
        try:
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            with a_master(here.desk.directory, State({}, master=AT_WORK._replace(pid=process.pid))):
                text = f'master: RUNNING, and stopped by a signal: `kill -CONT {process.pid}` lets it go on'
                compare(here, {text: 'bad'})
        finally:
            process.kill()


def test_what_operators_say_to_a_queue_has_the_same_words_everywhere(tmp_path: Path) -> None:
    with browser(tmp_path) as here:
        here.spool.pause('orders', 'the shop is closed', 'ann')
        here.count()
        (line,) = [
            one for one in switchboard('-C', here.config, 'queues').lines if one.startswith('orders: ')
        ]
        assert re.fullmatch('orders: paused since .* by ann: the shop is closed', line)
        assert line in switchboard('-C', here.config, 'status').lines
        assert line in [one['text'] for one in here.json('/')['alarms']]
        assert f'>{line.removeprefix("orders: ")}<' in here.get('/queues/orders').text


def test_the_desk_warns_of_a_spool_as_check_does(tmp_path: Path) -> None:
    with browser(tmp_path) as here:
        subprocess.run(
            ['find', here.desk.directory, '-type', 'd', '-exec', 'chmod', 'g+s', '{}', '+'], check=True
        )
        quiet = 'No mistakes, and nothing to warn of'
        assert quiet not in here.get('/configuration').text  # it has not looked yet
        here.count()
        assert quiet in here.get('/configuration').text
        (here.desk.directory / 'lost').mkdir()
        here.spool['orders'].enqueue('x')
        for entry in (here.desk.directory / 'orders').glob('*.pck'):
            entry.rename(here.desk.directory / 'lost' / entry.name)
        here.count()
        lines = switchboard('-C', here.config, 'check').lines
        told = [f'warning: {one["text"]}' for one in here.json('/configuration')['warnings']]
        assert told == lines[:-1]
        assert '1 entry in the queue lost, which this configuration does not declare any more' in told[-1]
        assert quiet not in here.get('/configuration').text


def test_mistakes_are_counted_with_the_same_words(tmp_path: Path) -> None:
    with browser(tmp_path) as here:
        here.get('/')
        here.config.write_text('[switchboard]\nspool = spool\nnonsense = 1\n')
        here.desk.looked_s = float('-inf')
        (text,) = [one['text'] for one in here.json('/')['alarms'] if 'mistake' in one['text']]
        assert text == f'{here.config} has 1 mistake; `switchboard -C {here.config} check` shows it'
        assert f'warning: {text}' in switchboard('-C', here.config, 'queues').err
