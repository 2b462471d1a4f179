"""The store of a queue in memory: its entries as the bytes that a file would hold, and the wakeups that wait for them.

Entries are kept packed, not as objects, so that a message comes out as it would out of a file: another object, equal, without
a message that cannot be stored.  Names, packing, order and history are those of the directory, made by the same code.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from weakref import WeakSet

from switchboard.clock import Clock
from switchboard.message.entry import Entry, read_entry
from switchboard.message.journal import Record, pack_record
from switchboard.message.naming import NS, READY, Slice, digest_of
from switchboard.queue.listing import Pickup
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
        """Put an entry in, under the name it has by now, and wake the consumers that wait for one."""
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

    def __init__(self, store: Store, clock: Clock, slice_: Slice) -> None:
        self.clock = clock
        self.slice = slice_
        self.pickup: Pickup | None = None
        self.foreign_mail: list[str] = []
        self.claimed: list[str] = []
        self.reported: set[str] = set()
        # Whatever is read is read under the store's lock, and so in one instant.
        self.seen = 0
        self.is_sparse = False
        self._store = store

    def filebases(self, suffix: str) -> list[str]:
        """See `Listing`."""
        with self._store.lock:
            found = [stored.filebase for stored in self._store.entries.values() if stored.suffix == suffix]
        return list(filter(self.slice.holds, found))

    def parts(self, suffix: str) -> Iterator[list[str]]:
        """See `Listing`."""
        yield self.filebases(suffix)

    def is_replaced(self, *, anew: bool) -> bool:
        """See `Listing`."""
        return False

    def changed_at_ns(self) -> int:
        """See `Listing`."""
        return self.clock.time_ns()

    def is_there(self, filebase: str, *suffixes: str) -> bool:
        """See `Listing`."""
        stored = self._store.entries.get(filebase)
        return stored is not None and stored.suffix in suffixes

    def asked_wait_ns(self, filebase: str, now_ns: int) -> int | None:
        """See `Listing`."""
        stored = self._store.entries.get(filebase)
        return None if stored is None or stored.wished else 0


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
