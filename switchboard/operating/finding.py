"""Finding one entry by the beginning of its name; many, by their fields, are found by `selection`.

The directories are walked over as they are, without a listing in memory and without claiming anything.  A found entry may have
gone on a moment later; an act on it claims it, and notices that then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from switchboard.errors import AmbiguousEntryError, UnknownEntryError
from switchboard.message.naming import ON_HOLD_PREFIX, is_filebase, is_on_hold, on_hold_name
from switchboard.operating.queue_counts import walk_entries
from switchboard.operating.summary import SUFFIXES, EntrySummary, summarize
from switchboard.store.folder import Folder

# So many candidates help to say more; a longer list does not.
MAX_CANDIDATES = 5


class FoundEntry(NamedTuple):
    """The place of an entry a moment ago, and its summary, if it had to be opened to be found."""

    queue: str
    folder: Folder
    filebase: str
    suffix: str
    summary: EntrySummary | None = None

    def look(self) -> EntrySummary | None:
        """:return: its summary, read now unless it has been; None if it is gone."""
        return self.summary or summarize(self.folder, self.queue, self.filebase, self.suffix)


def find(queue_folders: Sequence[tuple[str, Folder]], text: str) -> FoundEntry:
    """Find one entry in some queues.

    :param queue_folders: the queues to look in, by name.
    :param text: its filebase, or the beginning of that or of its digest; ``QUEUE/`` in front and a suffix behind, as in a path,
        are understood.
    :raises UnknownEntryError: there is no such entry.
    :raises AmbiguousEntryError: there are several.
    """
    *above, wanted = text.rstrip('/').split('/')
    if above:
        queue_folders = [each for each in queue_folders if each[0] == above[-1]]
    if wanted[-4:] in SUFFIXES:
        wanted = wanted[:-4]
    if not wanted:
        raise UnknownEntryError(f'{text!r} names no entry')
    found = (
        _by_whole_name(queue_folders, wanted) if is_filebase(wanted) else _by_beginning(queue_folders, wanted)
    )
    # An entry that is renamed while the directory is walked over can be met under both names.
    entries = {(each.queue, each.filebase): each for each in found}
    if not entries:
        raise UnknownEntryError(f'there is no entry {text!r}')
    if len(entries) > 1:
        candidates = [f'{queue}/{filebase}' for queue, filebase in sorted(entries)]
        raise AmbiguousEntryError(text, candidates[:MAX_CANDIDATES], more=len(candidates) > MAX_CANDIDATES)
    return found[0]


def _by_whole_name(queue_folders: Sequence[tuple[str, Folder]], filebase: str) -> list[FoundEntry]:
    found = _by_name(queue_folders, filebase)
    if found:
        return found
    # It may have been held or let go since its name was written down.  Which time a held one had is not in its name.
    return (
        _by_beginning(queue_folders, filebase)
        if is_on_hold(filebase)
        else _by_name(queue_folders, on_hold_name(filebase))
    )


def _by_name(queue_folders: Iterable[tuple[str, Folder]], filebase: str) -> list[FoundEntry]:
    found = []
    for queue, folder in queue_folders:
        summary = summarize(folder, queue, filebase)
        if summary is not None:
            found.append(FoundEntry(queue, folder, filebase, summary.suffix, summary))
    return found


def _by_beginning(queue_folders: Iterable[tuple[str, Folder]], beginning: str) -> list[FoundEntry]:
    found: dict[tuple[str, str], FoundEntry] = {}
    for queue, folder in queue_folders:
        # That there is none, or no other, is believed when two looks say so, where one can miss an entry that is renamed meanwhile.
        for _ in range(2 if folder.exists() and not folder.reads_every_name else 1):
            for filebase, suffix in walk_entries(folder, SUFFIXES):
                if _begins(filebase, beginning):
                    found[queue, filebase] = FoundEntry(queue, folder, filebase, suffix)
                    if len(found) > MAX_CANDIDATES:
                        return [*found.values()]
    return [*found.values()]


def _begins(filebase: str, beginning: str) -> bool:
    if filebase.startswith(beginning) or filebase.partition('+')[2].startswith(beginning):
        return True
    # The name that it had before somebody held it or let it go, which stands in lists and logs.
    renamed = is_on_hold(filebase) or is_on_hold(beginning)
    return renamed and len(beginning) > len(ON_HOLD_PREFIX) and _late(filebase).startswith(_late(beginning))


def _late(name: str) -> str:
    return name[len(ON_HOLD_PREFIX) :]
