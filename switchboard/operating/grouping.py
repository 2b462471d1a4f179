"""Entries sorted into groups by something that they have: by queue, kind, origin, error or a key of the metadata.

With the age of each, that is the table of `census.shapes`; with a selection, it answers which cause is behind so many failures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from switchboard.events import event
from switchboard.message.naming import CLAIMED, READY
from switchboard.operating.census import age_s, walk
from switchboard.operating.entry_fields import UNTELLABLE
from switchboard.operating.finding import Found
from switchboard.operating.selection import Criteria, select
from switchboard.operating.summary import EntrySummary
from switchboard.store.disk import Folder

log = logging.getLogger('switchboard.queue')

NONE = '(none)'


def group_of(by: str, *, domain: bool = False) -> Callable[[EntrySummary], list[str]]:
    """:return: a function that says to which groups an entry belongs.

    :param by: ``queue``, ``kind``, ``origin``, ``error`` or ``frame``, or a key of the metadata; of a list, each member is a group.
    :param domain: of addresses, take the part behind the ``@``.
    """

    def read(entry: EntrySummary) -> list[str]:
        if by in ('queue', 'kind', 'origin', 'frame'):
            found: object = getattr(entry, by)
        elif by == 'error':
            found = entry.last_error[0]
        else:
            found = entry.metadata().get(by)
        values = [str(one) for one in found] if isinstance(found, list) else [str(found)] if found else []
        if domain:
            values = [value.rpartition('@')[2].rstrip('> ').lower() for value in values]
        return list(dict.fromkeys(values)) or [NONE]

    return read


def ages(
    places: Iterable[tuple[str, Folder]],
    now_ns: int,
    *,
    by: str = 'queue',
    domain: bool = False,
    criteria: Criteria | None = None,
) -> Iterator[tuple[str, float]]:
    """Walk over the entries of some queues.

    :param criteria: only those that fit.
    :return: the name of a group and an age in seconds, for each entry and each of its groups.  By queue nothing is opened, but for what
        was put aside, whose age its history says.
    """
    groups = group_of(by, domain=domain)
    for queue, folder in places:
        if by == 'queue' and not criteria and queue != 'bad':
            for filebase, _ in walk(folder, (READY, CLAIMED)):
                yield queue, age_s(filebase, now_ns)
            continue
        for found in select([(queue, folder)], criteria or Criteria(), now_ns):
            yield from _ages_of(found, groups, now_ns)


def _ages_of(
    found: Found, groups: Callable[[EntrySummary], list[str]], now_ns: int
) -> Iterator[tuple[str, float]]:
    entry = found.look()
    if entry is None:
        return
    try:
        named, age = groups(entry), entry.age_s(now_ns)
    except UNTELLABLE as error:
        event(log, logging.DEBUG, found.filebase, 'not read', error=error)
        named, age = [NONE], age_s(found.filebase, now_ns)
    for name in named:
        yield name, age
