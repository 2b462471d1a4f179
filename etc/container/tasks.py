"""Celery with the volume as its broker; `python -c 'import tasks; tasks.add.delay(1, 2)'` in any of the containers calls it."""

from celery import Celery

app = Celery('tasks', broker='switchboard:///var/spool/switchboard')


@app.task
def add(first, second):
    """Add two numbers; the worker's log shows the sum."""
    return first + second
