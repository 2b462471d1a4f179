"""Finding entries: one by the beginning of its name, many by what is known about them.

Both walk over the directories as they are, without a listing in memory and without claiming anything.  What is found
may have gone on a moment later; whoever acts on it claims it, and hears so then.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from switchboard.errors import AmbiguousEntryError, UnknownEntryError
from switchboard.message.naming import CLAIMED, PRESERVED, READY, format_when, is_filebase, is_held
from switchboard.operating.census import age_s, walk
from switchboard.operating.summary import SUFFIXES, EntrySummary, State, summarize
from switchboard.store.disk import Folder

# So many candidates help to say more; a longer list does not.
MAX_CANDIDATES = 5


class Found(NamedTuple):
    """Where an entry was a moment ago."""

    queue: str
    folder: Folder
    filebase: str
    suffix: str

    def look(self) -> EntrySummary | None:
        """:return: what can be told of it; None if it is gone."""
        return summarize(self.folder, self.queue, self.filebase, self.suffix)


def find(places: Sequence[tuple[str, Folder]], text: str) -> Found:
    """Find one entry in some queues.

    :param places: the queues to look in, by name.
    :param text: its filebase, or the beginning of that or of its digest; ``QUEUE/`` in front and a suffix behind, as in a path,
        are understood.
    :raises UnknownEntryError: there is no such entry.
    :raises AmbiguousEntryError: there are several.
    """
    *above, wanted = text.rstrip('/').split('/')
    if above:
        places = [place for place in places if place[0] == above[-1]]
    if wanted[-4:] in SUFFIXES:
        wanted = wanted[:-4]
    if not wanted:
        raise UnknownEntryError(f'{text!r} names no entry')
    found = _by_name(places, wanted) if is_filebase(wanted) else _by_beginning(places, wanted)
    # An entry that is renamed while the directory is walked over can be met under both names.
    entries = {(each.queue, each.filebase): each for each in found}
    if not entries:
        raise UnknownEntryError(f'there is no entry {text!r}')
    if len(entries) > 1:
        raise AmbiguousEntryError(text, [f'{queue}/{filebase}' for queue, filebase in entries])
    return found[0]


def _by_name(places: Iterable[tuple[str, Folder]], filebase: str) -> list[Found]:
    found = []
    for queue, folder in places:
        seen = summarize(folder, queue, filebase) if exists(folder) else None
        if seen is not None:
            found.append(Found(queue, folder, filebase, seen.suffix))
    return found


def _by_beginning(places: Iterable[tuple[str, Folder]], beginning: str) -> list[Found]:
    found: list[Found] = []
    for queue, folder in places:
        for filebase, suffix in walk(folder, SUFFIXES):
            if filebase.startswith(beginning) or filebase.partition('+')[2].startswith(beginning):
                found.append(Found(queue, folder, filebase, suffix))
                if len(found) > MAX_CANDIDATES:
                    return found
    return found


def exists(folder: Folder) -> bool:
    """:return: whether there is such a directory."""
    try:
        return folder.fd >= 0
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class Criteria:
    """What entries are asked for.  What is not set fits every entry.

    :param error: a class of error or a cause (``expired``), or a pattern with ``*``; upper and lower case are the same.
    :param origin: the queue that an entry came from.
    :param metadata: keys and values that it has.
    """

    states: frozenset[State] = frozenset()
    older_s: float | None = None
    error: str = ''
    origin: str = ''
    kind: str = ''
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names_only(self) -> bool:
        """Can all be decided by names?"""
        return not (self.error or self.origin or self.kind or self.metadata)

    def suffixes(self) -> tuple[str, ...]:
        """:return: those that entries of the wanted states have."""
        if not self.states:
            return SUFFIXES
        of_state = {'claimed': CLAIMED, 'preserved': PRESERVED}
        return tuple({of_state.get(state, READY): None for state in self.states})

    def fits_name(self, filebase: str, suffix: str, now_ns: int) -> bool:
        """:return: False if the name alone says that it is not one of them."""
        if suffix == READY and self.states:
            delayed = 'held' if is_held(filebase) else 'delayed'
            if (delayed if filebase > format_when(now_ns) + '~' else 'waiting') not in self.states:
                return False
        # How old a preserved entry is, its history says.
        return self.older_s is None or suffix == PRESERVED or age_s(filebase, now_ns) >= self.older_s

    def fits(self, seen: EntrySummary, now_ns: int) -> bool:
        """:return: whether it is one of them."""
        if self.older_s is not None and seen.age_s(now_ns) < self.older_s:
            return False
        if self.error and not self._fits_error(seen):
            return False
        if self.origin and seen.origin != self.origin:
            return False
        if self.kind and seen.kind.partition('+')[0] != self.kind.partition('+')[0]:
            return False
        return not self.metadata or seen.matches(self.metadata)

    def _fits_error(self, seen: EntrySummary) -> bool:
        pattern = self.error.lower()
        return any(fnmatch.fnmatchcase(word.lower(), pattern) for word in (seen.last_error[0], seen.cause))


def select(places: Iterable[tuple[str, Folder]], criteria: Criteria, now_ns: int) -> Iterator[Found]:
    """Walk over the entries of some queues that are asked for, in no order.  Files are opened only if names do not decide."""
    for queue, folder in places:
        for filebase, suffix in walk(folder, criteria.suffixes()):
            if not criteria.fits_name(filebase, suffix, now_ns):
                continue
            found = Found(queue, folder, filebase, suffix)
            if criteria.names_only and not (criteria.older_s is not None and suffix == PRESERVED):
                yield found
            else:
                seen = found.look()
                if seen is not None and criteria.fits(seen, now_ns):
                    yield found._replace(suffix=seen.suffix)
