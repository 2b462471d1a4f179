"""What was meant by a word that nobody knows."""

from __future__ import annotations

import pytest

from switchboard.suggestions import closest, did_you_mean, is_misspelled


@pytest.mark.parametrize('word', ['orders', 'order', 'ORDERS', 'Orders', 'oders', 'orderss'])
def test_a_word_with_a_slip_or_in_capitals_is_near_to_the_one_that_was_meant(word: str) -> None:
    assert did_you_mean(word, ['Orders', 'mails']) == '; did you mean Orders?'
    assert is_misspelled('Orders', ['mails', word])


def test_a_word_that_is_like_none_gets_no_suggestion() -> None:
    assert did_you_mean('xyz', ['orders', 'mails']) == did_you_mean('xyz', []) == ''
    assert not is_misspelled('orders', ['xyz'])
    assert closest('customer', ['cause'], 0.75) is None
