"""A directory of a spool that is renamed away, removed or restored while programs work: they go on in the one that stands in its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import DurabilityError
from switchboard.testing import FakeClock

SECTIONS = """
[switchboard]
spool = {spool}
[queue.in]
max_messages = 1000
[queue.out]
strict_order = yes
"""
# Longer than anybody goes without looking.
A_MOMENT_S = 1.5

OWN = ['.spare', '.stage', 'bad', '.run/room', '.run/order', '.run/paused']
WAYS = ['renamed away and made', 'removed and made', 'removed']


class Program:
    """Works with one spool for as long as it lives; another one, begun anew each time, sees what it has done."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.config = path / 'switchboard.cfg'
        self.config.write_text(SECTIONS.format(spool=path / 'spool'))
        self.spool = self.another()
        self.number = 0

    def another(self) -> Spool:
        return Spool.from_config(str(self.config), clock=self.clock)

    def use(self) -> None:
        """Put in, hand on, publish to several, preserve, and obey what others say."""
        self.number += 1
        spool, body = self.spool, f'body {self.number}'
        spool['in'].enqueue(body)
        taken = self.spool['in'].take()
        assert taken is not None
        transaction = spool.transaction(spool['in'], taken.filebase)
        transaction.emit(spool['out'], taken.msg, {})
        try:
            transaction.commit()
        except DurabilityError:
            spool['in'].release(taken.filebase)
            while (taken := spool['in'].take()) is not None:
                spool['in'].finish(taken.filebase)
            raise
        taken = spool['out'].take()
        assert taken is not None
        assert taken.msg == body
        spool['out'].finish(taken.filebase, preserve=True)
        other = self.another()
        assert taken.filebase in other['bad'].get_files('.psv')
        other.pause('in', 'for a test')
        self.clock.advance(A_MOMENT_S)
        assert spool['in'].is_paused()
        other.resume('in')
        self.clock.advance(A_MOMENT_S)


def replace(path: Path, way: str) -> None:
    if way == 'renamed away and made':
        path.rename(path.with_name('old'))
    else:
        shutil.rmtree(path)
    if way != 'removed':
        path.mkdir()


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('place', [*OWN, 'in', 'out'])
def test_work_goes_on_in_its_place(place: str, way: str, tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.use()
    replace(tmp_path / 'spool' / place, way)
    program.clock.advance(A_MOMENT_S)
    if way == 'removed' and place in ('in', 'out'):
        program.another()[place]  # nobody but who begins anew makes a queue
    try:
        program.use()
    except DurabilityError:  # the first one may meet it
        program.clock.advance(A_MOMENT_S)
        program.use()
    program.use()


def test_a_spool_that_is_restored_as_a_whole_is_followed(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.use()
    whole = tmp_path / 'spool'
    shutil.copytree(whole, tmp_path / 'copy')
    shutil.rmtree(whole)
    (tmp_path / 'copy').rename(whole)
    program.clock.advance(A_MOMENT_S)
    for _ in range(3):
        try:
            program.use()
        except DurabilityError:
            program.clock.advance(A_MOMENT_S)
    program.use()


def test_what_is_finished_without_its_spares_is_finished_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 'lazy')
    spool['in'].enqueue('x')
    taken = spool['in'].take()
    assert taken is not None
    shutil.rmtree(spool.path('.spare'))
    spool['in'].finish(taken.filebase)
    assert os.listdir(spool.path('in')) == []


def test_a_claim_in_a_directory_that_was_removed_holds_nobody_up(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = Spool(tmp_path, 'lazy', clock=clock)
    spool['in'].enqueue('lost')
    assert spool['in'].take() is not None
    shutil.rmtree(spool.path('in'))
    Spool(tmp_path, 'lazy')['in'].enqueue('new')
    clock.advance(A_MOMENT_S)
    taken = spool['in'].take()
    assert taken is not None
    assert taken.msg == 'new'
