"""The way out of a queue: what the holder of a claim can do with its entry, and how an entry is claimed in the first place.

`Inlet` is the way in; `Switchboard` adds the listing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from switchboard.clock import Clock
from switchboard.errors import CorruptEntryError, EntryTakenError, ForeignFileError, QueueError
from switchboard.message.entry import Entry
from switchboard.message.journal import Record
from switchboard.message.metadata_changes import changes, is_body_changed
from switchboard.message.naming import CLAIMED, NS, PRESERVED, READY, Namer, is_filebase, with_when
from switchboard.options import QueueOptions
from switchboard.queue.producer import Inlet
from switchboard.queue.recovery import Recovery
from switchboard.store.claims import Claim, claim_of, claim_ready
from switchboard.store.disk import Disk, Folder
from switchboard.store.pool import FilePool
from switchboard.store.publishing import refuse
from switchboard.store.reading import peek

log = logging.getLogger('switchboard.queue')

# A hundred years: a name has room for a time up to the year 2286.
LONGEST_DELAY_S = 100 * 365 * 86400.0


class Outlet(Inlet):
    """What consumers use of a queue.  See `ISwitchboard`."""

    def __init__(
        self,
        name: str,
        folder: Folder,
        options: QueueOptions,
        disk: Disk,
        clock: Clock,
        namer: Namer,
        pool: FilePool,
        bad: str | os.PathLike[str],
    ) -> None:
        super().__init__(name, folder, options, disk, clock, namer, pool)
        self.recovery = Recovery(name, self.folder, Folder(bad, disk), options, disk, clock)

    def report(self, name: str, what: str) -> None:
        """Log something in the queue's directory that is no entry."""
        log.warning('%s: %s, left alone queue=%s', name, what, self.name)

    # Claims.

    def _claim(self, filebase: str) -> Claim:
        if not is_filebase(filebase):
            raise ForeignFileError('not the name of an entry', queue=self.name, filebase=filebase)
        try:
            return claim_ready(self.folder, filebase, self.disk)
        except PermissionError as error:
            self._set_aside_unread(filebase, f'unreadable: {error.strerror}')
            raise CorruptEntryError('unreadable', queue=self.name, filebase=filebase) from error
        except ForeignFileError:
            self.report(filebase + READY, 'not a regular file')
            raise
        except QueueError as error:
            error.queue = self.name
            raise
        except OSError as error:
            refuse(error, 'claim', self.name)

    def _set_aside_unread(self, filebase: str, reason: str) -> None:
        try:
            self.recovery.preserve_unread(filebase, READY, reason)
        except FileNotFoundError as error:
            raise EntryTakenError('gone', queue=self.name, filebase=filebase) from error
        except OSError as error:
            refuse(error, 'preserve', self.name)

    def _give_back(self, claim: Claim) -> None:
        """Undo a claim of which the caller knows nothing."""
        filebase = claim.filebase
        try:
            self.recovery.release(claim, filebase, None, None)
        except OSError as error:
            log.error('%s: left to recovery queue=%s error=%s', filebase, self.name, error)
            claim.close()

    # Of an entry that is held.

    def held(self, filebase: str) -> Claim:
        """:return: this process's claim on an entry.

        :raises EntryTakenError: it has none.
        """
        claim = claim_of(self.folder, filebase)
        if claim is None:
            raise EntryTakenError('not held by this process', queue=self.name, filebase=filebase)
        return claim

    def annotate(self, filebase: str, record: Record) -> None:
        """See `ISwitchboard`."""
        fields = dict(record)
        self.recovery.append(self.held(filebase), fields.pop('event', 'noted'), **fields)

    def changes(self, filebase: str, msgdata: Mapping[str, Any], *, strict: bool = True) -> dict[str, Any]:
        """See `ISwitchboard`."""
        before = self.held(filebase).read().msgdata(self.serializers)
        return changes(before, msgdata, strict=strict)

    def is_changed(self, filebase: str, msg: Any) -> bool:
        """See `ISwitchboard`."""
        return is_body_changed(self.held(filebase).read(), msg, self.serializers)

    def history(self, filebase: str) -> list[Record]:
        """See `ISwitchboard`."""
        claim = claim_of(self.folder, filebase)
        return list(claim.read().records if claim else self.peek(filebase).records)

    def peek(self, filebase: str, suffix: str | None = None) -> Entry:
        """Read an entry's file without claiming it.

        :param suffix: the state in which to look; by default ready, claimed, preserved, in this order.
        :raises EntryTakenError: there is no such entry.
        :raises QueueError: it cannot be read.
        """
        if is_filebase(filebase):
            for extension in (suffix,) if suffix else (READY, CLAIMED, PRESERVED):
                try:
                    entry = peek(self.folder, filebase, extension)
                except OSError as error:
                    refuse(error, 'read', self.name)
                if entry is not None:
                    return entry
        raise EntryTakenError('no such entry', queue=self.name, filebase=filebase)

    def release(self, filebase: str, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        """See `ISwitchboard`."""
        claim = self.held(filebase)
        when_ns = self.clock.time_ns() + int(min(delay_s, LONGEST_DELAY_S) * NS) if delay_s > 0 else None
        renamed = filebase if when_ns is None else with_when(filebase, when_ns)
        try:
            self.recovery.release(claim, renamed, when_ns, record)
        except OSError as error:
            refuse(error, 'release', self.name)
        return renamed

    def finish(
        self, filebase: str, preserve: bool = False, *, reason: str = '', cause: str = 'rejected'
    ) -> None:
        """See `ISwitchboard`."""
        claim = claim_of(self.folder, filebase)
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
        try:
            claim.finish(self.pool)
        except FileNotFoundError as error:
            claim.close()
            raise EntryTakenError('its file is gone', queue=self.name, filebase=filebase) from error
        except OSError as error:
            refuse(error, 'finish', self.name)

    def _set_aside(self, claim: Claim, cause: str, reason: str, **fields: Any) -> None:
        try:
            self.recovery.set_aside(claim, cause, reason, **fields)
        except OSError as error:
            refuse(error, 'preserve', self.name)
