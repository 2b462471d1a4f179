"""Queue options in the words of the configuration, from which they can be read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchboard.config.keys import OLD_SPELLINGS, QUEUE_KEYS
from switchboard.config.units import format_size
from switchboard.options import QueueOptions, RetryPolicy, shown_url
from switchboard.suggestions import did_you_mean

_TIMES = ((86400, 'd'), (3600, 'h'), (60, 'm'), (1, 's'))
_SIZE_FIELDS = frozenset(('max_bytes', 'max_body_bytes', 'min_free_space_bytes'))


def option_words(options: QueueOptions, default: QueueOptions | None = None) -> dict[str, str]:
    """:return: the options in words by key; with a `default`, those only that differ from it."""
    return {
        name: option_word(key.field, getattr(options, key.field))
        for name, key in QUEUE_KEYS.items()
        if default is None or _plain(getattr(options, key.field)) != _plain(getattr(default, key.field))
    }


def read_options(words: Mapping[str, str]) -> dict[str, Any]:
    """Read words as the configuration does.

    :return: values by field of `QueueOptions`.
    :raises ValueError: a key is not known, or its value cannot be read; the text names it.
    """
    values = {}
    for name, text in words.items():
        key = QUEUE_KEYS.get(OLD_SPELLINGS['queue'].get(name, name))
        if key is None:
            raise ValueError(f'{name}: there is no such option{did_you_mean(name, QUEUE_KEYS)}')
        try:
            values[key.field] = key.read(text)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
    return values


def option_word(field: str, value: object) -> str:
    """:return: the value of a field of `QueueOptions` in words."""
    if value is None or value == ():
        return 'none'
    if field == 'url':
        return shown_url(str(value)) or ''
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, RetryPolicy):
        return (
            f'{_time(value.first_s)}..{_time(value.cap_s)} x{value.factor:g} jitter {value.jitter * 100:g}%'
        )
    if isinstance(value, list | tuple):
        return ', '.join(map(str, value))
    if isinstance(value, int | float) and field.endswith('_s'):
        return _time(value)
    if isinstance(value, int) and field in _SIZE_FIELDS:
        return format_size(value)
    return _rate(value) if field == 'rate' and isinstance(value, int | float) else str(value)


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _time(seconds: float) -> str:
    parts, left = '', seconds
    if left != int(left) or not left:
        return f'{seconds * 1000:g}ms' if seconds < 1 and seconds else f'{seconds:g}s'
    for unit_s, unit in _TIMES:
        number, left = divmod(int(left), unit_s)
        parts += f'{number}{unit}' if number else ''
    return parts


def _rate(per_s: float) -> str:
    for seconds, unit in ((1, 's'), (60, 'm'), (3600, 'h')):
        number = round(per_s * seconds, 9)
        if number == int(number):
            return f'{number:g}/{unit}'
    return f'{per_s:g}/s'
