"""Fixtures of the tests with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.installation import Installation, installation


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Installation]:
    """An installation that is not configured yet; nothing of it is left afterwards."""
    with installation(tmp_path) as made:
        yield made
