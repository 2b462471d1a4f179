"""The janitor: what is repaired and expired where no runner looks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.janitor import tidy
from switchboard.testing.clock import FakeClock
from tests.acceptance.installation import Installation, wait_until

CONFIGURATION = """
[switchboard]
spool = spool
durability = lazy

[queue.in]
ttl = 10s
[queue.out]
"""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path, clock: FakeClock) -> Spool:
    (tmp_path / 'switchboard.cfg').write_text(CONFIGURATION)
    return Spool.from_config(tmp_path / 'switchboard.cfg', clock=clock)


def test_entries_expire_in_a_queue_that_nobody_takes_from(spool, clock):
    spool['in'].enqueue('old')
    clock.advance(11)
    fresh = spool['in'].enqueue('fresh')
    assert tidy(spool).expired == 1
    assert spool['in'].get_files() == [fresh]
    assert len(spool['bad'].get_files('.psv')) == 1
    assert tidy(spool).expired == 0


def test_what_dead_processes_held_is_ready_again(spool):
    filebase = spool['out'].enqueue('orphan')
    child = os.fork()
    if child == 0:
        Spool(spool.directory, config=spool.config)['out'].dequeue(filebase)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert tidy(spool).recovered == 1
    assert spool['out'].get_files() == [filebase]


def test_what_this_process_holds_is_left_alone(spool):
    filebase = spool['out'].enqueue('at work')
    spool['out'].dequeue(filebase)
    assert tidy(spool).recovered == 0
    assert spool['out'].get_files('.bak') == [filebase]


def test_keys_are_forgotten_when_their_window_is_over(spool, clock):
    first = spool['out'].enqueue('once', dedupe_key='key')
    assert spool['out'].enqueue('twice', dedupe_key='key') == first
    assert tidy(spool).forgotten == 0
    clock.advance(86401)
    assert tidy(spool).forgotten == 1
    assert spool['out'].enqueue('again', dedupe_key='key') != first


def test_damaged_entries_do_not_stop_a_round(spool, clock, tmp_path):
    torn = spool['in'].enqueue('torn')
    path = tmp_path / 'spool' / 'in' / f'{torn}.pck'
    path.write_bytes(path.read_bytes()[:20])
    spool['in'].enqueue('old')
    clock.advance(11)
    assert tidy(spool).expired == 1


def test_the_master_sends_the_janitor(site: Installation):
    site.configure({'jobs': {}}, tidy='100ms')
    with site.config.open('a') as configuration:
        configuration.write('[queue.in]\nttl = 100ms\n')
    site.start()
    site.put('in', 'soon too old')
    wait_until(lambda: site.count('bad') == 1, 'the entry is in the bad queue')
    assert site.count('in') == 0
    assert site.stop() == 0
