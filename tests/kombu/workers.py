"""Real Celery workers: started, asked, killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from tests.helpers.waiting import eventually
from tests.kombu.suites import ROOT

READY_TIMEOUT_S = 120.0


class Shop:
    """The application of the tests, with a spool, results and a log of its own.

    :param options: of the broker's URL.
    """

    def __init__(self, path: Path, **options: object) -> None:
        self.path = path
        self.spool = path / 'spool'
        self.log = path / 'log'
        for directory in (self.spool, path / 'results'):
            directory.mkdir()
        query = '&'.join(f'{key}={value}' for key, value in {'durability': 'lazy', **options}.items())
        self.environment = {
            'SHOP_BROKER': f'switchboard://{self.spool}?{query}',
            'SHOP_RESULTS': f'file://{path}/results',
            'SHOP_LOG': str(self.log),
        }
        self.workers: list[Worker] = []

    def tasks(self) -> ModuleType:
        """:return: the module of the application, in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            sys.modules.pop('tests.kombu.shop', None)
            import tests.kombu.shop as shop
        return shop

    def worker(self, *arguments: str, name: str = 'w') -> Worker:
        """Start a worker, and wait until it is ready."""
        worker = Worker(self, name, arguments)
        self.workers.append(worker)
        worker.wait_until_ready()
        return worker

    @contextmanager
    def beat(self) -> Iterator[None]:
        """Run what sends periodic tasks."""
        schedule = str(self.path / 'beat')
        process = subprocess.Popen(
            [sys.executable, '-m', 'celery', '-A', 'tests.kombu.shop', 'beat', '--schedule', schedule],
            cwd=ROOT,
            env={**os.environ, **self.environment, 'PYTHONPATH': str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(60) == 0

    def lines(self) -> list[list[str]]:
        """:return: what the tasks have written so far, in words."""
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def files(self, name: str) -> list[str]:
        """:return: what lies in a directory of the spool."""
        path = self.spool / name
        return sorted(os.listdir(path)) if path.exists() else []

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.kill()


class Worker:
    """One worker with its pool of processes."""

    def __init__(self, shop: Shop, name: str, arguments: tuple[str, ...]) -> None:
        self.name = f'{name}@test'
        self._shop = shop
        self._output = (shop.path / f'worker-{name}-{len(shop.workers)}.log').open('wb')
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'celery', '-A', 'tests.kombu.shop', 'worker', '--pool', 'prefork',
             '--concurrency', '2', '--hostname', self.name, '--loglevel', 'INFO', *arguments],
            cwd=ROOT,
            env={**os.environ, **shop.environment, 'PYTHONPATH': str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._pool: list[psutil.Process] = []

    @property
    def output(self) -> str:
        """What it has said."""
        return Path(self._output.name).read_text(errors='replace')

    def showing(self, what: str) -> Callable[[], str]:
        """:return: what is waited for, and what it has said by the time that nobody waits any more."""
        return lambda: f'{what}: {self.output[-3000:]}'

    def wait_until_ready(self) -> None:
        """Wait until it takes tasks."""
        eventually(
            lambda: ' ready.' in self.output or self.process.poll() is not None,
            self.showing('ready'),
            within_s=READY_TIMEOUT_S,
        )
        assert self.process.poll() is None, self.output[-3000:]

    def pool(self) -> list[psutil.Process]:
        """:return: the processes that run its tasks."""
        try:
            self._pool = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            pass
        return self._pool

    def kill(self) -> None:
        """Kill it, and, once it is dead, what is left of its pool."""
        pool = self.pool()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        _, alive = psutil.wait_procs(pool, timeout=5)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=5)
        self._output.close()
