"""Celery at work, with a directory for a broker: a worker of two processes, and all that its users do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil
import pytest

pytest.importorskip('celery')

from celery import VERSION, chord, group
from celery.events import EventReceiver

from switchboard import Spool
from switchboard.extra.kombu import content
from switchboard.message.naming import parse_filebase
from tests.helpers.waiting import eventually
from tests.kombu.workers import Shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings('default')]


@pytest.fixture(scope='module')
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp('shop'))
    yield shop
    shop.close()


@pytest.fixture(scope='module')
def tasks(shop):
    return shop.tasks()


@pytest.fixture(scope='module')
def worker(shop, tasks):
    return shop.worker()


@pytest.fixture
def own_shop(tmp_path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def test_tasks_are_run_and_give_results(tasks, worker):
    results = group(tasks.add.s(n, n) for n in range(20)).apply_async()
    assert results.get(timeout=90) == [2 * n for n in range(20)]


def test_a_chord_waits_for_all_of_its_tasks(tasks, worker):
    assert chord(tasks.add.s(n, n) for n in range(5))(tasks.total.s()).get(timeout=90) == 20


@pytest.mark.figures
def test_a_retry_comes_in_its_time(shop, tasks, worker):
    started = time.monotonic()
    tasks.later.delay(1).get(timeout=90)
    assert 1 <= time.monotonic() - started < 10
    assert [line[2] for line in shop.lines() if line[1] == 'try'] == ['0', '1']


def test_an_idle_worker_takes_a_task_at_once(tasks, worker):
    def seconds() -> float:
        started = time.perf_counter()
        result = tasks.add.delay(1, 1)
        eventually(result.ready, 'done', every=0.001)
        return time.perf_counter() - started

    tasks.add.delay(1, 1).get(timeout=90)
    # And not the second that kombu's loop sleeps, which none of them would be quicker than, however busy the machine is.
    assert min(seconds() for _ in range(20)) < 0.7


def test_workers_answer_and_their_answers_queues_do_not_stay(shop, tasks, worker):
    with tasks.app.connection_for_write() as connection:
        inspect = tasks.app.control.inspect(timeout=60, limit=1, connection=connection)
        assert inspect.ping() == {worker.name: {'ok': 'pong'}}
        assert worker.name in inspect.stats()
    eventually(
        lambda: not [name for name in shop.files('.run/declared') if 'reply' in name],
        'without queues for replies',
        within_s=90,
    )
    assert f'{worker.name}.celery.pidbox' in shop.files('.run/declared')


def test_events_are_heard(tasks, worker):
    heard: list[str] = []
    wanted = {'task-received', 'task-started', 'task-succeeded'}
    listening = threading.Event()

    def capture() -> None:
        with tasks.app.connection_for_read() as connection:
            receiver = EventReceiver(connection, app=tasks.app)

            def hear(event: dict[str, object]) -> None:
                heard.append(str(event['type']))
                listening.set()  # by the first heartbeat, which it has asked for
                receiver.should_stop = wanted <= set(heard)  # they may come in another order

            receiver.handlers = {'*': hear}
            receiver.capture(limit=None, timeout=60, wakeup=True)

    thread = threading.Thread(target=capture, daemon=True)
    thread.start()
    assert listening.wait(60)
    tasks.add.delay(1, 2).get(timeout=60)
    thread.join(90)
    assert wanted <= set(heard)


def test_periodic_tasks_are_sent_and_run(shop, worker):
    with shop.beat():
        eventually(
            lambda: [line[1:3] for line in shop.lines()].count(['end', 'tick']) >= 2,
            worker.showing('ticking'),
            within_s=90,
        )


def test_priorities(own_shop):
    tasks = own_shop.tasks()
    for name in range(6):
        tasks.work.apply_async((name,), priority=0)
    tasks.work.apply_async(('urgent',), priority=9)
    own_shop.worker('--concurrency', '1', '--prefetch-multiplier', '1')
    eventually(
        lambda: len([line for line in own_shop.lines() if line[1] == 'end']) == 7, 'all done', within_s=90
    )
    assert [line[2] for line in own_shop.lines() if line[1] == 'start'] == ['urgent', *'012345']


def test_a_retry_in_hours_outlives_its_worker(own_shop):
    tasks = own_shop.tasks()
    first = own_shop.worker()
    tasks.later.delay(7200)
    inspect = tasks.app.control.inspect(timeout=5, limit=1)
    eventually(lambda: (inspect.scheduled() or {}).get(first.name), first.showing('scheduled'), within_s=90)
    eventually(
        lambda: len(own_shop.files('celery')) == 1, first.showing('acknowledged'), within_s=90
    )  # the first try is acknowledged
    first.kill()
    second = own_shop.worker(name='second')
    asked: dict[str, list[dict[str, str]]] = {}

    def is_scheduled() -> object:
        asked.update(inspect.scheduled() or {})
        return asked.get(second.name)

    eventually(is_scheduled, second.showing('scheduled'), within_s=90)
    [held] = asked[second.name]
    eta = datetime.fromisoformat(held['eta'])
    assert 7000 < (eta - datetime.now(UTC)).total_seconds() < 7200
    assert len([line for line in own_shop.lines() if line[1] == 'try']) == 1


def waits_s(shop: Shop) -> list[float]:
    """How long each message in the queue has to wait."""
    names = [
        parse_filebase(name.removesuffix('.pck')) for name in shop.files('celery') if name.endswith('.pck')
    ]
    return [name.when_ns / 1e9 - time.time() for name in names if name is not None]


def test_a_retry_in_hours_waits_in_the_spool_if_it_is_told_to(tmp_path):
    shop = Shop(tmp_path, eta='broker')
    try:
        tasks = shop.tasks()
        worker = shop.worker()
        tasks.later.delay(7200)
        eventually(
            lambda: [wait_s for wait_s in waits_s(shop) if wait_s > 60],
            worker.showing('waiting'),
            within_s=90,
        )
        assert [7000 < wait_s < 7200 for wait_s in waits_s(shop)] == [True]
        assert Spool(shop.spool)['celery'].files == []
    finally:
        shop.close()


def test_a_worker_that_is_told_to_shut_down_leaves_nothing_behind(own_shop):
    tasks = own_shop.tasks()
    worker = own_shop.worker()
    for name in range(30):
        tasks.work.delay(name, 0.05)
    eventually(lambda: len(own_shop.lines()) > 4, worker.showing('at work'), within_s=90)
    tasks.app.control.shutdown()
    assert worker.process.wait(60) == 0
    tasks.app.pool.force_close_all()
    done = {line[2] for line in own_shop.lines() if line[1] == 'end'}
    started = [line[2] for line in own_shop.lines() if line[1] == 'start']
    assert sorted(started) == sorted(done)
    assert all(name.endswith('.pck') for name in own_shop.files('celery'))
    queue = Spool(own_shop.spool)['celery']
    waiting = {str(content.read(queue.dequeue(filebase)[0])[0][0]) for filebase in queue.files}
    assert done | waiting == {str(name) for name in range(30)}
    # A task that Celery has handed to a process of its pool, and that has not been begun when it stops, it forgets: the process runs the task, waits half a
    # minute for its word to be taken, and nobody acknowledges.  With every broker; that is one task for each process of the pool at most.
    assert len(done & waiting) <= 2
    assert [name for name in own_shop.files('.run/declared') if 'pidbox' in name] == []
    assert own_shop.files('.run/consumers/celery') == own_shop.files('bad') == []


def test_a_task_that_a_worker_forgets_when_it_stops_is_run_by_the_next_one(own_shop):
    tasks = own_shop.tasks()
    worker = own_shop.worker()
    tasks.work.delay('before')
    eventually(
        lambda: ['end', 'before'] in [line[1:] for line in own_shop.lines()],
        worker.showing('done'),
        within_s=90,
    )
    pool = worker.pool()
    for process in pool:
        process.suspend()  # as a busy machine does
    tasks.work.delay('forgotten')
    eventually(lambda: worker.output.count(' received') == 2, worker.showing('received'), within_s=90)
    assert tasks.app.control.inspect(timeout=60, limit=1).ping()  # by now it is handed over
    threads = psutil.Process(worker.process.pid).num_threads()
    worker.process.terminate()
    eventually(
        # Celery before 5.6 has no thread for that: there the consumers leave first.
        lambda: (
            psutil.Process(worker.process.pid).num_threads() > threads
            if VERSION[:2] >= (5, 6)
            else own_shop.files('.run/consumers/celery') == []
        ),
        worker.showing('waiting for its pool'),
        within_s=90,
    )
    for process in pool:
        process.resume()
    assert worker.process.wait(120) == 0
    second = own_shop.worker(name='second')
    eventually(lambda: not own_shop.files('celery'), second.showing('all done'), within_s=90)
    once = [['start', 'forgotten'], ['end', 'forgotten']]
    # Celery before 5.6 may wait for its pool before it forgets.
    assert [line[1:3] for line in own_shop.lines()][2:] in (
        [once * 2] if VERSION[:2] >= (5, 6) else [once, once * 2]
    )
    assert own_shop.files('bad') == []
