"""Spools for the tests of queues that programs declare."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.testing.clock import FakeClock


@pytest.fixture
def other(spool: Spool, tmp_path: Path, clock: FakeClock) -> Spool:
    """The same spool, as another process sees it."""
    return Spool(tmp_path / 'spool', durability='lazy', clock=clock)


@pytest.fixture
def configured(tmp_path: Path) -> Spool:
    (tmp_path / 'switchboard.cfg').write_text(
        '[switchboard]\nspool = spool\n\n[queue.in]\nexternal = yes\n\n[queue.t-*]\nttl = 7s\n'
    )
    return Spool.from_config(tmp_path / 'switchboard.cfg')
