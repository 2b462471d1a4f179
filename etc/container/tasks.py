"""Celery, with the same spool as its broker."""

from __future__ import annotations

from celery import Celery

app = Celery('tasks', broker='switchboard:///var/spool/switchboard', backend=None)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_ignore_result=True)


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y
