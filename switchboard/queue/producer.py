"""The way into a queue: pack, ask for room, write, publish.

`Switchboard` adds the rest of an entry's life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from switchboard.clock import Clock
from switchboard.errors import ContentDisallowedError, QueueError, QueueFullError, QueuePausedError
from switchboard.message.entry import Entry
from switchboard.message.journal import Record
from switchboard.message.naming import Namer, check_queue_name
from switchboard.message.packing import EncodedEntry, Packer
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.store.disk import Disk, Folder
from switchboard.store.limits import Limits
from switchboard.store.pool import FilePool
from switchboard.store.publishing import Batch, PreparedEntry, publish, write
from switchboard.store.shared_count import Tally

# How often a full queue whose oldest is to make room is looked at, when nothing can be taken out of it.
ROOM_TRIES = 3


class Inlet:
    """What producers use of a queue.  See `ISwitchboard`."""

    def __init__(
        self,
        name: str,
        folder: Folder,
        options: QueueOptions,
        disk: Disk,
        clock: Clock,
        namer: Namer,
        pool: FilePool,
    ) -> None:
        self.name = check_queue_name(name)
        self.folder = folder
        folder.place = name
        self.options = options
        self.disk = disk
        self.clock = clock
        self.pool = pool
        folder.make()
        folder.fd  # noqa: B018  a directory that cannot be opened is an error here, and not in the middle of a step
        self.serializers = Serializers(options.accept, options.pickle_classes, options.serializer)
        self._packer = Packer(name, options, self.serializers, namer)
        self._limits = Limits(name, folder, options, disk, clock)
        self._limits.pending = self._pending = WeakSet[PreparedEntry]()
        self._limits.free_space = pool.free_space
        self._batch: Batch | None = None
        # Set by a spool, which has a stage to publish a message and the marker of its key in one step.
        self.enqueue_once: Callable[[Any, dict[str, Any], str], str] | None = None
        # Set by a spool, which knows what operators say.
        self.is_draining: Callable[[], bool] = lambda: False

    def share_limits(self, tally: Tally) -> None:
        """From now on, go by what all producers know of how full the queue is."""
        self._limits.tally = tally

    def make_room(self) -> int | None:
        """Take one entry out of a queue that is full, if its options say so.

        :return: how many bytes it had; None if nothing could be taken out.
        """
        return None

    def enqueue(self, msg: Any, metadata: Mapping[str, Any] | None = None, **metadata_keys: Any) -> str:
        """See `ISwitchboard`."""
        merged = {**metadata, **metadata_keys} if metadata else metadata_keys
        if merged.get('dedupe_key') is not None:
            if self.enqueue_once is None:
                raise QueueError(
                    'dedupe_key: only the queues of a Spool know what they have seen', queue=self.name
                )
            return self.enqueue_once(msg, merged, str(merged['dedupe_key']))
        item = self.prepare(msg, merged)
        self.publish(item)
        return item.filebase

    def prepare(
        self,
        msg: Any,
        metadata: dict[str, Any],
        *,
        replaces: Entry | None = None,
        records: Sequence[Record] = (),
        is_delayed: bool = False,
        unique: str | None = None,
    ) -> PreparedEntry:
        """Write a message without making it an entry yet.

        :param metadata: may be changed.
        :param replaces: the entry whose place in the queue and whose history it takes over.
        :param records: its history, or what that says more than the other entry's.
        :param is_delayed: that place may lie in the future, and is waited for.
        :param unique: the last 32 digits of its digest, if they are not to be chosen here.
        :raises QueueError: as :meth:`enqueue`.
        """
        if replaces is not None:  # there is room for it, and it is in already
            return self._write(
                self._packer.pack_anew(msg, metadata, replaces, records, is_delayed=is_delayed)
            )
        if self.is_draining():
            raise QueuePausedError('it is being drained: nothing is let in', queue=self.name)
        packed = self._packer.pack(msg, metadata, unique=unique)
        if records:
            packed = self._packer.with_history(packed, records)
        self._ask_for_room(len(packed.content))
        return self._write(packed)

    def _write(self, packed: EncodedEntry) -> PreparedEntry:
        try:
            draft = write(self.pool, self.disk, packed.content, self.name, modified_ns=packed.modified_ns)
        except BaseException:
            self._limits.left(1)
            raise
        item = PreparedEntry(draft, self.folder, self.name, packed.filebase)
        if self._limits.counted:
            self._pending.add(item)
        return item

    def prepare_copy(self, entry: Entry, record: Record | None = None) -> PreparedEntry:
        """Write a copy of another queue's entry without making it an entry yet: same content, another name, its history.

        :param record: what the copy's history says more than that.
        :raises QueueError: as :meth:`enqueue`.
        """
        self.check_room(entry)
        return self._write(self._packer.pack_copy(entry, record))

    def check_room(self, entry: Entry) -> None:
        """Ask whether another queue's entry may come here.

        :raises ContentDisallowedError: its kind is not accepted.
        :raises QueueFullError: there is no room.
        """
        if self.is_draining():
            raise QueuePausedError('it is being drained: nothing is let in', queue=self.name)
        if self.serializers.for_kind(entry.kind) is None:
            raise ContentDisallowedError(entry.kind, queue=self.name)
        self._ask_for_room(len(entry.body) + len(entry.metadata))

    def _ask_for_room(self, size: int) -> None:
        limits = self._limits
        room, tries = not limits.any, 0
        while not room:
            try:
                limits.check(1, size)
                room = True
            except QueueFullError:
                if self.options.overflow == 'reject' or not limits.counted:
                    raise
                if (freed := self.make_room()) is not None:
                    limits.left(1, freed)
                    continue
                # Full of what others work on, or are about to put in: what they have by now is counted again.
                tries += 1
                if tries == ROOM_TRIES:
                    raise
                limits.left(0)

    def publish(self, item: PreparedEntry) -> None:
        """Make a prepared message an entry: now, or at the end of the batch.

        :raises QueueError: as :meth:`enqueue`.
        """
        try:
            if self._batch is None:
                publish((item,), self.pool, self.disk, sync=self.options.durability == 'full')
            else:
                self._batch.add(item)
        except BaseException:
            self._limits.left(1)
            raise

    def discard(self, item: PreparedEntry) -> None:
        """Throw a prepared message away."""
        self.pool.abandon(item.draft)

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Everything that is enqueued inside shares one flush, and is visible when the block ends.

        A block that raises stores nothing, but for what exceeded 256 messages and was flushed on the way.

        :raises QueueError: at the end, as :meth:`enqueue`; what was not yet visible was not stored.
        """
        if self._batch is not None:
            yield self._batch  # the outer batch flushes
            return
        self._batch = batch = Batch(self.pool, self.disk, sync=self.options.durability == 'full')
        try:
            yield batch
            batch.flush()
        except BaseException:
            self._limits.left(0)  # what was counted did not come
            raise
        finally:
            self._batch = None
            batch.discard()

    def enqueue_many(self, messages: Iterable[Any]) -> list[str]:
        """See `ISwitchboard`."""
        filebases: list[str] = []
        batch = None
        try:
            with self.batch() as batch:
                for message in messages:
                    msg, metadata = message if isinstance(message, tuple) else (message, {})
                    filebases.append(self.enqueue(msg, metadata))
        except Exception as error:
            stored = batch.stored.intersection(filebases) if batch else ()
            if stored:
                error.add_note('stored before: ' + ' '.join(sorted(stored)))
            raise
        return filebases
