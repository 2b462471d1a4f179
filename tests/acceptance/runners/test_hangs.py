"""Runners that hang, runners that only take long, and what the scoreboard tells of both."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

import pytest

from switchboard.errors import NotRunningError
from switchboard.status.alive import master_alive
from switchboard.status.scoreboard import ProcessState
from tests.acceptance.installation import Installation, ends, kill
from tests.helpers.waiting import PATIENCE_S, eventually


@pytest.mark.slow
def test_a_loop_that_hangs_tells_where_and_is_replaced(site: Installation) -> None:
    site.configure({'in': {'class': 'jobs:Sleepy', 'hang_timeout': '300ms', 'stop_timeout': '100ms'}})
    site.start()
    pid = int(site.told.wait_for(r'periodic (\d+)')[1])
    site.log.wait_for('hangs .*no heartbeat for')
    site.log.wait_for('jobs.py.*, line .* in wait_at_gate')
    site.log.wait_for(f'killing .*pid={pid}')
    site.log.wait_for('ended .*no heartbeat')
    assert int(site.told.wait_for(r'periodic (\d+)')[1]) != pid
    assert site.record('in').restarts >= 1


def test_a_message_that_takes_too_long_ends_its_runner(site: Installation) -> None:
    site.configure({'in': {'message_time_limit': '200ms', 'stop_timeout': '100ms', 'restart': '1h..1h'}})
    site.start()
    site.put('in', 'wait')
    pid = int(site.told.wait_for(r'begin in (\d+)')[1])
    site.log.wait_for(f'hangs .*pid={pid} .*took longer than 0.2 s')
    site.log.wait_for('ended')
    assert site.record('in').reason.endswith('took longer than 0.2 s')
    assert site.count('in') == 1


def test_a_process_that_becomes_another_program_is_replaced(site: Installation) -> None:
    site.configure({'in': {'stop_timeout': '100ms', 'max_restarts': '0'}})
    site.start()
    site.put('in', 'become another program')
    pid = int(site.told.wait_for(r'begin in (\d+)')[1])
    site.log.wait_for(f'hangs .*pid={pid} .*become another program')
    assert ends(pid)
    site.log.wait_for('ended .*become another program')


@pytest.mark.slow
def test_a_long_job_without_a_limit_is_no_hang(site: Installation) -> None:
    # Idle, it is to beat in time however busy the machine is; at work it may take longer than that.
    site.configure({'in': {'hang_timeout': '4s'}})
    site.start()
    site.put('in', 'wait')
    pid = int(site.told.wait_for(r'begin in (\d+)')[1])
    assert not ends(pid, 5)
    site.open_gate()
    site.told.wait_for('end in')
    assert not site.log.said('hangs')
    assert site.pids()['in 1/1'] == pid


@pytest.mark.slow
def test_a_start_that_takes_for_ever_is_a_hang_and_does_not_hold_up_the_others(site: Installation) -> None:
    site.configure(
        {'slow': {'class': 'jobs:SlowStart', 'stop_timeout': '50ms', 'restart': '1h..1h'}, 'in': {}},
        start_timeout='3s',
    )
    site.start(ready=False)
    site.log.wait_for('running runner="in 1/1"')
    site.log.wait_for('hangs runner="slow 1/1" .*did not begin its work within 3 s')
    site.log.wait_for('ready')
    assert site.record('slow').state in (ProcessState.STOPPING, ProcessState.BACKOFF)


def test_the_scoreboard_tells_what_a_runner_is_at(site: Installation) -> None:
    site.configure({'in': {'message_time_limit': '1h'}})
    site.start()
    site.put('in', 'wait')
    site.told.wait_for('begin')
    record = site.record('in')
    assert len(record.current) > 40
    assert record.deadline_ns - record.current_since_ns == 3600 * 10**9
    site.open_gate()
    eventually(lambda: site.record('in').done == 1, 'done')
    assert site.record('in').current == ''


def test_the_scoreboard_can_be_read_when_the_master_is_dead(site: Installation) -> None:
    site.configure({'in': {}})
    master = site.start()
    kill(master.pid)
    assert ends(site.pids()['in 1/1'])
    assert site.record('in').state is ProcessState.RUNNING
    assert not master_alive(site.spool_directory)
    with pytest.raises(NotRunningError):
        site.ask('status')


def freeze(pids: Sequence[int], seconds: float) -> None:
    """Stop the processes, and let them go on, the first one last."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)  # a freeze cannot be had in another way
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


def test_a_master_that_was_frozen_with_its_runners_judges_none_of_them(site: Installation) -> None:
    site.configure(
        {'in': {'hang_timeout': '5s', 'message_time_limit': '5s'}, 'busy': {'message_time_limit': '5s'}}
    )
    master = site.start()
    site.put('busy', 'wait')
    site.told.wait_for('begin busy .* wait')
    pids = site.pids()
    freeze([master.pid, *pids.values()], 7)
    site.log.wait_for('master stalled lost_s=')
    site.open_gate()
    site.told.wait_for('end busy .* wait')
    assert site.pids() == pids
    assert not site.log.said(' hangs ')
    assert [record.restarts for record in site.records()] == [0, 0]
    assert site.stop() == 0


def test_a_job_that_is_to_stop_has_its_time_after_a_freeze(site: Installation) -> None:
    site.configure({'busy': {'stop_timeout': '6s'}})
    master = site.start()
    site.put('busy', 'wait')
    site.told.wait_for('begin busy .* wait')
    pids = [master.pid, *site.pids().values()]
    master.terminate()
    site.log.wait_for(' stopping ')
    freeze(pids, 9)
    site.log.wait_for('master stalled lost_s=')
    site.open_gate()
    site.told.wait_for('end busy .* wait')
    assert master.wait(PATIENCE_S) == 0
    assert not site.log.said(' killing ')


PATIENT = """

class Patient(AsyncRunner):
    async def dispose(self, msg, msgdata):
        tell('begin', self.name)
        await asyncio.to_thread(wait_at_gate)
"""


def test_time_limits_of_jobs_do_not_count_a_freeze(site: Installation) -> None:
    script = site.home / 'script'
    script.write_text(f'echo begin script $$ >{site.home}/told\nhead -c 1 {site.home}/gate\n')
    site.configure(
        {
            'patient': {'class': 'jobs:Patient', 'message_time_limit': '5s'},
            'script': {'class': 'command', 'command': f'sh {script}', 'timeout': '5s'},
        }
    )
    jobs = site.home / 'jobs.py'
    jobs.write_text(jobs.read_text() + PATIENT)
    master = site.start()
    site.put('script', 'x')
    begun = site.told.wait_for('begin script ([0-9]+)')
    site.put('patient', 'x')
    site.told.wait_for('begin patient')
    freeze([master.pid, *site.pids().values(), int(begun[1])], 7)
    site.log.wait_for('master stalled lost_s=')
    for _ in range(2):
        site.open_gate()
    eventually(lambda: all(record.counters[0] for record in site.records()), 'done')
    assert [record.counters for record in site.records()] == [(1, 0, 0, 0)] * 2
    assert site.stop() == 0
