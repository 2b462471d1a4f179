"""Strict order: which entries have a key in common, and which of them comes first (see ``ready_queue``)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain

from switchboard.message.naming import CLAIMED, READY, slice_digits_of
from switchboard.queue.listing import Listing

# Where an earlier entry of a key is looked for.  One that is claimed between the first two looks is found at the third.
LOOK_ORDER = (CLAIMED, READY, CLAIMED)


class EntriesByKey:
    """The entries of one slice, by key."""

    def __init__(self, names: Listing) -> None:
        self._names = names
        self._read: list[str] = []
        self._by_key: dict[str, list[str]] | None = {}
        self._claimed: dict[str, set[str]] = {}

    def record_reading(self, parts: Iterable[list[str]]) -> Iterator[list[str]]:
        """Pass on what a new reading finds."""
        self._read = []
        self._claimed = {}
        for some in parts:
            self._read += some
            yield some
        self._note_claimed()

    def record_second_reading(self, filebases: Iterable[str]) -> None:
        """Add what a second reading finds."""
        self._read = list({*self._read, *filebases})
        self._note_claimed()

    def _note_claimed(self) -> None:
        self._by_key = None  # sorted when somebody asks
        for filebase in self._names.claimed:
            self._claimed.setdefault(slice_digits_of(filebase), set()).add(filebase)

    def add(self, filebase: str, *, is_claimed: bool = False) -> None:
        """Add one entry, which may be known."""
        key = slice_digits_of(filebase)
        if is_claimed:
            self._claimed.setdefault(key, set()).add(filebase)
        entries = self._entries(key)
        number = bisect_left(entries, filebase)
        if number == len(entries) or entries[number] != filebase:
            entries.insert(number, filebase)

    def _entries(self, key: str) -> list[str]:
        if self._by_key is None:
            self._by_key = {}
            claimed = chain.from_iterable(self._claimed.values())
            for filebase in sorted({*self._read, *claimed}):
                self._by_key.setdefault(slice_digits_of(filebase), []).append(filebase)
            self._read = []
        return self._by_key.setdefault(key, [])

    def blocking_entry(self, filebase: str) -> str | None:
        """:return: another entry of the same key that is at work, or comes first; None if there is none."""
        key = slice_digits_of(filebase)
        claimed = self._claimed.get(key, set())
        for other in sorted(claimed - {filebase}):
            if self._names.has_entry(other, CLAIMED):
                return other
            claimed.discard(other)
        entries = self._entries(key)
        while entries and entries[0] < filebase:
            if self._names.has_entry(entries[0], *LOOK_ORDER):
                return entries[0]
            del entries[0]
        return None
