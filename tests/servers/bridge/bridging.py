"""An installation with bridges, on a disk that may be filled, and a producer that writes down what was accepted."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from switchboard import Spool
from switchboard.errors import QueueError, ScoreboardError
from switchboard.status.scoreboard import ProcessState, Scoreboard, SliceRecord
from tests.acceptance.forked import Forked
from tests.acceptance.installation import ends
from tests.faults.harness.tmpfs import mounted
from tests.helpers.waiting import eventually

MASTER = """
[switchboard]
spool = {spool}
[master]
log_file = {home}/log
restart = 100ms..500ms
max_restarts = 1000
"""
# Between two messages of the producer.
PACE_S = 0.008
# Longer than a broker's start and the wait of a runner that has found it away.
PATIENCE_S = 150.0


class Site:
    """A spool with a master that can be killed.

    :param sections: of the configuration: runners and queues.
    """

    def __init__(self, home: Path, sections: str) -> None:
        self.home = home
        self.spool_directory = home / 'disk' / 'spool'
        self.config = home / 'switchboard.cfg'
        self.config.write_text(MASTER.format(home=home, spool=self.spool_directory) + sections)
        self.spool = Spool.from_config(self.config)
        for name in self.spool.queue_names():
            self.spool[name]
        self._master: Forked | None = None

    def start(self) -> None:
        """Start the master, and wait until its runners run."""
        with open(self.home / 'log', 'ab') as log:
            self._master = Forked('master', '-C', str(self.config), stdout=log.fileno(), stderr=log.fileno())
        eventually(self._runs, 'running')

    def _runs(self) -> bool:
        assert self._master is not None
        assert self._master.poll() is None, self.told()
        records = self.records()
        return bool(records) and all(record.state is ProcessState.RUNNING for record in records)

    def records(self) -> list[SliceRecord]:
        """:return: what the scoreboard says."""
        try:
            with contextlib.closing(
                Scoreboard.open(self.spool_directory / '.run' / 'master' / 'scoreboard')
            ) as scoreboard:
                return scoreboard.records()
        except ScoreboardError:
            return []

    def stop(self) -> int:
        """:return: the exit status of a master that was asked to stop."""
        assert self._master is not None
        self._master.terminate()
        status = self._master.wait(PATIENCE_S)
        self._master = None
        return status

    def kill(self) -> None:
        """``kill -9`` the master; its runners die with it."""
        assert self._master is not None
        pids = [record.pid for record in self.records() if record.pid]
        self._master.kill()
        self._master.wait()
        self._master = None
        for pid in pids:
            assert ends(pid)

    def kill_runners(self) -> None:
        """``kill -9`` of all runners; the master starts them again."""
        for record in self.records():
            if record.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, signal.SIGKILL)

    def reload(self) -> None:
        """Have the configuration read again."""
        assert self._master is not None
        self._master.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """End what is left."""
        if self._master is not None:
            self.kill()

    def says(self, text: str) -> bool:
        """:return: whether the log holds it."""
        return text in (self.home / 'log').read_text(errors='replace')

    def told(self) -> str:
        """:return: the end of the log."""
        return (self.home / 'log').read_text(errors='replace')[-5000:]

    def count(self, queue: str) -> int:
        """:return: how many entries a queue holds, in any state."""
        names = os.listdir(self.spool_directory / queue)
        return sum(name.endswith(('.pck', '.bak', '.psv')) for name in names)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for what nobody tells."""
        eventually(condition, lambda: f'{what}\n{self.told()}')

    def wait_for_more(self, queue: str, number: int) -> None:
        """Wait until a queue holds so many entries more than now."""
        wanted = self.count(queue) + number
        self.wait_for(lambda: self.count(queue) >= wanted, f'{number} more in {queue}')

    def take_all(self, name: str) -> Counter[str]:
        """:return: how often each message is in a queue, which is empty then."""
        queue = self.spool[name]
        found: Counter[str] = Counter()
        while (taken := queue.take()) is not None:
            found[taken.msg.split()[0]] += 1
            queue.finish(taken.filebase)
        return found


class Producer:
    """A thread that enqueues until it is told to stop."""

    def __init__(self, site: Site, queue: str) -> None:
        self.accepted: set[str] = set()
        self.refused = 0
        self._queue = Spool.from_config(site.config)[queue]
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        number = 0
        while not self._enough.wait(PACE_S):
            number += 1
            try:
                self._queue.enqueue(f'{number} {"x" * random.choice((0, 200, 2000))}', routing_key='a.b')
            except QueueError:
                self.refused += 1
            else:
                self.accepted.add(str(number))

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Return when nothing more is enqueued."""
        self._enough.set()
        self._thread.join()


@contextlib.contextmanager
def bridged(home: Path, sections: str) -> Iterator[tuple[Site, bool]]:
    """Make a site on a small disk, where one can be mounted.

    :return: the site, and whether its disk can be filled.
    """
    (home / 'disk').mkdir()
    with mounted(home / 'disk', '128m') as reason:
        site = Site(home, sections)
        try:
            yield site, not reason
        finally:
            site.close()


def fill_disk(site: Site) -> Path:
    """Take what is free, and what finished messages still hold.

    :return: the file to delete when there is to be room again.
    """
    site.spool.pool.free_space()
    ballast = site.home / 'disk' / 'ballast'
    with ballast.open('wb', buffering=0) as file:
        for size in (1 << 20, 4096):  # not at one go: others take some meanwhile
            with contextlib.suppress(OSError):
                while True:
                    file.write(b'x' * size)
    return ballast
