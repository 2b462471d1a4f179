"""An entry's metadata: a JSON object with types, without the keys that are not stored and with those that every message has.

Some keys mean something to the queue, and some are not stored.  A program may put in them what it likes: Mailman's programs keep their own
keys there, and an exchange may route by a priority that is a word.  What a *person* writes into one of them is taken, or refused with the
word that he has to write instead; see :func:`find_mistake`.  What a program gives by keyword is looked at by name alone; see :func:`merge_keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from switchboard.errors import CorruptEntryError
from switchboard.message.expiry import EXPIRES, QUEUE_EXPIRES
from switchboard.message.naming import HIGHEST_PRIORITY
from switchboard.message.typed_json import dump_json, parse_json, untag

# Mailman's words, which each message's metadata hold.
SCHEMA_VERSION = 3
FIXED_METADATA = {'version': SCHEMA_VERSION, '_parsemsg': False}

# Keys whose values are not taken from a caller, and the key to give instead.
RESERVED = {
    'version': 'it is always 3; take another name',
    QUEUE_EXPIRES: "the queue writes it, by its option ttl; a message's own time to live is ttl",
}
UNDERSCORE_ADVICE = 'keys that start with _ are not stored; leave the _ out'

# The keys that hold a time, and its unit.
_UNIT_OF = {
    'delay': 'seconds',
    'not_before': 'seconds since the epoch',
    'ttl': 'seconds',
    EXPIRES: 'seconds since the epoch',
}
_UNITS = (
    's',
    'sec',
    'secs',
    'seconds',
    'ms',
    'millis',
    'milliseconds',
    'us',
    'ns',
    'minutes',
    'hours',
    'days',
)
_TEXTS = ('order_key', 'dedupe_key')
# The keys that mean something to the queue, with a unit as the names of options have one, or spelled otherwise: they would be stored, and do nothing.
MISSPELLED = {f'{key}_{unit}': key for key in _UNIT_OF for unit in _UNITS} | {
    'notbefore': 'not_before',
    'orderkey': 'order_key',
    'dedupekey': 'dedupe_key',
    'dedup_key': 'dedupe_key',
    'deduplication_key': 'dedupe_key',
}
# The same of the arguments beside the keys; `_metadata` is Mailman's.
_ARGUMENTS = MISSPELLED | {'routingkey': 'routing_key', 'msgdata': 'metadata', '_metadata': 'metadata'}
_MISSPELLED_ARGUMENTS = frozenset(_ARGUMENTS)


def merge_keys(metadata: Mapping[str, Any] | None, keys: dict[str, Any]) -> dict[str, Any]:
    """Join what a call takes as ``metadata`` with the keys that it takes by keyword, which win.

    :return: a dictionary that may be changed.
    :raises TypeError: a keyword is an argument of that call in other words.  In `metadata` a key of that name is the caller's own.
    """
    if keys and not _MISSPELLED_ARGUMENTS.isdisjoint(keys):
        name = next(key for key in keys if key in _ARGUMENTS)
        right = _ARGUMENTS[name]
        own = (
            '' if right == 'metadata' else f"; a key of that name can be given as metadata={{'{name}': ...}}"
        )
        raise TypeError(f'{name}: the argument is {_with_unit(right)}{own}')
    return {**metadata, **keys} if metadata else keys


def find_mistake(metadata: Mapping[str, Any]) -> str:
    """Look for a key in which a person's value would not be stored, or would be stored and do nothing.

    :param metadata: keys and values as somebody has written them.
    :return: the mistake, and what to write instead; the empty string if there is none.
    """
    for key, value in metadata.items():
        if key in FIXED_METADATA and value == FIXED_METADATA[key]:
            continue
        if mistake := find_key_mistake(key):
            return mistake
        if key in _UNIT_OF and not is_number(value):
            instead = '; a time from now on is ttl' if key == EXPIRES else ''
            return f'{key} is a number of {_UNIT_OF[key]}, not {value!r}{instead}'
        if key == 'priority' and (
            isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= HIGHEST_PRIORITY
        ):
            return f'{key} is a number from 0 to {HIGHEST_PRIORITY}, not {value!r}'
        if key in _TEXTS and not isinstance(value, str):
            return f'{key} is a text, not {value!r}'
    return ''


def find_key_mistake(key: str) -> str:
    """Look for a key that is never stored, or is one of the queue's misspelled, whatever its value.

    :return: as of :func:`find_mistake`.
    """
    if key[:1] == '_':
        return f'{key}: {UNDERSCORE_ADVICE}'
    if key in RESERVED:
        return f'{key}: {RESERVED[key]}'
    if key in MISSPELLED:
        return f'{key}: the key is {_with_unit(MISSPELLED[key])}'
    return ''


def _with_unit(key: str) -> str:
    return f'{key}, in {_UNIT_OF[key]}' if key in _UNIT_OF else key


def is_number(value: object) -> TypeGuard[int | float]:
    """Is a value a number, and no truth value?"""
    return isinstance(value, int | float) and not isinstance(value, bool)


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
        return dict(FIXED_METADATA)
    metadata, has_tags = parse_json(content, 'metadata')
    if not isinstance(metadata, dict):
        raise CorruptEntryError('metadata: not a JSON object')
    if has_tags:
        # The values alone: metadata are an object, even if it has the look of a tag.
        metadata = {key: untag(value) for key, value in metadata.items()}
    metadata.update(FIXED_METADATA)
    return metadata
