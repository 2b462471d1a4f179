"""A Celery application for the tests: what its tasks do is written into a file, line by line.

``SHOP_BROKER``, ``SHOP_RESULTS`` and ``SHOP_LOG`` say where it works.
"""

from __future__ import annotations

import os
import time

from celery import Celery

app = Celery('shop', broker=os.environ['SHOP_BROKER'], backend=os.environ['SHOP_RESULTS'])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=2,
    worker_send_task_events=True,
    task_send_sent_event=True,
    worker_hijack_root_logger=False,
    beat_schedule={'tick': {'task': 'tests.kombu.shop.work', 'schedule': 0.3, 'args': ('tick',)}},
)


def note(*words: object) -> None:
    """Write a line, in one call, so that lines of several processes do not mix."""
    line = ' '.join(map(str, (f'{time.time():.6f}', *words))) + '\n'
    fd = os.open(os.environ['SHOP_LOG'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def work(name: object, seconds: float = 0.0) -> None:
    note('start', name, os.getpid())
    time.sleep(seconds)  # a task that takes its time
    note('end', name)


@app.task(bind=True, max_retries=3)
def later(self, seconds: float) -> None:
    note('try', self.request.retries)
    if self.request.retries == 0:
        raise self.retry(countdown=seconds)
