"""Waiting ends when the condition holds, and says what was waited for when it does not."""

from __future__ import annotations

import pytest

from tests.helpers.waiting import eventually


def test_the_first_true_value_is_what_was_waited_for() -> None:
    values = iter([None, '', 'there', 'later'])
    assert eventually(lambda: next(values), 'there', every=0.0) == 'there'


@pytest.mark.parametrize('what', ['all there', lambda: 'all there'])
def test_what_does_not_come_is_named(what: str) -> None:
    with pytest.raises(AssertionError, match='still not all there'):
        eventually(lambda: False, what, every=0.0, within_s=0.0)
