"""Metadata and JSON bodies: what JSON holds, exactly, or an error that names the place.

``json.dumps`` alone is too kind: it turns tuples into lists and numbers used as keys into strings, and writes ``NaN``,
which is no JSON.  A message that comes back different from what went in is a lost message, so all of these are errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from switchboard.errors import CorruptEntryError, UnserializableError

# Mailman's words, which each message's metadata hold.
SCHEMA_VERSION = 3
ALWAYS = {'version': SCHEMA_VERSION, '_parsemsg': False}

# What contains itself is found before.
_dumps = json.JSONEncoder(separators=(',', ':'), allow_nan=False, check_circular=False).encode
# Half of the time of `json.loads`, for what is UTF-8 with no space around it: all that we have written.
_decode = json.JSONDecoder().raw_decode
_PLAIN = frozenset((str, int, bool, type(None)))


def dump_json(value: Any, what: str = 'message') -> bytes:
    """Write `value` as JSON that reads back equal.

    :raises UnserializableError: it holds something that JSON does not; the text says where.
    """
    try:
        _check(value, what)
        return _dumps(value).encode('ascii')
    except RecursionError as error:
        raise UnserializableError(f'{what}: nested too deeply, or it contains itself') from error
    except ValueError as error:
        raise UnserializableError(f'{what}: {error}') from error


def _check(value: Any, place: str) -> None:
    if type(value) in _PLAIN:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UnserializableError(
                    f'{place}: the key {key!r} is of type {type(key).__name__}; JSON keys are strings'
                )
            if type(item) not in _PLAIN:
                _check(item, f'{place}[{key!r}]')
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if type(item) not in _PLAIN:
                _check(item, f'{place}[{index}]')
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UnserializableError(f'{place}: {value!r} is no JSON number')
    elif not isinstance(value, (str, int)):
        raise UnserializableError(f'{place}: {_describe(value)}')


def _describe(value: Any) -> str:
    hint = ''
    if isinstance(value, tuple | set | frozenset):
        hint = '; use a list'
    elif isinstance(value, bytes | bytearray):
        hint = '; decode it to text first'
    return f'a value of type {type(value).__name__} cannot be held as JSON{hint}'


def load_json(content: bytes | memoryview, what: str) -> Any:
    """Read JSON from a file that anybody may have written.

    :raises CorruptEntryError: it is none, is nested too deeply, or has a number too long to be read in bounded time.
    """
    try:
        text = str(content, 'utf-8')
        value, end = _decode(text)
        if end == len(text):
            return value
    except (ValueError, RecursionError):
        pass  # it may be JSON all the same, with a space before it, or in UTF-16
    try:
        return json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise CorruptEntryError(f'{what}: {error}') from error


def dump_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Write an entry's metadata: volatile keys, which start with an underscore, and the schema's version are left out."""
    if not metadata:
        return b'{}'
    kept = {
        key: value
        for key, value in metadata.items()
        if not (isinstance(key, str) and (key[:1] == '_' or key == 'version'))
    }
    return dump_json(kept, 'metadata') if kept else b'{}'


def load_metadata(content: bytes | memoryview) -> dict[str, Any]:
    """Read an entry's metadata, with ``version`` and ``_parsemsg`` set.

    :raises CorruptEntryError: they are no JSON object.
    """
    if content == b'{}':
        return dict(ALWAYS)
    metadata = load_json(content, 'metadata')
    if not isinstance(metadata, dict):
        raise CorruptEntryError('metadata: not a JSON object')
    metadata.update(ALWAYS)
    return metadata
