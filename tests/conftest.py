"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from switchboard.claims import HELD


@pytest.fixture(autouse=True)
def _claims_end_with_their_test() -> Iterator[None]:
    """A claim lasts as long as its process, and all tests are one process: let go of what a test did not finish."""
    before = set(HELD)
    yield
    for key in HELD.keys() - before:
        try:
            os.close(HELD.pop(key).fd)
        except OSError:
            pass  # a disk that fails has closed it already
