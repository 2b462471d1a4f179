"""``switchboard tail``: what arrives in queues."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from switchboard.cli.commands.ls import choose_sorted, error_text
from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.options import RenamedOption, queues_option
from switchboard.cli.output import is_json, print_error, write_json, write_line
from switchboard.message.naming import NS_PER_S, PRESERVED, READY, is_filebase
from switchboard.operating.entry_fields import HISTORY_ERRORS, entry_fields
from switchboard.operating.finding import FoundEntry
from switchboard.operating.queue_counts import walk_entries
from switchboard.operating.selection import Selection, select
from switchboard.operating.summary import EntrySummary
from switchboard.operating.text import local_time, one_line, size
from switchboard.queue.watch import CREATIONS, POLL_S, RENAMES, DirectoryWatch
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD

ARRIVED = (READY, PRESERVED)


class ArrivalWatch:
    """Waits for new names in some directories, which may not be there yet, and may be replaced: nothing is made.

    :param root: the spool, in which they are.
    """

    def __init__(self, root: Path, queue_folders: list[tuple[str, Folder]]) -> None:
        self._queue_folders = dict(queue_folders)
        self._known: set[tuple[str, str]] = set()
        self._names = {folder.path: queue for queue, folder in queue_folders}
        self._root = os.fspath(root)
        self._watch = DirectoryWatch()
        self._is_watched = self._watch.watch(self._root, CREATIONS | RENAMES) and all(
            self._watch.watch(path, RENAMES) or not os.path.lexists(path) for path in self._names
        )
        if not self._is_watched:
            self._known = set(self._there(self._queue_folders))

    def _there(self, queues: Iterable[str]) -> Iterator[tuple[str, str]]:
        for queue in queues:
            for filebase, suffix in walk_entries(Folder(self._queue_folders[queue].path, Disk()), ARRIVED):
                yield queue, filebase + suffix

    def wait(self) -> list[FoundEntry]:
        """:return: the arrivals since the last call."""
        self._watch.wait(None if self._is_watched else POLL_S)
        if self._is_watched:
            return [found for event in self._watch.events() for found in self._of_event(*event)]
        there = set(self._there(self._queue_folders))
        fresh, self._known = sorted(there - self._known), there
        return [self._found(queue, name) for queue, name in fresh]

    def _found(self, queue: str, name: str) -> FoundEntry:
        return FoundEntry(queue, Folder(self._queue_folders[queue].path, Disk()), name[:-4], name[-4:])

    def _of_event(self, directory: str, name: str, mask: int) -> Iterator[FoundEntry]:
        if directory == self._root and name in self._queue_folders:
            path = self._queue_folders[name].path
            self._watch.unwatch(path)  # of the directory that stood there before
            # First, so that what comes while the directory is read is not missed.
            self._watch.watch(path, RENAMES)
            yield from (self._found(*each) for each in sorted(self._there([name])))
        elif directory in self._names and name[-4:] in ARRIVED and is_filebase(name[:-4]):
            yield self._found(self._names[directory], name)


@verb()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@queues_option('The same as QUEUE.')
@click.option(
    '-n',
    '--limit',
    'lines',
    cls=RenamedOption,
    old=('--lines',),
    default=5,
    show_default=True,
    type=click.IntRange(min=0),
    metavar='N',
    help='How many that are there already.',
)
@click.option('--count', type=click.IntRange(min=1), metavar='N', help='Stop after so many arrivals.')
@json_option
def tail(
    installation: Installation,
    names: tuple[str, ...],
    queues: tuple[str, ...],
    lines: int,
    count: int | None,
) -> None:
    """Follow entries as they arrive in queues; without a name, in the bad queue.  Ctrl-C ends it.

    An entry that a retry or a recovery makes ready again arrives again.
    """
    queue_folders = installation.view.queue_folders(names + queues or (BAD,))
    # Before the first listing, so that nothing falls between the two.
    watch = ArrivalWatch(installation.directory, queue_folders)
    shown: set[tuple[str, str]] = set()
    if lines:
        now_ns = time.time_ns()
        latest, _ = choose_sorted(select(queue_folders, Selection(), now_ns), 'age', lines, backwards=True)
        for found in reversed(list(latest)):
            shown.add((found.queue, found.filebase + found.suffix))
            _say_arrival(found, many=len(queue_folders) > 1)
    left = itertools.count(1)
    while True:
        for found in watch.wait():
            name = (found.queue, found.filebase + found.suffix)
            if name in shown:  # it came while the latest ones were looked at
                shown.discard(name)
                continue
            _say_arrival(found, many=len(queue_folders) > 1)
            if count is not None and next(left) >= count:
                return


def _say_arrival(found: FoundEntry, *, many: bool) -> None:
    try:
        _write_arrival(found, found.look(), many=many)
    except HISTORY_ERRORS as error:
        print_error(error, f'{found.queue}/{found.filebase}')


def _write_arrival(found: FoundEntry, summary: EntrySummary | None, *, many: bool) -> None:
    now_ns = time.time_ns()
    if is_json():
        fields = {'filebase': found.filebase, 'queue': found.queue, 'state': 'gone'}
        write_json(fields if summary is None else entry_fields(summary, now_ns, {}))
        return
    parts = [
        local_time(now_ns / NS_PER_S if summary is None else summary.since_ns / NS_PER_S),
        found.filebase,
    ]
    if many:
        parts.insert(1, found.queue)
    if summary is None:
        parts.append('gone already')
    else:
        parts += [summary.kind, size(summary.body_bytes)]
        if summary.suffix == PRESERVED:
            parts.append(f'from {summary.origin or "?"}')
        if text := error_text(summary):
            parts.append(one_line(text))
    write_line('  '.join(parts))
