"""What waits in a queue: one listing, worked off entry by entry.

A listing per message would make each message as dear as the backlog is long.  So the names that are due are
read once, sorted, and given out one after the other; the directory is read again when they are used up or old.  Only the
first ones are kept, so that a million waiting messages cost no memory.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from switchboard.clock import Clock
from switchboard.message.naming import NS
from switchboard.queue.listing import CHUNK, Letterbox

# How long a listing is good for: an entry with a higher priority may have come since.  A large directory takes long to
# list, and must not be listed all the time.
RELIST_NS = NS
RELIST_SHARE = 20


class Lists(Protocol):
    """What is asked of a :class:`Listing`; another one may list something else than a directory."""

    clock: Clock

    @property
    def letterbox(self) -> Letterbox | None:
        """Who takes in what other programs drop."""

    @property
    def dropped(self) -> list[str]:
        """What the last listing saw of that."""

    def due(self, limit: int | None = CHUNK) -> tuple[list[str], int | None]:
        """See `Listing`."""
        ...


class Backlog:
    """The entries that are due, given out one by one."""

    def __init__(self, listing: Lists) -> None:
        self._listing = listing
        self._due: deque[str] = deque()
        self._held_until_ns: dict[str, int] = {}
        self._relist_at_ns = 0
        self._next_due_ns: int | None = None

    def hold(self, filebase: str, seconds: float) -> None:
        """Do not give an entry out for a while, though it is due."""
        self._held_until_ns[filebase] = self._listing.clock.monotonic_ns() + int(seconds * NS)

    def hold_behind(self, filebase: str, first: str) -> None:
        """Do not give an entry out while another one is held.

        Both may be had from the same instant on.  Were this one held on its own account, and so a little longer, what has come
        meanwhile would pass it as soon as `first` is out of the way.
        """
        self._held_until_ns[filebase] = self._held_until_ns.get(first, 0)

    def next(self) -> str | None:
        """:return: the next filebase; None if a listing that was just read holds no more."""
        now_ns = self._listing.clock.monotonic_ns()
        if not self._due or now_ns >= self._relist_at_ns:
            self._list(now_ns)
        while self._due:
            filebase = self._due.popleft()
            if filebase not in self._held_until_ns:
                return filebase
        return None

    @property
    def is_used_up(self) -> bool:
        """Would the next one have to be looked for in the directory?"""
        return not self._due

    def ready(self) -> bool:
        """List anew: is there anything to give out?"""
        self._list(self._listing.clock.monotonic_ns())
        letterbox = self._listing.letterbox
        if letterbox is not None and letterbox.has_more():
            return True
        return any(filebase not in self._held_until_ns for filebase in self._due)

    def _list(self, now_ns: int) -> None:
        due, self._next_due_ns = self._listing.due()
        letterbox = self._listing.letterbox
        if letterbox is not None and letterbox.collect(list(self._listing.dropped)):
            due, self._next_due_ns = self._listing.due()
        if self._held_until_ns:
            there = set(due)
            self._held_until_ns = {
                filebase: until_ns
                for filebase, until_ns in self._held_until_ns.items()
                if until_ns > now_ns and filebase in there
            }
            if due and there == self._held_until_ns.keys():
                # Young entries need not wait for older ones that are not to be had.
                due, self._next_due_ns = self._listing.due(None)
                del due[CHUNK:]
        self._due = deque(due)
        took_ns = self._listing.clock.monotonic_ns() - now_ns
        self._relist_at_ns = now_ns + max(RELIST_NS, took_ns * RELIST_SHARE)

    def wait_s(self) -> float | None:
        """:return: seconds until something that is there may be given out; None if there is no such thing."""
        waits = []
        if self._held_until_ns:
            waits.append(min(self._held_until_ns.values()) - self._listing.clock.monotonic_ns())
        if self._next_due_ns is not None:
            waits.append(self._next_due_ns - self._listing.clock.time_ns())
        letterbox = self._listing.letterbox
        if letterbox is not None and (wait_s := letterbox.wait_s()) is not None:
            waits.append(int(wait_s * NS))
        return max(0, min(waits)) / NS if waits else None
