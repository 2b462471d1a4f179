"""Workers and the processes of their pools are killed under load: no task is lost, and none is run twice unless it was at work."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from dataclasses import dataclass

import psutil
import pytest

pytest.importorskip('celery')

from switchboard import Spool
from switchboard.extra.kombu import content
from switchboard.message.serializers import Serializers
from tests.helpers.waiting import eventually
from tests.kombu.workers import Shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings('default')]

TASKS = 400
TASK_S = 0.02
KILLS = 10


@pytest.fixture
def shop(tmp_path):
    # One death of a worker counts against all that it held, so the limit is above what this test does.
    shop = Shop(tmp_path, delivery_limit=50)
    yield shop
    shop.close()


def finished(shop: Shop) -> set[str]:
    return {line[2] for line in shop.lines() if line[1] == 'end'}


@dataclass(frozen=True)
class Kill:
    """A moment at which a process was killed, and the tasks that this may have run again."""

    at_s: float
    held: frozenset[str]


def stop(process: psutil.Process) -> None:
    """Let it do nothing more, and be there still."""
    process.suspend()
    eventually(lambda: process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE), 'stopped')


def held(shop: Shop) -> frozenset[str]:
    """:return: the tasks that the worker, which is stopped, has not acknowledged."""
    queue = Spool(shop.spool)['celery']
    return frozenset(
        str(content.read(queue.peek(filebase, '.bak').load(Serializers())[0])[0][0])
        for filebase in queue.get_files('.bak')
    )


def begun(shop: Shop, pid: int) -> list[str]:
    """:return: the task that a process of the pool has begun last."""
    return [line[2] for line in shop.lines() if line[1] == 'start' and int(line[3]) == pid][-1:]


def kill_one(shop: Shop, rng: random.Random, turn: int) -> Kill:
    """Kill the worker and start another one, or kill a process of its pool, which the worker replaces."""
    worker = shop.workers[-1]
    parent = psutil.Process(worker.process.pid)
    pool = worker.pool()
    stop(parent)
    if turn % 2 and pool:
        one = rng.choice(pool)
        try:
            stop(one)
            kill = Kill(time.time(), held(shop).intersection(begun(shop, one.pid)))
            one.kill()
        except psutil.NoSuchProcess:
            kill = Kill(time.time(), frozenset())  # it has just been replaced
        parent.resume()
        return kill
    kill = Kill(time.time(), held(shop))
    parent.kill()
    worker.process.wait(60)
    # Without their worker the processes of a pool end by themselves, when they are done with what they have.
    psutil.wait_procs(pool, timeout=60)
    shop.worker(name=f'w{turn}')
    return kill


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
    twice = {name: sorted(times) for name, times in starts.items() if len(times) > 1}
    assert twice
    for name, (_, *again) in twice.items():
        # Once, and once more for each kill that found it begun or held, and not acknowledged.
        kills_s = [kill.at_s for kill in kills if name in kill.held]
        assert len(again) <= len(kills_s), (name, starts[name], kills)
        assert all(kill_s < time_s for kill_s, time_s in zip(kills_s, again, strict=False)), (
            name,
            again,
            kills,
        )
