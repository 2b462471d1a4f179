"""JSON with types: dates, decimals, bytes, tuples and sets in metadata and bodies come back equal and of the same type.

A value that JSON does not have is written as kombu writes it, an object of exactly two members::

    {"__type__": "datetime", "__value__": "2026-11-28T18:00:00+00:00"}

``docs/reference/format.md`` has the grammar.  A dictionary of a user's that has exactly these two keys is written as a tag of its
own (``dict``), so it is never taken for another's; a tag that is not known, or whose value does not fit it, stays a dictionary.
No tag names a class, and nothing is imported at a file's request: the types are the few of this module.

Almost no metadata hold such values, so they cost the others nothing: writing looks for them on the way that checks each value
anyway, and reading searches the text for ``"__type__"``.

``json.dumps`` alone is too kind: it turns tuples into lists and numbers used as keys into strings, and writes ``NaN``, which is no
JSON.  A message that comes back different from what went in is a lost message, so all of these are kept or are errors.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime, time, timedelta
from typing import Any, TypeVar

from switchboard.errors import CorruptEntryError, UnserializableError

T = TypeVar('T')

TAG, VALUE = '__type__', '__value__'
# Levels of brackets in the text.  No honest message has a tenth of it; more, and whatever walks through a value by recursion
# (copying, comparing, showing it) would end at Python's own limit, far from any place that expects that.
MAX_DEPTH = 200

_KEYS = frozenset((TAG, VALUE))
_MARK = f'"{TAG}"'
_PLAIN = frozenset((str, int, bool, type(None)))
_STRINGS = frozenset((str,))
_NESTS = (dict, list, tuple)
_NESTED = 'nested too deeply'
_TOO_DEEP = f'{_NESTED}, or it contains itself'

# What contains itself is found before.
_dumps = json.JSONEncoder(separators=(',', ':'), allow_nan=False, check_circular=False).encode

_dumps_sorted = json.JSONEncoder(sort_keys=True, check_circular=False).encode


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f'{text[:20]} is beyond all numbers')
    return value


def _refuse(text: str) -> float:
    raise ValueError(f'{text} is no JSON number')


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, member in members:
        if name in value:
            raise ValueError(f'there are two members {name[:100]!r}')
        value[name] = member
    return value


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)
_UNIQUE_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse)


def dump_json(value: Any, what: str = 'message') -> bytes:
    """Write `value` as JSON that reads back equal.

    :raises UnserializableError: a part of it cannot be written; the text says where it stands, and what to do.
    """
    try:
        if _check(value, what, MAX_DEPTH):
            value = _tagged(value)
        return _dumps(value).encode('ascii')
    except RecursionError as error:
        raise UnserializableError(f'{what}: {_TOO_DEEP}') from error
    except ValueError as error:
        raise UnserializableError(f'{what}: {error}') from error


def load_json(content: bytes | memoryview, what: str, *, unique: bool = False) -> Any:
    """Read JSON from a file that anybody may have written.

    :param unique: of two members of one name, which are JSON, the first is not forgotten: they are an error.
    :raises CorruptEntryError: it is none, is nested too deeply, or has a number too long to be read in bounded time.
    """
    value, has_tags = parse_json(content, what, _UNIQUE_DECODER if unique else _DECODER)
    return untag(value) if has_tags else value


def parse_json(
    content: bytes | memoryview, what: str, decoder: json.JSONDecoder = _DECODER
) -> tuple[Any, bool]:
    """Read JSON, and leave its tags to :func:`untag`.

    :return: the value, and whether there is anything in it that looks like a tag.
    :raises CorruptEntryError: see :func:`load_json`.
    """
    try:
        try:
            text = str(content, 'utf-8')
            # Half of the time of `decode`, for UTF-8 with no space around it: all that we have written.
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            end, text = -1, ''
        if end != len(text) or end < 0:
            # It may be JSON all the same, with a space before it, or in UTF-16.
            content = bytes(content)
            text = content.decode(json.detect_encoding(content), 'surrogatepass')
            value = decoder.decode(text)
    except RecursionError as error:  # of Python 3.11; a later one reads it, and it is counted below
        raise CorruptEntryError(f'{what}: {_NESTED}') from error
    except ValueError as error:
        raise CorruptEntryError(f'{what}: {error}') from error
    if len(text) > MAX_DEPTH and text.count('[') + text.count('{') > MAX_DEPTH and is_too_deep(value):
        raise CorruptEntryError(f'{what}: {_NESTED}')
    return value, _MARK in text


def is_too_deep(value: Any) -> bool:
    """Has a value more levels than a reader takes?"""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return False
        level = [
            item
            for each in level
            if isinstance(each, _NESTS)
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, _NESTS)
        ]
    return True


def _check(value: Any, place: str, room: int) -> bool:
    """Make sure that a value can be written.

    :param room: how many levels may still follow.
    :return: whether there is anything in it that needs a tag.
    """
    if type(value) in _PLAIN:
        return False
    if room <= 0:
        raise UnserializableError(f'{place[:100]}: {_TOO_DEEP}')
    if isinstance(value, dict):
        return _check_dict(value, place, room)
    needs_tag = False
    if isinstance(value, list):
        # Most are flat, and for these no line of Python is run for each item.
        if not _PLAIN.issuperset(map(type, value)):
            for index, item in enumerate(value):
                if type(item) not in _PLAIN and _check(item, f'{place}[{index}]', room - 1):
                    needs_tag = True
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UnserializableError(f'{place}: {value!r} is no JSON number')
    elif not isinstance(value, (str, int)):
        _check_typed(value, place, room)
        return True
    return needs_tag


def _check_dict(value: dict[Any, Any], place: str, room: int) -> bool:
    needs_tag = len(value) == 2 and value.keys() == _KEYS
    if _STRINGS.issuperset(map(type, value)) and _PLAIN.issuperset(map(type, value.values())):
        return needs_tag
    if needs_tag:
        room -= 2
    for key, item in value.items():
        if not isinstance(key, str):
            raise UnserializableError(
                f'{place}: the key {key!r} is of type {type(key).__name__}; JSON keys are strings'
            )
        if type(item) not in _PLAIN and _check(item, f'{place}[{key!r}]', room - 1):
            needs_tag = True
    return needs_tag


def _check_typed(value: Any, place: str, room: int) -> None:
    name = type_name(value)
    if name is None:
        raise UnserializableError(
            f'{place}: a value of type {type(value).__name__} cannot be held as JSON; {type_advice(value)}'
        )
    if isinstance(value, (tuple, set, frozenset)):
        for number, item in enumerate(value):
            where = f'{place}[{number}]' if isinstance(value, tuple) else f'{place}{{{item!r:.40}}}'
            _check(item, where, room - 2)
    elif room < 2 or not _is_same(value, untag(_tagged(value))):
        raise UnserializableError(f'{place}: {value!r:.100} would not come back equal; {type_advice(value)}')


def _is_same(value: Any, back: Any) -> bool:
    if value == back:
        return True
    # In the hour that a zone repeats in autumn, no time of it equals one of another zone, be it the same instant.
    offset = value.utcoffset() if hasattr(value, 'utcoffset') and hasattr(back, 'utcoffset') else None
    return (
        offset is not None
        and offset == back.utcoffset()
        and bool(value.replace(tzinfo=None) == back.replace(tzinfo=None))
    )


def type_name(value: Any) -> str | None:
    """:return: the tag of a value's type, or of the one that its class is derived from; None if it has none."""
    # By name, because a process that has no decimals has no need of the module.
    for cls in type(value).__mro__:
        if (name := _NAMES.get((cls.__module__, cls.__qualname__))) is not None:
            return name
    return None


def type_advice(value: Any) -> str:
    """Say what to do with a value of a type that cannot be written."""
    cls = type(value)
    names = {base.__module__ + '.' + base.__qualname__ for base in cls.__mro__}
    if 'enum.Enum' in names:
        return 'use its .value'
    if hasattr(cls, 'model_dump'):
        return 'use .model_dump()'
    if hasattr(cls, '__attrs_attrs__'):
        return 'use attrs.asdict()'
    if hasattr(cls, '__dataclass_fields__'):
        return 'use dataclasses.asdict()'
    if cls in (bytearray, memoryview):
        return 'use bytes()'
    return 'write the needed parts of it as text, numbers, lists or dictionaries'


def tagged(value: Any, what: str = 'message') -> Any:
    """Make plain JSON of a value, for a writer with a style of its own.

    :raises UnserializableError: see :func:`dump_json`.
    """
    try:
        return _tagged(value) if _check(value, what, MAX_DEPTH) else value
    except RecursionError as error:
        raise UnserializableError(f'{what}: {_TOO_DEEP}') from error


def plain_json(value: Any) -> Any:
    """Make plain JSON of any value, for people and for logs: a value that cannot be written is put as text."""
    try:
        return tagged(value)
    except UnserializableError:
        pass
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    return value if isinstance(value, (int, str)) else str(value)


def _tagged(value: Any) -> Any:
    if type(value) in _PLAIN or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, dict):
        items = {key: _tagged(item) for key, item in value.items()}
        return (
            {TAG: 'dict', VALUE: [list(pair) for pair in items.items()]} if items.keys() == _KEYS else items
        )
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, bytes):
        try:
            return {TAG: 'bytes', VALUE: value.decode('utf-8')}
        except UnicodeDecodeError:
            return {TAG: 'base64', VALUE: base64.b64encode(value).decode('ascii')}
    name = type_name(value)
    assert name is not None
    return {TAG: name, VALUE: _WRITERS[name](value)}


def _write_set(value: set[Any] | frozenset[Any]) -> list[Any]:
    # Equal sets have equal bytes, whatever the order in which this process goes through them.
    return sorted(map(_tagged, value), key=_dumps)


def untag(value: Any) -> Any:
    """Make the values that tags stand for; what only looks like a tag stays as it is."""
    if type(value) is list:
        return [untag(item) for item in value]
    if type(value) is not dict:
        return value
    inner = {key: untag(item) for key, item in value.items()}
    if len(inner) == 2 and inner.keys() == _KEYS:
        name = inner[TAG]
        reader = _READERS.get(name) if type(name) is str else None
        if reader is not None:
            try:
                return reader(inner[VALUE])
            except (TypeError, ValueError, ArithmeticError):
                pass  # only looks like a tag
    return inner


def _only(cls: type[T], value: Any) -> T:
    if type(value) is not cls:
        raise TypeError(f'{type(value).__name__} is no {cls.__name__}')
    return value


_PARTS_OF_TIMEDELTA = ('days', 'seconds', 'microseconds')


def _read_timedelta(value: Any) -> Any:
    if type(value) is not dict or not all(
        key in _PARTS_OF_TIMEDELTA and type(part) is int for key, part in value.items()
    ):
        raise TypeError('not the parts of a timedelta')
    return timedelta(**value)


def _read_decimal(value: Any) -> Any:
    from decimal import Decimal

    decimal = Decimal(_only(str, value))
    if not decimal.is_finite():
        raise ValueError('not a number')
    return decimal


def _read_uuid(value: Any) -> Any:
    from uuid import UUID

    if type(value) is not dict or value.keys() != {'hex'}:
        raise TypeError('not the digits of a UUID')
    return UUID(hex=_only(str, value['hex']))


# By module and name of the class.  In the classes' order of resolution a datetime comes before a date, which it is derived from.
_NAMES = {
    ('datetime', 'datetime'): 'datetime',
    ('datetime', 'date'): 'date',
    ('datetime', 'time'): 'time',
    ('datetime', 'timedelta'): 'timedelta',
    ('decimal', 'Decimal'): 'decimal',
    ('uuid', 'UUID'): 'uuid',
    ('builtins', 'bytes'): 'bytes',
    ('builtins', 'tuple'): 'tuple',
    ('builtins', 'set'): 'set',
    ('builtins', 'frozenset'): 'frozenset',
}
_WRITERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(('datetime', 'date', 'time'), lambda value: value.isoformat()),
    'timedelta': lambda value: {part: getattr(value, part) for part in _PARTS_OF_TIMEDELTA},
    'decimal': str,
    'uuid': lambda value: {'hex': value.hex},
    'tuple': lambda value: list(map(_tagged, value)),
    'set': _write_set,
    'frozenset': _write_set,
}
_READERS: dict[str, Callable[[Any], Any]] = {
    'datetime': lambda value: datetime.fromisoformat(_only(str, value)),
    'date': lambda value: datetime.fromisoformat(_only(str, value)).date(),
    'time': lambda value: time.fromisoformat(_only(str, value)),
    'timedelta': _read_timedelta,
    'decimal': _read_decimal,
    'uuid': _read_uuid,
    'bytes': lambda value: _only(str, value).encode('utf-8'),
    'base64': lambda value: base64.b64decode(_only(str, value), validate=True),
    'dict': lambda value: {_only(str, key): item for key, item in _only(list, value)},
    'tuple': lambda value: tuple(_only(list, value)),
    'set': lambda value: set(_only(list, value)),
    'frozenset': lambda value: frozenset(_only(list, value)),
}
# The tags that kombu does not know, with how each is read.
OWN_TAGS = {name: _READERS[name] for name in ('timedelta', 'tuple', 'set', 'frozenset', 'dict')}


def is_equal(before: Any, after: Any) -> bool:
    """Are two values equal and of the same types, all the way down?"""
    if type(before) in _PLAIN and type(after) in _PLAIN:
        return type(before) is type(after) and bool(before == after)
    if before != after:
        return False
    try:
        return _dumps_sorted(tagged(before)) == _dumps_sorted(tagged(after))
    except UnserializableError:  # out of a file of another format
        return type(before) is type(after)
