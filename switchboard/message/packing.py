"""From a message and its metadata to a name and the bytes of a file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from switchboard.clock import SYSTEM_CLOCK
from switchboard.errors import ContentDisallowedError, MessageTooLargeError, UnserializableError
from switchboard.message.entry import MAILMAN, Entry
from switchboard.message.entry_header import (
    JOINED_BYTES,
    MAX_METADATA_BYTES,
    content_checksum,
    make_digest_and_header,
    pack_header,
)
from switchboard.message.expiry import EXPIRES, QUEUE_EXPIRES
from switchboard.message.journal import Record, merge_kept_records, pack_record
from switchboard.message.metadata import dump_metadata, is_number, load_metadata
from switchboard.message.naming import (
    HIGHEST_PRIORITY,
    NS_PER_S,
    ON_HOLD_NS,
    SLICE_DIGITS,
    NameGenerator,
    digest_of,
    make_filebase,
    order_key_of,
    parse_filebase,
)
from switchboard.message.serializers import (
    LARGE_CHARACTERS,
    EncodedBody,
    LargeText,
    Serialized,
    Serializers,
    TextSerializer,
)
from switchboard.options import QueueOptions

_READY_MADE = (Serialized, EncodedBody)
# Three thousand years: more is no wish but a slip, and would not fit into a name.
_FOREVER_S = 1e11


class EncodedEntry(NamedTuple):
    """A file's name and content, and the modification time to give it where the clock must not be believed.

    The content is in parts, for a large body is not put together with what stands before and behind it: it would be in memory twice.
    """

    filebase: str
    parts: tuple[bytes | LargeText, ...]
    modified_ns: int | None

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return sum(map(len, self.parts))

    @property
    def content(self) -> bytes:
        """The whole file."""
        return b''.join(
            chain.from_iterable((part,) if isinstance(part, bytes) else part for part in self.parts)
        )


def _joined(*parts: bytes | LargeText) -> tuple[bytes | LargeText, ...]:
    return parts if sum(map(len, parts)) > JOINED_BYTES else (b''.join(parts),)  # type: ignore[arg-type]  # no `LargeText` is as short as that


class Packer:
    """Packs the messages of one queue."""

    def __init__(
        self, queue: str, options: QueueOptions, serializers: Serializers, name_generator: NameGenerator
    ) -> None:
        self.queue = queue
        self.options = options
        self.serializers = serializers
        self.name_generator = name_generator
        # The last time that was wished for, and how often in a row.
        self._wish = (0, 0)

    def pack(
        self,
        msg: Any,
        metadata: dict[str, Any],
        *,
        when_ns: int | None = None,
        is_delayed: bool = False,
        slice_prefix: str | None = None,
        digest_tail: str | None = None,
    ) -> EncodedEntry:
        """Name and pack one message.

        :param metadata: is changed: ``delay`` and ``not_before`` are taken out.
        :param when_ns: the place in the queue of the entry that this one stands for.
        :param is_delayed: True if that place may lie in the future, and the message waits for it.
        :param slice_prefix: the digits that choose the slice of a message without an order key, if not its content is to.
        :param digest_tail: the digits of the digest behind those of the slice, if something else than chance is to choose them.
        :raises UnserializableError: nothing holds the message or its metadata.
        :raises ContentDisallowedError: the queue does not accept the kind.
        :raises MessageTooLargeError: the body is longer than the queue takes.
        """
        kind, body = self._serialize(msg)
        options = self.options
        wished_ns = when_ns if is_delayed else None
        if 'delay' in metadata or 'not_before' in metadata:
            wished_ns = self._ready_at(metadata)
        priority = self._priority(metadata)
        if options.ttl_s is not None or 'ttl' in metadata or QUEUE_EXPIRES in metadata:
            self._set_expiry(metadata, when_ns if wished_ns is None else wished_ns)
        limit = options.max_body_bytes
        if limit is not None and len(body) > limit:
            raise MessageTooLargeError(f'{len(body)} bytes, and the queue takes {limit}', queue=self.queue)
        packed_metadata = dump_metadata(metadata)
        if len(packed_metadata) > MAX_METADATA_BYTES:
            raise MessageTooLargeError(
                f'metadata of {len(packed_metadata)} bytes: at most {MAX_METADATA_BYTES}', queue=self.queue
            )
        key = order_key_of(metadata, options.order_key) if metadata else None
        digest_tail = digest_tail or self.name_generator.unique_digits()
        digest, header = make_digest_and_header(kind, packed_metadata, body, digest_tail, key, slice_prefix)
        when_ns, modified_ns = self._dated(when_ns, wished_ns)
        name = make_filebase(when_ns, digest, priority)
        return EncodedEntry(name, _joined(header + packed_metadata, body), modified_ns)

    def _serialize(self, msg: Any) -> tuple[str, bytes | LargeText]:
        serializers = self.serializers
        if type(msg) is Serialized:
            msg = serializers.serialize(msg)
        if type(msg) in _READY_MADE:
            kind, dumps = msg.kind, None
        else:
            serializer = serializers.for_message(msg)
            kind, dumps = serializer.kind, serializer.dumps
        if not serializers.accepts(kind):
            raise ContentDisallowedError(kind, queue=self.queue)
        if dumps is None:
            return kind, msg.body
        if type(msg) is str and len(msg) > LARGE_CHARACTERS and type(serializer) is TextSerializer:
            return kind, LargeText(msg)
        return kind, dumps(msg)

    def pack_replacement(
        self,
        msg: Any,
        metadata: dict[str, Any],
        old: Entry,
        records: Sequence[Record] = (),
        *,
        is_delayed: bool = False,
    ) -> EncodedEntry:
        """Pack a message that takes another's place in the queue, with its history.

        :param records: an addition to the new one's history.
        :param is_delayed: see :meth:`pack`.
        """
        name = parse_filebase(old.filebase)
        assert name is not None
        slice_prefix = name.digest[:SLICE_DIGITS]
        packed = self.pack(
            msg, metadata, when_ns=name.when_ns, is_delayed=is_delayed, slice_prefix=slice_prefix
        )
        journal = _journal(old, digest_of(packed.filebase), records)
        return packed._replace(parts=_joined(*packed.parts, journal))

    def with_history(self, packed: EncodedEntry, records: Sequence[Record]) -> EncodedEntry:
        """:return: the same with a history, of what happened to the message before it came here."""
        digest = digest_of(packed.filebase)
        history = b''.join(pack_record(record, digest) for record in records)
        return packed._replace(parts=_joined(*packed.parts, history))

    def pack_copy(self, entry: Entry, record: Record | None = None, *, now: bool = True) -> EncodedEntry:
        """Name and pack the copy of an entry: it stays in its slice and at its priority.

        :param record: an addition to the copy's history; its ``drop`` is done in the copy's metadata.
        :param now: ready now; else it keeps the entry's time, and so its place among those of its key.
        """
        old = parse_filebase(entry.filebase)
        assert old is not None
        digest = self.name_generator.digest(old.digest[:SLICE_DIGITS])
        when_ns, modified_ns = self._dated(None if now else old.when_ns, None)
        packed_metadata = self._metadata_of_copy(entry, None if old.when_ns == when_ns else when_ns, record)
        checksum = content_checksum(packed_metadata, entry.body)
        header = pack_header(entry.kind, len(packed_metadata), len(entry.body), digest, checksum)
        # The history goes along: how often it failed counts in the next queue too.
        journal = _journal(entry, digest, () if record is None else (record,))
        parts = _joined(header + packed_metadata, entry.body, journal)
        return EncodedEntry(make_filebase(when_ns, digest, old.priority), parts, modified_ns)

    def _dated(self, place_ns: int | None, wished_ns: int | None) -> tuple[int, int | None]:
        """Date an entry.

        :return: the time for its name, and the modification time for its file, where the machine's own would mislead: beside a
            name in the future, one in the past tells of a wish for a delay, and one in the future of a turned clock.
        """
        name_generator = self.name_generator
        clock = name_generator.clock
        now_ns = clock.time_ns()
        if wished_ns is not None:
            return wished_ns, None if clock is SYSTEM_CLOCK else now_ns
        when_ns = name_generator.next_when_ns_from(now_ns) if place_ns is None else place_ns
        return when_ns, when_ns if when_ns > now_ns or clock is not SYSTEM_CLOCK else None

    def _metadata_of_copy(self, entry: Entry, when_ns: int | None, record: Record | None) -> bytes:
        has_expiry = self.options.ttl_s is not None or QUEUE_EXPIRES.encode() in entry.metadata
        if not entry.records and record is None and not has_expiry:
            return entry.metadata
        metadata = entry.apply_history(load_metadata(entry.metadata))
        for key in record.get('drop', ()) if record else ():
            metadata.pop(key, None)
        self._set_expiry(metadata, when_ns)
        return dump_metadata(metadata)

    def _ready_at(self, metadata: dict[str, Any]) -> int | None:
        delay = metadata.pop('delay', None)
        not_before = metadata.pop('not_before', None)
        # Not the generator's time: after the clock was set back, that stands still where it was.
        when_ns = now_ns = self.name_generator.clock.time_ns()
        for key, value, base_ns in (('delay', delay, when_ns), ('not_before', not_before, 0)):
            if value is not None:
                when_ns = max(when_ns, base_ns + int(self._seconds(key, value) * NS_PER_S))
        if when_ns >= ON_HOLD_NS:
            raise UnserializableError('a delay beyond the year 2286 has no name', queue=self.queue)
        if when_ns == now_ns:
            return None
        # Those that are all wished for the same time stay in order.
        last_ns, times = self._wish
        self._wish = (when_ns, times + 1 if when_ns == last_ns else 0)
        return when_ns + self._wish[1]

    def _set_expiry(self, metadata: dict[str, Any], when_ns: int | None) -> None:
        ready_s = (self.name_generator.clock.time_ns() if when_ns is None else when_ns) / NS_PER_S
        metadata.pop(QUEUE_EXPIRES, None)
        if (ttl := metadata.pop('ttl', None)) is not None:
            metadata[EXPIRES] = ready_s + self._seconds('ttl', ttl)
        if self.options.ttl_s is not None:
            metadata[QUEUE_EXPIRES] = ready_s + self.options.ttl_s

    def _seconds(self, key: str, value: Any) -> float:
        if not is_number(value) or not -_FOREVER_S < value < _FOREVER_S:
            raise UnserializableError(
                f'metadata[{key!r}]: this {type(value).__name__} is no number of seconds', queue=self.queue
            )
        return value

    def _priority(self, metadata: dict[str, Any]) -> int:
        priority = metadata.get('priority')
        if type(priority) is not int:
            # A word, which a headers exchange may route by, ranks nothing.
            return self.options.priority
        if not 0 <= priority <= HIGHEST_PRIORITY:
            raise UnserializableError(
                f"metadata['priority']: {priority} is not a whole number from 0 to {HIGHEST_PRIORITY}",
                queue=self.queue,
            )
        return priority


def _journal(old: Entry, digest: str, more: Sequence[Record]) -> bytes:
    """:return: an entry's history for another one that has taken over its metadata as they are by now."""
    # The metadata of Mailman's files stand in their bodies, so what the history says of them still has to be said.
    settled, records = (
        ((), old.records) if old.kind == MAILMAN else (('set', 'drop'), merge_kept_records(old.records))
    )
    return b''.join(
        pack_record({key: value for key, value in record.items() if key not in settled}, digest)
        for record in (*records, *more)
    )
