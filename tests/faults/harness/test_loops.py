"""What is done again and again ends where it began: as many descriptors, and about as much memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness.loops import LOOPS, MIB, Balance, Loop
from tests.plugins.aside import Aside

# Caches that fill up slowly, and pages that the allocator keeps.
LEEWAY_BYTES = 8 * MIB


@pytest.fixture(scope='module')
def balanced() -> Iterator[Aside]:
    with Aside('tests.faults.harness.loops:balance_apart') as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize('loop', LOOPS, ids=str)
def test_as_many_rounds_again_hold_no_more(loop: Loop, tmp_path: Path, balanced: Aside) -> None:
    found = Balance(*balanced(str(loop), str(tmp_path)))
    assert found.descriptors[1] <= found.descriptors[0]
    assert found.memory_bytes[1] <= found.memory_bytes[0] + LEEWAY_BYTES
