"""A spool lets go of queues that nobody uses: their number does not count, only how many are in use at once."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.operating.janitor import tidy
from switchboard.spool.spool import max_open_queues
from tests.helpers.descriptors import Opened
from tests.helpers.processes import in_child, in_new_program

OPTIONS = """
[switchboard]
spool = {spool}
[queue.*]
max_messages = 100
maildir = yes
accept_eml_files = yes
dead_letter = dead
[queue.dead]
dead_letter = bad
"""


@pytest.mark.usefixtures('no_collector')
@pytest.mark.parametrize('kind', ['plain', 'configured', 'declared'])
def test_the_number_of_queues_costs_no_descriptors(kind: str, tmp_path: Path) -> None:
    names = [f'q{number}' for number in range(3 * max_open_queues())]
    if kind == 'configured':
        config = tmp_path / 'switchboard.cfg'
        sections = ''.join(f'[queue.{name}]\n' for name in names)
        config.write_text(OPTIONS.format(spool=tmp_path / 'spool') + sections)
        spool = Spool.from_config(str(config))
    else:
        spool = Spool(tmp_path / 'spool', 'lazy')
    opened = Opened()
    for name in names:
        if kind == 'declared':
            spool.declare(name)
        queue = spool[name]
        queue.enqueue('x')
        taken = queue.take()
        assert taken is not None
        queue.finish(taken.filebase, preserve=True)
    del queue
    # Both generations, a directory each, and what all of them share.
    assert len(opened()) <= 2 * max_open_queues() + 20


def test_one_that_is_used_stays_the_same_object(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy')
    used = spool['used']
    for number in range(5 * max_open_queues()):
        spool[f'q{number}']
        assert spool['used'] is used


def test_what_somebody_holds_is_held_though_its_queue_was_let_go_of(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy')
    spool['used'].enqueue('x')
    taken = spool['used'].take()
    for number in range(3 * max_open_queues()):
        spool[f'q{number}']
    assert spool['used'].recover(include_own=False) == []
    spool['used'].finish(taken.filebase)
    assert spool['used'].get_files('.bak') == []


def tidy_with_few_files(limit: int, spool: Path) -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return tidy(Spool(spool, 'lazy')).recovered


@pytest.mark.parametrize('limit', [64, 256])
def test_the_janitor_works_where_few_files_may_be_open(limit: int, tmp_path: Path) -> None:
    names = [f'q{number}' for number in range(2 * limit)]
    spool = Spool(tmp_path / 'spool', 'lazy')

    def leave() -> None:
        for name in names:
            spool[name].enqueue('x')
            spool[name].take()

    in_child(leave)

    assert in_new_program(tidy_with_few_files, limit, tmp_path / 'spool') == len(names)


def test_answers_to_many_short_lived_clients_pin_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy')
    spool.declare('first', owner=spool.declared.new_owner())
    opened = Opened()
    for number in range(3 * max_open_queues()):
        owner = spool.declared.new_owner()
        spool.declare(f'reply{number}', owner=owner)
        spool[f'reply{number}'].enqueue('answer')
        spool.delete(f'reply{number}')
        owner.close()
    assert len(opened()) <= 20


def test_asking_for_a_queue_reads_no_directory(tmp_path: Path) -> None:
    from switchboard.store.disk import Disk

    class NoListing(Disk):
        def scandir(self, path: object) -> None:
            raise AssertionError(path)

    Spool(tmp_path / 'spool')['there']
    spool = Spool(tmp_path / 'spool', disk=NoListing())
    assert 'there' in spool
    assert 'elsewhere' not in spool
    assert '../etc' not in spool
    assert 3 not in spool
