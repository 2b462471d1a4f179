"""Keys with places to be filled in, where the names are given.  The rest is tested with the route runner."""

from __future__ import annotations

import pytest

from switchboard.runner.api import Template

NAMES = ('user', 'detail')


def test_of_given_names_one_may_be_empty() -> None:
    assert Template('{user}.{detail}.x', NAMES).fill(None, {'user': 'ann', 'detail': ''}) == 'ann..x'


@pytest.mark.parametrize('text', ['{other}', '{header:Subject}', '{local:user}', '{user', '{}'])
def test_another_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'\{'):
        Template(text, NAMES)
