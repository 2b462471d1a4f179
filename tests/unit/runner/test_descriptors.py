"""A runner that is let go of gives its descriptors back at once, and not when garbage is collected: a program may make thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard import AsyncRunner, Runner, Spool
from switchboard.options import RunnerOptions
from tests.helpers.descriptors import Opened


class Plain(Runner):
    def dispose(self, msg, msgdata):
        if msg == 'bad':
            raise ValueError(msg)


class Coroutine(AsyncRunner):
    async def dispose(self, msg, msgdata):
        if msg == 'bad':
            raise ValueError(msg)


@pytest.mark.usefixtures('no_collector')
@pytest.mark.parametrize('kind', [Plain, Coroutine])
def test_a_runner_that_is_let_go_of_keeps_no_descriptor(kind: type[Runner], tmp_path: Path) -> None:
    spool = Spool(tmp_path, 'lazy')
    options = RunnerOptions('r', 'tests:None', queue='in')

    def run() -> None:
        for msg in ('good', 'bad', 'good'):
            spool['in'].enqueue(msg)
        kind(spool, options).run(until_empty=True)

    opened = Opened()
    for _ in range(2):
        run()
    kept = len(opened())
    for _ in range(5):
        run()
        assert len(opened()) == kept
