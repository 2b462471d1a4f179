"""Matching metadata against the conditions of a headers exchange.

A condition is ``key=value``, or ``key`` alone, which asks only that the key is there.  Metadata are JSON values and the
exchange file is text, so a value is compared by its text: a string as it is, a number, a truth value or null as JSON
writes it (``5``, ``1.5``, ``true``, ``null``), a date or time in ISO 8601, a decimal or UUID as ``str`` writes it, a timedelta by
its seconds, bytes as UTF-8.  Lists, tuples, sets and objects have no such text; they can only be asked to be there.

Bindings are indexed by condition, so that a message costs a look-up or two for each of its keys and not a scan of all
bindings.  Unlike RabbitMQ, keys that start with ``x-`` are compared as all others are: nothing here is named so by a protocol.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from typing import Literal, NamedTuple

from switchboard.message.typed_json import type_name

Condition = tuple[str, str | None]


class HeaderMatch(NamedTuple):
    """The conditions of a binding on the metadata: `all` of its conditions, or `any` one.

    ``all`` without conditions matches every message, ``any`` without conditions none, as in AMQP.
    """

    mode: Literal['all', 'any']
    conditions: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        return f'{self.mode}: ' + ', '.join(_written(condition) for condition in self.conditions)

    def matches(self, headers: Mapping[str, object]) -> bool:
        """:return: whether metadata such as these pass."""
        results = (_holds(condition, headers) for condition in self.conditions)
        return all(results) if self.mode == 'all' else any(results)

    def explain_mismatch(self, headers: Mapping[str, object]) -> str:
        """:return: which conditions do not hold, in words; only of interest where :meth:`matches` says no."""
        reasons = [
            _difference(condition, headers) for condition in self.conditions if not _holds(condition, headers)
        ]
        return '; '.join(reasons) or 'asks for nothing'

    def contradiction(self) -> str:
        """:return: why no metadata can pass; empty if some can."""
        values: dict[str, str] = {}
        for key, value in self.conditions if self.mode == 'all' else ():
            if value is not None and values.setdefault(key, value) != value:
                return f'{key} cannot be both {values[key]!r} and {value!r}'
        return ''


class HeaderIndex:
    """The bindings of one exchange, compiled.  A binding's number is its place in the sequence."""

    def __init__(self, matches: Iterable[HeaderMatch]) -> None:
        self._matches = list(matches)
        self._always: list[int] = []
        self._by_condition: dict[Condition, list[int]] = {}
        for number, match in enumerate(self._matches):
            if match.mode == 'all' and not match.conditions:
                self._always.append(number)
            # One condition is enough to find a binding that asks for all; the rest is looked at then.
            for condition in match.conditions[:1] if match.mode == 'all' else match.conditions:
                self._by_condition.setdefault(condition, []).append(number)

    def match(self, headers: Mapping[str, object]) -> list[int]:
        """:return: the numbers of all bindings that match, in ascending order."""
        found = set(self._always)
        for key, value in headers.items():
            candidates = self._by_condition.get((key, None), [])
            text = comparable_text(value)
            if text is not None:
                candidates = candidates + self._by_condition.get((key, text), [])
            found.update(number for number in candidates if self._matches[number].matches(headers))
        return sorted(found)


def comparable_text(value: object) -> str | None:
    """:return: the text that a condition is compared with; None for a value that is no plain JSON value."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float):
        try:
            return json.dumps(value)
        except ValueError:  # a number of more digits than Python writes
            return None
    return _text_of_type(value)


def _text_of_type(value: object) -> str | None:
    match value:
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case timedelta():
            seconds = value.total_seconds()
            return str(int(seconds) if seconds == int(seconds) else seconds)
        case bytes():
            try:
                return value.decode('utf-8')
            except UnicodeDecodeError:
                return None
    return str(value) if type_name(value) in ('decimal', 'uuid') else None


def _holds(condition: Condition, headers: Mapping[str, object]) -> bool:
    key, wanted = condition
    return key in headers and (wanted is None or comparable_text(headers[key]) == wanted)


def _difference(condition: Condition, headers: Mapping[str, object]) -> str:
    key, wanted = condition
    if key not in headers:
        return f'{key} is not there'
    text = comparable_text(headers[key])
    return f'{key} is {"no plain value" if text is None else repr(text)}, not {wanted!r}'


def _written(condition: Condition) -> str:
    key, value = condition
    if value is None:
        return key
    is_plain = value and value == value.strip() and not {',', '"', ';'} & set(value)
    return f'{key}={value}' if is_plain else f'{key}="{value}"'
