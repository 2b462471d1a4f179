"""The notation of configuration values: durations, sizes, booleans, lists, and retry policies.

Each reader takes text and returns a value, or raises ``ValueError`` with a sentence for the operator; the caller adds the
file, the line and the key.  A number alone is no duration, because nobody remembers whether 90 meant seconds or minutes
two years later; it is a size, in bytes, because there is nothing else it could mean.

Rejected: a library for durations (it would bring months, ISO 8601 and a second grammar to explain).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from switchboard.options import RetryPolicy

T = TypeVar('T')

_SECONDS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0, 'w': 604800.0}
_PART = re.compile(r'(\d{1,15}(?:\.\d{1,9})?)(ms|[smhdw])', re.ASCII)
_BYTES = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
_SIZE = re.compile(r'(\d{1,19}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?', re.ASCII | re.IGNORECASE)
_RATE = re.compile(r'(\d{1,15}(?:\.\d{1,9})?)\s*/\s*([smhd])', re.ASCII)
_TRUTH = {'yes': True, 'true': True, 'on': True, 'no': False, 'false': False, 'off': False}

# A longer wait is a slip of the pen, and the ten digits of seconds in an entry's name must hold `now` plus the wait.
MAX_DURATION_S = 3650 * 86400.0
# The largest file that Linux can address; a larger size is a slip of the pen too.
MAX_SIZE_BYTES = 1 << 63
# A wait that grows a thousandfold each time is no policy.
MAX_FACTOR = 1000.0


def duration_s(text: str) -> float:
    """Read ``250ms``, ``5s``, ``15m``, ``1h30m``, ``2d``, ``1w`` or ``0``.

    >>> duration_s('1h30m')
    5400.0

    :raises ValueError: it is not of that form, or longer than ten years.
    """
    if text == '0':
        return 0.0
    total_s, end = 0.0, 0
    seen: list[float] = []
    for part in _PART.finditer(text):
        if part.start() != end or (seen and _SECONDS[part[2]] >= seen[-1]):
            break
        seen.append(_SECONDS[part[2]])
        total_s += float(part[1]) * seen[-1]
        end = part.end()
    if not seen or end != len(text):
        hint = f'; did you mean {text}s?' if text.isdecimal() and len(text) < 16 else ''
        raise ValueError(f'{_short(text)} is not a duration; write it like 250ms, 5s, 15m, 1h30m or 2d{hint}')
    if total_s > MAX_DURATION_S:
        raise ValueError(f'{_short(text)} is longer than ten years')
    return total_s


def format_duration(seconds: float) -> str:
    """:return: a duration as `duration_s` reads it.

    >>> [format_duration(s) for s in (0.25, 5400, 90.5)]
    ['250ms', '1h30m', '1m30.5s']
    """
    if 0 < seconds < 1:
        return f'{seconds * 1000:g}ms'
    parts, left = '', seconds
    for unit in 'dhm':
        number, left = divmod(left, _SECONDS[unit])
        parts += f'{number:g}{unit}' if number else ''
    return parts if parts and not left else f'{parts}{left:g}s'


def size_bytes(text: str) -> int:
    """Read ``512K``, ``10M``, ``1G`` (powers of 1024) or a number of bytes.

    >>> size_bytes('10M')
    10485760

    :raises ValueError: it is not of that form, or no file can be so large.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'{_short(text)} is not a size; write it like 512K, 10M, 1G or a number of bytes')
    number = float(match[1]) if '.' in match[1] else int(match[1])
    size = int(number * _BYTES[match[2].upper()])
    if size > MAX_SIZE_BYTES:
        raise ValueError(f'{_short(text)} is larger than any file can be')
    return size


def format_size(number: int) -> str:
    """:return: a number of bytes as `size_bytes` reads it, in the largest unit that needs no fraction."""
    fitting = (f'{number // _BYTES[unit]}{unit}' for unit in 'GMK' if number and not number % _BYTES[unit])
    return next(fitting, str(number))


def rate_per_s(text: str) -> float:
    """Read ``10/s``, ``600/m`` or ``1000/h``: messages in a second.

    >>> rate_per_s('30/m')
    0.5

    :raises ValueError: it is not of that form, or nothing at all.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f'{_short(text)} is not a rate; write it like 10/s, 600/m or 1000/h')
    per_s = float(match[1]) / _SECONDS[match[2]]
    if per_s <= 0:
        raise ValueError('a rate of nothing would stop the queue')
    return per_s


def boolean(text: str) -> bool:
    """Read yes, no, true, false, on or off.

    :raises ValueError: it is another word.
    """
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError(f'{_short(text)} is neither yes nor no') from None


def integer(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """:return: a reader of whole numbers from `lowest` to `highest`."""

    def read(text: str) -> int:
        if not re.fullmatch(r'-?\d{1,15}', text, re.ASCII):
            raise ValueError(f'{_short(text)} is not a whole number')
        number = int(text)
        if number < lowest or (highest is not None and number > highest):
            bounds = f'at least {lowest}' if highest is None else f'from {lowest} to {highest}'
            raise ValueError(f'{number} is out of range: it must be {bounds}')
        return number

    return read


def choice(*words: str) -> Callable[[str], str]:
    """:return: a reader of one word out of `words`."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f'{_short(text)} is none of {", ".join(words)}')
        return text.lower()

    return read


def optional(reader: Callable[[str], T]) -> Callable[[str], T | None]:
    """:return: a reader that also takes the word ``none``."""

    def read(text: str) -> T | None:
        return None if text.lower() == 'none' else reader(text)

    return read


def word_list(text: str) -> tuple[str, ...]:
    """Read a list, separated by commas, blanks or both; ``none`` is the empty list."""
    found = tuple(text.replace(',', ' ').split())
    return () if found == ('none',) else found


def file_mode(text: str) -> int:
    """Read a file mode mask such as ``007``.

    :raises ValueError: it is no octal number up to 777.
    """
    if not re.fullmatch(r'(?:0o)?[0-7]{1,4}', text) or int(text, 8) > 0o777:
        raise ValueError(f'{_short(text)} is not an octal mask such as 007 or 027')
    return int(text, 8)


def retry_policy(text: str) -> RetryPolicy:
    """Read ``5s..1h x2 jitter 10%``: the first wait, the longest, the factor between, the random share.

    A missing part keeps its default, except that ``30s`` alone is a wait that does not grow.

    >>> retry_policy('5s..1h x3')
    RetryPolicy(first_s=5.0, cap_s=3600.0, factor=3.0, jitter=0.1)

    :raises ValueError: it is not of that form.
    """
    # Here, because a list of entries needs durations, and no options.
    from switchboard.options import RetryPolicy

    waits, *rest = text.split() or ['']
    first, _, cap = waits.partition('..')
    factor = rest.pop(0)[1:] if rest and rest[0].startswith('x') else None
    share = ''.join(rest[1:]) if rest and rest[0] == 'jitter' else None
    if (rest and share is None) or waits.endswith('..'):
        raise ValueError(f'{_short(text)} is not a retry policy; write it like 5s..1h x2 jitter 10%')
    first_s = duration_s(first)
    cap_s = duration_s(cap) if cap else first_s
    if cap_s < first_s:
        raise ValueError(f'the longest wait, {cap}, is shorter than the first, {first}')
    default = RetryPolicy()
    return RetryPolicy(
        first_s=first_s,
        cap_s=cap_s,
        factor=default.factor if factor is None else _factor(factor),
        jitter=_share(share) if share else default.jitter,
    )


def _factor(text: str) -> float:
    if not re.fullmatch(r'\d{1,4}(?:\.\d{1,4})?', text, re.ASCII) or not 1 <= float(text) <= MAX_FACTOR:
        raise ValueError(f'x{_short(text)} is not a factor from x1 to x{MAX_FACTOR:g}')
    return float(text)


def _share(share: str) -> float:
    if not re.fullmatch(r'\d{1,3}(?:\.\d{1,4})?%', share, re.ASCII) or float(share[:-1]) > 100:
        raise ValueError(f'jitter {_short(share)} is not a share from 0% to 100%')
    return float(share[:-1]) / 100


def _short(text: str) -> str:
    # An operator who pastes a megabyte into a value should still be able to read the message.
    return repr(text) if len(text) <= 60 else repr(text[:57] + '...')


def is_loopback(host: str) -> bool:
    """Can only this machine reach it?"""
    import ipaddress  # here, because most configurations name no host

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'
