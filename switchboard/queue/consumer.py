"""The way out of a queue: choose, claim, read, settle.

A claim is taken once, and everything after that is done with the claim; nothing looks the entry up by name again.  Any number of threads
may use one :class:`Consumer`, but each claim is one thread's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import Any, NoReturn

from switchboard.clock import Clock
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    EntryExpiredError,
    EntryTakenError,
    ForeignFileError,
    MessageTooLargeError,
    QueueError,
)
from switchboard.events import log_event
from switchboard.interfaces import Taken
from switchboard.message.expiry import is_expired
from switchboard.message.journal import Record, count_since_retry
from switchboard.message.naming import (
    LONGEST_DELAY_S,
    NS_PER_S,
    PRESERVED,
    READY,
    is_filebase,
    with_when,
)
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.queue.listing import Listing
from switchboard.queue.ready_queue import ReadyQueue, requested_wait
from switchboard.queue.recovery import (
    INTERRUPTED,
    move_to_bad,
    move_to_bad_unread,
    record_event,
    recover,
)
from switchboard.store.claims import Claim, claim_ready
from switchboard.store.folder import Folder
from switchboard.store.order_lock import OrderLock, Position
from switchboard.store.pool import FilePool
from switchboard.store.publishing import is_too_many_open_files, raise_queue_error
from switchboard.store.reading import WHOLE_BYTES, read_header

log = logging.getLogger('switchboard.queue')

# How long an entry is deferred that the disk would not give, and after how many in a row it is the disk, and not they.  Those that it has
# refused before say nothing about the others, which get their turn.
REFUSED_S = 30.0
MAX_REFUSED = 8
MAX_KNOWN_REFUSED = 1000

# Oldest entries that are looked for at once when a full queue is to make room, and how many times more if those are not enough.
OLDEST_KEPT, OLDEST_GROWTH = 100, 16

# Waits of strict order that are remembered beside what histories say.
MAX_KEPT_WAITS = 1000

# When a message is looked at again whose time is over only if the clock is right, and the reason given for it.
LOOK_AGAIN_S = 60.0
CLOCK_DOUBTED = (
    'its time is over if the clock is right, which was set forward: it waits until that is certain'
)

CAUSES = {
    CorruptEntryError: 'corrupt',
    ContentDisallowedError: 'disallowed',
    MessageTooLargeError: 'disallowed',
    EntryExpiredError: 'expired',
}
# What says of an entry itself that it cannot be worked on.
UNREADABLE = (CorruptEntryError, ContentDisallowedError, MessageTooLargeError, EntryExpiredError)


class ClockDoubtedError(EntryTakenError):
    """The message waits until the clock, which was set forward, has stayed so for a while."""


class Consumer:
    """Takes messages out of one slice of a queue.

    :param bad: the directory of the bad queue.
    :param expiry_clock: the time by which messages expire.
    :param order: the locks of its keys, if it is one of strict order.
    :param dead_letter: sends a claimed entry, for a cause and a reason, to where the queue's dead letters go, and ends the claim; False
        says that it is to go to the bad queue instead.
    """

    def __init__(
        self,
        folder: Folder,
        bad: Folder,
        options: QueueOptions,
        clock: Clock,
        expiry_clock: ExpiryClock,
        pool: FilePool,
        serializers: Serializers,
        listing: Listing,
        ready: ReadyQueue,
        dead_letter: Callable[[Claim, str, str], bool] | None = None,
        order: OrderLock | None = None,
    ) -> None:
        self.folder = folder
        self.queue = folder.queue
        self.bad = bad
        self._options = options
        self._clock = clock
        self._expiry_clock = expiry_clock
        self._pool = pool
        self._serializers = serializers
        self._listing = listing
        self._ready = ready
        self._dead_letter = dead_letter
        self._order = order
        # Where the list of keys ended of which an entry has come to an earlier place, before the directory was read.
        self._position: Position | None = None
        self._sync = options.durability == 'full'
        self._max_body_bytes = options.max_body_bytes
        # Waits of strict order that a turned clock would make longer, by entry and the time that its history names: when each ends, on the boot clock.
        self._kept_waits: dict[tuple[str, float], int] = {}
        # Entries that the disk did not give when they were tried last.
        self._refused: set[str] = set()
        # The next ones to go where the queue is full and the oldest is to make room.
        self._oldest: list[str] = []
        self._oldest_lock = threading.Lock()

    # Choose and claim.

    def take(self) -> Taken | None:
        """See `ISwitchboard`."""
        refused, since = 0, self._ready.readings
        while True:
            position = self._position
            if (filebase := self._ready.next(since)) is None:
                return None
            try:
                claim = self._claim(filebase, self._order)
                if self._order is not None and not self._is_first(claim, position):
                    continue
                msg, msgdata = self.load(claim)
                if self._options.strict_order and self._waits(claim):
                    continue
                if self._refused:
                    self._refused.discard(filebase)
                return Taken(filebase, msg, msgdata, claim)
            except ClockDoubtedError:
                self.defer(filebase, LOOK_AGAIN_S)
            except EntryTakenError:
                self._ready.defer_contended(filebase)
            except (*UNREADABLE, ForeignFileError) as error:
                log_event(log, logging.DEBUG, filebase, 'skipped', error=error)
            except QueueError as error:
                log_event(log, logging.ERROR, filebase, 'not taken', queue=self.queue, error=error)
                refused += self._defer_unread(filebase, error)
                if refused == MAX_REFUSED or is_too_many_open_files(error):
                    raise

    def _defer_unread(self, filebase: str, error: QueueError) -> bool:
        """Do not try an entry for a while that the disk did not give.

        :return: whether that may be the disk's fault: it is not known of this entry.
        """
        if is_too_many_open_files(error):
            self._ready.defer_contended(filebase)  # or later ones of its key would pass it
            return False
        # It may be this file's fault alone: the others are to be had all the same.
        self.defer(filebase, REFUSED_S)
        is_new = filebase not in self._refused
        if len(self._refused) >= MAX_KNOWN_REFUSED:
            self._refused.clear()
        self._refused.add(filebase)
        return is_new

    def _is_first(self, claim: Claim, position: Position | None) -> bool:
        """Give an entry back if another one of its key is being handed on, or comes before it and was not seen when the directory was read.

        :param position: of then.
        """
        assert self._order is not None
        try:
            if self._order.is_handoff_unfinished(claim.filebase):
                self.unclaim(claim)
                self._ready.defer_contended(claim.filebase)
                return False
            if not self._order.is_reordered_since(claim.order_fd, claim.filebase, position):
                return True
            position = self._order.position(claim.order_fd)
            is_first = self._ready.is_first(claim.filebase)
        except BaseException as error:
            self.unclaim(claim)
            if isinstance(error, OSError):
                raise_queue_error(error, 'read', self.queue, self.folder.path)
            raise
        self._position = position  # and not before: another thread goes by the names that were read before
        if not is_first:
            self.unclaim(claim)
        return is_first

    def note_reordered(self, filebase: str) -> None:
        """Say that an entry has come to another place than the last."""
        if self._order is not None:
            try:
                self._order.note_reordered(filebase)
            except OSError as error:
                log_event(log, logging.WARNING, None, 'not noted', queue=self.queue, error=error)

    def claim(self, filebase: str) -> Claim:
        """Claim a ready entry.

        :raises EntryTakenError: somebody else was faster.
        :raises CorruptEntryError: this process may not open it; it is in the bad queue now.
        :raises ForeignFileError: it is none.
        """
        if not is_filebase(filebase):
            raise ForeignFileError('not the name of an entry', queue=self.queue, filebase=filebase)
        return self._claim(filebase)

    def _claim(self, filebase: str, order: OrderLock | None = None) -> Claim:
        try:
            claim = claim_ready(self.folder, filebase, order)
        except PermissionError as error:
            self._preserve_unread(filebase, f'unreadable: {error.strerror}')
            raise CorruptEntryError('unreadable', queue=self.queue, filebase=filebase) from error
        except ForeignFileError:
            self._listing.report_foreign_file(filebase + READY, 'not a regular file')
            raise
        except QueueError as error:
            error.queue = self.queue
            raise
        except OSError as error:
            raise_queue_error(error, 'claim', self.queue, self.folder.path_of(filebase + READY))
        self._ready.note_taken(filebase)
        return claim

    def _preserve_unread(self, filebase: str, reason: str) -> None:
        try:
            move_to_bad_unread(self.folder, filebase + READY, self.bad, reason)
        except FileNotFoundError as error:
            raise EntryTakenError('gone', queue=self.queue, filebase=filebase) from error
        except OSError as error:
            raise_queue_error(error, 'preserve', self.queue, self.folder.path_of(filebase + READY))

    def load(self, claim: Claim) -> tuple[Any, dict[str, Any]]:
        """Read a claimed entry.

        :return: the message and its metadata.
        :raises QueueError: it cannot be read; the claim has ended, and it is in the bad queue if it is at fault itself.
        """
        filebase = claim.filebase
        try:
            if self._max_body_bytes is not None and claim.size > self._max_body_bytes:
                self._check_size(claim, self._max_body_bytes)
            msg, msgdata = claim.read().load(self._serializers)
            if is_expired(msgdata, self._clock):
                if not is_expired(msgdata, self._expiry_clock):
                    self.unclaim(claim)
                    raise ClockDoubtedError(CLOCK_DOUBTED, queue=self.queue, filebase=filebase)
                raise EntryExpiredError('its time to live is over')
        except MemoryError as error:
            # Another message would have fared better, unless this one is small.
            if claim.size <= WHOLE_BYTES:
                self.unclaim(claim)
                raise
            reason = f'{claim.size} bytes: more than there is memory for'
            self.preserve(claim, reason, 'corrupt')
            raise CorruptEntryError(reason, queue=self.queue, filebase=filebase) from error
        except UNREADABLE as error:
            error.queue, error.filebase = self.queue, filebase
            try:
                self.preserve(claim, error.reason, CAUSES[type(error)], error=type(error).__name__)
            except QueueError:
                if claim.is_own():
                    self.unclaim(claim)
                raise
            raise
        except OSError as error:
            # The disk did not give it: that says nothing about the entry.
            self.unclaim(claim)
            raise_queue_error(error, 'read', self.queue, claim.path)
        return msg, msgdata

    def _check_size(self, claim: Claim, limit: int) -> None:
        """:raises MessageTooLargeError: its body is larger than the queue takes, whichever program has put it here."""
        header = read_header(claim.fd, self.folder.disk)
        if header is not None and header.body_length > limit:
            raise MessageTooLargeError(f'a body of {header.body_length} bytes, and the queue takes {limit}')

    def unclaim(self, claim: Claim) -> None:
        """Give an entry back as if it had never been claimed."""
        try:
            self._give_back(claim, claim.filebase)
        except OSError as error:
            log_event(log, logging.ERROR, claim.filebase, 'not released', queue=self.queue, error=error)
            claim.close()

    def _waits(self, claim: Claim) -> bool:
        """Give an entry back that holds its key until a time that has not come."""
        filebase = claim.filebase
        until_s, still_s = requested_wait(claim.read().records, self._clock.time_ns())
        now_ns = self._clock.monotonic_ns()
        until_ns = self._kept_waits.get((filebase, until_s), now_ns + int(still_s * NS_PER_S))
        if still_s <= 0 or until_ns <= now_ns:
            self._kept_waits.pop((filebase, until_s), None)
            return False
        self.unclaim(claim)
        self._keep_wait(filebase, until_s, until_ns)
        return True

    def _keep_wait(self, filebase: str, until_s: float, until_ns: int) -> None:
        if len(self._kept_waits) >= MAX_KEPT_WAITS:
            self._kept_waits.clear()  # they are in the histories as well
        self._kept_waits[filebase, until_s] = until_ns
        self._ready.defer(filebase, until_ns)

    def defer(self, filebase: str, seconds: float) -> None:
        """See `ISwitchboard`."""
        self._ready.defer(filebase, self._clock.monotonic_ns() + int(seconds * NS_PER_S))

    # Of an entry that is claimed.

    def note(self, claim: Claim, event: str, /, **fields: Any) -> None:
        """Add a record to an entry's history, if that is possible.

        :raises OSError: it changes the metadata, and could not be written.
        """
        changes = 'set' in fields or 'drop' in fields
        record_event(claim, event, clock=self._clock, sync=self._sync, must_be_written=changes, **fields)

    def release(self, claim: Claim, delay_s: float, record: Record | None) -> str:
        """See `ISwitchboard`.  In a queue of strict order, an entry that waits keeps its name, and so its place."""
        filebase, now_ns = claim.filebase, self._clock.time_ns()
        wait_ns = int(min(delay_s, LONGEST_DELAY_S) * NS_PER_S) if delay_s > 0 else 0
        is_kept, until_s = delay_s > 0 and self._options.strict_order, now_ns / NS_PER_S + delay_s
        if is_kept:
            record = {'event': 'released', **(record or {}), 'not_before': until_s}
        elif delay_s > 0:
            filebase = with_when(filebase, now_ns + wait_ns)
        try:
            filebase = self.rename(claim, filebase, record, is_delayed=delay_s > 0 and not is_kept)
        except OSError as error:
            self.raise_claim_error(claim, error, 'release')
        if is_kept:
            self._keep_wait(filebase, until_s, self._clock.monotonic_ns() + wait_ns)
        return filebase

    def rename(self, claim: Claim, filebase: str, record: Record | None, *, is_delayed: bool) -> str:
        """Give an entry back under another name.

        :param is_delayed: the time in that name is a wish.
        :return: the name that it has now (see `Claim.rename`).
        :raises OSError: it could not be renamed, or a change of its metadata not written; it stays claimed.
        """
        if record is not None:
            fields = dict(record)
            self.note(claim, fields.pop('event', 'released'), **fields)
        return self._give_back(claim, filebase, dated_ns=self._clock.time_ns() if is_delayed else None)

    def _give_back(self, claim: Claim, filebase: str, *, dated_ns: int | None = None) -> str:
        """End a claim: the entry is ready, under the name `filebase`.

        :param dated_ns: the present time, where the one in the name is a wish: the file's date shows that.
        :return: the name that it has now.
        :raises OSError: it could not be renamed; it stays claimed.
        """
        if dated_ns is not None:
            claim.set_mtime(dated_ns)
        filebase = claim.rename(self.folder, filebase, READY)
        self.note_reordered(filebase)  # with the lock of its key
        claim.close()
        return filebase

    def finish(self, claim: Claim) -> None:
        """End an entry that is done."""
        try:
            claim.finish(self._pool)
        except OSError as error:
            self.raise_claim_error(claim, error, 'finish')
        if self._listing.left is not None:
            self._listing.note_finished()

    def preserve(self, claim: Claim, reason: str, cause: str, **fields: Any) -> None:
        """End the claim on an entry that its queue cannot keep: it goes to the dead letters, by default the bad queue.

        :param cause: a word of ``rejected attempts recoveries expired overflow corrupt disallowed``.
        """
        try:
            self._preserve(claim, reason, cause, **fields)
        except OSError as error:
            self.raise_claim_error(claim, error, 'preserve')

    def raise_claim_error(self, claim: Claim, error: OSError, step: str) -> NoReturn:
        """Say why a step with a claimed entry failed.  It is over if somebody has taken its file away, and would never end otherwise.

        :raises EntryTakenError: its file is gone.
        :raises QueueError: any other reason; it stays claimed, if it is at work.
        """
        is_gone = isinstance(error, FileNotFoundError) and claim.is_removed()
        if is_gone or not claim.is_at_work:
            claim.close()
        if is_gone:
            raise EntryTakenError('its file is gone', queue=self.queue, filebase=claim.filebase) from error
        raise_queue_error(error, step, self.queue, claim.path)

    def _preserve(self, claim: Claim, reason: str, cause: str, **fields: Any) -> None:
        if cause not in ('corrupt', 'disallowed') and self._dead_letter is not None:
            try:
                if self._dead_letter(claim, cause, reason):
                    return
            except MemoryError:
                log_event(
                    log,
                    logging.ERROR,
                    claim.filebase,
                    'not dead-lettered',
                    queue=self.queue,
                    error='too large for the memory',
                )
        self.move_to_bad(claim, reason, cause=cause, **fields)

    def move_to_bad(self, claim: Claim, reason: str, **fields: Any) -> None:
        """Put a claimed entry into the bad queue, whatever the queue's dead letters do.

        :raises OSError: it could not be renamed; it stays claimed.
        """
        move_to_bad(claim, self.bad, reason, queue=self.queue, clock=self._clock, sync=self._sync, **fields)

    def is_preserved(self, filebase: str) -> bool:
        """Is there such an entry in the bad queue?"""
        try:
            return self.bad.has(filebase + PRESERVED)
        except OSError:
            return False

    # What dead owners left, and what a full queue lets go of.

    def recover(self, filebases: list[str], *, include_own: bool, wait: bool = False) -> list[str]:
        """Make claimed entries ready again whose owners died.

        The third recovery of an entry sends it to the dead letters: two deaths can be bad luck, three are the message's fault.

        :param include_own: also those that this process holds.
        :param wait: wait a moment for those that another process may be recovering.
        :return: the filebases that are ready again.
        """
        return recover(self.folder, filebases, self.bad, self._recover, include_own=include_own, wait=wait)

    def _recover(self, claim: Claim) -> bool:
        filebase = claim.filebase
        if self._order is not None and claim.order_fd < 0:
            fd = self._order.lock(filebase)
            if fd is None:
                # A process is about to take another one of its key, and to find out that this one comes first.
                claim.close()
                return False
            claim.order_fd = fd
        # Of the entry itself nothing is read: it may be what its owners died of.
        if claim.history.records and claim.history.records[-1].get('event') == INTERRUPTED:
            self._give_back(claim, filebase)  # an operator wanted that death
            log_event(log, logging.INFO, filebase, 'released', queue=self.queue)
            return True
        recoveries = count_since_retry(claim.history.records, 'recovered') + 1
        self.note(claim, 'recovered', count=recoveries)
        counts = claim.writable and claim.history.is_whole
        if recoveries >= self._options.max_recoveries or not counts:
            self._preserve(claim, f'recovered {recoveries} times: its owner died each time', 'recoveries')
            return False
        self._give_back(claim, filebase)
        log_event(log, logging.INFO, filebase, 'recovered', queue=self.queue, count=recoveries)
        return True

    def evict(self, messages: int, size: int) -> tuple[int, int] | None:
        """Take the oldest entries out of a queue that is full: so many, and with so many bytes, at least.

        :return: how many went, and their bytes, which may be less where others were faster; None if nothing went, for there are not enough.
        """
        passed = set[str]()  # entries that cannot be had, which says nothing about the others
        gone = gone_bytes = 0
        while not gone:
            with self._oldest_lock:
                chosen = self._choose(messages, size, passed)
                if not chosen:
                    return None
                del self._oldest[: self._oldest.index(chosen[-1]) + 1]
            for filebase in chosen:
                try:
                    gone_bytes += self._evict(filebase)
                    gone += 1
                except QueueError as error:
                    log_event(log, logging.DEBUG, filebase, 'not evicted', error=error)
                    passed.add(filebase)
        return gone, gone_bytes

    def can_evict(self, messages: int, size: int) -> bool:
        """Would :meth:`evict` find enough?"""
        with self._oldest_lock:
            return bool(self._choose(messages, size))

    def _choose(self, messages: int, size: int, passed: Collection[str] = ()) -> list[str]:
        """:return: the oldest entries that are enough together, but for those that were passed over; none if all of them are not."""
        try:
            chosen, number = self._enough(messages, size, passed), OLDEST_KEPT
            while not chosen:
                # In groups, because each look reads the directory.
                self._oldest = self._ready.oldest(number)
                chosen = self._enough(messages, size, passed)
                if len(self._oldest) < number:
                    break
                number *= OLDEST_GROWTH
        except OSError as error:
            raise_queue_error(error, 'read', self.queue, self.folder.path)
        return chosen

    def _enough(self, messages: int, size: int, passed: Collection[str]) -> list[str]:
        chosen: list[str] = []
        found_bytes = 0
        for filebase in self._oldest:
            if filebase in passed:
                continue
            if len(chosen) >= messages and found_bytes >= size:
                break
            try:
                status = self.folder.disk.stat(filebase + READY, dir_fd=self.folder.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since it was listed
            chosen.append(filebase)
            found_bytes += status.st_size
        return chosen if len(chosen) >= messages and found_bytes >= size else []

    def _evict(self, filebase: str) -> int:
        claim = self.claim(filebase)
        size = claim.size
        try:
            if self._options.overflow == 'dead-letter':
                self.preserve(claim, 'the queue was full, and this was its oldest message', 'overflow')
            else:
                self.finish(claim)
                log_event(log, logging.WARNING, filebase, 'dropped', queue=self.queue, reason='overflow')
        except QueueError:
            if claim.is_own():
                self.unclaim(claim)  # or nobody could take it until this process ends
            raise
        return size
