"""What a runner changed of a message that it gives back to its queue.

Mailman's runners change a message's metadata and ask to keep it queued; Mailman then stores it anew, at the end of
the queue, and forgets how often it failed.  Here changed metadata are a record in the entry's history.  Only a message
whose body was changed is stored anew, in its old place, with its history, as one step with the end of the old one.

The entry's own bytes are what the message is compared with, read again: a copy of the metadata made before would cost each
message, and would not see what was changed inside of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchboard.errors import UnserializableError
from switchboard.message.entry import MAILMAN, Entry
from switchboard.message.serializers import Serializers
from switchboard.message.typed_json import dump_json, is_equal


def changes(before: Mapping[str, Any], after: Mapping[str, Any], *, strict: bool = True) -> dict[str, Any]:
    """Compare metadata.

    :param strict: False leaves a value that cannot be stored as it was.
    :return: the fields ``set`` and ``drop`` of a record that turns `before` into `after`; empty if they are equal.
    :raises UnserializableError: a new value cannot be stored; the text names the key.
    """
    changed = {}
    for key, value in after.items():
        if _is_volatile(key) or (key in before and is_equal(before[key], value)):
            continue
        try:
            dump_json({key: value}, 'metadata')
        except UnserializableError:
            if strict:
                raise
            continue
        changed[key] = value
    dropped = [key for key in before if key not in after and not _is_volatile(key)]
    return ({'set': changed} if changed else {}) | ({'drop': dropped} if dropped else {})


def _is_volatile(key: object) -> bool:
    return isinstance(key, str) and (key.startswith('_') or key == 'version')


def is_body_changed(entry: Entry, msg: Any, serializers: Serializers) -> bool:
    """Was the message changed since it was read?

    :raises UnserializableError: it was, and cannot be stored any more.
    """
    serializer = serializers.for_kind(entry.kind)
    if serializer is None or entry.kind == MAILMAN:  # whose files are read and never written
        serializer = serializers.for_message(msg)
    flat = serializer.dumps(msg)
    if flat == entry.body:
        return False
    # Its bytes may have been written by another program, in another style: then they differ, and nothing was changed.
    original = entry.load(serializers)[0]
    return flat != serializer.dumps(original)
