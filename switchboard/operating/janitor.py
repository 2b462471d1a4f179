"""The chores of a spool, now and then: recovery, expiry, trash, also in queues that nobody works on.

The master sends a process of its own to do it (``housekeeping``); ``switchboard tidy`` does it by hand.  All of it may run at any time
and in many processes at once, because it touches nothing that a living process holds.

In one round not more is looked at than a few seconds take: the first entries of a queue, where those stand whose time is over if the
queue gives all of them the same, and some of the others by chance.  So in a queue of a million an entry with a time of its own
may be found some hours after it is over, if nobody takes it before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nsmallest
from itertools import takewhile

from switchboard.errors import CorruptEntryError, EntryExpiredError, QueueError, UnknownQueueError
from switchboard.events import log_event
from switchboard.message.expiry import is_expired
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import CLAIMED, NS_PER_S, PRESERVED, READY, format_when
from switchboard.operating.acts import remove
from switchboard.operating.queue_counts import walk_entries
from switchboard.operating.summary import summarize
from switchboard.queue.consumer import UNREADABLE
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD, TRASH

log = logging.getLogger('switchboard.queue')

# Entries of one queue that are looked at in one round: the first, which have waited longest, and some of the others.
LOOKED_AT = 1000
SAMPLED = 10_000
# How long what an operator removed can be restored.
TRASH_S = 7 * 86400.0
# While all of the first ones have expired, the next ones are looked at, for so long.
ROUND_NS = 10 * NS_PER_S


@dataclass(slots=True)
class TidyCounts:
    """The counts of one round."""

    handoffs: int = 0
    recovered: int = 0
    expired: int = 0
    deleted_queues: int = 0
    forgotten: int = 0
    removed: int = 0


def tidy(spool: Spool, on_failure: Callable[[str, Exception], object] = lambda *_: None) -> TidyCounts:
    """Do one round.

    :param on_failure: called for each failed chore with its queue, or with the spool's directory, and the error.
    :return: the counts of the round.  A failed chore is in the log, too, and is tried again in the next round.
    """
    done = TidyCounts()

    def failed(queue: str, error: Exception) -> None:
        log_event(log, logging.ERROR, None, 'not tidied', **({'queue': queue} if queue else {}), error=error)
        on_failure(queue or spool.directory, error)

    @contextmanager
    def chore(queue: str = '') -> Iterator[None]:
        """Keep the failure of a chore from the others."""
        try:
            yield
        except (QueueError, OSError) as error:
            if not (queue and _is_deleted(spool, queue)):
                failed(queue, error)

    spool.expiry_clock.time_ns()  # so that a clock that was turned is noticed by somebody
    with chore():
        done.handoffs = spool.recover()
    with chore():
        done.deleted_queues = len(spool.delete_unused_queues(failed))
    with chore():
        spool.pool.shrink(spool.run_folder, spool.clock.monotonic_ns())
    with chore():
        spool.renew_empty_directories()
    for name in spool.queue_names():
        with chore(name):
            _tidy_queue(spool, name, done)
    return done


def _is_deleted(spool: Spool, name: str) -> bool:
    """Was a queue deleted meanwhile, or will it be as soon as nobody works on its messages any more?"""
    try:
        declaration = spool.declared.records.read(name)
        return declaration.deleted if declaration is not None else name not in spool.queue_names()
    except (QueueError, OSError):
        return False


def _tidy_queue(spool: Spool, name: str, done: TidyCounts) -> None:
    if name == BAD:
        done.removed += remove_old_preserved(spool[BAD], spool[BAD].options.ttl_s)
        return
    if name == TRASH:
        done.removed += _empty_trash(spool)
        if spool.config is None or TRASH not in spool.config.queue_names():
            return
    try:
        queue = spool[name]
    except UnknownQueueError:
        # Its section was removed, and its directory stays.  An empty one needs nothing.
        if any(walk_entries(Folder(spool.path(name), spool.disk), (READY, CLAIMED))):
            raise
        return
    if queue.is_remote:
        # On Redis it is we who give out again what dead holders had; the rest is the broker's affair.
        queue.recover(include_own=False)
    else:
        done.recovered += len(queue.recover(include_own=False))
        done.expired += expire(queue)
    done.forgotten += spool.dedupe_keys(queue).remove_expired()


def count_bad(spool: Spool) -> int:
    """:return: how many entries the bad queue holds."""
    return sum(1 for _ in walk_entries(spool[BAD].folder, (PRESERVED,)))


def full_disks(spool: Spool) -> Iterator[tuple[str, str]]:
    """Yield the queues whose ``min_free_space`` is reached, each with a line about it."""
    for name in spool.queue_names():
        try:
            queue = spool[name]
        except UnknownQueueError:  # a directory whose section was removed
            continue
        if queue.is_remote or not queue.options.min_free_space_bytes:
            continue
        try:
            status = spool.disk.statvfs(queue.folder.path)
        except OSError as error:
            log_event(log, logging.DEBUG, None, 'not read', queue=name, error=error)
            continue
        free = status.f_bavail * status.f_frsize
        if free < queue.options.min_free_space_bytes:
            yield (
                name,
                f'{free} bytes are free on the disk, and min_free_space keeps {queue.options.min_free_space_bytes}',
            )


def expire(queue: Switchboard) -> int:
    """Send entries whose time is over to the dead letters.

    :return: how many.
    """
    until_ns = queue.clock.monotonic_ns() + ROUND_NS
    expired = 0
    while True:
        first = queue.first_files(LOOKED_AT)
        found = sum(_expire(queue, filebase) for filebase in first)
        expired += found
        if len(first) < LOOKED_AT:
            return expired
        if found < LOOKED_AT or queue.clock.monotonic_ns() > until_ns:
            return expired + sum(_expire(queue, filebase) for filebase in queue.sample_files(SAMPLED))


def expire_leading(queue: Switchboard) -> int:
    """Send the first entries to the dead letters, up to the one whose time is not over.

    A damaged one among them goes to the bad queue, as it does when somebody takes it: here nobody does, and it would hold up all others.

    :return: how many; after `LOOKED_AT` there may be more.
    """
    first = queue.first_files(LOOKED_AT)
    return sum(1 for _ in takewhile(lambda filebase: _expire(queue, filebase, or_damaged=True), first))


def _expire(queue: Switchboard, filebase: str, *, or_damaged: bool = False) -> bool:
    try:
        is_over = _is_over(queue, filebase)
        if not is_over and not (or_damaged and is_over is None):
            return False
        queue.dequeue(filebase)
        queue.release(filebase)  # somebody has changed it between the two looks
    except EntryExpiredError:
        return True
    except UNREADABLE:
        return or_damaged
    except QueueError as error:
        log_event(log, logging.DEBUG, filebase, 'not read', error=error)
    return False


def _is_over(queue: Switchboard, filebase: str) -> bool | None:
    """:return: whether the time of an entry is over; None if it is damaged."""
    entry = queue.peek(filebase, READY)
    if entry.damage is not None:
        return None
    try:
        metadata = load_metadata(entry.metadata)
    except CorruptEntryError:
        return None
    return is_expired(entry.apply_history(metadata), queue.expiry_clock)


def _empty_trash(spool: Spool) -> int:
    """Remove the entries that have lain in the trash for longer than the ``ttl`` of [queue.trash]; of a week, if there is no such section."""
    rule = spool.config.queues.named.get(TRASH) if spool.config is not None else None
    ttl_s = TRASH_S if rule is None else rule.values.get('ttl_s', TRASH_S)
    # Without the configuration: it need not declare the trash, and may declare anything of that name.
    return remove_old_preserved(Spool(spool.directory, disk=spool.disk, clock=spool.clock)[TRASH], ttl_s)


def remove_old_preserved(bad: Switchboard, ttl_s: float | None) -> int:
    """Remove preserved entries that have been there for longer than `ttl_s`; None keeps all.

    :return: how many.
    """
    if ttl_s is None:
        return 0
    now_ns = bad.clock.time_ns()
    before_ns = bad.expiry_clock.time_ns() - int(ttl_s * NS_PER_S)
    before, now = format_when(before_ns), format_when(now_ns) + '~'
    # No entry was preserved before it was there; of a delayed or held entry, the name does not say since when it was.
    candidates = (name for name, _ in walk_entries(bad.folder, (PRESERVED,)) if name < before or name > now)
    old = nsmallest(LOOKED_AT, candidates)
    return sum(_remove_if(bad, filebase, before_ns) for filebase in old)


def _remove_if(bad: Switchboard, filebase: str, before_ns: int) -> bool:
    try:
        entry = summarize(bad.folder, bad.name, filebase, PRESERVED)
        if entry is None or (entry.suffix, entry.is_read) != (PRESERVED, True) or entry.since_ns >= before_ns:
            return False
        remove(bad, filebase)
    except (QueueError, OSError) as error:
        log_event(log, logging.DEBUG, filebase, 'not removed', error=error)
        return False
    log_event(log, logging.WARNING, filebase, 'removed', queue=bad.name, reason='expired')
    return True
