"""What the fault tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MEMORY


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards, in memory if there is such a place.

    The tests make tens of thousands of files, and what they ask does not depend on the disk.
    """
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix='switchboard-', dir=place, ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)
