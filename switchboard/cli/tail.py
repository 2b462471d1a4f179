"""``switchboard tail``: a line for each entry as it arrives.

A working queue's entries are there for a moment only, so an arrival is told from the kernel's word about the new name,
and what can be told of the entry is read if it is still there.  Where the kernel sends no events, the directory is looked at
once a second, and what came and went between is not seen.
"""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Iterator

import click

from switchboard.cli.entries import error_text, fields_of
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.ls import choose
from switchboard.cli.tables import write_json
from switchboard.cli.wording import moment, one_line, size
from switchboard.message.naming import NS, PRESERVED, READY, is_filebase
from switchboard.operating.census import walk
from switchboard.operating.finding import Criteria, Found, exists
from switchboard.operating.finding import select as select_entries
from switchboard.operating.summary import EntrySummary
from switchboard.store.disk import Folder

ARRIVED = (READY, PRESERVED)
LOOK_EVERY_S = 1.0


class Arrivals:
    """Waits for new names in some directories."""

    def __init__(self, places: list[tuple[str, Folder]]) -> None:
        self._places = places
        self._known: set[tuple[str, str]] = set()
        self._watched: dict[int, tuple[str, Folder]] = {}
        try:
            from inotify_simple import INotify, flags  # type: ignore[import-untyped]

            self._inotify = INotify()
            # Entries come by a rename; a file is closed at every claim of it as well.
            mask = flags.MOVED_TO | flags.ONLYDIR
            for place in places:
                self._watched[self._inotify.add_watch(place[1].path, mask)] = place
        except (ImportError, OSError):
            self._inotify = None
            self._known = set(self._there())

    def _there(self) -> Iterator[tuple[str, str]]:
        for queue, folder in self._places:
            for filebase, suffix in walk(folder, ARRIVED):
                yield queue, filebase + suffix

    def wait(self) -> list[Found]:
        """:return: what has arrived since the last call."""
        if self._inotify is not None:
            return [found for event in self._inotify.read() if (found := self._told(event.wd, event.name))]
        select.select([], [], [], LOOK_EVERY_S)
        there = set(self._there())
        fresh, self._known = sorted(there - self._known), there
        folders = dict(self._places)
        return [Found(queue, folders[queue], name[:-4], name[-4:]) for queue, name in fresh]

    def _told(self, watch: int, name: str) -> Found | None:
        filebase, suffix = name[:-4], name[-4:]
        if watch not in self._watched or suffix not in ARRIVED or not is_filebase(filebase):
            return None
        queue, folder = self._watched[watch]
        return Found(queue, folder, filebase, suffix)


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@click.option(
    '-n',
    '--lines',
    default=5,
    show_default=True,
    type=click.IntRange(min=0),
    metavar='N',
    help='How many that are there already.',
)
@click.option('--count', type=click.IntRange(min=1), metavar='N', help='Stop after so many arrivals.')
@json_option
def tail(
    installation: Installation, names: tuple[str, ...], lines: int, count: int | None, as_json: bool
) -> None:
    """Follow what arrives in queues; without a name, in the bad queue.  Ctrl-C ends it.

    An entry that a retry or a recovery makes ready again arrives again.
    """
    places = installation.places(names or ('bad',))
    for _, folder in places:
        if not exists(folder):
            folder.make()
    arrivals = Arrivals(places)  # before the look at what is there, so that nothing falls between the two
    told: set[tuple[str, str]] = set()
    if lines:
        now_ns = time.time_ns()
        latest, _ = choose(select_entries(places, Criteria(), now_ns), 'age', lines, backwards=True)
        for found in reversed(list(latest)):
            told.add((found.queue, found.filebase + found.suffix))
            _tell(found, found.look(), as_json=as_json, many=len(places) > 1)
    left = itertools.count(1)
    while True:
        for found in arrivals.wait():
            name = (found.queue, found.filebase + found.suffix)
            if name in told:  # it came while the latest ones were looked at
                told.discard(name)
                continue
            _tell(found, found.look(), as_json=as_json, many=len(places) > 1)
            if count is not None and next(left) >= count:
                return


def _tell(found: Found, seen: EntrySummary | None, *, as_json: bool, many: bool) -> None:
    now_ns = time.time_ns()
    if as_json:
        fields = {'filebase': found.filebase, 'queue': found.queue, 'state': 'gone'}
        write_json(fields if seen is None else fields_of(seen, now_ns, {}))
        return
    parts = [moment(now_ns / NS if seen is None else seen.since_ns / NS), found.filebase]
    if many:
        parts.insert(1, found.queue)
    if seen is None:
        parts.append('gone already')
    else:
        parts += [seen.kind, size(seen.body_bytes)]
        if seen.suffix == PRESERVED:
            parts.append(f'from {seen.origin or "?"}')
        if text := error_text(seen):
            parts.append(one_line(text))
    click.echo('  '.join(parts))
