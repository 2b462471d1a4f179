"""The first of many names, found in one pass and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class Firsts:
    """Takes names in any order and keeps the first `limit` of them, or up to twice as many.

    :param limit: None keeps all of them.
    :param key: by which they are put in order; by themselves, if there is none.
    """

    __slots__ = ('_key', '_limit', '_names', 'horizon')

    def __init__(self, limit: int | None, key: Callable[[str], str] | None = None) -> None:
        self._limit = limit
        self._key = key
        self._names: list[str] = []
        # The key of the last one that was kept when others had to go: of what comes behind it not all are known.  None:
        # nothing had to go.
        self.horizon: str | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> None:
        """Take a name, unless it is beyond the horizon."""
        self.extend([name])

    def extend(self, names: list[str]) -> None:
        """Take those of the names that are not beyond the horizon."""
        if self.horizon is not None:
            names = [name for name in names if (self._key(name) if self._key else name) <= self.horizon]
        self._names += names
        if self._limit is not None and len(self._names) >= 2 * max(1, self._limit):
            self._names.sort(key=self._key)
            del self._names[self._limit :]
            last = self._names[-1]
            self.horizon = self._key(last) if self._key else last

    def sorted(self) -> list[str]:
        """:return: those that are kept, in order."""
        return sorted(self._names, key=self._key)
