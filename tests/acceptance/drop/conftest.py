"""What the tests of the mail servers' door share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.drop.dropping import Door


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """A door into a spool below the test's directory."""
    return Door(tmp_path)
