"""Operators' acts on entries, one or many: the one way for command line, web page and API.

First entries are chosen (`choose`), which opens each at most once and keeps the little that an act needs to know of it.  Then the
act is applied to each of the chosen entries (`apply`): an entry that comes meanwhile, such as one that was sent back and failed again, is not
dealt with, and where somebody has agreed to a number, more than that is refused.

Each entry is claimed before anything happens to it, so what a process works on is never taken away from it, and of two operators one
learns that the entry is gone.  What went wrong with one entry does not stop the others.

A removed entry lies in the queue ``trash`` for a while, from which `Restore` brings it back; the janitor drops it when its time is over.
It lies there as entries lie in ``bad``: no runner takes it, even if a queue of that name was there before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from switchboard.errors import QueueError, SwitchboardError, UnknownQueueError
from switchboard.handoff.moving import (
    claim_ready_or_preserved,
    move,
    released_on_failure,
    send_back,
    using_reservation,
)
from switchboard.message.naming import PRESERVED, READY, format_when, is_on_hold, sort_key
from switchboard.operating.audit import Operator, note_act
from switchboard.operating.finding import FoundEntry
from switchboard.operating.holding import hold, release
from switchboard.operating.spool_view import SpoolView
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from switchboard.store.layout import BAD, TRASH
from switchboard.store.limits import make_room


class ChosenEntry(NamedTuple):
    """An entry that was chosen: where it is, and what an act has to know of it."""

    queue: str
    filebase: str
    suffix: str
    return_queue: str | None = None
    sent_back: int = 0

    def __str__(self) -> str:
        return f'{self.queue}/{self.filebase}'

    def error(self, reason: str) -> QueueError:
        """:return: an error about this entry."""
        return QueueError(reason, queue=self.queue, filebase=self.filebase)


class EntryPlace(NamedTuple):
    """The place of an entry after an act."""

    queue: str
    filebase: str


class Result(NamedTuple):
    """The fate of one entry: where it is now (None: nowhere), or why nothing was done."""

    target: ChosenEntry
    now: EntryPlace | None
    error: Exception | None = None

    def fields(self) -> dict[str, str | None]:
        """:return: the fate for programs: ``entry`` and where it was ``from``; ``queue`` and ``filebase`` are where it is now."""
        queue, filebase = self.now or (None, None)
        return {
            'entry': self.target.filebase,
            'from': self.target.queue,
            'queue': queue,
            'filebase': filebase,
        }


class OperatorSession:
    """One spool, and an operator who works on it.

    :param view: the spool, to look at.
    :param spool: the spool, to work on.
    """

    def __init__(self, view: SpoolView, spool: Spool, operator: Operator) -> None:
        self.view = view
        self.spool = spool
        self.operator = operator

    def queue(self, queue: str) -> Switchboard:
        """:return: a queue; one that only has a directory, as it is after its section was removed, too.

        :raises UnknownQueueError: there is none.
        """
        try:
            return self.spool[queue]
        except UnknownQueueError:
            self.view.queue_folders((queue,))
            return self.unconfigured_spool[queue]

    @cached_property
    def unconfigured_spool(self) -> Spool:
        """The same spool without its configuration, in which any queue can be opened; the trash, too."""
        return Spool(self.view.directory, disk=self.spool.disk)


class Act(Protocol):
    """Something that is done to entries.

    ``needs_summary`` says whether an entry has to be opened to know what would happen to it; ``not_for`` names the selected entries that the act is not for.
    """

    name: str
    done: str
    needs_summary: bool
    not_for: str

    def applies_to(self, target: ChosenEntry, now_ns: int) -> bool:
        """:return: whether it is for an entry that was selected, and not named."""

    def __call__(self, session: OperatorSession, target: ChosenEntry) -> EntryPlace | None:
        """Do it to one entry.

        :return: where it is now.
        :raises QueueError: it could not be done; the entry is as it was.
        """


@dataclass(frozen=True, slots=True)
class Retry:
    """Send entries back to where they failed, ready at once, with their failures and recoveries forgiven.

    :param to: send them there instead.
    :param selects_all: of a working queue too, all that was selected, and not only what waits for its next attempt.
    """

    to: str | None = None
    selects_all: bool = False
    name = 'retry'
    done = 'sent back'
    needs_summary = True
    not_for = 'a waiting entry keeps its place, a held one stays held, and `restore` is for the trash'

    def applies_to(self, target: ChosenEntry, now_ns: int) -> bool:
        """Of a working queue, the entries that wait for their next attempt, and those that failed elsewhere; due ones keep their place."""
        if self.to is not None or self.selects_all:
            return True
        if is_on_hold(target.filebase):
            return False  # an operator has said so
        if target.suffix == PRESERVED:
            return target.queue != TRASH
        late = target.suffix == READY and target.filebase > format_when(now_ns) + '~'
        return late or target.return_queue not in (None, target.queue)

    def __call__(self, session: OperatorSession, target: ChosenEntry) -> EntryPlace:
        """See `Act`."""
        to = self.to or target.return_queue or (target.queue if target.suffix != PRESERVED else None)
        if to is None:
            raise target.error('its history does not say where it came from: name a queue with --to')
        check_is_consumed(to, target.queue, target.filebase)
        source = session.queue(target.queue)
        return EntryPlace(
            to, send_back(source, target.filebase, session.spool[to], **session.operator.fields())
        )


def check_is_consumed(to: str, queue: str, filebase: str) -> None:
    """:raises QueueError: nothing is ever taken from that queue, so an entry that is sent there would wait for nobody."""
    if to in (BAD, TRASH):
        raise QueueError(
            f'nothing is taken from {to}: name another queue with --to', queue=queue, filebase=filebase
        )


def _check_elsewhere(target: ChosenEntry, to: str) -> None:
    """:raises QueueError: the entry is in that queue, so a rename would meet the entry itself."""
    if target.queue == to:
        raise target.error('it is in that queue')


@dataclass(frozen=True, slots=True)
class Move:
    """Move entries to another queue as they are: same content, same time, same counts, history included."""

    to: str
    name = 'mv'
    done = 'moved'
    needs_summary = False
    not_for = 'they are in that queue'

    def applies_to(self, target: ChosenEntry, now_ns: int) -> bool:
        """See `Act`."""
        return target.queue != self.to

    def __call__(self, session: OperatorSession, target: ChosenEntry) -> EntryPlace:
        """See `Act`."""
        _check_elsewhere(target, self.to)
        source, to = session.queue(target.queue), session.spool[self.to]
        claim = claim_ready_or_preserved(source, target.filebase)
        with released_on_failure(claim, source):
            reservation = to.reserve_for(claim.read()) if self.to != BAD else None
            make_room((reservation,))
        with using_reservation(reservation):
            return EntryPlace(self.to, move(claim, source, to, **session.operator.fields()))


def remove(queue: Switchboard, filebase: str) -> None:
    """Finish an entry, ready or preserved, unread.

    :raises EntryTakenError: a process is working on it, or it is gone.
    :raises QueueError: the disk refused; it is where it was.
    """
    claim = claim_ready_or_preserved(queue, filebase)
    with released_on_failure(claim, queue, 'remove'):
        claim.finish(queue.pool)


@dataclass(frozen=True, slots=True)
class Remove:
    """Put entries into the trash; or drop them.

    :param skips_trash: no trash: there is no way back.
    """

    skips_trash: bool = False
    name = 'rm'
    done = 'removed'
    needs_summary = False
    not_for = 'they are in the trash'

    def applies_to(self, target: ChosenEntry, now_ns: int) -> bool:
        """See `Act`."""
        return self.skips_trash or target.queue != TRASH

    def __call__(self, session: OperatorSession, target: ChosenEntry) -> EntryPlace | None:
        """See `Act`."""
        source = session.queue(target.queue)
        if self.skips_trash or target.queue == TRASH:
            remove(source, target.filebase)
            return None
        trash = session.unconfigured_spool[TRASH]  # which may be refused, and nobody would let go of a claim
        claim = claim_ready_or_preserved(source, target.filebase)
        filebase = move(claim, source, trash, event='removed', preserved=True, **session.operator.fields())
        return EntryPlace(TRASH, filebase)


@dataclass(frozen=True, slots=True)
class Restore:
    """Bring entries back out of the trash, to where they were removed from."""

    to: str | None = None
    name = 'restore'
    done = 'restored'
    needs_summary = True
    not_for = 'they are not in the trash'

    def applies_to(self, target: ChosenEntry, now_ns: int) -> bool:
        """See `Act`."""
        return target.queue == TRASH and target.suffix == PRESERVED

    def __call__(self, session: OperatorSession, target: ChosenEntry) -> EntryPlace:
        """See `Act`."""
        if target.queue != TRASH:
            raise target.error('it is not in the trash: nothing to restore')
        to = self.to or target.return_queue
        if to is None:
            raise target.error('its history does not say where it was removed from: name a queue with --to')
        _check_elsewhere(target, to)
        source, home = session.unconfigured_spool[TRASH], session.queue(to)
        claim = claim_ready_or_preserved(source, target.filebase)
        with released_on_failure(claim, source):
            if to != BAD:
                home.check_fits(claim.read())
        return EntryPlace(to, move(claim, source, home, event='restored', **session.operator.fields()))


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep entries from being taken."""

    name = 'hold'
    done = 'held'
    needs_summary = False
    not_for = 'a claimed entry is at work, a preserved one waits for nobody, and a held one is held'

    def applies_to(self, target: ChosenEntry, now_ns: int) -> bool:
        """See `Act`."""
        return target.suffix == READY and not is_on_hold(target.filebase)

    def __call__(self, session: OperatorSession, target: ChosenEntry) -> EntryPlace:
        """See `Act`."""
        queue = session.queue(target.queue)
        return EntryPlace(target.queue, hold(queue, target.filebase, **session.operator.fields()))


@dataclass(frozen=True, slots=True)
class Release:
    """Let held entries be taken again, at their old place."""

    name = 'release'
    done = 'released'
    needs_summary = False
    not_for = 'none of them is held'

    def applies_to(self, target: ChosenEntry, now_ns: int) -> bool:
        """See `Act`."""
        return target.suffix == READY and is_on_hold(target.filebase)

    def __call__(self, session: OperatorSession, target: ChosenEntry) -> EntryPlace:
        """See `Act`."""
        queue = session.queue(target.queue)
        return EntryPlace(target.queue, release(queue, target.filebase, **session.operator.fields()))


# By the verb; each is given the name of a queue, which may be empty.
ACTS: dict[str, Callable[[str], Act]] = {
    'retry': lambda to: Retry(to or None, selects_all=True),
    'mv': Move,
    'hold': lambda _: Hold(),
    'release': lambda _: Release(),
    'rm': lambda _: Remove(),
    'restore': lambda to: Restore(to or None),
}


def _chosen_entry(found: FoundEntry, *, needs_summary: bool) -> ChosenEntry | None:
    """:return: the summary of an entry, as acts need it; None if it is gone.

    :param needs_summary: whether to open it, unless it has been.
    """
    entry = found.look() if needs_summary or found.summary is not None else None
    if entry is None:
        return None if needs_summary else ChosenEntry(found.queue, found.filebase, found.suffix)
    home = entry.removed_from if found.queue == TRASH else entry.retry_queue
    return ChosenEntry(found.queue, found.filebase, entry.suffix, home, entry.sent_back)


def choose(
    found: Iterable[FoundEntry], act: Act, *, named: bool = False, limit: int = 0
) -> list[ChosenEntry]:
    """Choose what an act is to be applied to, in the order in which entries would be taken.

    :param named: each was named by somebody, so it is meant, whatever the act would select.
    :param limit: at most so many, the first; 0 for all.
    """
    now_ns = time.time_ns()
    opened = (_chosen_entry(each, needs_summary=act.needs_summary) for each in found)
    meant = (each for each in opened if each is not None and (named or act.applies_to(each, now_ns)))
    chosen = list(meant) if named else sorted(meant, key=lambda each: sort_key(each.filebase))
    return chosen[:limit] if limit else chosen


def by_queue(targets: Iterable[ChosenEntry]) -> list[tuple[str, int]]:
    """:return: how many were chosen in which queue, the most first."""
    return Counter(each.queue for each in targets).most_common()


def apply(act: Act, target: ChosenEntry, session: OperatorSession) -> Result:
    """Do something to one entry, and note that an operator did.  What goes wrong is part of the result."""
    try:
        now = act(session, target)
    except (SwitchboardError, OSError) as error:
        return Result(target, None, error)
    note_act(
        session.view.directory,
        session.operator,
        act.name,
        target.queue,
        target.filebase,
        f'{now.queue}/{now.filebase}' if now else '',
    )
    return Result(target, now)
