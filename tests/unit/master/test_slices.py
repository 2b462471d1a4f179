"""All slices of a master, without processes."""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from switchboard.config.config import Config
from switchboard.master.slices import Slices
from switchboard.status.scoreboard import PAGE_BYTES, Scoreboard
from tests.helpers.processes import largest_file


@contextmanager
def a_place_for_one(directory: Path) -> Iterator[Slices]:
    path = directory / 'switchboard.cfg'
    path.write_text('[switchboard]\nspool = spool\n[runner.in]\nclass = null\nqueue = in\n')
    with (
        closing(Scoreboard.create(directory / 'scoreboard', 1)) as scoreboard,
        selectors.DefaultSelector() as selector,
    ):
        yield Slices(
            Config.load(path),
            scoreboard,
            selector,
            work=lambda _child: 0,
            own_descriptors=list,
            other_children=list,
        )


def test_a_slice_whose_place_the_disk_does_not_free_is_gone_and_its_place_is_used_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with a_place_for_one(tmp_path) as slices:
        options = slices.config.runners['in']
        gone = slices.add(options, 1, 0)
        with caplog.at_level(logging.WARNING, 'switchboard.master'), largest_file(PAGE_BYTES):
            slices.remove(gone)
        assert [record.getMessage() for record in caplog.records] == [
            'scoreboard not cleared runner="in 1/1" error="[Errno 27] File too large"'
        ]
        assert list(slices) == []
        assert slices.add(options, 1, 0).index == gone.index
        slices.tick(time.monotonic())
        assert [each.runner for each in slices.scoreboard.records()] == ['in']


def test_a_place_that_the_disk_did_not_free_is_freed_when_it_does(tmp_path: Path) -> None:
    with a_place_for_one(tmp_path) as slices:
        gone = slices.add(slices.config.runners['in'], 1, 0)
        with largest_file(PAGE_BYTES):
            slices.remove(gone)
            slices.tick(time.monotonic())
            assert len(slices.scoreboard.records()) == 1
        slices.tick(time.monotonic())
        assert slices.scoreboard.records() == []


def test_who_looks_while_a_place_is_freed_late_looks_again_and_an_idle_turn_writes_nothing(
    tmp_path: Path,
) -> None:
    with a_place_for_one(tmp_path) as slices:
        gone = slices.add(slices.config.runners['in'], 1, 0)
        with largest_file(PAGE_BYTES):
            slices.remove(gone)
        scoreboard, looks = slices.scoreboard, []

        def look() -> int:
            looks.append(len(scoreboard.records_unchecked()))
            slices.tick(time.monotonic())
            return looks[-1]

        assert scoreboard.read_unchanged(look) == 0
        assert looks == [1, 0]
        before = scoreboard.path.read_bytes()
        slices.tick(time.monotonic())
        assert scoreboard.path.read_bytes() == before
