"""What every test of the log gives back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.logs import own_log


@pytest.fixture(autouse=True)
def _logs_go_where_they_went() -> Iterator[None]:
    with own_log():
        yield
