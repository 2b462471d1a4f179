"""What a master and its runners cost, what they are called, and what they hold."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from switchboard.status.scoreboard import ProcessState
from tests.acceptance.installation import Installation, ends
from tests.helpers.descriptors import open_files
from tests.helpers.waiting import PATIENCE_S, eventually

# What Mailman's start takes in processor time alone.  Here it is a fifth of a second, which no busy machine makes that long.
MAILMANS_START_S = 15.0
IDLE = """
from switchboard import Runner


class Idle(Runner):
    def dispose(self, msg, msgdata):
        pass
"""


@pytest.mark.figures
def test_sixteen_runners_are_ready_soon_after_the_start(site: Installation) -> None:
    site.configure({f'r{number}': {'instances': 2} for number in range(8)})
    master = site.start(fresh=True)
    records = site.records()
    assert len(records) == 16
    assert {each.state for each in records} == {ProcessState.RUNNING}
    with_scoreboard = site.log.seen
    started_ns = min(each.started_ns for each in records)
    beats_ns = max(each.heartbeat_ns for each in records)
    assert beats_ns > 0
    assert started_ns > 0
    first, last = (
        with_scoreboard[0].split()[0],
        next(line for line in with_scoreboard if ' ready ' in line).split()[0],
    )
    taken = datetime.fromisoformat(last) - datetime.fromisoformat(first)
    assert taken.total_seconds() < MAILMANS_START_S
    assert processor_s(family(master.pid, site)) < 1.5


def family(master: int, site: Installation) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in (master, *site.pids().values())]


def processor_s(processes: list[psutil.Process]) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in processes)


def test_each_process_has_a_title_that_says_what_it_is(site: Installation) -> None:
    site.configure({'in': {'instances': 2}})
    master = site.start(fresh=True)
    for title, pid in site.pids().items():
        assert title_of(pid) == f'switchboard: {title}'
    assert title_of(master.pid).startswith('switchboard: master ')


def title_of(pid: int) -> str:
    """Read it as `ps` shows it; psutil divides a long one at its blanks."""
    return Path(f'/proc/{pid}/cmdline').read_text().rstrip('\0')


def test_a_runner_holds_nothing_of_its_master(site: Installation) -> None:
    site.configure({'in': {'instances': 3}})
    master = site.start(fresh=True)
    held = set(open_files(master.pid).values())
    inherited = {link for link in held if 'master.lock' in link or 'eventpoll' in link}
    pipes_and_sockets = {link for link in held if link.startswith(('pipe:', 'socket:'))}
    stderr = os.readlink(f'/proc/{master.pid}/fd/2')
    assert any('master.lock' in link for link in inherited)
    for pid in site.pids().values():
        assert not inherited.intersection(open_files(pid).values())
        # Its ends of its lifeline and of its output are the same pipes as the master's ends; nothing else is shared, but standard error.
        shared = pipes_and_sockets.intersection(open_files(pid).values()) - {stderr}
        assert len(shared) == 3
        assert psutil.Process(pid).terminal() is None
        assert os.getsid(pid) == os.getpgid(pid) == pid


@pytest.mark.figures
def test_twelve_runners_are_small_and_cheap_to_start(site: Installation) -> None:
    # Mailman's twelve take 900 MB and fifteen seconds of processor time.  What a class imports is its own affair: this one imports nothing.
    (site.config.parent / 'idle.py').write_text(IDLE)
    site.configure({f'r{number}': {'class': 'idle:Idle'} for number in range(12)})
    master = site.start(fresh=True)
    processes = family(master.pid, site)
    assert sum(each.memory_full_info().uss for each in processes) < 75e6
    assert processor_s(processes) < MAILMANS_START_S / 5


@pytest.mark.slow
@pytest.mark.figures
def test_idle_runners_and_their_master_do_not_wake_up(site: Installation) -> None:
    # Mailman's poll every second.
    site.configure({'in': {'poll_interval': '1h', 'recovery_interval': '1h', 'hang_timeout': '3h'}})
    master = site.start(fresh=True)
    pids = [master.pid, site.pids()['in 1/1']]
    eventually(lambda: sleeps_for(1.2, pids), 'asleep for more than a second')


def sleeps_for(seconds: float, pids: list[int]) -> bool:
    """:return: whether none of them wakes up in that time; one that has not come to rest yet does."""
    before = [psutil.Process(pid).num_ctx_switches().voluntary for pid in pids]
    assert not ends(pids[-1], seconds)
    return [psutil.Process(pid).num_ctx_switches().voluntary for pid in pids] == before


def test_a_preloaded_module_is_imported_once_and_shared(site: Installation) -> None:
    (site.home / 'heavy.py').write_text('import os\nimporter = os.getpid()\n')
    (site.home / 'light.py').write_text(
        'from jobs import Job, tell\nimport heavy\nclass Light(Job):\n'
        '    def setup(self):\n        tell("importer", heavy.importer)\n'
    )
    site.configure({'in': {'class': 'light:Light', 'instances': 2}}, preload='heavy')
    master = site.start(fresh=True)
    for _ in range(2):
        assert int(site.told.wait_for(r'importer (\d+)')[1]) == master.pid


def test_a_preloaded_module_that_cannot_be_imported_ends_the_start(site: Installation) -> None:
    site.configure({'in': {}}, preload='nowhere')
    master = site.start(ready=False)
    assert master.wait(PATIENCE_S) == os.EX_CONFIG
    site.log.wait_for(r'preload: cannot import nowhere: ModuleNotFoundError')
