"""The way into a queue: encode, admit, write, publish.

Any number of threads may use one :class:`Producer`.  A :class:`Batch` belongs to the thread, and the asynchronous task, that opened it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Self

from switchboard.errors import QueueError
from switchboard.message.entry import Entry
from switchboard.message.journal import Record
from switchboard.message.metadata import merge_keys
from switchboard.message.naming import NameGenerator
from switchboard.message.packing import EncodedEntry, Packer
from switchboard.message.serializers import EncodedBody, Serializers
from switchboard.options import QueueOptions
from switchboard.queue.admission import Admission
from switchboard.store.folder import Folder
from switchboard.store.limits import Reservation
from switchboard.store.pool import FilePool
from switchboard.store.publishing import BATCH_LIMIT, DRAFT_OWNERS, PreparedEntry, publish, write_draft
from switchboard.trace_context import may_have_span, prepare_in_span

# The innermost open batch of the code that asks, which knows the ones around it.
_OPEN: ContextVar[Batch | None] = ContextVar('open batch', default=None)


class Producer:
    """Puts messages into one queue.

    :param reopen_if_replaced: has the folder lead to the directory that stands in its place by now.
    :param enqueue_once: stores a message with a ``dedupe_key``, whose marker appears in one step with it.
    """

    def __init__(
        self,
        folder: Folder,
        options: QueueOptions,
        name_generator: NameGenerator,
        pool: FilePool,
        serializers: Serializers,
        admission: Admission,
        reopen_if_replaced: Callable[[], None],
        enqueue_once: Callable[[Any, dict[str, Any], str], str] | None = None,
    ) -> None:
        self.folder = folder
        self.queue = folder.queue
        self.pool = pool
        self._sync = options.durability == 'full'
        self._directory_sync = options.directory_sync
        self.admission = admission
        self._packer = Packer(self.queue, options, serializers, name_generator)
        self._reopen_if_replaced = reopen_if_replaced
        self._enqueue_once = enqueue_once

    def enqueue(self, msg: Any, metadata: dict[str, Any], batch: Batch | None = None) -> str:
        """Store one message: now, or with a batch.

        :param metadata: may be changed.
        :raises QueueError: nothing was stored.
        """
        key = metadata.get('dedupe_key')
        if key is not None:
            if self._enqueue_once is None:
                raise QueueError(
                    'dedupe_key: only the queues of a Spool know what they have seen', queue=self.queue
                )
            return self._enqueue_once(msg, metadata, str(key))
        item = self.prepare(msg, metadata)
        self.publish(item, batch)
        return item.filebase

    def prepare(
        self,
        msg: Any,
        metadata: dict[str, Any],
        *,
        replaces: Entry | None = None,
        records: Sequence[Record] = (),
        is_delayed: bool = False,
        digest_tail: str | None = None,
    ) -> PreparedEntry:
        """Write a message without making it an entry yet.

        :param metadata: may be changed.
        :param replaces: the entry whose place in the queue and whose history it takes over.
        :param records: its history, or what that says more than the other entry's.
        :param is_delayed: True if that place may lie in the future, and the message waits for it.
        :param digest_tail: the last 32 digits of its digest, if they are not to be chosen here.
        :raises QueueError: as :meth:`enqueue`.
        """
        if replaces is not None:  # there is room for it, and it is in already
            packed = self._packer.pack_replacement(msg, metadata, replaces, records, is_delayed=is_delayed)
            return self._write(packed, None)
        # Messages of kombu have headers of their own for it.
        if not may_have_span() or records or type(msg) is EncodedBody:
            return self._prepare(msg, metadata, records, digest_tail)
        return prepare_in_span(
            metadata, self.queue, lambda: self._prepare(msg, metadata, records, digest_tail)
        )

    def _prepare(
        self, msg: Any, metadata: dict[str, Any], records: Sequence[Record], digest_tail: str | None
    ) -> PreparedEntry:
        self.admission.check_open()
        packed = self._packer.pack(msg, metadata, digest_tail=digest_tail)
        if records:
            packed = self._packer.with_history(packed, records)
        admission = self.admission
        return self._write(packed, admission.reserve(packed.size) if admission.has_limits else None)

    def prepare_copy(self, entry: Entry, record: Record | None = None, *, now: bool = False) -> PreparedEntry:
        """Write a copy of another queue's entry without making it an entry yet: same content, another name, its history.

        :param record: an addition to the copy's history.
        :param now: ready now; else it keeps the entry's time.
        :raises QueueError: as :meth:`enqueue`.
        """
        reservation = self.admission.reserve_for(entry)
        return self._write(self._packer.pack_copy(entry, record, now=now), reservation)

    def _write(self, packed: EncodedEntry, reservation: Reservation | None) -> PreparedEntry:
        self._reopen_if_replaced()
        try:
            draft = write_draft(self.pool, packed.parts, self.queue, modified_ns=packed.modified_ns)
        except BaseException:
            if reservation is not None:
                reservation.end(is_used=False)
            raise
        return PreparedEntry(draft, self.folder, self.queue, packed.filebase, reservation)

    def publish(self, item: PreparedEntry, batch: Batch | None = None) -> None:
        """Make a prepared message an entry: now, or with a batch; by default the one that the caller has open.

        :raises QueueError: as :meth:`enqueue`.
        """
        if batch is None and (opened := _OPEN.get()) is not None:
            batch = opened.of(self)
        if batch is None:
            publish((item,), self.pool, sync=self._sync, directory_sync=self._directory_sync)
        else:
            batch.add(item)

    def publish_all(self, items: Sequence[PreparedEntry]) -> None:
        """Make prepared messages entries, with one flush.

        :raises QueueError: as :meth:`enqueue`.
        """
        publish(items, self.pool, sync=self._sync, directory_sync=self._directory_sync)

    def batch(self) -> Batch:
        """:return: a batch, to be used in a ``with`` block."""
        return Batch(self)

    def enqueue_many(self, messages: Iterable[Any]) -> list[str]:
        """See `ISwitchboard`."""
        filebases: list[str] = []
        batch = self.batch()
        try:
            with batch:
                for message in messages:
                    msg, metadata = message if isinstance(message, tuple) else (message, {})
                    filebases.append(batch.enqueue(msg, metadata))
        except Exception as error:
            stored = batch.stored.intersection(filebases)
            if stored:
                error.add_note('stored before: ' + ' '.join(sorted(stored)))
            raise
        return filebases


class Batch:
    """Messages that share one flush, and are visible when the block ends.

    ``with queue.batch() as batch: batch.enqueue(...)``.  What the same thread enqueues inside the block in any other way belongs to the
    batch as well; other threads, and other tasks of an event loop, are not concerned.  A batch inside another one of the same queue is
    part of it.

    A block that raises stores nothing, but for what exceeded 256 messages and was flushed on the way.

    :raises QueueError: at the end, as :meth:`enqueue`; messages not yet visible were not stored.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._items: list[PreparedEntry] = []
        self._stored: set[str] = set()
        self._around: Batch | None = None
        self._whole: Batch = self
        self._thread = 0

    @property
    def stored(self) -> set[str]:
        """The filebases of flushed entries: they stay stored if something fails later."""
        return self._whole._stored

    def enqueue(self, msg: Any, metadata: Mapping[str, Any] | None = None, **metadata_keys: Any) -> str:
        """Store one message when the block ends.  See `ISwitchboard`."""
        return self._producer.enqueue(msg, merge_keys(metadata, metadata_keys), self)

    def add(self, item: PreparedEntry) -> None:
        """Have a prepared message published when the block ends."""
        if not self._thread:
            item.discard(self._producer.pool)
            raise QueueError('a batch is used in a `with` block', queue=self._producer.queue)
        whole = self._whole
        DRAFT_OWNERS.add(whole)
        whole._items.append(item)
        if len(whole._items) >= BATCH_LIMIT:
            whole._flush()

    def _flush(self) -> None:
        if self._items:
            items, self._items = self._items, []
            DRAFT_OWNERS.discard(self)
            self._producer.publish_all(items)
            self._stored.update(item.filebase for item in items)

    def of(self, producer: Producer) -> Batch | None:
        """:return: the batch of this producer that is open for the caller: this one, or one around it."""
        batch: Batch | None = self
        while batch is not None:
            # A task that outlives the block, or a thread that was begun in it, has been handed the variable and not the batch.
            if batch._producer is producer and batch._thread == get_ident():
                return batch
            batch = batch._around
        return None

    def discard(self) -> None:
        """Throw away what still waits."""
        DRAFT_OWNERS.discard(self)
        while self._items:
            self._items.pop().discard(self._producer.pool)

    def forget_in_child(self) -> None:
        """In a child after a fork: let go of what waits.  The locks are the parent's as well, so they are not unlocked."""
        for item in self._items:
            self._producer.folder.disk.close_quietly(item.draft.fd)
        self._items.clear()

    def __enter__(self) -> Self:
        self._around = _OPEN.get()
        outer = self._around.of(self._producer) if self._around is not None else None
        self._whole = self if outer is None else outer._whole  # the outer one flushes
        self._thread = get_ident()
        _OPEN.set(self)
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        _OPEN.set(self._around)
        self._thread = 0
        if self._whole is not self:
            return
        try:
            if kind is None:
                self._flush()
        finally:
            self.discard()
