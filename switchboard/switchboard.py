"""One queue: the life of its entries from enqueue to finish.

What is guaranteed in each state, which call makes each transition, and who repairs what a crash left, is told in
``docs/explanation/states.md``.  The steps themselves have modules of their own: ``publishing`` (in), ``claims`` (at
work), ``spares`` (out) and ``recovery``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from zope.interface import implementer

from switchboard.backlog import Backlog, Listing
from switchboard.claims import HELD, Claim, claim_ready, held
from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.disk import Disk, Folder
from switchboard.entry import (
    CLAIMED,
    NS,
    PRESERVED,
    READY,
    SYSTEM_NAMER,
    Namer,
    is_filebase,
    make_slice,
    with_when,
)
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    EntryExpiredError,
    EntryTakenError,
    ForeignFileError,
    QueueError,
)
from switchboard.expiry import is_expired
from switchboard.inlet import Inlet
from switchboard.interfaces import ISwitchboard
from switchboard.journal import Record
from switchboard.options import QueueOptions
from switchboard.publishing import refuse
from switchboard.reading import Entry, peek
from switchboard.recovery import Recovery
from switchboard.spares import Scratch, Workshop
from switchboard.throttle import Throttle
from switchboard.wakeup import Wakeup

log = logging.getLogger('switchboard.queue')

# How long an entry is left alone after another process was faster: it is mostly gone a moment later.
CONTENDED_S = 0.05

_CAUSES = {CorruptEntryError: 'corrupt', ContentDisallowedError: 'disallowed', EntryExpiredError: 'expired'}


class Taken(NamedTuple):
    """An entry that was claimed by :meth:`Switchboard.take`."""

    filebase: str
    msg: Any
    msgdata: dict[str, Any]


@implementer(ISwitchboard)
class Switchboard(Inlet):
    """One queue directory.  See `ISwitchboard`.

    :param name: the queue's name.
    :param queue_directory: made, with mode 0770, if it is not there.
    :param slice: which of `numslices` ranges of entries this object sees; all of them by default.
    :param recover: make the claims of dead processes, and those that this process gave up, ready again.
    :param options: see `QueueOptions`.
    :param disk: the system calls; a test passes others.
    :param clock: the time; a test passes another.
    :param workshop: where entries are written and finished ones go; a spool shares its spares.
    :param bad: the directory of the bad queue; the sibling ``bad`` by default.
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
        workshop: Workshop | None = None,
        bad: str | os.PathLike[str] | None = None,
    ) -> None:
        self.slice = make_slice(slice, numslices)
        self.queue_directory = os.path.abspath(queue_directory)
        options = options or QueueOptions()
        disk = disk or Disk()
        folder = Folder(self.queue_directory, disk)
        if namer is None:
            namer = SYSTEM_NAMER if clock is SYSTEM_CLOCK else Namer(clock)
        super().__init__(name, folder, options, disk, clock, namer, workshop or Scratch(folder, disk, namer))
        self._listing = Listing(folder, disk, clock, name, self.slice, options.priority_step_s)
        self._backlog = Backlog(self._listing)
        bad_path = bad if bad is not None else os.path.join(os.path.dirname(self.queue_directory), 'bad')
        self.recovery = Recovery(name, self.folder, Folder(bad_path, disk), options, disk, clock)
        self._throttle = Throttle(options.rate and options.rate / numslices, clock)
        # Set by a spool, which knows what operators say.
        self.paused_by_operator: Callable[[], bool] = lambda: False
        if recover:
            self.recover_backup_files()

    def __repr__(self) -> str:
        return f'Switchboard({self.name!r}, {self.queue_directory!r}, {self.slice.index}, {self.slice.count})'

    def is_paused(self) -> bool:
        """Is nothing to be taken for now?"""
        return self.options.paused or self.paused_by_operator()

    def dequeue(self, filebase: str) -> tuple[Any, dict[str, Any]]:
        """See `ISwitchboard`."""
        claim = self._claim(filebase)
        try:
            msg, msgdata = claim.read().load(self.serializers)
            if is_expired(msgdata, self.clock):
                raise EntryExpiredError('its time to live is over')
        except (CorruptEntryError, ContentDisallowedError, EntryExpiredError) as error:
            error.queue, error.filebase = self.name, filebase
            self._set_aside(claim, _CAUSES[type(error)], error.reason, error=type(error).__name__)
            raise
        except OSError as error:
            # The disk did not give it: that says nothing about the entry.
            self.recovery.release(claim, filebase, None, None)
            refuse(error, 'read', self.name)
        return msg, msgdata

    def _claim(self, filebase: str) -> Claim:
        if not is_filebase(filebase):
            raise ForeignFileError('not the name of an entry', queue=self.name, filebase=filebase)
        try:
            return claim_ready(self.folder, filebase, self.disk)
        except PermissionError as error:
            self.recovery.preserve_unread(filebase, READY, f'unreadable: {error.strerror}')
            raise CorruptEntryError('unreadable', queue=self.name, filebase=filebase) from error
        except ForeignFileError:
            self._listing.report(filebase + READY, 'not a regular file')
            raise
        except QueueError as error:
            error.queue = self.name
            raise
        except OSError as error:
            refuse(error, 'claim', self.name)

    def take(self) -> Taken | None:
        """See `ISwitchboard`."""
        if self.is_paused() or not self._throttle.allows():
            return None
        while (filebase := self._backlog.next()) is not None:
            try:
                msg, msgdata = self.dequeue(filebase)
                self._throttle.took()
                return Taken(filebase, msg, msgdata)
            except EntryTakenError:
                self._backlog.hold(filebase, CONTENDED_S)
            except (CorruptEntryError, ContentDisallowedError, EntryExpiredError, ForeignFileError) as error:
                log.debug('%s: skipped error=%s', filebase, error)
        return None

    def ready(self) -> bool:
        """Look anew: is there anything to :meth:`take`?"""
        return not self.is_paused() and self._throttle.allows() and self._backlog.ready()

    def nudge(self) -> None:
        """Wake the runners that sleep on this queue: something has changed that is no new entry."""
        name = '.wake'
        self.disk.close(self.disk.create_locked(name, self.folder.fd))
        self.disk.unlink(name, dir_fd=self.folder.fd)

    def wakeup(self) -> Wakeup:
        """:return: what a runner of this queue sleeps on."""
        return Wakeup(self.queue_directory)

    def wait_s(self) -> float | None:
        """:return: seconds until an entry that is there may be taken; None if nothing is waited for."""
        waits = [wait for wait in (self._backlog.wait_s(), self._throttle.wait_s()) if wait is not None]
        return min(waits) if waits and not self.is_paused() else None

    def hold(self, filebase: str, seconds: float) -> None:
        """Do not :meth:`take` an entry for a while, though it is ready; other processes may."""
        self._backlog.hold(filebase, seconds)

    def held(self, filebase: str) -> Claim:
        """:return: this process's claim on an entry.

        :raises EntryTakenError: it has none.
        """
        claim = held(self.folder, filebase)
        if claim is None:
            raise EntryTakenError('not held by this process', queue=self.name, filebase=filebase)
        return claim

    def annotate(self, filebase: str, record: Record) -> None:
        """See `ISwitchboard`."""
        fields = dict(record)
        self.recovery.append(self.held(filebase), fields.pop('event', 'noted'), **fields)

    def history(self, filebase: str) -> list[Record]:
        """See `ISwitchboard`."""
        claim = held(self.folder, filebase)
        return list(claim.read().records if claim else self.peek(filebase).records)

    def peek(self, filebase: str, suffix: str | None = None) -> Entry:
        """Read an entry's file without claiming it.

        :param suffix: the state in which to look; by default ready, claimed, preserved, in this order.
        :raises EntryTakenError: there is no such entry.
        """
        if is_filebase(filebase):
            for extension in (suffix,) if suffix else (READY, CLAIMED, PRESERVED):
                entry = peek(self.folder, filebase, extension)
                if entry is not None:
                    return entry
        raise EntryTakenError('no such entry', queue=self.name, filebase=filebase)

    # Out.

    def finish(
        self, filebase: str, preserve: bool = False, *, reason: str = '', cause: str = 'rejected'
    ) -> None:
        """See `ISwitchboard`."""
        claim = held(self.folder, filebase)
        if claim is None:
            try:
                claim = self._claim(filebase)
            except CorruptEntryError:
                return  # unreadable: it is in the bad queue now
            except EntryTakenError:
                if preserve and self.recovery.is_preserved(filebase):
                    return
                raise
        if preserve:
            self._set_aside(claim, cause, reason or 'preserved by its runner')
            return
        HELD.pop((self.folder.key, filebase), None)
        ours = claim.writable and claim.uid == self.disk.geteuid()
        try:
            self.workshop.give(claim.fd, self.folder, claim.name, claim.size, reusable=ours)
        except FileNotFoundError as error:
            raise EntryTakenError('its file is gone', queue=self.name, filebase=filebase) from error
        except OSError as error:
            refuse(error, 'finish', self.name)

    def _set_aside(self, claim: Claim, cause: str, reason: str, **fields: Any) -> None:
        try:
            self.recovery.set_aside(claim, cause, reason, **fields)
        except OSError as error:
            refuse(error, 'preserve', self.name)

    def make_room(self) -> bool:
        """See `Inlet`."""
        for filebase in self._listing.due(1)[0]:
            try:
                claim = self._claim(filebase)
                if self.options.overflow == 'dead-letter':
                    self._set_aside(claim, 'overflow', 'the queue was full, and this was its oldest message')
                else:
                    self.finish(filebase)
                    log.warning('%s: dropped queue=%s reason=overflow', filebase, self.name)
            except QueueError as error:
                log.debug('%s: no room made error=%s', filebase, error)
                continue
            return True
        return False

    def release(self, filebase: str, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        """See `ISwitchboard`."""
        claim = self.held(filebase)
        when_ns = self.clock.time_ns() + int(delay_s * NS) if delay_s > 0 else None
        renamed = filebase if when_ns is None else with_when(filebase, when_ns)
        try:
            self.recovery.release(claim, renamed, when_ns, record)
        except OSError as error:
            refuse(error, 'release', self.name)
        return renamed

    # All that is there.

    @property
    def files(self) -> list[str]:
        """See `ISwitchboard`."""
        return self._listing.due(None)[0]

    def get_files(self, extension: str = READY) -> list[str]:
        """See `ISwitchboard`."""
        return sorted(self._listing.filebases(extension), key=self._listing.order)

    def recover_backup_files(self, *, own: bool = True) -> list[str]:
        """See `ISwitchboard`.

        :param own: also what this process holds; a runner's periodic recovery leaves that alone.
        """
        self.workshop.recover()
        return [filebase for filebase in self.get_files(CLAIMED) if self.recovery.recover(filebase, own=own)]
