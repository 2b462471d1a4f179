"""One queue: the life of its entries from enqueue to finish.

What is guaranteed in each state, which call makes each transition, and who repairs what a crash left, is told in
``docs/explanation/states.md``.  The steps themselves have modules of their own: ``publishing`` (in), ``claims`` (at
work), ``spares`` (out) and ``recovery``.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    EntryExpiredError,
    EntryTakenError,
    ForeignFileError,
    QueueError,
)
from switchboard.interfaces import ISwitchboard, Taken
from switchboard.message.expiry import is_expired
from switchboard.message.journal import Record
from switchboard.message.naming import (
    CLAIMED,
    NS,
    READY,
    SYSTEM_NAMER,
    Namer,
    make_slice,
)
from switchboard.options import QueueOptions
from switchboard.queue.consumer import Outlet
from switchboard.queue.listing import Listing, Pickup
from switchboard.queue.ready_queue import DEAR_NS, ReadyQueue, asked_wait_s
from switchboard.queue.throttle import Throttle
from switchboard.queue.wakeup import Wakeup
from switchboard.store.disk import OPEN_FLAGS, Disk, Folder
from switchboard.store.layout import BAD, WAKE
from switchboard.store.pool import FilePool
from switchboard.store.publishing import is_out_of_files, refuse

log = logging.getLogger('switchboard.queue')

# How long an entry is deferred that the disk would not give, and after how many in a row it is the disk, and not they.
REFUSED_S = 30.0
MAX_REFUSED = 8

# Oldest entries that are looked for at once when a full queue is to make room.
OLDEST_KEPT = 100

# Waits of strict order that are remembered beside what histories say.
MAX_KEPT_WAITS = 1000

CAUSES = {CorruptEntryError: 'corrupt', ContentDisallowedError: 'disallowed', EntryExpiredError: 'expired'}


@implementer(ISwitchboard)
class Switchboard(Outlet):
    """One queue directory.  See `ISwitchboard`.

    :param name: the queue's name.
    :param queue_directory: made, with mode 0770, if it is not there.
    :param slice: which of `numslices` ranges of entries this object sees; all of them by default.
    :param recover: make the claims of dead processes, and those that this process gave up, ready again.
    :param options: see `QueueOptions`.
    :param disk: the system calls; a test passes others.
    :param clock: the time; a test passes another.
    :param pool: where entries are written and finished ones go; a spool shares its spares.
    :param bad: the directory of the bad queue; the sibling ``bad`` by default.
    :param dear_ns: see `ReadyQueue`.
    :raises OSError: the directory cannot be made or opened.
    """

    def __init__(
        self,
        name: str,
        queue_directory: str | os.PathLike[str],
        slice: int | None = None,
        numslices: int = 1,
        recover: bool = False,
        *,
        options: QueueOptions | None = None,
        disk: Disk | None = None,
        clock: Clock = SYSTEM_CLOCK,
        namer: Namer | None = None,
        pool: FilePool | None = None,
        bad: str | os.PathLike[str] | None = None,
        dear_ns: int = DEAR_NS,
    ) -> None:
        self.slice = make_slice(slice, numslices)
        self.queue_directory = os.path.abspath(queue_directory)
        options = options or QueueOptions()
        disk = disk or Disk()
        folder = Folder(self.queue_directory, disk)
        if namer is None:
            namer = SYSTEM_NAMER if clock is SYSTEM_CLOCK else Namer(clock)
        bad_path = bad if bad is not None else os.path.join(os.path.dirname(self.queue_directory), BAD)
        pool = pool or FilePool.without_spares(folder, disk, namer)
        super().__init__(name, folder, options, disk, clock, namer, pool, bad_path)
        self._listing = Listing(folder, disk, clock, name, self.slice, notes_claimed=options.strict_order)
        self._ready = ReadyQueue(
            self._listing,
            priority_step_s=options.priority_step_s,
            strict=options.strict_order,
            dear_ns=dear_ns,
        )
        # Entries of strict order whose wait a turned clock would make longer: when it ends, on the boot clock.
        self._kept_waits: dict[str, int] = {}
        # The next ones to go where the queue is full and the oldest is to make room.
        self._oldest: deque[str] = deque()
        self._throttle = Throttle(options.rate and options.rate / numslices, clock)
        # Set by a spool, which knows what operators say.
        self.paused_by_operator: Callable[..., bool] = lambda **_keys: False
        if recover:
            self.recover()

    def __repr__(self) -> str:
        return f'Switchboard({self.name!r}, {self.queue_directory!r}, {self.slice.index}, {self.slice.count})'

    def is_paused(self, *, anew: bool = False) -> bool:
        """Is nothing to be taken for now?

        :param anew: ask the disk; else the answer may be a moment old.
        """
        return self.options.paused or self.paused_by_operator(anew=anew)

    def dequeue(self, filebase: str) -> tuple[Any, dict[str, Any]]:
        """See `ISwitchboard`."""
        claim = self._claim(filebase)
        self._ready.taken(filebase)
        try:
            msg, msgdata = claim.read().load(self.serializers)
            if is_expired(msgdata, self.clock):
                raise EntryExpiredError('its time to live is over')
        except (CorruptEntryError, ContentDisallowedError, EntryExpiredError) as error:
            error.queue, error.filebase = self.name, filebase
            try:
                self._set_aside(claim, CAUSES[type(error)], error.reason, error=type(error).__name__)
            except QueueError:
                self._give_back(claim)
                raise
            raise
        except OSError as error:
            # The disk did not give it: that says nothing about the entry.
            self._give_back(claim)
            refuse(error, 'read', self.name)
        return msg, msgdata

    def take(self) -> Taken | None:
        """See `ISwitchboard`."""
        if self.is_paused() or not self._throttle.allows():
            return None
        refused = 0
        while (filebase := self._ready.next()) is not None:
            try:
                msg, msgdata = self.dequeue(filebase)
                if self.options.strict_order and self._waits(filebase):
                    continue
                self._throttle.took()
                return Taken(filebase, msg, msgdata)
            except EntryTakenError:
                self._ready.defer_contended(filebase)
            except (CorruptEntryError, ContentDisallowedError, EntryExpiredError, ForeignFileError) as error:
                log.debug('%s: skipped error=%s', filebase, error)
            except QueueError as error:
                # It may be this file's fault alone: the others are to be had all the same.
                self.defer(filebase, REFUSED_S)
                log.error('%s: not to be had queue=%s error=%s', filebase, self.name, error)
                refused += 1
                if refused == MAX_REFUSED or is_out_of_files(error):
                    raise
        return None

    def _waits(self, filebase: str) -> bool:
        """Give an entry back that holds its key until a time that has not come."""
        still_s = asked_wait_s(self.history(filebase), self.clock.time_ns())
        now_ns = self.clock.monotonic_ns()
        until_ns = self._kept_waits.get(filebase, now_ns + int(still_s * NS))
        if still_s <= 0 or until_ns <= now_ns:
            self._kept_waits.pop(filebase, None)
            return False
        super().release(filebase)
        self._keep_wait(filebase, until_ns)
        return True

    def _keep_wait(self, filebase: str, until_ns: int) -> None:
        if len(self._kept_waits) >= MAX_KEPT_WAITS:
            self._kept_waits.clear()  # they are in the histories as well
        self._kept_waits[filebase] = until_ns
        self._ready.defer(filebase, until_ns)

    def release(self, filebase: str, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        """See `ISwitchboard`.  In a queue of strict order, an entry that waits keeps its name, and so its place."""
        if not self.options.strict_order or delay_s <= 0:
            return super().release(filebase, delay_s=delay_s, record=record)
        until_s = self.clock.time_ns() / NS + delay_s
        record = {'event': 'released', **(record or {}), 'not_before': until_s}
        super().release(filebase, record=record)
        self._keep_wait(filebase, self.clock.monotonic_ns() + int(delay_s * NS))
        return filebase

    def ready(self) -> bool:
        """Look anew: is there anything to :meth:`take`?"""
        # A sleeper that was woken because a pause has ended must not miss it.
        return not self.is_paused(anew=True) and self._throttle.allows() and self._ready.scan()

    @property
    def is_used_up(self) -> bool:
        """Would the next :meth:`take` have to read the directory?"""
        return self._ready.is_used_up

    def nudge(self) -> None:
        """Wake the runners that sleep on this queue: something has changed that is no new entry."""
        flags = (
            os.O_WRONLY | os.O_CREAT | OPEN_FLAGS
        )  # it may be there: another one who died here has left it
        self.disk.close(self.disk.open_file(WAKE, flags, self.folder.fd))
        try:
            self.disk.unlink(WAKE, dir_fd=self.folder.fd)
        except FileNotFoundError:
            pass  # another one was faster

    def wakeup(self) -> Wakeup:
        """:return: what a runner of this queue sleeps on."""
        pickup = self._listing.pickup
        wakeup = Wakeup(self.queue_directory, pickup.maildir_new if pickup is not None else None)
        self._ready.watch(wakeup)
        return wakeup

    def open_letterbox(self, letterbox: Pickup) -> None:
        """From now on, what other programs drop is taken in before entries are given out."""
        self._listing.pickup = letterbox

    def report(self, name: str, what: str) -> None:
        """Log something in the queue's directory that is no entry: once, and it is not looked at again."""
        self._listing.report(name, what)

    def wait_s(self) -> float | None:
        """:return: seconds until an entry that is there may be taken; None if nothing is waited for."""
        waits = [wait for wait in (self._ready.next_due(), self._throttle.wait_s()) if wait is not None]
        return min(waits) if waits and not self.is_paused() else None

    def defer(self, filebase: str, seconds: float) -> None:
        """Do not :meth:`take` an entry for a while, though it is ready; other processes may."""
        self._ready.defer(filebase, self.clock.monotonic_ns() + int(seconds * NS))

    def make_room(self) -> int | None:
        """See `Inlet`."""
        for _ in range(2):
            # In groups, because each look reads the directory.  Those that have gone meanwhile are passed over.
            if not self._oldest:
                self._oldest.extend(self._ready.oldest(OLDEST_KEPT))
            while self._oldest:
                filebase = self._oldest.popleft()
                try:
                    return self._take_out(filebase)
                except QueueError as error:
                    log.debug('%s: no room made error=%s', filebase, error)
        return None

    def _take_out(self, filebase: str) -> int:
        claim = self._claim(filebase)
        try:
            if self.options.overflow == 'dead-letter':
                reason = 'the queue was full, and this was its oldest message'
                self._set_aside(claim, 'overflow', reason)
            else:
                self.finish(filebase)
                log.warning('%s: dropped queue=%s reason=overflow', filebase, self.name)
        except QueueError:
            if claim.is_own():
                self._give_back(claim)  # or nobody could take it until this process ends
            raise
        return claim.size

    # All that is there.

    @property
    def files(self) -> list[str]:
        """See `ISwitchboard`."""
        return self._ready.files()

    def first_files(self, number: int) -> list[str]:
        """:return: the first of :attr:`files`, without holding all of them in memory."""
        return self._ready.files(number)

    def some_files(self, number: int) -> list[str]:
        """:return: some of :attr:`files`, picked by chance."""
        return self._ready.sample(number)

    def get_files(self, extension: str = READY) -> list[str]:
        """See `ISwitchboard`."""
        return sorted(self._listing.filebases(extension), key=self._ready.order)

    def recover_backup_files(self, *, own: bool = True) -> None:
        """See `ISwitchboard`."""
        self.recover(own=own)

    def recover(self, *, own: bool = True) -> list[str]:
        """See `ISwitchboard`."""
        self.pool.recover()
        return [filebase for filebase in self.get_files(CLAIMED) if self.recovery.recover(filebase, own=own)]
