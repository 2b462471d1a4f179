"""What was done side by side is told by process, and by chain."""

from __future__ import annotations

from types import SimpleNamespace

from tests.plugins.busy import Busy


def test_each_process_and_the_longest_chains_first_are_told() -> None:
    busy = Busy()
    for worker, nodeid, duration_s in (
        ('gw1', 'tests/a.py::test_it[x@y]', 2.0),
        ('gw0', 'tests/a.py::test_it@short', 3.0),
        ('gw0', 'tests/b.py::test_it[a]@long', 30.0),
        ('gw0', 'tests/b.py::test_it[b]@long', 30.0),
        ('gw1', 'tests/c.py::test_alone', 99.0),
        ('', 'tests/c.py::test_here', 99.0),
    ):
        busy.pytest_runtest_logreport(SimpleNamespace(worker_id=worker, nodeid=nodeid, duration=duration_s))
    first, second, chains = busy.lines()
    assert first.startswith('gw0: tests took 63 s')
    assert second.startswith('gw1: tests took 101 s')
    assert chains == 'longest chains: long 60 s, short 3 s'


def test_where_nothing_ran_side_by_side_nothing_is_told() -> None:
    assert Busy().lines() == []
