"""Options behind the ``?`` of a URL: one table a kind of URL, read and checked in one way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from switchboard.config.units import boolean, duration_s
from switchboard.errors import ConfigError

# Of a value that is wrong, so much is shown.
_SHOWN = 60


class UrlOption(NamedTuple):
    """An option.

    :ivar field: the name of its value where it is used.
    :ivar read: makes the value of the text; raises ValueError.
    :ivar is_old: a name before, which is read and not offered.
    """

    field: str
    read: Callable[[str], Any]
    is_old: bool = False


def read_url_options(given: Iterable[tuple[str, object]], table: Mapping[str, UrlOption]) -> dict[str, Any]:
    """Read options.

    :param given: names and values; a value that is no text (an option that a program has set) is read as its text.
    :return: values by field.
    :raises ConfigError: one is not known, or cannot be read.
    """
    found: dict[str, Any] = {}
    for name, value in given:
        if name not in table:
            offered = ', '.join(each for each, option in table.items() if not option.is_old)
            raise ConfigError(f'{name[:_SHOWN]!r} is not known: there are {offered}', key='url')
        text = str(value)
        try:
            found[table[name].field] = table[name].read(text)
        except ValueError as error:
            raise ConfigError(f'{name} = {text[:_SHOWN]!r}: {error}', key='url') from error
    return found


def seconds(lowest_s: float = 0.0) -> Callable[[str], float]:
    """:return: a reader of durations: ``5s``, ``250ms``, or a bare number of seconds."""

    def read(text: str) -> float:
        is_bare = re.fullmatch(r'[0-9]{1,9}(?:\.[0-9]{1,9})?', text)
        found_s = float(text) if is_bare else duration_s(text)
        if found_s < lowest_s:
            raise ValueError(f'must be {lowest_s:g} s at least')
        return found_s

    return read


def yes_or_no(text: str) -> bool:
    """Read yes, no, true, false, on, off, 1 or 0.

    :raises ValueError: it is another word.
    """
    return boolean({'1': 'yes', '0': 'no'}.get(text, text))


def absolute_path(text: str) -> str:
    """Read a path from the root, because processes have directories of their own.

    :raises ValueError: it does not begin there.
    """
    if not text.startswith('/'):
        raise ValueError('must be a path from the root, because processes have directories of their own')
    return text
