"""Strict order: no entry of a key is taken while an earlier one of the same key waits or is at work.

Without it, entries of one key are in one slice and taken in order, but one that fails and waits lets the others pass.  With
``strict_order`` it holds them back: it keeps its name, and so its place, and its history says until when it waits.

Before an entry is taken, the earlier ones of its key are looked for by name: claimed, ready, and claimed again, because a
claim or a release may happen between two looks.  So it holds for any number of processes, messages at work and batches.

Within a key the time in the name counts and the priority does not: a later message that went first would be out of order.  Among
the first ones of all keys, the priority counts as ever.

The price: the names of all entries of the slice are kept in memory, and are read anew when one comes that is not among them;
and a message that fails stops its key (and the few others that share the first eight digits of its digest) until it is done or
preserved.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain

from switchboard.message.journal import Record
from switchboard.message.naming import CLAIMED, NS, READY, format_when, key_of
from switchboard.queue.listing import Listing

# Where an entry is looked for.  One that is claimed between the first two looks is found at the third.
LOOKS = (CLAIMED, READY, CLAIMED)


class KeyOrder:
    """The entries of one slice, by key."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._known: set[str] = set()
        self._by_key: dict[str, list[str]] = {}
        # Of entries from before this time all are known.  One that was delayed then may have got others before it since.
        self._known_until = ''

    def is_first(self, filebase: str) -> bool:
        """Is there no earlier entry of the same key?"""
        if filebase not in self._known or filebase > self._known_until:
            self._index()
        entries = self._by_key.get(key_of(filebase), [])
        while entries and entries[0] != filebase:
            if self._is_there(entries[0]):
                return False
            self._known.discard(entries.pop(0))
        return True

    def _index(self) -> None:
        self._known_until = format_when(self._listing.clock.time_ns())
        self._known = set(chain.from_iterable(map(self._listing.filebases, LOOKS)))
        by_key = defaultdict(list)
        for filebase in sorted(self._known):
            by_key[key_of(filebase)].append(filebase)
        self._by_key = by_key

    def _is_there(self, filebase: str) -> bool:
        disk, fd = self._listing.disk, self._listing.folder.fd
        return any(disk.exists(filebase + suffix, fd) for suffix in LOOKS)


def wait_s(records: list[Record], now_ns: int) -> float:
    """:return: seconds for which an entry is still to wait, as its history says; 0 if it is not."""
    for record in reversed(records):
        until = record.get('not_before')
        if isinstance(until, int | float):
            return max(0.0, until - now_ns / NS)
        if record.get('event') == 'retried':
            break
    return 0.0
