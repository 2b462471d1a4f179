"""An entry's metadata: a JSON object with types, without the keys that are not stored and with those that every message has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchboard.errors import CorruptEntryError
from switchboard.message.typed_json import dump_json, parse_json, untag

# Mailman's words, which each message's metadata hold.
SCHEMA_VERSION = 3
ALWAYS = {'version': SCHEMA_VERSION, '_parsemsg': False}


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
    metadata, has_tags = parse_json(content, 'metadata')
    if not isinstance(metadata, dict):
        raise CorruptEntryError('metadata: not a JSON object')
    if has_tags:
        # The values alone: metadata are an object, even if it has the look of a tag.
        metadata = {key: untag(value) for key, value in metadata.items()}
    metadata.update(ALWAYS)
    return metadata
