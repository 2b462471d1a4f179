"""What is done again and again ends where it began: as many descriptors, and about as much memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.loops import LOOPS, MIB, Loop, balance

# Caches that fill up slowly, and pages that the allocator keeps.
LEEWAY_BYTES = 8 * MIB


@pytest.mark.slow
@pytest.mark.parametrize('loop', LOOPS, ids=str)
def test_as_many_rounds_again_hold_no_more(loop: Loop, tmp_path: Path) -> None:
    found = balance(loop, tmp_path)
    assert found.descriptors[1] <= found.descriptors[0]
    assert found.memory_bytes[1] <= found.memory_bytes[0] + LEEWAY_BYTES
