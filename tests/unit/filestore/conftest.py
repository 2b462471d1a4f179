"""A file store for the tests of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard.filestore import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    made = FileStore(str(tmp_path / 'store'))
    made.prepare()
    return made
