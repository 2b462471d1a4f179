"""Lines that repeat from round to round: told once, again after a day, and again when they had stopped."""

from __future__ import annotations

import logging

from switchboard.status.repeats import AGAIN_AFTER_S, MAX_KNOWN, RepeatFilter


def told(repeats: RepeatFilter, *texts: str, level: int = logging.WARNING) -> list[str]:
    records = [logging.LogRecord('switchboard.queue', level, '', 0, text, None, None) for text in texts]
    return [record.getMessage() for record in records if repeats.filter(record)]


def test_a_line_is_told_once_and_again_after_a_day() -> None:
    first = RepeatFilter({}, 100)
    assert told(first, 'a', 'b') == ['a', 'b']
    second = RepeatFilter(first.noted, 160)
    assert told(second, 'a', 'b', 'c') == ['c']
    third = RepeatFilter(second.noted, 100 + AGAIN_AFTER_S)
    assert told(third, 'a', 'b', 'c') == ['a', 'b']
    assert told(RepeatFilter(third.noted, 160 + AGAIN_AFTER_S), 'a', 'b', 'c') == ['c']


def test_a_line_that_was_missing_for_a_round_is_news() -> None:
    first = RepeatFilter({}, 100)
    told(first, 'a')
    between = RepeatFilter(first.noted, 160)
    assert told(RepeatFilter(between.noted, 220), 'a') == ['a']


def test_what_is_no_trouble_is_told_each_time_and_not_noted() -> None:
    repeats = RepeatFilter({}, 0)
    assert told(repeats, 'a', 'a', level=logging.INFO) == ['a', 'a']
    assert repeats.noted == {}


def test_no_more_is_noted_than_an_answer_holds() -> None:
    repeats = RepeatFilter({}, 0)
    texts = [str(number) for number in range(MAX_KNOWN + 10)]
    assert told(repeats, *texts) == texts
    assert told(RepeatFilter(repeats.noted, 60), *texts) == texts[MAX_KNOWN:]
