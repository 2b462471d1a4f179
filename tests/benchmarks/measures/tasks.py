"""Celery over our transport and over others: tasks that do nothing, many at once, and one at a time to a worker that is idle.

The worker is Celery's own, with two processes and its default settings; its talk with other workers is switched off, for ours and the
directory of kombu have none.  Time runs from before ``delay()`` to the task's first line.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.cases import TINY, Effort
from tests.benchmarks.contenders.contender import ENTRANTS, Contender, Entrant
from tests.benchmarks.measures.transports import PEERS, side
from tests.benchmarks.pairs import ROOT, ContenderError, Figure, Turn, Worker, alternate, figure, workers
from tests.benchmarks.servers import ServerError

BURST = 'tasks that do nothing'
COUNT = 500
IDLE_TIMES = 100
# `kombu-fs` looks once a second: a few show it.
FEW = 10
# Between two samples, of two sides, the idle one goes to sleep.
PAUSE_S = (0.01, 0.03)
TASK_TIMEOUT_S = 60.0
# Less than whoever started us waits for our end.
STOP_TIMEOUT_S = 10.0
LOOK_S = 0.0005
_POOL = ('--pool', 'prefork', '--concurrency', '2', '--loglevel', 'ERROR')
_QUIET = ('--without-gossip', '--without-mingle', '--without-heartbeat')
_CELERY: dict[str, object] = {'tasks': 'yes'}


class Tasks(Contender):
    """An application, and a worker of it: putting is sending a task, and a message is taken when its task has begun.

    :param entrant: whose broker it uses.
    """

    def __init__(self, directory: Path, entrant: Entrant) -> None:
        super().__init__(directory)
        module, _, name = entrant.home.partition(':')
        broker = getattr(importlib.import_module(f'tests.benchmarks.contenders.{module}'), name)
        url, transport_options = broker.address(directory, **entrant.options)
        self._path = directory / 'stamps'
        self._path.touch()
        self._taken = 0
        os.environ.update(
            BENCH_BROKER=url,
            BENCH_TRANSPORT_OPTIONS=json.dumps(transport_options),
            BENCH_STAMPS=str(self._path),
        )
        from tests.benchmarks import shop

        self._send: Callable[[], object] = shop.nothing.delay
        self._stamp_bytes = shop.STAMP_BYTES
        self._stamps = self._path.open('rb')
        self._worker = subprocess.Popen(
            [sys.executable, '-m', 'celery', '-A', shop.__name__, 'worker', *_POOL, *_QUIET],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            self.put('', None)
            self.take('')  # it is there
        except BaseException:
            self.close()
            raise

    def put(self, queue: str, msg: Any) -> None:
        self._send()

    def take(self, queue: str) -> int:
        """:return: when the next task began, in nanoseconds of the clock that all processes share."""
        ends_s = time.monotonic() + TASK_TIMEOUT_S
        while len(stamp := self._stamps.read(self._stamp_bytes)) < self._stamp_bytes:
            self._stamps.seek(self._taken * self._stamp_bytes)
            if time.monotonic() > ends_s or self._worker.poll() is not None:
                raise TimeoutError(f'task {self._taken + 1} has not begun')
            time.sleep(LOOK_S)  # a watch would cost what is measured
        self._taken += 1
        return int.from_bytes(stamp, 'little')

    def idle(self) -> float:
        """:return: the seconds from before a task is sent to its beginning."""
        begun_ns = time.monotonic_ns()
        self.put('', None)
        return (self.take('') - begun_ns) / 1e9

    def close(self) -> None:
        self._stamps.close()
        self._worker.terminate()
        try:
            self._worker.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()


def run(place: Path, effort: Effort, tell: Callable[[str], None], facts: dict[str, Any]) -> Iterator[Figure]:
    """Let us meet each broker with many tasks at once.

    :param facts: is given, for each pair, how long a task takes that is sent to an idle worker.
    """
    count, times = (2, 2) if effort is TINY else (COUNT, IDLE_TIMES)
    for peer in filter(effort.has, PEERS):
        tell(f'{ENTRANTS[peer].title}: as a broker of Celery')
        try:
            with workers(place, (side(peer), _CELERY), (peer, _CELERY)) as pair:
                facts[peer] = _idle(pair, min(times, FEW) if peer == 'kombu-fs' else times)
                turns = [_turn(worker, count) for worker in pair]
                rounds = alternate(place, turns, effort.pairs)
            yield figure(BURST, side(peer), peer, rounds, count=count)
        except (ContenderError, ServerError) as error:
            tell(f'left out: {error}')


def _turn(worker: Worker, count: int) -> Callable[[], Turn]:
    return lambda: worker.turn('fill', 'small', count, 0)


def _idle(pair: list[Worker], times: int) -> dict[str, Any]:
    """Send single tasks to both in turns.

    :return: percentiles in microseconds by name.
    """
    from tests.benchmarks.measures.wakeup import percentiles

    rng = random.Random(1)
    waits_us: dict[str, list[float]] = {worker.entrant.name: [] for worker in pair}
    for _ in range(times):
        for worker in pair:
            time.sleep(rng.uniform(*PAUSE_S))  # a worker is to be idle, and for any time
            waits_us[worker.entrant.name].append(worker.turn('idle', '-', 1, 0)[0] * 1e6)
    return {name: percentiles(waits) for name, waits in waits_us.items()}
