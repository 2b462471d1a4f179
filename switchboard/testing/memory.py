"""One queue in memory, for the tests of programs that use a `Switchboard`.

It keeps the contract of `ISwitchboard`: the same names and order, the same errors, the same history.  What it has not is
another process: every claim is one's own, and nothing survives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from zope.interface import implementer

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    EntryExpiredError,
    EntryTakenError,
    ForeignFileError,
    QueueFullError,
)
from switchboard.interfaces import ISwitchboard, Taken
from switchboard.message.entry import Entry, changes, is_body_changed
from switchboard.message.expiry import is_expired
from switchboard.message.journal import Record, count_since_retry
from switchboard.message.naming import (
    CLAIMED,
    NS,
    PRESERVED,
    READY,
    SYSTEM_NAMER,
    Namer,
    check_queue_name,
    is_filebase,
    make_slice,
    parse,
    with_when,
)
from switchboard.message.packing import EncodedEntry, Packer
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.queue.consumer import (
    CAUSES,
    CLOCK_DOUBTED,
    LONGEST_DELAY_S,
    LOOK_AGAIN_S,
    ClockDoubtedError,
)
from switchboard.queue.ready_queue import ReadyQueue
from switchboard.queue.throttle import Throttle
from switchboard.store.steady_time import SteadyTime
from switchboard.testing.store import MemoryListing, MemoryWakeup, Store, Stored


@implementer(ISwitchboard)
class MemorySwitchboard:
    """One queue in memory.  See `ISwitchboard`.

    :param name: the queue's name.
    :param slice: which of `numslices` ranges of entries this object sees; all of them by default.
    :param recover: make the claims that this process gave up ready again.
    :param options: see `QueueOptions`.
    :param clock: the time; see `FakeClock`.
    :param store: the entries, to be shared with another object; a new, empty one by default.
    :param bad: the entries of the bad queue.
    """

    is_remote = False

    def __init__(
        self,
        name: str,
        slice: int | None = None,
        numslices: int = 1,
        recover: bool = False,
        *,
        options: QueueOptions | None = None,
        clock: Clock = SYSTEM_CLOCK,
        namer: Namer | None = None,
        store: Store | None = None,
        bad: Store | None = None,
    ) -> None:
        self.name = check_queue_name(name)
        self.slice = make_slice(slice, numslices)
        self.options = options = options or QueueOptions()
        self.clock = clock
        self.steady = SteadyTime(clock)
        self.store = store if store is not None else Store()
        self.bad_store = bad if bad is not None else Store()
        self.serializers = Serializers(
            options.accept, options.pickle_classes, options.serializer, options.message_class
        )
        if namer is None:
            namer = SYSTEM_NAMER if clock is SYSTEM_CLOCK else Namer(clock)
        self._packer = Packer(name, options, self.serializers, namer)
        self._listing = MemoryListing(self.store, clock, self.slice)
        self._ready = ReadyQueue(self._listing, priority_step_s=options.priority_step_s)
        self._throttle = Throttle(options.rate and options.rate / numslices, clock)
        self._batch: list[Stored] | None = None
        # Set by a spool, for a queue whose dead letters go elsewhere than to the bad queue.
        self.dead_letter: Callable[[Stored, str, str], bool] | None = None
        if recover:
            self.recover()

    def __repr__(self) -> str:
        return f'MemorySwitchboard({self.name!r}, {self.slice.index}, {self.slice.count})'

    # In.

    def enqueue(self, msg: Any, metadata: Mapping[str, Any] | None = None, **metadata_keys: Any) -> str:
        """See `ISwitchboard`."""
        merged = {**(metadata or {}), **metadata_keys}
        key = merged.get('dedupe_key')
        stored = self.prepare(msg, merged)
        if key is None or (first := self.first_with(key, stored)) == stored.filebase:
            self.publish(stored)
            return stored.filebase
        return first

    def first_with(self, key: object, stored: Stored) -> str:
        """See `Store`."""
        return self.store.first_with(key, stored.filebase, self.clock.time_ns(), self.options.dedupe_window_s)

    def prepare(
        self,
        msg: Any,
        metadata: dict[str, Any],
        *,
        replaces: Entry | None = None,
        records: Sequence[Record] = (),
    ) -> Stored:
        """Pack a message without making it an entry yet.

        :raises QueueError: as :meth:`enqueue`.
        """
        if replaces is not None:
            return _stored(self._packer.pack_anew(msg, metadata, replaces, records))
        packed = self._packer.pack(msg, metadata)
        self._ask_for_room(len(packed.content))
        return _stored(packed)

    def prepare_copy(self, entry: Entry) -> Stored:
        """Copy another queue's entry without making it an entry yet."""
        self.check_room(entry)
        return _stored(self._packer.pack_copy(entry, now=False))

    def check_room(self, entry: Entry) -> None:
        """Ask whether another queue's entry may come here."""
        if self.serializers.for_kind(entry.kind) is None:
            raise ContentDisallowedError(entry.kind, queue=self.name)
        self._ask_for_room(len(entry.body) + len(entry.metadata))

    def _ask_for_room(self, size: int) -> None:
        while reason := self._full(size):
            oldest = self._ready.files(1)
            if self.options.overflow == 'reject' or not oldest:
                raise QueueFullError(reason, queue=self.name)
            stored = self._claim(oldest[0])
            if self.options.overflow == 'dead-letter':
                self._set_aside(stored, 'overflow', 'the queue was full, and this was its oldest message')
            else:
                self.store.remove(stored)

    def _full(self, size: int) -> str:
        waiting = [*self.store.entries.values(), *(self._batch or ())]
        messages, most_bytes = self.options.max_messages, self.options.max_bytes
        if messages is not None and len(waiting) + 1 > messages:
            return f'{len(waiting)} messages wait, and max_messages is {messages}'
        if most_bytes is not None and sum(len(stored.content) for stored in waiting) + size > most_bytes:
            return f'more bytes would wait than max_bytes, {most_bytes}'
        return ''

    def publish(self, stored: Stored) -> None:
        """Make a prepared message an entry: now, or at the end of the batch."""
        if self._batch is None:
            self.store.add(stored)
        else:
            self._batch.append(stored)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Everything that is enqueued inside is visible when the block ends; nothing of it if the block raises."""
        if self._batch is not None:
            yield  # the outer batch ends it
            return
        batch: list[Stored] = []
        self._batch = batch
        try:
            yield
        finally:
            self._batch = None
        for stored in batch:
            self.store.add(stored)

    def enqueue_many(self, messages: Iterable[Any]) -> list[str]:
        """See `ISwitchboard`."""
        filebases = []
        with self.batch():
            for message in messages:
                msg, metadata = message if isinstance(message, tuple) else (message, {})
                filebases.append(self.enqueue(msg, metadata))
        return filebases

    # At work.

    def dequeue(self, filebase: str) -> tuple[Any, dict[str, Any]]:
        """See `ISwitchboard`."""
        stored = self._claim(filebase)
        try:
            msg, msgdata = stored.read().load(self.serializers)
            if is_expired(msgdata, self.clock):
                if not is_expired(msgdata, self.steady):
                    self.release(filebase)
                    raise ClockDoubtedError(CLOCK_DOUBTED, queue=self.name, filebase=filebase)
                raise EntryExpiredError('its time to live is over')
        except (CorruptEntryError, ContentDisallowedError, EntryExpiredError) as error:
            error.queue, error.filebase = self.name, filebase
            self._set_aside(stored, CAUSES[type(error)], error.reason, error=type(error).__name__)
            raise
        return msg, msgdata

    def _claim(self, filebase: str) -> Stored:
        if not is_filebase(filebase):
            raise ForeignFileError('not the name of an entry', queue=self.name, filebase=filebase)
        with self.store.lock:
            stored = self.store.entries.get(filebase)
            if stored is None or stored.suffix != READY:
                raise EntryTakenError('taken, or gone', queue=self.name, filebase=filebase)
            stored.suffix = CLAIMED
            return stored

    def take(self) -> Taken | None:
        """See `ISwitchboard`."""
        if self.options.paused or not self._throttle.allows():
            return None
        while (filebase := self._ready.next()) is not None:
            try:
                taken = Taken(filebase, *self.dequeue(filebase))
            except ClockDoubtedError:
                self.defer(filebase, LOOK_AGAIN_S)
                continue
            except (EntryTakenError, CorruptEntryError, ContentDisallowedError, EntryExpiredError):
                continue
            self._throttle.took()
            return taken
        return None

    def ready(self) -> bool:
        """See `ISwitchboard`."""
        return not self.options.paused and self._throttle.allows() and self._ready.scan()

    def defer(self, filebase: str, seconds: float) -> None:
        """See `ISwitchboard`."""
        self._ready.defer(filebase, self.clock.monotonic_ns() + int(seconds * NS))

    def wait_s(self) -> float | None:
        """See `ISwitchboard`."""
        waits = [wait for wait in (self._ready.next_due(), self._throttle.wait_s()) if wait is not None]
        return min(waits) if waits and not self.options.paused else None

    def wakeup(self) -> MemoryWakeup:
        """See `ISwitchboard`."""
        return MemoryWakeup(self.store)

    def claim_of(self, filebase: str) -> Stored:
        """:return: this process's claim on an entry.

        :raises EntryTakenError: it has none.
        """
        stored = self.store.entries.get(filebase)
        if stored is None or stored.suffix != CLAIMED:
            raise EntryTakenError('not held by this process', queue=self.name, filebase=filebase)
        return stored

    def annotate(self, filebase: str, record: Record) -> None:
        """See `ISwitchboard`."""
        fields = dict(record)
        self.claim_of(filebase).append(fields.pop('event', 'noted'), self.clock, **fields)

    def history(self, filebase: str) -> list[Record]:
        """See `ISwitchboard`."""
        stored = self.store.entries.get(filebase)
        if stored is None:
            raise EntryTakenError('no such entry', queue=self.name, filebase=filebase)
        return stored.read().records

    def changes(self, filebase: str, msgdata: Mapping[str, Any], *, strict: bool = True) -> dict[str, Any]:
        """See `ISwitchboard`."""
        return changes(self.claim_of(filebase).read().msgdata(self.serializers), msgdata, strict=strict)

    def is_changed(self, filebase: str, msg: Any) -> bool:
        """See `ISwitchboard`."""
        return is_body_changed(self.claim_of(filebase).read(), msg, self.serializers)

    # Out.

    def finish(
        self, filebase: str, preserve: bool = False, *, reason: str = '', cause: str = 'rejected'
    ) -> None:
        """See `ISwitchboard`."""
        try:
            stored = self.claim_of(filebase)
        except EntryTakenError:
            if preserve and filebase in self.bad_store.entries:
                return
            stored = self._claim(filebase)
        if preserve:
            self._set_aside(stored, cause, reason or 'preserved by its runner')
        else:
            self.store.remove(stored)

    def _set_aside(self, stored: Stored, cause: str, reason: str, **fields: Any) -> None:
        readable = cause not in ('corrupt', 'disallowed')
        if self.dead_letter is not None and readable and self.dead_letter(stored, cause, reason):
            return
        fields |= {'queue': self.name, 'reason': reason, 'cause': cause}
        stored.append('preserved', self.clock, **fields)
        self.store.remove(stored)
        self.bad_store.add(stored, PRESERVED)

    def release(self, filebase: str, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        """See `ISwitchboard`."""
        stored = self.claim_of(filebase)
        if record is not None:
            fields = dict(record)
            stored.append(fields.pop('event', 'released'), self.clock, **fields)
        with self.store.lock:
            self.store.remove(stored)
            if delay_s > 0:
                when_ns = self.clock.time_ns() + int(min(delay_s, LONGEST_DELAY_S) * NS)
                stored.filebase = with_when(filebase, when_ns)
                stored.wished = True
            self.store.add(stored)
        return stored.filebase

    def recover_backup_files(self, *, own: bool = True) -> None:
        """See `ISwitchboard`."""
        self.recover(own=own)

    def recover(self, *, own: bool = True) -> list[str]:
        """See `ISwitchboard`."""
        claimed = self.get_files(CLAIMED) if own else []
        return [filebase for filebase in claimed if self._recover(self.claim_of(filebase))]

    def _recover(self, stored: Stored) -> bool:
        recoveries = count_since_retry(stored.read().records, 'recovered') + 1
        stored.append('recovered', self.clock, count=recoveries)
        if recoveries >= self.options.max_recoveries:
            self._set_aside(stored, 'recoveries', f'recovered {recoveries} times: its owner died each time')
            return False
        self.store.add(stored)
        return True

    # All that is there.

    @property
    def files(self) -> list[str]:
        """See `ISwitchboard`."""
        return self._ready.files()

    def get_files(self, extension: str = READY) -> list[str]:
        """See `ISwitchboard`."""
        return sorted(self._listing.filebases(extension), key=self._ready.order)


def _stored(packed: EncodedEntry) -> Stored:
    # Names that a clock has run away from are dated as the name says; see `EncodedEntry`.
    name = parse(packed.filebase)
    return Stored(packed.filebase, packed.content, wished=name is None or packed.modified_ns != name.when_ns)
