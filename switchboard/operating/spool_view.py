"""A look at a spool that makes and changes nothing: its queues, their directories, their entries.

It needs a directory and, if there is one that can be used, its configuration; no master, no lock and no right to write.  So it works for a
user that may only read, beside a broken configuration and on a spool that was copied from elsewhere.  One object may be kept for long and used by
several threads: nothing is remembered in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from switchboard.errors import NotListableError, UnknownQueueError
from switchboard.message.journal import load_record
from switchboard.message.naming import check_queue_name, is_queue_name
from switchboard.operating.finding import FoundEntry, find
from switchboard.regular_file import open_regular_file
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD, DRAINING, PAUSED, RUN, TRASH
from switchboard.suggestions import did_you_mean

if TYPE_CHECKING:
    from switchboard.config.config import Config
    from switchboard.operating.selection import Budget, Selection

# What operators say to a queue: each is a file below `.run`.
FLAGS = (PAUSED, DRAINING)
MAX_FLAG_BYTES = 4096

QueueFolder = tuple[str, Folder]


class SpoolView(NamedTuple):
    """See the module.

    :param directory: the spool.
    :param config: its configuration; None for a spool without one, or with one that has mistakes.
    """

    directory: Path
    config: Config | None = None

    def folder(self, queue: str) -> Folder:
        """:return: a queue's directory, to look into; it is not made."""
        return Folder(self.directory / check_queue_name(queue), Disk())

    def queue_names(self) -> list[str]:
        """:return: all queues that are declared or have a directory; ``bad`` and then ``trash``, if it is there, are the last.

        :raises FileNotFoundError: there is no spool.
        """
        names = set(self.config.queue_names()) if self.config is not None else set()
        with os.scandir(self.directory) as entries:
            names |= {
                each.name
                for each in entries
                if is_queue_name(each.name) and each.is_dir(follow_symlinks=False)
            }
        return [*sorted(names - {BAD, TRASH}), BAD, *({TRASH} & names)]

    def is_remote(self, queue: str) -> bool:
        """Is the queue on a broker?"""
        return self.config is not None and self.config.queue_options(queue).url is not None

    def check_queues(self, queues: Iterable[str] = ()) -> tuple[str, ...]:
        """:return: the names of queues; of all of them, if none is named.

        :raises UnknownQueueError: there is no such queue.
        """
        known = self.queue_names()
        wanted = tuple(queues) or tuple(known)
        for name in wanted:
            if name not in known and name != TRASH:
                raise UnknownQueueError(f'there is no such queue{did_you_mean(name, known)}', queue=name)
        return wanted

    def queue_folders(self, queues: Iterable[str] = ()) -> list[QueueFolder]:
        """:return: queues and their directories, to look into; all that have one, if none is named.

        :raises UnknownQueueError: there is no such queue.
        :raises NotListableError: it is on a broker.
        """
        queues = tuple(queues)
        wanted = self.check_queues(queues)
        for name in wanted if queues else ():
            if self.is_remote(name):
                raise NotListableError(
                    'the queue is on a broker, where looking is taking: `switchboard queues` counts it',
                    queue=name,
                )
        return [(name, self.folder(name)) for name in wanted if not self.is_remote(name)]

    def find(self, text: str, queues: Sequence[str] = ()) -> FoundEntry:
        """Find one entry, in these queues or in all.  See `finding.find`."""
        return find(self.queue_folders(queues), text)

    def select(
        self, selection: Selection, queues: Sequence[str] = (), budget: Budget | None = None
    ) -> Iterator[FoundEntry]:
        """Find the entries that fit; in the queues that the selection names, in these or in all.  See `selection.select`."""
        from switchboard.operating.selection import select  # here, because who counts selects nothing

        return select(self.folders_to_search(selection, queues), selection, time.time_ns(), budget)

    def folders_to_search(self, selection: Selection, queues: Sequence[str] = ()) -> list[QueueFolder]:
        """:return: where entries that fit a selection are looked for.

        :param queues: where to look if the selection does not say it by ``queue:``.
        :raises UnknownQueueError: the selection, or `queues`, name one that is not there.
        """
        named = [name for name in selection.values('queue') if '*' not in name]
        self.check_queues(named)
        if any(term.field == 'queue' and not term.negated for term in selection.terms):
            queues = ()
        return [each for each in self.queue_folders(queues) if selection.may_match_queue(each[0])]


def read_flags(directory: Path, queue: str) -> dict[str, dict[str, Any]]:
    """:return: the flags that operators have set on a queue (``paused``, ``draining``): ``since``, ``reason``, ``by``, as far as it is known."""
    found = {}
    for flag in FLAGS:
        try:
            with open_regular_file(directory / RUN / flag / queue) as stream:
                content = load_record(stream.read(MAX_FLAG_BYTES))
        except FileNotFoundError:
            continue
        except OSError:
            content = None
        # One put up by hand, perhaps with `touch`, says nothing.
        found[flag] = dict(content or {})
    return found
