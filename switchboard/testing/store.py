"""What a queue in memory is made of: its entries as the bytes that a file would hold, and who waits for them.

Entries are kept packed, not as objects, so that a message comes out as it would out of a file: another object, equal, without
what cannot be stored.  Names, packing, order and history are those of the directory, made by the same code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from weakref import WeakSet

from switchboard.clock import Clock
from switchboard.message.entry import Entry, read_entry
from switchboard.message.journal import Record, pack_record
from switchboard.message.naming import NS, READY, Slice, digest_of, format_when, parse
from switchboard.queue.listing import Letterbox, order
from switchboard.queue.recovery import timestamp
from switchboard.queue.wakeup import Wakeup


class Stored:
    """One entry: what the directory keeps in a file, its name, and the name's suffix.

    ``wished`` says that a time in the future is a wish for a delay, and not the trace of a clock that was set back.
    """

    __slots__ = ('content', 'filebase', 'suffix', 'wished')

    def __init__(self, filebase: str, content: bytes, *, wished: bool) -> None:
        self.filebase = filebase
        self.content = content
        self.suffix = READY
        self.wished = wished

    def read(self) -> Entry:
        """Take it apart."""
        return read_entry(self.filebase, self.content)

    def append(self, event: str, clock: Clock, /, **fields: object) -> None:
        """Add a record to its history."""
        record: Record = {'event': event, 'time': timestamp(clock)}
        self.content += pack_record({**record, **fields, **record}, digest_of(self.filebase))


class Store:
    """The entries of one queue, shared by all objects that look at it, in any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: dict[str, Stored] = {}
        self.sleepers: WeakSet[MemoryWakeup] = WeakSet()
        # By deduplication key, the entry that had it, and when it was accepted.
        self._seen: dict[str, tuple[str, int]] = {}

    def first_with(self, key: object, filebase: str, now_ns: int, window_s: float) -> str:
        """:return: the first entry with this key within the window: this one, if there was none; then that is remembered."""
        with self.lock:
            known, accepted_ns = self._seen.get(str(key), ('', 0))
            if not known or now_ns - accepted_ns >= window_s * NS:
                known, _ = self._seen[str(key)] = filebase, now_ns
            return known

    def add(self, stored: Stored, suffix: str = READY) -> None:
        """Put an entry in, under the name it has by now, and wake who waits for one."""
        with self.lock:
            stored.suffix = suffix
            self.entries[stored.filebase] = stored
        for sleeper in list(self.sleepers):
            sleeper.wake()

    def remove(self, stored: Stored) -> None:
        """Take an entry out."""
        with self.lock:
            del self.entries[stored.filebase]


class MemoryListing:
    """Lists a slice of a store.  See `Listing`."""

    def __init__(self, store: Store, clock: Clock, slice_: Slice, priority_step_s: float) -> None:
        self.clock = clock
        self.letterbox: Letterbox | None = None
        self.dropped: list[str] = []
        self.order: Callable[[str], str] = partial(order, step_ns=int(priority_step_s * NS))
        self._store = store
        self._slice = slice_

    def filebases(self, suffix: str) -> list[str]:
        """See `Listing`."""
        with self._store.lock:
            found = [stored.filebase for stored in self._store.entries.values() if stored.suffix == suffix]
        return sorted(filter(self._slice.holds, found), key=self.order)

    def due(self, limit: int | None = None) -> tuple[list[str], int | None]:
        """See `Listing`."""
        now = format_when(self.clock.time_ns()) + '~'
        due: list[str] = []
        future: list[str] = []
        with self._store.lock:
            for filebase in self.filebases(READY):
                is_due = filebase <= now or not self._store.entries[filebase].wished
                (due if is_due else future).append(filebase)
        name = parse(min(future)) if future else None
        return due[:limit], name.when_ns if name else None


class MemoryWakeup(Wakeup):
    """Wakes when an entry is put into a store."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    @property
    def watches(self) -> bool:
        """See `Wakeup`."""
        return self in self._store.sleepers

    def arm(self) -> None:
        """See `Wakeup`."""
        self._store.sleepers.add(self)

    def disarm(self) -> None:
        """See `Wakeup`."""
        self._store.sleepers.discard(self)
