"""A message whose time is over is handed to nobody, wherever a process dies that sends it to the dead letters."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest

from switchboard.spool.spool import Spool
from switchboard.testing.clock import FakeClock
from switchboard.testing.faults import FaultyDisk, Killed

CONFIGURATION = """
[switchboard]
spool = spool
durability = lazy
[queue.dying]
dead_letter = out
[queue.fanned]
dead_letter = exchange:all
[queue.out]
[queue.left]
[queue.middle]
[queue.right]
"""
EXCHANGES = """
[exchange.all]
type = fanout
bindings =
    -> left
    -> middle
    -> right
"""


@pytest.mark.parametrize(('queue', 'targets'), [('dying', ['out']), ('fanned', ['left', 'middle', 'right'])])
def test_a_death_on_the_way_to_the_dead_letters_revives_nothing(
    tmp_path: Path, queue: str, targets: list[str]
) -> None:
    died = 0
    for number in itertools.count(1):
        home = tmp_path / str(number)
        home.mkdir()
        (home / 'switchboard.cfg').write_text(CONFIGURATION)
        (home / 'exchange.cfg').write_text(EXCHANGES)
        clock, disk = FakeClock(), FaultyDisk(kill='simulated')
        doomed = Spool.from_config(home / 'switchboard.cfg', disk=disk, clock=clock)
        doomed[queue].enqueue('too old', ttl=10)
        for target in targets:
            doomed.queue(target)
        clock.advance(11)
        disk.arm(number)
        with contextlib.suppress(Killed):
            assert doomed[queue].take() is None
        disk.end_process()
        spool = Spool.from_config(home / 'switchboard.cfg', clock=clock)
        spool.recover()
        spool[queue].recover_backup_files()
        assert spool[queue].take() is None, disk.failed_call
        assert spool[queue].get_files() == []
        for target in targets:
            taken = spool[target].take()
            assert taken is not None, disk.failed_call
            assert taken.msg == 'too old'
            assert 'expires' not in taken.msgdata
        assert spool['bad'].get_files('.psv') == []
        if not disk.failed_call:
            break
        died += 1
    assert died > 5
