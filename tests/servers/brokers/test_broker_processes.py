"""Processes that hold messages of a real broker: killed at work, and forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from tests.acceptance.installation import Installation
from tests.helpers.waiting import eventually
from tests.servers.brokers.far import ROOT, Far

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


class TestAKilledRunner:
    def test_its_message_is_given_out_again_and_done_once(self, far: Far) -> None:
        far.queue.enqueue_many(['a', 'kill', 'b'])
        assert far.run() == -signal.SIGKILL
        eventually(
            lambda: far.run() == 0 and far.queue.count() == 0 and len(far.spool['out'].files) == 3, 'done'
        )
        assert sorted(far.out()) == ['a', 'b', 'kill']

    def test_one_that_kills_each_time_goes_to_bad(self, far: Far) -> None:
        filebase = far.queue.enqueue('poison')
        eventually(lambda: far.run() == 0 and far.spool['bad'].get_files('.psv'), 'preserved')
        assert far.spool['bad'].get_files('.psv') == [filebase]
        history = far.spool['bad'].history(filebase)
        assert [one['count'] for one in history if one['event'] == 'recovered'] == [1, 2, 3]
        assert history[-1]['cause'] == 'recoveries'

    def test_one_whose_body_kills_those_who_decode_it_goes_to_bad_as_it_came(self, far: Far) -> None:
        far.queue.enqueue('before')
        with Connection(far.url) as connection:
            connection.Producer(auto_declare=False).publish(
                b'deadly',
                routing_key=far.queue.all_queues[0],
                serializer='raw',
                headers={'compression': 'deadly'},
            )
        eventually(lambda: far.run() == 0 and far.spool['bad'].get_files('.psv'), 'preserved')
        [filebase] = far.spool['bad'].get_files('.psv')
        history = far.spool['bad'].history(filebase)
        assert [one['count'] for one in history if one['event'] == 'recovered'] == [1, 2, 3]
        assert history[-1]['cause'] == 'recoveries'
        assert far.spool['bad'].peek(filebase).body == b'deadly'
        assert far.out() == ['before']


@pytest.fixture
def site(far: Far, tmp_path: Path) -> Iterator[Installation]:
    """A master whose runner works on a queue of the broker's."""
    home = tmp_path / 'site'
    home.mkdir()
    site = Installation(home)
    site.configure({'far': {'stop_timeout': '100ms'}})
    # With Redis' usual lease: nobody is to wait for its end.
    with site.config.open('a') as configuration:
        configuration.write(f'[queue.far]\nurl = {far.url}?queue={far.queue.all_queues[0]}\n')
    yield site
    site.close()


def test_one_that_is_killed_on_request_is_given_out_again_and_not_counted(site: Installation) -> None:
    site.start()
    site.put('far', 'wait')
    for _ in range(4):  # one more than may die
        site.told.wait_for('begin far .* wait')
        assert site.ask('restart', runner='far')['ok']
    site.told.wait_for('begin far .* wait')
    site.open_gate()
    site.told.wait_for('end far .* wait')
    assert site.count('bad') == 0
    assert site.stop() == 0


FORK = """
import os, sys
from switchboard import Spool
spool = Spool.from_config(sys.argv[1])
queue = spool['far']
queue.enqueue_many(['parent', 'child'])
mine = queue.take()
pid = os.fork()
if pid == 0:
    theirs = queue.take()
    assert theirs.msg == 'child', theirs
    assert queue.get_files('.bak') == [theirs.filebase]
    queue.finish(theirs.filebase)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
queue.finish(mine.filebase)
assert queue.take() is None and queue.count() == 0
queue.enqueue('after')
assert queue.count() == 1
queue.close()
"""


def test_a_connection_is_not_shared_with_a_child(far: Far) -> None:
    ran = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', FORK, str(far.path)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, '')
