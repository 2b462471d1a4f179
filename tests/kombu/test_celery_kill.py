"""Workers and the processes of their pools are killed under load: no task is lost, and none is run twice unless it was at work."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import defaultdict

import psutil
import pytest

pytest.importorskip('celery')

from tests.helpers.waiting import eventually
from tests.kombu.workers import Shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings('default')]

TASKS = 400
TASK_S = 0.02
KILLS = 10
# A task is at work from when the worker hands it to its pool until the worker has acknowledged it: a little longer than it runs.
HANDED_S = 0.25


@pytest.fixture
def shop(tmp_path):
    # One death of a worker counts against all that it held, so the limit is above what this test does.
    shop = Shop(tmp_path, delivery_limit=50)
    yield shop
    shop.close()


def finished(shop: Shop) -> set[str]:
    return {line[2] for line in shop.lines() if line[1] == 'end'}


def kill_one(shop: Shop, rng: random.Random, turn: int) -> float:
    """Kill the worker and start another one, or kill a process of its pool, which the worker replaces.

    :return: when, in seconds since the epoch.
    """
    worker = shop.workers[-1]
    pool = worker.pool()
    if turn % 2 and pool:
        try:
            rng.choice(pool).kill()
        except psutil.NoSuchProcess:
            pass  # it has just been replaced
        return time.time()
    os.kill(worker.process.pid, signal.SIGKILL)
    killed_s = time.time()
    worker.process.wait(60)
    # Without their worker the processes of a pool end by themselves, when they are done with what they have.
    psutil.wait_procs(pool, timeout=60)
    shop.worker(name=f'w{turn}')
    return killed_s


def at_work(shop: Shop, name: str, start_s: float) -> float:
    """:return: until when the run of a task that began at `start_s` was at work: for ever, if it never ended."""
    ends = [
        float(line[0]) for line in shop.lines() if line[1:3] == ['end', name] and float(line[0]) >= start_s
    ]
    return min(ends, default=float('inf'))


def test_no_task_is_lost_and_none_is_run_twice_unless_it_was_at_work(shop):
    rng = random.Random(20261122)
    tasks = shop.tasks()
    shop.worker()
    for number in range(TASKS):
        tasks.work.delay(number, TASK_S)
    kills = []
    for turn in range(KILLS):
        enough = min(TASKS, len(finished(shop)) + rng.randint(5, 25))
        eventually(
            lambda enough=enough: len(finished(shop)) >= enough,
            shop.workers[-1].showing(f'{enough} finished'),
            within_s=180,
        )
        kills.append(kill_one(shop, rng, turn))
    eventually(lambda: len(finished(shop)) == TASKS, shop.workers[-1].showing('all done'), within_s=300)
    eventually(lambda: not shop.files('celery'), shop.workers[-1].showing('empty'), within_s=120)
    assert finished(shop) == {str(number) for number in range(TASKS)}
    assert shop.files('bad') == []
    starts = defaultdict(list)
    for when, what, name, *_ in shop.lines():
        if what == 'start':
            starts[name].append(float(when))
    twice = [(name, times) for name, times in starts.items() if len(times) > 1]
    assert twice
    for name, times in twice:
        for first, again in itertools.pairwise(sorted(times)):
            until = at_work(shop, name, first)
            assert any(first - HANDED_S < kill < min(again, until + HANDED_S) for kill in kills), (
                name,
                times,
                until,
                kills,
            )
