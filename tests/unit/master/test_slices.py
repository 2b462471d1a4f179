"""All slices of a master, without processes."""

from __future__ import annotations

import logging
import random
import selectors
from contextlib import closing
from pathlib import Path

import pytest

from switchboard.config.config import Config
from switchboard.master.slices import Slices
from switchboard.status.scoreboard import PAGE_BYTES, Scoreboard
from tests.helpers.processes import largest_file


def test_a_slice_whose_place_the_disk_does_not_free_is_gone_and_its_place_is_used_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / 'switchboard.cfg'
    path.write_text('[switchboard]\nspool = spool\n[runner.in]\nclass = null\nqueue = in\n')
    config = Config.load(path)
    with (
        closing(Scoreboard.create(tmp_path / 'scoreboard', 1)) as scoreboard,
        selectors.DefaultSelector() as selector,
    ):
        slices = Slices(
            config,
            scoreboard,
            selector,
            work=lambda _child: 0,
            foreign=list,
            others=list,
            rng=random.Random(1),
        )
        gone = slices.add(config.runners['in'], 1, 0)
        with caplog.at_level(logging.WARNING, 'switchboard.master'), largest_file(PAGE_BYTES):
            slices.remove(gone)
        assert [record.getMessage() for record in caplog.records] == [
            'scoreboard not cleared runner="in 1/1" error="[Errno 27] File too large"'
        ]
        assert list(slices) == []
        assert slices.add(config.runners['in'], 1, 0).index == gone.index
