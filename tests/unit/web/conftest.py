from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('starlette')

from tests.unit.web.desks import Browser, browser


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as made:
        yield made
