"""A spool with a queue ``far`` that is on a broker, and a runner for it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from switchboard import Spool
from tests.acceptance.forked import Forked
from tests.helpers.configurations import load
from tests.servers.brokers.broker_queues import drain

ROOT = Path(__file__).resolve().parents[3]

# What a process does with its first message of this text, and with none after it.
WORK = """
import os, pathlib
from kombu import compression
from switchboard import Runner

compression.register(bytes, lambda body: os.kill(os.getpid(), 9), 'deadly')

class Work(Runner):
    def dispose(self, msg, msgdata):
        done = pathlib.Path(__file__).with_name('killed')
        if msg == 'kill' and not done.exists():
            done.touch()
            os.kill(os.getpid(), 9)
        if msg == 'poison':
            os.kill(os.getpid(), 9)
        if msg == 'fail':
            raise ValueError('no good')
        self.emit('out', msg, msgdata)

class There(Runner):
    def dispose(self, msg, msgdata):
        self.emit('far', msg, msgdata)
"""

CONFIG = """
[queue.in]
[queue.out]
consumed_externally = yes
[queue.late]
consumed_externally = yes
[queue.far]
url = {url}?queue={name}&{options}
retry = 0.2s..0.2s x2
{more}
[runner.work]
class = work:Work
queue = far
recovery_interval = 0.3s
[runner.there]
class = work:There
queue = in
recovery_interval = 0.3s
[master]
python_path = .
"""


class Far:
    """A spool with a queue ``far``.

    :param lease: of Redis: a killed runner's message comes back after it, and one that is kept waiting by a busy machine may lose it.
    """

    def __init__(self, url: str, directory: Path, more: str = '', *, lease: str = '1s') -> None:
        self.directory = directory
        self.url = url
        options = 'heartbeat=5s' if url.startswith('amqp') else f'lease={lease}'
        name = uuid.uuid4().hex[:8]
        text = CONFIG.format(url=url, name=name, options=options, more=more)
        self.config = load(directory, text, head='[switchboard]\nspool = spool\ndurability = lazy\n')
        (directory / 'work.py').write_text(WORK)
        self.path = directory / 'switchboard.cfg'
        self.spools: list[Spool] = []
        self.spool = self.another()

    def another(self) -> Spool:
        """The same, as another process has it."""
        self.spools.append(Spool.from_config(self.config))
        return self.spools[-1]

    @property
    def queue(self) -> Any:
        return self.spool['far']

    def run(self) -> int:
        """Run the runner in a process of its own until there is nothing left to do."""
        with open(os.devnull, 'wb') as nowhere:
            runner = Forked(
                'runner',
                *('-C', str(self.path), 'work', '--until-empty'),
                stdout=nowhere.fileno(),
                stderr=nowhere.fileno(),
            )
        return runner.wait(120)

    def out(self) -> list[Any]:
        return drain(self.spool['out'])

    def close(self) -> None:
        for spool in self.spools:
            queue: Any = spool['far']
            queue.close()
        for name in self.queue.all_queues:
            self.queue.connection.delete_queue(name)
        self.queue.close()
