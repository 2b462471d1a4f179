"""Hand-off: an input is finished and the outputs made from it are published, as one step.

1. every output is written into a draft (locked, meaningless); full queues that make room (``overflow``) make it for all of them, or for none;
2. the drafts are renamed to ``.stage/<transaction>:<n>:<queue>:<filebase>``;
3. **commit**: the input's ``.bak`` is renamed to ``.stage/<transaction>:commit``, in one step;
4. the outputs are renamed into their queues, and the commit record becomes a spare.

With ``full``, the outputs are on the disk before 3, bytes and names; the record is before 4; and the queues' names are before the
record goes.  That is one flush, one, and none where the file system keeps names in order: there no flush is needed between 4 and
the end of the record.  Where an ``fsync`` of a file brings that file's name along and no other (Btrfs), each of the three is a flush of
files and never of a directory, which would leave the input beside its record; elsewhere the bytes have a flush of their own, and each directory has one.  A crash before 3 leaves the input claimed and outputs without a record: recovery makes the
input ready again and the outputs spares.  A crash after 3 leaves a record: recovery does step 4.  Until the
end everything is locked by its owner, and recovery leaves locked files alone.

A hand-off has a name of its own, not its input's: an input that is tried a second time must not find the outputs of the
first.  Outputs are staged at the commit, not when they are emitted: until then a plain draft says all there is to say,
and throwing it away needs no rename.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from switchboard.errors import EntryTakenError
from switchboard.events import log_event
from switchboard.handoff.moving import move
from switchboard.handoff.stage import ANY_INPUT_PREFIX, COMMIT, OrderKey, Output, Stage, transaction_prefix
from switchboard.message.naming import READY, slice_digits_of
from switchboard.queue.switchboard import Switchboard
from switchboard.store.claims import Claim
from switchboard.store.folder import Folder
from switchboard.store.limits import Reservation, make_room
from switchboard.store.pool import PoolFile
from switchboard.store.publishing import DRAFT_OWNERS, PreparedEntry

if TYPE_CHECKING:
    from switchboard.queue_defaults import DirectorySync

log = logging.getLogger('switchboard.queue')


class DedupedOutput:
    """An output that is stored only if its key is new to its queue.

    :param make: writes it, if that was not done yet: it is called when the key is known to be new.
    """

    __slots__ = ('filebase', 'item', 'key', 'make', 'queue')

    def __init__(
        self,
        queue: Switchboard,
        key: str,
        item: PreparedEntry | None = None,
        make: Callable[[], PreparedEntry] | None = None,
    ) -> None:
        self.queue = queue
        self.key = key
        self.item = item
        self.make = make
        # The output's, or that of the one that was stored before; known when it is committed.
        self.filebase = '' if item is None else item.filebase


class Handoff:
    """One input, and its outputs, on their way through the steps.

    :param queue: the input's queue; None for an input that was no entry, and for a message that is published to several queues at once.
    :param claim: the input; None for a message that is published.
    """

    def __init__(self, stage: Stage, queue: Switchboard | None = None, claim: Claim | None = None) -> None:
        self.stage = stage
        self._queue = queue
        self._claim = claim
        # Where the input stands; it is there again if the commit is taken back.
        self._place = None if claim is None else (claim.folder, claim.filebase, claim.suffix)
        # The input, or a new file, from the commit until all outputs are where they belong.
        self._record: Claim | None = None
        digits = ANY_INPUT_PREFIX
        if claim is not None and queue is not None and queue.options.strict_order:
            digits = transaction_prefix(queue.name, claim.filebase)
        self.name = stage.name_generator.digest(digits)
        self.items: list[PreparedEntry] = []
        # Those that are to be stored once: their keys are looked for at the commit (see `deduplication`).
        self.deduped: list[DedupedOutput] = []
        self.is_durable = False
        self.directory_sync: DirectorySync = 'auto'
        self.forwarded_to: Switchboard | None = None
        # The time that the input gets there, if not its own, and the room that is to be made there.
        self._forwarded_when_ns: int | None = None
        self._forwarded_reservation: Reservation | None = None
        self._staged: list[str] = []
        # Outputs that come to another place than the last, and their queues.
        self._reordered: list[tuple[Switchboard, str]] = []

    @property
    def claim(self) -> Claim:
        """The input.

        :raises EntryTakenError: there is none, or this process has given it up.
        """
        if self._claim is None or not self._claim.is_own():
            queue = self._queue.name if self._queue else ''
            raise EntryTakenError('not held by this process', queue=queue, filebase=self.filebase or '')
        return self._claim

    @property
    def filebase(self) -> str | None:
        """The input's name; None if there is no input."""
        return self._place[1] if self._place else None

    @property
    def queue(self) -> Switchboard:
        """The input's queue.

        :raises EntryTakenError: the input is of none.
        """
        if self._queue is None:
            raise EntryTakenError('no entry of a queue')
        return self._queue

    @property
    def has_outputs(self) -> bool:
        """See `ITransaction`."""
        return bool(self.items) or self.forwarded_to is not None

    def add(self, queue: Switchboard, item: PreparedEntry, *, has_place: bool = False) -> str:
        """Have a prepared message published at the commit.

        :param has_place: its name has the time of another entry, and so may come before the entries that are there.
        """
        if has_place and queue.options.strict_order:
            self._reordered.append((queue, item.filebase))
        self.is_durable |= queue.options.durability == 'full'
        if queue.options.directory_sync == 'always':
            self.directory_sync = 'always'
        DRAFT_OWNERS.add(self)
        self.items.append(item)
        return item.filebase

    def drop(self, thrown: Collection[PreparedEntry]) -> None:
        """Throw some of the outputs away."""
        self.items = [item for item in self.items if item not in thrown]
        if not self.items:
            DRAFT_OWNERS.discard(self)
        for item in thrown:
            item.discard(self.stage.pool)

    def drop_after(self, kept: int) -> None:
        """Throw the last outputs away: `kept` stay."""
        thrown = set(self.items[kept:])
        self.deduped = [each for each in self.deduped if each.item not in thrown]
        self.drop(thrown)

    def order_keys(self) -> set[OrderKey]:
        """:return: the order keys that its outputs have in common with outputs that they must not pass."""
        keys = {Output('', item.queue, item.filebase).order_key for item in self.items}
        if self.forwarded_to is not None and self._place is not None:
            keys.add((self.forwarded_to.name, slice_digits_of(self._place[1])))
        return keys

    def discard(self, *, reusable: bool = True) -> None:
        """See `ITransaction`."""
        for item, staged in zip(self.items, self._staged, strict=False):
            draft = item.draft
            try:
                draft.folder.rename_from(self.stage.folder, staged, draft.name)
            except OSError:
                item.draft = PoolFile(draft.fd, self.stage.folder, staged, draft.size)
        for item in self.items:
            item.discard(self.stage.pool, reusable=reusable)
        if self._forwarded_reservation is not None:
            self._forwarded_reservation.end(is_used=False)
            self._forwarded_reservation = None
        DRAFT_OWNERS.discard(self)
        self.items.clear()
        self.deduped.clear()
        self._staged.clear()
        self.forwarded_to = None

    def make_room(self) -> None:
        """Have full queues make room for all outputs, or for none.

        :raises QueueError: it could not be made.
        """
        make_room(item.reservation for item in self.items)

    # The steps of the commit; `switchboard.handoff.commit` puts the flushes of many between them.

    def stage_outputs(self) -> None:
        """Step 2."""
        stage = self.stage
        for number, item in enumerate(self.items):
            name = f'{self.name}:{number}:{item.queue}:{item.filebase}'
            draft = item.draft
            stage.folder.rename_from(draft.folder, draft.name, name)
            self._staged.append(name)

    def rename_input(self) -> None:
        """Step 3.

        :raises EntryTakenError: this process does not hold the input any more, or somebody has taken its file away.
        """
        stage = self.stage
        record = self.claim if self._place is not None else Claim.of_new_file(stage.pool.acquire())
        try:
            record.rename_unchecked(stage.folder, self.name, f':{COMMIT}')
        except BaseException as error:
            if self._place is None:
                stage.pool.discard(PoolFile(record.fd, record.folder, record.name, record.size))
            elif isinstance(error, FileNotFoundError) and record.is_removed():
                self.queue.consumer.raise_claim_error(record, error, 'hand-off')
            raise
        self._record = record

    @property
    def record_fd(self) -> int:
        """The commit record's descriptor, after step 3."""
        assert self._record is not None
        return self._record.fd

    @property
    def input_folder(self) -> Folder:
        """The directory of the input when it was taken back."""
        return self.stage.folder if self._place is None else self._place[0]

    def take_back_input(self) -> bool:
        """Undo step 3.

        :return: False if the disk refuses that as well: then it stays committed.
        """
        try:
            if self._place is None:
                self.remove_record()
            elif self._record is not None:
                self._record.rename(*self._place)
                self._record = None
        except OSError as error:
            log_event(log, logging.ERROR, None, 'not synced', transaction=self.name, error=error)
            return False
        return True

    def finish_input(self) -> None:
        """Finish the input when there are no outputs.

        :raises QueueError: it could not be.
        """
        if self._place is None:
            return
        claim = self.claim
        if self.forwarded_to is not None:
            make_room((self._forwarded_reservation,))
            move(claim, self.queue, self.forwarded_to, when_ns=self._forwarded_when_ns)
            if self._forwarded_reservation is not None:
                self._forwarded_reservation.end(is_used=True)
        else:
            self.queue.finish(claim.filebase)

    def publish_outputs(self) -> None:
        """Step 4, first half."""
        stage = self.stage
        for item, staged in zip(self.items, self._staged, strict=True):
            item.folder.rename_from(stage.folder, staged, item.filebase + READY)
        for queue, filebase in self._reordered:
            queue.consumer.note_reordered(filebase)

    def remove_record(self) -> None:
        """Step 4, second half."""
        if self._record is not None:
            # The input's file goes where its queue's finished files go, which may empty them first.
            self._record.finish(self.stage.pool if self._queue is None else self._queue.pool)
            self._record = None

    def unlock(self) -> None:
        """Drop all locks, and end the reservations as used: outputs not yet where they belong are recovery's work from here."""
        DRAFT_OWNERS.discard(self)
        for item in self.items:
            item.unlock()
        self.items.clear()
        if self._record is not None:
            self._record.close()
            self._record = None

    def forget_in_child(self) -> None:
        """In a child after a fork: it is the parent's.

        Its locks are not unlocked, for they are the same as the parent's.  The record is let go of with all claims.
        """
        for item in self.items:
            self.stage.disk.close_quietly(item.draft.fd)
        self.items.clear()
        self.deduped.clear()
        self._staged.clear()
        self._record = None
        self.forwarded_to = None
