"""The history of an entry: records that are appended to its file, and never changed.

A record is ``\\n#<length> <checksum> <JSON>``, the first one right behind the body.  The checksum is the CRC-32 of the
entry's digest followed by the JSON, so that what an earlier message left in a recycled file is never taken for history.
Only the holder of the claim appends.  A torn record, and whatever stands behind it, is ignored, and overwritten by the
next append: an append needs no preparation and no repair.

A file without a readable header (a mail that somebody dropped, half a file) can have a history too; its records are
then looked for from the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from switchboard.errors import CorruptEntryError, UnserializableError
from switchboard.message.typed_json import dump_json, load_json, plain_json

Record = Mapping[str, Any]

_MARK = b'\n#'
_match_head = re.compile(_MARK + rb'([0-9]{1,12}) ([0-9a-f]{8}) ').match
# A history beyond this has said enough; the tail of a file is not read beyond it.
MAX_JOURNAL_BYTES = 8 * 1024 * 1024
# So many records of a message that was kept are read at each of its takings; then it is stored anew, with one.
MERGE_KEPT_FROM = 64
# Sizes, counts and times (three million years of seconds) are below it.  A number beyond it is left out when a record is read: it
# would overflow where it is reckoned with.
MAX_NUMBER = 1e14
# By these a record is understood: of another type they are left out too, for a list can be no key of a table.
_WORDS = frozenset(('event', 'queue', 'to', 'cause'))


def pack_record(record: Record, digest: str) -> bytes:
    """:return: the bytes to append for `record`."""
    text = dump_record(record)
    return b'%s%d %08x %s' % (_MARK, len(text), crc32(text, crc32(digest.encode('ascii'))), text)


def dump_record(record: Record) -> bytes:
    """Write a record as JSON; a value that JSON cannot hold is put as text, for a history is never refused."""
    try:
        return dump_json(record, 'record')
    except UnserializableError:
        return dump_json(plain_json(record), 'record')


def load_record(text: bytes) -> Record | None:
    """Read a line of :func:`dump_record`; None for one that is no record, whichever program has written it."""
    try:
        record = load_json(text, 'record')
    except CorruptEntryError:
        return None
    return sanitized(record) if isinstance(record, dict) else None


def sanitized(record: Record) -> Record:
    """:return: a record that anybody may have written, without numbers that cannot be reckoned with, and words that are none."""
    # What a user put into ``set`` is the user's.
    return {
        key: value
        for key, value in record.items()
        if (not isinstance(value, int | float) or -MAX_NUMBER < value < MAX_NUMBER)
        and (key not in _WORDS or isinstance(value, str))
    }


def _parse_record(tail: bytes, start: int, digest: str) -> tuple[Record, int] | None:
    """Read the record at `start`; None if there is no whole one."""
    found = _match_head(tail, start)
    if found is None:
        return None
    end = found.end() + int(found[1])
    text = tail[found.end() : end]
    if end > len(tail) or b'%08x' % crc32(text, crc32(digest.encode('ascii'))) != found[2]:
        return None
    record = load_record(text)
    return None if record is None else (record, end)


def begins_record(text: bytes) -> bool:
    """Could a record, perhaps a torn one, stand at the beginning of `text`?"""
    return text.startswith(_MARK)


def parse_records(tail: bytes, digest: str) -> tuple[list[Record], int]:
    """Read what stands behind the body.

    :return: the records, oldest first, and the offset in `tail` at which the next one is to be written.
    """
    records: list[Record] = []
    end = 0
    while (parsed := _parse_record(tail, end, digest)) is not None:
        record, end = parsed
        records.append(record)
    return records, end


def find_records(content: bytes, digest: str) -> tuple[list[Record], int]:
    """Read the history of a file whose body has no known end.

    :return: the records, oldest first, and the offset in `content` at which they start.
    """
    # From the end: a record's JSON holds no newline, so the last mark is where the last record starts.  From the start, a
    # body full of what looks like records would be read again for each of them.
    records: list[Record] = []
    end = len(content)
    first = max(0, end - MAX_JOURNAL_BYTES)
    while (start := content.rfind(_MARK, first, end)) >= 0:
        parsed = _parse_record(content, start, digest)
        if parsed is None or parsed[1] != end:
            break
        records.append(parsed[0])
        end = start
    records.reverse()
    return records, end


def drop_undone_moves(records: Sequence[Record], queue: str) -> list[Record]:
    """Leave out the moves that were noted and did not take place, because their process died before the rename.

    :param queue: where the entry is; empty if that is not known.
    """
    found: list[Record] = []
    for record in reversed(records):
        source, to = record.get('queue'), record.get('to')
        if isinstance(to, str) and queue and queue != to:
            continue
        if isinstance(source, str) and (isinstance(to, str) or record.get('event') == 'preserved'):
            queue = source
        found.append(record)
    return found[::-1]


# What a record has that was written when the file became ours: those before it may be another user's.
FOREIGN = 'foreign'


def trusted_records(records: Sequence[Record]) -> Sequence[Record]:
    """Leave out what stood in the file when it was another user's."""
    for number in range(len(records) - 1, -1, -1):
        if FOREIGN in records[number]:
            return records[number:]
    return records


def merge_kept_records(records: Sequence[Record]) -> list[Record]:
    """Put the records of a message that was kept again and again into one, which says how often.

    Assumes: what they say of the metadata is in the metadata by now.
    """
    kept = [record for record in records if record.get('event') == 'kept']
    if len(kept) < 2:
        return list(records)
    times = sum(count if isinstance(count := record.get('times'), int) else 1 for record in kept)
    return [
        {**record, 'times': times} if record is kept[-1] else record
        for record in records
        if record.get('event') != 'kept' or record is kept[-1]
    ]


def has_many_kept_records(records: Sequence[Record]) -> bool:
    """Was the message kept with other metadata so often that its records had better be merged?"""
    return len([record for record in records if record.get('event') == 'kept']) >= MERGE_KEPT_FROM


def first_digest(records: Sequence[Record], digest: str) -> str:
    """:return: the digest that the message came with: one that is kept with other content, or whose records are merged, is stored anew under another."""
    firsts = (record.get('first') for record in records if record.get('event') == 'noted')
    return next((first for first in firsts if isinstance(first, str)), digest)


def first_digest_record(records: Sequence[Record], digest: str) -> list[Record]:
    """:return: the addition to a history when its message is stored anew: the digest that it came with, once."""
    return [{'event': 'noted', 'first': digest}] if first_digest(records, '') == '' else []


def count_since_retry(records: Sequence[Record], *events: str) -> int:
    """The number of times that `event` happened since an operator last sent the entry back."""
    count = 0
    for record in records:
        if record.get('event') == 'retried':
            count = 0
        elif record.get('event') in events:
            count += 1
    return count


def origin_queue(records: Sequence[Record], queue: str) -> str | None:
    """From which queue did the entry come to the one where it is now?"""
    for record in reversed(drop_undone_moves(trusted_records(records), queue)):
        source = record.get('queue')
        if isinstance(source, str) and record.get('event') in ('preserved', 'moved', 'dead-lettered'):
            return source
    return None
