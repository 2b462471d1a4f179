"""From a file's bytes to an entry: header, metadata, body, history, each checked before it is believed."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from switchboard.errors import ContentDisallowedError, CorruptEntryError
from switchboard.message.envelope import Header, check, parse_header, unpack
from switchboard.message.journal import Record, find_records, in_effect, parse_records
from switchboard.message.metadata import ALWAYS, load_metadata
from switchboard.message.naming import digest_of
from switchboard.message.serializers import Serializers

# The kind of a file that holds Mailman's two pickles, and of one whose header cannot be read.
MAILMAN = 'mailman'
UNKNOWN = 'unknown'

_PICKLE_PROTOCOLS = (b'\x02', b'\x03', b'\x04', b'\x05')


@dataclass(slots=True)
class Entry:
    """An entry's file, read and not yet interpreted.

    ``damage`` is why it cannot be believed; header and body are then whatever could be told.
    """

    filebase: str
    kind: str
    metadata: bytes
    body: bytes
    records: list[Record] = field(default_factory=list)
    # Where the next record goes.
    end: int = 0
    damage: CorruptEntryError | None = None
    # Where its file stands.
    queue: str = ''

    def changed_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Apply what the history says of the metadata: runners change them and give the message back."""
        for record in in_effect(self.records, self.queue):
            changed, dropped = record.get('set'), record.get('drop')
            if isinstance(changed, dict):
                metadata.update(deepcopy(changed))  # what the receiver does to its values is not history
            if isinstance(dropped, list):
                for key in dropped:
                    metadata.pop(str(key), None)
        if self.records:
            metadata.update(ALWAYS)
        return metadata

    def load(self, serializers: Serializers) -> tuple[Any, dict[str, Any]]:
        """Make the message and its metadata.

        :raises CorruptEntryError: they cannot be believed, or not be read.
        :raises ContentDisallowedError: the kind is not one that may be read.  Nothing of it was.
        """
        kind = self.kind
        serializer = serializers.for_kind(kind)
        if self.damage is not None:
            raise self.damage
        if serializer is None:
            raise ContentDisallowedError(kind)
        try:
            if kind == MAILMAN:
                msg, metadata = serializer.loads_both(self.body)  # type: ignore[attr-defined]
                metadata.update(ALWAYS)
            else:
                metadata = load_metadata(self.metadata)
                msg = serializer.loads(self.body)
        except (CorruptEntryError, MemoryError):
            raise
        except Exception as error:  # a program's own serializer raises what it likes
            raise CorruptEntryError(f'{kind}: {error!r}') from error
        return msg, self.changed_metadata(metadata) if self.records else metadata

    def msgdata(self, serializers: Serializers) -> dict[str, Any]:
        """The metadata alone, as :meth:`load` gives them."""
        if self.kind == MAILMAN:
            return self.load(serializers)[1]
        return self.changed_metadata(load_metadata(self.metadata))


def read_entry(filebase: str, content: bytes) -> Entry:
    """Take a file apart.  Never raises: what is wrong is the entry's ``damage``."""
    digest = digest_of(filebase)
    unpacked = unpack(content, digest)
    if unpacked is None:
        header: Header | None = None
        try:
            header = parse_header(content)
            check(header, content, digest)
        except CorruptEntryError as error:
            return _read_damaged(filebase, content, digest, header, error)
        unpacked = header.kind, header.length, header.body_start, header.end
    kind, metadata, body, end = unpacked
    entry = Entry(filebase, kind, content[metadata:body], content[body:end], end=end)
    if len(content) > end:
        entry.records, length = parse_records(content[end:], digest)
        entry.end += length
    return entry


def _read_damaged(
    filebase: str, content: bytes, digest: str, header: Header | None, error: CorruptEntryError
) -> Entry:
    records, start = find_records(content, digest)
    kind = UNKNOWN
    if header is not None:
        kind = header.kind
    elif content[:1] == b'\x80' and content[1:2] in _PICKLE_PROTOCOLS:
        # Two pickles without a header: Mailman's.  Whether they may be read is the queue's decision.
        return Entry(filebase, MAILMAN, b'{}', content[:start], records, len(content))
    return Entry(filebase, kind, b'{}', content[:start], records, len(content), error)
