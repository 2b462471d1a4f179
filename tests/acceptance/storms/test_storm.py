"""The storm in its short form: a few thousand messages, some dozens of deaths.  The long one is run by hand."""

from __future__ import annotations

import os

import pytest

from tests.acceptance.storms.storm import FULL_AFTER, storm

MESSAGES = 6_000
KILLS = 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_a_storm_every_accepted_message_arrives_once_or_is_in_bad_with_a_reason(seed: int) -> None:
    result = storm(MESSAGES, KILLS, size='96m', seed=seed)
    print(result)
    assert result.is_clean, result
    assert result.accepted >= MESSAGES
    assert result.kills >= KILLS
    assert result.renewed >= KILLS
    assert result.accepted <= result.at_the_end + result.in_bad <= result.accepted + result.unknown
    assert 'none' not in result.reasons
    if os.geteuid() == 0 and os.environ.get('CI'):
        assert result.disk_full_times == len(FULL_AFTER)
