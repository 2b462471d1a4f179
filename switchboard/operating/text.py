"""Ages, sizes and counts as people read them, and text that is safe to show on a terminal."""

from __future__ import annotations

import re
import time
from typing import Any

# Characters that could move the cursor, ring, recolour or reverse their neighbours: control characters but the newline and the tab,
# separators that break lines, marks that change the direction of writing, and surrogates, which no terminal takes.
_UNSAFE = re.compile(
    '[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]'
)
_UNITS = ((86400, 'd'), (3600, 'h'), (60, 'm'))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f'\\x{code:02x}' if code < 256 else f'\\u{code:04x}'


def escape_terminal(text: str) -> str:
    """:return: the text with everything written out that would act on a terminal; newlines and tabs stay.

    >>> escape_terminal('red: \\x1b[31m')
    'red: \\\\x1b[31m'
    """
    return _UNSAFE.sub(_written_out, text)


def one_line(text: str) -> str:
    """:return: the text fit for one line of a list."""
    return ' '.join(escape_terminal(text).split())


def body_text(body: bytes) -> str:
    """:return: bytes as text to look at: UTF-8 where they are, written out where they are not; line ends as newlines."""
    text = body.decode('utf-8', 'backslashreplace').replace('\r\n', '\n')
    return escape_terminal(text)


def duration(seconds: float) -> str:
    """:return: a duration with its two largest units.

    >>> [duration(s) for s in (0.25, 9.5, 75, 3 * 3600 + 60, 200_000)]
    ['0.2s', '9.5s', '1m15s', '3h1m', '2d7h']
    """
    if seconds < 10:
        return f'{max(0.0, seconds):.1f}s'
    left = int(seconds)
    parts = []
    for size, unit in _UNITS:
        if left >= size:
            parts.append(f'{left // size}{unit}')
            left %= size
        elif parts:
            parts.append(f'0{unit}')
    parts.append(f'{left}s')
    return ''.join(part for part in parts[:2] if not part.startswith('0'))


def bytes_text(count: int) -> str:
    """:return: a number of bytes in a sentence: ``79 bytes``, ``1.5K``."""
    short = size(count)
    return number(count, 'byte') if short == str(count) else short


def age(seconds: float) -> str:
    """:return: an age; for what lies ahead, ``in 5m``."""
    return duration(seconds) if seconds >= 0 else f'in {duration(-seconds)}'


def size(count: int) -> str:
    """:return: a number of bytes, short.

    >>> [size(n) for n in (0, 999, 1536, 10 << 20)]
    ['0', '999', '1.5K', '10M']
    """
    amount = float(count)
    for unit in ('', 'K', 'M', 'G', 'T'):
        if amount < 1000 or unit == 'T':
            break
        amount /= 1024
    if not unit:
        return str(count)
    return f'{amount:.1f}{unit}' if amount < 9.95 else f'{amount:.0f}{unit}'


def grouped(count: int) -> str:
    """:return: a count as people read it, on every page, in every table and sentence; programs are given plain numbers.

    >>> grouped(1234567)
    '1,234,567'
    """
    return f'{count:,}'


def number(count: int, one: str, many: str = '') -> str:
    """:return: ``1 entry``, ``2,000 entries``."""
    return f'{grouped(count)} {one if count == 1 else many or one + "s"}'


def moment(seconds: float) -> str:
    """:return: a time in the machine's own zone, as people write it, and which zone that is: logs are in UTC."""
    return time.strftime('%Y-%m-%d %H:%M:%S %z', time.localtime(seconds))


def flag_lines(queue: str, flagged: dict[str, dict[str, Any]]) -> list[str]:
    """:return: a line for each thing that an operator has said to a queue."""
    lines = []
    for flag, fields in flagged.items():
        since, reason = fields.get('since'), str(fields.get('reason') or '')
        when = f' since {moment(since)}' if isinstance(since, int | float) and 0 <= since < 1e10 else ''
        by = f' by {one_line(str(fields["by"]))}' if fields.get('by') else ''
        lines.append(
            f'{escape_terminal(queue)}: {flag}{when}{by}' + (f': {one_line(reason)}' if reason else '')
        )
    return lines
