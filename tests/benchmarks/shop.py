"""A Celery application whose only task notes when it is run: eight bytes at the end of a file.

Loaded by the worker and by whoever sends tasks (`tasks.Tasks`), which find all that they need in their environment.
"""

from __future__ import annotations

import json
import os
import time

from celery import Celery

STAMP_BYTES = 8

app = Celery('shop', broker=os.environ['BENCH_BROKER'])
app.conf.update(
    broker_transport_options=json.loads(os.environ['BENCH_TRANSPORT_OPTIONS']),
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
)
# Shared by all processes of the pool: each write goes to the end, and is one.
_stamps = os.open(os.environ['BENCH_STAMPS'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.task
def nothing() -> None:
    """Do nothing, and say when."""
    os.write(_stamps, time.monotonic_ns().to_bytes(STAMP_BYTES, 'little'))
