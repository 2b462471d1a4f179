"""What runners may import."""

from __future__ import annotations

import pytest

from switchboard.runner import api


@pytest.mark.parametrize('name', api.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(api, name) is not None


def test_nothing_else_is() -> None:
    with pytest.raises(AttributeError):
        api.nothing  # noqa: B018 - to ask for it is the test
