"""From a file's bytes to an entry: header, metadata, body, history, each checked before it is believed.

And back to the comparison: what a runner changed of a message that it gives back to its queue.  Mailman's runners change a message's metadata and
ask to keep it queued; Mailman then stores it anew, at the end of the queue, and forgets how often it failed.  Here changed metadata are a record in
the entry's history.  Only a message whose body was changed is stored anew, in its old place, with its history, as one step with the end of
the old one.  The entry's own bytes are what the message is compared with, read again: a copy of the metadata made before would
cost each message, and would not see a change inside of a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from switchboard.errors import ContentDisallowedError, CorruptEntryError, UnserializableError
from switchboard.message.entry_header import MAGIC, MAX_METADATA_BYTES
from switchboard.message.journal import Record, drop_undone_moves, find_records, parse_records
from switchboard.message.metadata import FIXED_METADATA, load_metadata
from switchboard.message.naming import digest_of
from switchboard.message.typed_json import dump_json, is_equal

if TYPE_CHECKING:
    from switchboard.message.serializers import Serializer, Serializers, TextSerializer

# The kind of a file that holds Mailman's two pickles, and of one whose header cannot be read.
MAILMAN = 'mailman'
UNKNOWN = 'unknown'
TEXT = 'text'

_PICKLE_PROTOCOLS = (b'\x02', b'\x03', b'\x04', b'\x05')
_match_header = re.compile(
    rb'switchboard/1 ([a-z0-9.+_-]{1,32}) ([0-9]{1,12}) ([0-9]{1,12}) ([0-9a-f]{40}) ([0-9a-f]{8})\n'
).match
_CHECKSUM_BYTES = len(' 01234567\n')
# Of a line that is no header, so much is shown: more may be content.
_SHOWN_BYTES = 60
_TORN = 'torn: the checksum does not match'


class Header(NamedTuple):
    """The header line, checked for its form; lengths are in bytes."""

    kind: str
    metadata_length: int
    body_length: int
    digest: str
    checksum: int
    length: int
    # Where the body starts in the file; where it ends, and the journal starts.
    body_start: int
    end: int

    def check_file(self, digest: str, size: int) -> None:
        """Make sure that the file is as long as it should be, and is the one its name says.

        :param digest: the digest of the file's name.
        :raises CorruptEntryError: it is not; `offset` is where the trouble was seen.
        """
        if self.digest != digest:
            raise CorruptEntryError(f'stale or swapped: the header names {self.digest}', offset=0)
        if self.end > size:
            raise CorruptEntryError(f'cut short: {size} of {self.end} bytes', offset=size)

    def check_content(self, line: bytes, checksum: int) -> None:
        """Make sure that header and content belong together.

        :param line: the header as it stands in the file.
        :param checksum: the CRC-32 of metadata and body.
        :raises CorruptEntryError: they do not.
        """
        if crc32(line[:-_CHECKSUM_BYTES], checksum) != self.checksum:
            raise CorruptEntryError(_TORN, offset=self.length)


def parse_header(start: bytes) -> Header:
    """Read the header from the first bytes of a file.

    :raises CorruptEntryError: they are not a header.
    """
    found = _match_header(start)
    if found is None:
        if not start.startswith(MAGIC):
            raise CorruptEntryError('no header: not an entry of this format')
        line = start[:_SHOWN_BYTES].split(b'\n')[0]
        raise CorruptEntryError(f'damaged header: {line!r}')
    kind, metadata_length, body_length = found[1].decode('ascii'), int(found[2]), int(found[3])
    if metadata_length > MAX_METADATA_BYTES:
        raise CorruptEntryError(f'metadata of {metadata_length} bytes: more than {MAX_METADATA_BYTES}')
    body_start = found.end() + metadata_length
    return Header(
        kind,
        metadata_length,
        body_length,
        found[4].decode('ascii'),
        int(found[5], 16),
        found.end(),
        body_start,
        body_start + body_length,
    )


def _unpack(content: bytes, digest: str) -> tuple[str, bytes, bytes, int] | None:
    """Take a whole file apart, if there is nothing wrong with it: several times as fast as finding the damage.

    :param digest: the digest of the file's name.
    :return: the kind, the metadata, the body, and where it ends; None if it is damaged.
    """
    found = _match_header(content)
    if found is None:
        return None
    kind, metadata_length, body_length, named, checksum = found.groups()
    length = int(metadata_length)
    start = found.end()
    body_start = start + length
    end = body_start + int(body_length)
    if named != digest.encode('ascii') or length > MAX_METADATA_BYTES or end > len(content):
        return None
    metadata, body = content[start:body_start], content[body_start:end]
    if crc32(content[: start - _CHECKSUM_BYTES], crc32(body, crc32(metadata))) != int(checksum, 16):
        return None
    return kind.decode('ascii'), metadata, body, end


@dataclass(slots=True)
class Entry:
    """An entry's file, read and not yet interpreted.

    ``damage`` is why it cannot be believed; header and body are then as far as they could be read.
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
    # How much of the body was not kept, where only its beginning is shown.
    left_out_bytes: int = 0

    def is_same_as(self, other: Entry) -> bool:
        """Do both say the same, whatever has become of them since?"""
        mine, its = ((each.kind, each.metadata, each.body, each.damage) for each in (self, other))
        return mine == its and self.damage is None

    def apply_history(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Apply what the history says of the metadata: runners change them and give the message back."""
        for record in drop_undone_moves(self.records, self.queue):
            changed, dropped = record.get('set'), record.get('drop')
            if isinstance(changed, dict):
                metadata.update(deepcopy(changed))  # what the receiver does to its values is not history
            if isinstance(dropped, list):
                for key in dropped:
                    metadata.pop(str(key), None)
        if self.records:
            metadata.update(FIXED_METADATA)
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
                msg, metadata = serializer.loads_both(self.body)  # type: ignore[attr-defined]  # the serializer of this one kind has it
                metadata.update(FIXED_METADATA)
            else:
                metadata = load_metadata(self.metadata)
                msg = self._message(serializer)
        except (CorruptEntryError, MemoryError):
            raise
        except Exception as error:  # a program's own serializer raises what it likes
            raise CorruptEntryError(f'{kind}: {error!r}') from error
        return msg, self.apply_history(metadata) if self.records else metadata

    def _message(self, serializer: Serializer) -> Any:
        return serializer.loads(self.body)

    def msgdata(self, serializers: Serializers) -> dict[str, Any]:
        """The metadata alone, as :meth:`load` gives them."""
        if self.kind == MAILMAN:
            return self.load(serializers)[1]
        return self.apply_history(load_metadata(self.metadata))


class TextEntry(Entry):
    """An entry with a large text for a body: it is kept as the text, and bytes are made of it when somebody asks for them."""

    __slots__ = ('text',)

    text: str

    @property
    def body(self) -> bytes:
        """The body, made anew each time."""
        return text_serializer().dumps(self.text)

    @body.setter
    def body(self, body: str | bytes) -> None:
        self.text = body if isinstance(body, str) else text_serializer().loads(body)

    def _message(self, serializer: Serializer) -> Any:
        return self.text if type(serializer) is type(text_serializer()) else serializer.loads(self.body)


def text_serializer() -> TextSerializer:
    """:return: the serializer of text, which few programs need that read entries."""
    from switchboard.message.serializers import TextSerializer

    return TextSerializer()


def read_entry(filebase: str, content: bytes) -> Entry:
    """Take a file apart.  Never raises: a mistake in it is the entry's ``damage``."""
    digest = digest_of(filebase)
    unpacked = _unpack(content, digest)
    if unpacked is None:
        return _read_damaged(filebase, content, digest)
    kind, metadata, body, end = unpacked
    entry = Entry(filebase, kind, metadata, body, end=end)
    if len(content) > end:
        entry.records, length = parse_records(content[end:], digest)
        entry.end += length
    return entry


def _read_damaged(filebase: str, content: bytes, digest: str) -> Entry:
    records, start = find_records(content, digest)
    kind, body, end = UNKNOWN, content[:start], len(content)
    if content[:1] == b'\x80' and content[1:2] in _PICKLE_PROTOCOLS:
        # Two pickles without a header: Mailman's.  Whether they may be read is the queue's decision.
        return Entry(filebase, MAILMAN, b'{}', body, records, end)
    try:
        header = parse_header(content)
        kind = header.kind
        header.check_file(digest, end)
        raise CorruptEntryError(_TORN, offset=header.length)  # nothing else is left that `_unpack` refuses
    except CorruptEntryError as error:
        return Entry(filebase, kind, b'{}', body, records, end, error)


def metadata_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], *, strict: bool = True
) -> dict[str, Any]:
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
