"""The first of many names, in order: all that a reading of a large directory has to keep."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator


class SmallestNames:
    """The first of many names, in order and in bounded memory.

    :param limit: so many are kept, or up to twice as many; None keeps all of them.
    :param sort_key: the place of a name; the name itself, if there is none.
    :param mark: only names that hold this have another place than the names themselves; then most can be sorted several times as fast.
    """

    __slots__ = ('_is_sorted', '_limit', '_mark', '_names', '_sort_key', 'known_up_to')

    def __init__(
        self, limit: int | None, sort_key: Callable[[str], str] | None = None, mark: str = ''
    ) -> None:
        self._limit = limit
        self._sort_key = sort_key
        self._mark = mark
        self._names: list[str] = []
        self._is_sorted = True
        # The place of the last one that was kept when others had to go: of what comes behind it not all are known.  None:
        # nothing had to go.
        self.known_up_to: str | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def is_beyond(self, name: str) -> bool:
        """Is the name behind the known ones?"""
        return (
            self.known_up_to is not None
            and (self._sort_key(name) if self._sort_key else name) > self.known_up_to
        )

    def extend(self, names: list[str]) -> None:
        """Take names that are not known yet, except those behind the known ones."""
        if (known_up_to := self.known_up_to) is not None:
            if self._sort_key is None or self._mark not in ''.join(names):
                names = [name for name in names if name <= known_up_to]
            else:
                names = [name for name in names if not self.is_beyond(name)]
        if names:
            self._names += names
            self._is_sorted = False
            self._cut()

    def _cut(self) -> None:
        if self._limit is not None and len(self._names) >= 2 * max(1, self._limit):
            del self.sorted()[self._limit :]
            last = self._names[-1]
            self.known_up_to = self._sort_key(last) if self._sort_key else last

    def add(self, name: str) -> None:
        """Take one name, which may be known."""
        if not self.is_beyond(name) and self._find(name) is None:
            insort(self._names, name, key=self._sort_key)
            self._cut()

    def discard(self, name: str) -> None:
        """Forget a name, if it is known."""
        number = self._find(name)
        if number is not None:
            del self._names[number]

    def _find(self, name: str) -> int | None:
        names, place = self.sorted(), self._sort_key(name) if self._sort_key else name
        for number in range(bisect_left(names, place, key=self._sort_key), len(names)):
            if names[number] == name:
                return number
            if (self._sort_key(names[number]) if self._sort_key else names[number]) != place:
                break
        return None

    def pop_before(self, name: str) -> list[str]:
        """Take out all names before this one; only where the place of a name is the name."""
        names = self.sorted()
        number = bisect_left(names, name)
        popped, self._names = names[:number], names[number:]
        return popped

    def sorted(self) -> list[str]:
        """:return: the names in order: the list itself, to be read, and not to be kept."""
        if not self._is_sorted:
            by = self._sort_key if self._sort_key is not None and self._mark in ''.join(self._names) else None
            self._names.sort(key=by)
            self._is_sorted = True
        return self._names
