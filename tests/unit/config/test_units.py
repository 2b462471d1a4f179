from __future__ import annotations

import re

import pytest

from switchboard.config.units import (
    boolean,
    choice,
    duration_s,
    file_mode,
    integer,
    optional,
    rate_per_s,
    retry_policy,
    size_bytes,
    word_list,
)
from switchboard.options import RetryPolicy


@pytest.mark.parametrize(
    ('text', 'seconds'),
    [
        ('250ms', 0.25),
        ('5s', 5),
        ('15m', 900),
        ('1h30m', 5400),
        ('1.5h', 5400),
        ('1d2h3m4s5ms', 93784.005),
        ('2w', 1209600),
        ('0', 0),
        ('0s', 0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    'text', ['', 's', '5', '-5s', '5 s', '5x', '30m1h', '5s5s', '1e3s', '٣s', '5s,', 'none', '1.s']
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='is not a duration'):
        duration_s(text)


def test_a_number_without_a_unit_is_answered_with_a_proposal() -> None:
    with pytest.raises(ValueError, match=re.escape('did you mean 90s?')):
        duration_s('90')


def test_a_duration_beyond_ten_years_is_refused() -> None:
    assert duration_s('3650d') == 3650 * 86400
    with pytest.raises(ValueError, match='longer than ten years'):
        duration_s('3651d')
    with pytest.raises(ValueError, match='longer than ten years'):
        duration_s('999999999999999w')


@pytest.mark.parametrize(
    ('text', 'size'),
    [
        ('0', 0),
        ('1000', 1000),
        ('512K', 512 << 10),
        ('10M', 10 << 20),
        ('1G', 1 << 30),
        ('1.5k', 1536),
        ('2TiB', 2 << 40),
        ('3 MB', 3 << 20),
        ('7b', 7),
    ],
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize('text', ['', 'M', '-1', '1P', '10 M B', '1e6', '1,5M', 'none'])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='is not a size'):
        size_bytes(text)


def test_a_size_beyond_any_file_is_refused() -> None:
    with pytest.raises(ValueError, match='larger than any file'):
        size_bytes('99999999999T')


def test_a_rate_is_read_in_messages_a_second() -> None:
    assert [rate_per_s(text) for text in ('10/s', '600 / m', '1.5/s', '36/h')] == [10, 10, 1.5, 0.01]
    for text in ('', '10', '10/x', '/s', '-1/s', '10/5s'):
        with pytest.raises(ValueError, match='is not a rate'):
            rate_per_s(text)
    with pytest.raises(ValueError, match='would stop the queue'):
        rate_per_s('0/s')


@pytest.mark.parametrize('text', ['yes', 'true', 'on', 'Yes', 'TRUE'])
def test_a_true_boolean_is_read(text: str) -> None:
    assert boolean(text) is True


@pytest.mark.parametrize('text', ['no', 'false', 'off', 'No'])
def test_a_false_boolean_is_read(text: str) -> None:
    assert boolean(text) is False


@pytest.mark.parametrize('text', ['', '1', '0', 'y', 'enabled'])
def test_what_is_neither_yes_nor_no_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='neither yes nor no'):
        boolean(text)


def test_an_integer_keeps_its_bounds() -> None:
    assert integer(1, 3)('3') == 3
    assert integer(0)('999') == 999
    for text, reason in (
        ('0', 'from 1 to 3'),
        ('4', 'from 1 to 3'),
        ('x', 'whole number'),
        ('1.0', 'whole number'),
    ):
        with pytest.raises(ValueError, match=reason):
            integer(1, 3)(text)
    with pytest.raises(ValueError, match='at least 0'):
        integer(0)('-1')


def test_a_choice_is_one_of_its_words_in_any_case() -> None:
    assert choice('full', 'lazy')('Lazy') == 'lazy'
    with pytest.raises(ValueError, match='none of full, lazy'):
        choice('full', 'lazy')('fast')


def test_an_optional_value_may_be_none() -> None:
    assert optional(size_bytes)('none') is None
    assert optional(size_bytes)('1K') == 1024


def test_a_word_list_is_separated_by_commas_or_blanks() -> None:
    assert word_list('mail, bytes,text  json') == ('mail', 'bytes', 'text', 'json')
    assert word_list('none') == ()
    assert word_list('') == ()


def test_a_file_mode_is_octal() -> None:
    assert file_mode('007') == 0o007
    assert file_mode('0o27') == 0o027
    for text in ('8', '1000', '7777', '-1', ''):
        with pytest.raises(ValueError, match='octal'):
            file_mode(text)


@pytest.mark.parametrize(
    ('text', 'policy'),
    [
        ('5s..1h x2 jitter 10%', RetryPolicy(5, 3600, 2, 0.1)),
        ('1m..2h x1.5 jitter 0%', RetryPolicy(60, 7200, 1.5, 0)),
        ('5s..1h x3 jitter', RetryPolicy(5, 3600, 3, 0.1)),
        ('5s..1h jitter 50 %', RetryPolicy(5, 3600, 2, 0.5)),
        ('5s..1h', RetryPolicy(5, 3600, 2, 0.1)),
        ('30s', RetryPolicy(30, 30, 2, 0.1)),
    ],
)
def test_a_retry_policy_is_read_and_what_is_left_out_keeps_its_default(
    text: str, policy: RetryPolicy
) -> None:
    assert retry_policy(text) == policy


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'not a duration'),
        ('x2', 'not a duration'),
        ('5s..', 'not a retry policy'),
        ('5s..1s', 'shorter than the first'),
        ('5s..1h y2', 'not a retry policy'),
        ('5s..1h x2 x3', 'not a retry policy'),
        ('5s..1h x0.5', 'not a factor'),
        ('5s..1h x9999', 'not a factor'),
        ('5s..1h jitter 101%', 'not a share'),
        ('5s..1h jitter 10', 'not a share'),
        ('5s..1h jitter 10% x2', 'not a share'),
    ],
)
def test_what_is_no_retry_policy_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        retry_policy(text)


def test_a_megabyte_in_a_value_does_not_fill_the_message() -> None:
    for read in (duration_s, size_bytes, boolean, retry_policy, file_mode, integer(0), choice('a')):
        with pytest.raises(ValueError, match=r'not|neither|none') as caught:
            read('z' * (1 << 20))
        assert len(str(caught.value)) < 200
