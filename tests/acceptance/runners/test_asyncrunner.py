"""Runners with coroutines under a real master: many messages at once, the same hand-off, the same end."""

from __future__ import annotations

import pytest

from switchboard import Spool
from tests.acceptance.installation import Installation, kill
from tests.helpers.waiting import PATIENCE_S, eventually

JOBS = """
import asyncio
import os

from jobs import HERE, tell
from switchboard.runner.asyncrunner import AsyncRunner


def wait_at_gate():
    gate = os.open(HERE / 'gate', os.O_RDONLY)
    os.read(gate, 1)  # not a byte more: others wait too
    os.close(gate)


class Notify(AsyncRunner):
    async def setup(self):
        tell('setup', os.getpid())

    async def cleanup(self):
        tell('cleanup', os.getpid())

    async def dispose(self, msg, msgdata):
        tell('begin', os.getpid(), msg)
        if msg == 'block':
            wait_at_gate()  # a mistake: nothing else of this process goes on
        elif msg.startswith('wait'):
            await asyncio.get_running_loop().run_in_executor(None, wait_at_gate)
        self.emit('out', msg)
        tell('end', os.getpid(), msg)
"""


@pytest.fixture
def async_site(site: Installation) -> Installation:
    (site.home / 'ajobs.py').write_text(JOBS)
    return site


def configure(site: Installation, **keys: object) -> None:
    site.configure({'in': {'class': 'ajobs:Notify', **keys}})
    with site.config.open('a') as configuration:
        configuration.write('[queue.out]\nexternal = yes\n')


def outputs(site: Installation) -> list[str]:
    queue = Spool.from_config(site.config)['out']
    return sorted(queue.peek(filebase).body.decode() for filebase in queue.get_files())


def test_messages_of_one_process_are_at_work_together_and_handed_on(async_site: Installation) -> None:
    site = async_site
    configure(site, concurrency=3)
    site.put('in', 'wait 1', 'wait 2', 'wait 3', 'later')
    site.start()
    pids = {site.told.wait_for(f'begin (.*) wait {number}')[1] for number in (1, 2, 3)}
    assert len(pids) == 1
    assert not site.told.said('later')
    for _ in range(3):
        site.open_gate()
    site.told.wait_for('end .* later')
    eventually(lambda: site.count('in') == 0, 'all is done')
    assert outputs(site) == ['later', 'wait 1', 'wait 2', 'wait 3']


def test_a_stop_waits_for_what_is_at_work_and_begins_nothing(async_site: Installation) -> None:
    site = async_site
    configure(site, concurrency=2)
    site.put('in', 'wait 1', 'wait 2', 'wait 3')
    master = site.start()
    for number in (1, 2):
        site.told.wait_for(f'begin .* wait {number}')
    master.terminate()
    site.log.wait_for('stopping')
    for _ in range(2):
        site.open_gate()
    site.told.wait_for('cleanup')
    assert master.wait(PATIENCE_S) == 0
    assert outputs(site) == ['wait 1', 'wait 2']
    assert site.count('in') == 1
    assert not site.told.said('begin .* wait 3')


def test_messages_of_a_killed_process_are_done_once_by_the_next(async_site: Installation) -> None:
    site = async_site
    configure(site, concurrency=4, restart='100ms')
    site.put('in', 'wait 1', 'plain', 'wait 2')
    site.start()
    pid = int(site.told.wait_for('begin (.*) wait 1')[1])
    site.told.wait_for('end .* plain')
    eventually(lambda: outputs(site) == ['plain'], 'the plain one is handed on')
    kill(pid)
    again = {int(site.told.wait_for(f'begin (.*) wait {number}')[1]) for number in (1, 2)}
    assert again != {pid}
    for _ in range(4):
        site.open_gate()
    eventually(lambda: site.count('in') == 0, 'all is done')
    assert outputs(site) == ['plain', 'wait 1', 'wait 2']
    assert site.count('bad') == 0


@pytest.mark.slow
def test_a_coroutine_that_blocks_its_loop_is_a_hang(async_site: Installation) -> None:
    site = async_site
    configure(site, hang_timeout='3s', stop_timeout='500ms', restart='100ms')
    site.start()
    site.put('in', 'block')
    first = int(site.told.wait_for('begin (.*) block')[1])
    second = int(site.told.wait_for('begin (.*) block')[1])
    assert second != first
    site.open_gate()
    site.told.wait_for(f'end {second} block')
    site.log.wait_for('hangs .*no heartbeat')
