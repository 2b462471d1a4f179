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

A transaction has a name of its own, not its input's: an input that is tried a second time must not find the outputs of the
first.  Outputs are staged at the commit, not when they are emitted: until then a plain draft says all there is to say,
and throwing it away needs no rename.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from switchboard.errors import (
    DurabilityError,
    EntryTakenError,
    OutputsNeverFitError,
    QueueError,
    QueueFullError,
)
from switchboard.events import event
from switchboard.handoff.moving import move
from switchboard.handoff.stage import COMMIT, OrderKey, Output, Stage
from switchboard.interfaces import ITransaction
from switchboard.message.entry import MAILMAN
from switchboard.message.journal import Record, is_long_kept, note_first
from switchboard.message.naming import READY, digest_of, key_of, with_when
from switchboard.message.serializers import Raw
from switchboard.queue.switchboard import Switchboard
from switchboard.store.claims import Claim
from switchboard.store.folder import Folder
from switchboard.store.kernel import APART, IN_ORDER, WITH_FILE, open_files_limit
from switchboard.store.limits import Room, make_room
from switchboard.store.pool import PoolFile
from switchboard.store.publishing import (
    HOLDERS,
    PreparedEntry,
    is_one_flush,
    is_out_of_files,
    name_order,
    refusal,
)

if TYPE_CHECKING:
    from switchboard.queue_defaults import Flush

log = logging.getLogger('switchboard.queue')

STUCK = 'an earlier message of the same order key is committed, and the disk refuses to publish it'


class KeyedOutput:
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


@implementer(ITransaction)
class Transaction:
    """One input, and its outputs.  See `ITransaction`.

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
        self.name = stage.namer.digest('00000000')
        self.items: list[PreparedEntry] = []
        # Those that are to be stored once: their keys are looked for at the commit (see `deduplication`).
        self.keyed: list[KeyedOutput] = []
        self.full = False
        self.flush: Flush = 'one'
        self.forwarded_to: Switchboard | None = None
        # The time that the input gets there, if not its own, and the room that is to be made there.
        self._forwarded_when_ns: int | None = None
        self._forwarded_room: Room | None = None
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

    def emit(self, queue: Switchboard, msg: Any, metadata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        if self.forwarded_to is not None:
            self.forward()  # no longer the only output: it becomes a copy
        key = metadata.get('dedupe_key')
        is_delayed = 'delay' in metadata or 'not_before' in metadata
        try:
            item = queue.prepare(msg, metadata)
        except QueueError as error:
            self._check_can_fit(queue, lambda: len(queue.serializers.serialize(msg).body), error)
            raise
        filebase = self._add_output(queue, item)
        if key is not None:
            self.keyed.append(KeyedOutput(queue, str(key), self.items[-1]))
        if self._claim is not None and not is_delayed:
            self._note(queue, filebase)
        return filebase

    def _note(self, queue: Switchboard, filebase: str) -> None:
        self.stage.last_outputs.note(self._queue.name if self._queue else '', queue.name, filebase)

    def _is_passed_by(self, queue: Switchboard, filebase: str) -> bool:
        return self.stage.last_outputs.is_passed_by(
            self._queue.name if self._queue else '', queue.name, filebase
        )

    def emit_all(self, queues: Sequence[Switchboard], msg: Any, metadata: Mapping[str, Any]) -> list[str]:
        """See `ITransaction`."""
        if self.forwarded_to is not None:
            self.forward()
        once = queues[0].serializers.serialize(msg) if len(queues) > 1 else msg
        kept = len(self.items)
        try:
            return [self.emit(queue, once, dict(metadata)) for queue in queues]
        except BaseException:
            self.undo(kept)
            raise

    def forward(self, *queues: Switchboard, record: Record | None = None, now: bool = False) -> None:
        """Hand the input on as it is: to one queue by one rename, to several, or beside other outputs, by copies.

        Both ways it keeps its time, and so its place among those of its order key, but it never passes an entry that this
        process has put into that queue before, out of the same queue and for the same key: then it goes behind all entries there.  A process knows
        only of itself, and only since its start: where that matters, let a runner hand all messages of a key on in one way.

        :param record: an addition to the history of copies.
        :param now: make copies ready now, behind what waits.
        :raises ContentDisallowedError: a queue does not accept its kind.
        :raises QueueError: a copy could not be stored.
        """
        entry = self.claim.read()
        if len(queues) == 1 and not self.items and self.forwarded_to is None:
            self._forwarded_room = queues[0].check_room(entry)
            self.forwarded_to, self._forwarded_when_ns = queues[0], None
            if self._is_passed_by(queues[0], entry.filebase):
                self._forwarded_when_ns = self.stage.namer.now_ns()
                self._note(queues[0], with_when(entry.filebase, self._forwarded_when_ns))
            return
        before, kept = self.forwarded_to, len(self.items)
        if before is not None:
            queues = (before, *queues)
            self.forwarded_to = None
            if self._forwarded_room is not None:
                self._forwarded_room.end(
                    is_filled=False
                )  # the copy asks for its own; should that fail, it is asked for again
        try:
            for queue in queues:
                behind = now or self._is_passed_by(queue, entry.filebase)
                try:
                    item = queue.prepare_copy(entry, record, now=behind)
                except QueueError as error:
                    self._check_can_fit(queue, lambda: len(entry.body), error)
                    raise
                self._add_output(queue, item, has_place=not behind)
                if behind:
                    self._note(queue, item.filebase)
        except BaseException:
            self.undo(kept)
            self.forwarded_to = before
            raise

    def _add_output(self, queue: Switchboard, item: PreparedEntry, *, has_place: bool = False) -> str:
        """As :meth:`add`, where a full queue is to make room for all outputs of the message.

        :raises OutputsNeverFitError: it never can; the output is thrown away.
        """
        if item.room is not None and not item.room.is_made:
            try:
                self._check_can_fit(queue, lambda: item.size)
            except BaseException:
                queue.discard(item)
                raise
        return self.add(queue, item, has_place=has_place)

    def _check_can_fit(
        self, queue: Switchboard, size: Callable[[], int], error: QueueError | None = None
    ) -> None:
        """Find out whether one more output has no room because of the other outputs alone: then it can never be stored.

        :param size: gives the least that it takes, in bytes.
        :param error: why it was refused; None: it is to come in when its queue has made room.
        :raises OutputsNeverFitError: so it is.
        """
        reason = ''
        if error is None or isinstance(error, QueueFullError):
            options = queue.options
            mine = [item for item in self.items if item.queue == queue.name]
            if options.max_messages is not None and len(mine) >= options.max_messages:
                reason = f'{len(mine) + 1} outputs or more, and max_messages is {options.max_messages}'
            elif options.max_bytes is not None:
                together = size() + sum(item.size for item in mine)
                if together > options.max_bytes:
                    reason = f'outputs of {together} bytes or more, and max_bytes is {options.max_bytes}'
        elif is_out_of_files(error) and len(self.items) > open_files_limit() // 2:
            reason = f'{len(self.items) + 1} outputs or more, and {open_files_limit()} files may be open'
        if reason:
            raise OutputsNeverFitError(
                f'one message has {reason}: this can never be stored', queue=queue.name
            ) from error

    def keep(self, msg: Any, msgdata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        self.discard()
        queue, filebase = self.queue, self.claim.filebase
        if queue.is_changed(filebase, msg):
            filebase = self.replace_input(msg, msgdata)
            self.commit()
            return filebase
        entry = self.claim.read()
        if is_long_kept(entry.records) and entry.kind != MAILMAN:
            # Each taking reads all of its history: it is stored anew, with the same bytes, and the records of its keepings as one.
            filebase = self.replace_input(Raw(entry.kind, entry.body), msgdata)
            self.commit()
            return filebase
        changed = queue.changes(filebase, msgdata)
        return queue.release(filebase, record={'event': 'kept', **changed} if changed else None)

    def replace_input(self, msg: Any, metadata: dict[str, Any], records: Sequence[Record] = ()) -> str:
        """Put a changed message into the input's place: same queue, same time, same history.

        :param records: an addition to the history.
        :return: its filebase.
        """
        queue, entry = self.queue, self.claim.read()
        records = [*note_first(entry.records, digest_of(entry.filebase)), *records]
        item = queue.prepare(msg, dict(metadata), replaces=entry, records=records)
        return self.add(queue, item, has_place=True)

    def add(self, queue: Switchboard, item: PreparedEntry, *, has_place: bool = False) -> str:
        """Have a prepared message published at the commit.

        :param has_place: its name has the time of another entry, and so may come before the entries that are there.
        """
        if has_place and queue.options.strict_order:
            self._reordered.append((queue, item.filebase))
        self.full |= queue.options.durability == 'full'
        if queue.options.flush == 'two':
            self.flush = 'two'
        HOLDERS.add(self)
        self.items.append(item)
        return item.filebase

    def drop(self, thrown: Collection[PreparedEntry]) -> None:
        """Throw some of the outputs away."""
        self.items = [item for item in self.items if item not in thrown]
        if not self.items:
            HOLDERS.discard(self)
        for item in thrown:
            item.abandon(self.stage.pool)

    def order_keys(self) -> set[OrderKey]:
        """:return: the order keys that its outputs have in common with outputs that they must not pass."""
        keys = {Output('', item.queue, item.filebase).order_key for item in self.items}
        if self.forwarded_to is not None and self._place is not None:
            keys.add((self.forwarded_to.name, key_of(self._place[1])))
        return keys

    def undo(self, kept: int) -> None:
        """Throw the last outputs away: `kept` stay."""
        thrown = set(self.items[kept:])
        self.keyed = [each for each in self.keyed if each.item not in thrown]
        self.drop(thrown)

    def commit(self) -> None:
        """See `ITransaction`.

        :raises QueueError: it could not be; the outputs are thrown away, the input stays claimed.
        """
        for error in commit_all((self,)).values():
            raise error

    def discard(self, *, reusable: bool = True) -> None:
        """See `ITransaction`."""
        for item, staged in zip(self.items, self._staged, strict=False):
            draft = item.draft
            try:
                draft.folder.receive(self.stage.folder, staged, draft.name)
            except OSError:
                item.draft = PoolFile(draft.fd, self.stage.folder, staged, draft.size)
        for item in self.items:
            item.abandon(self.stage.pool, reusable=reusable)
        if self._forwarded_room is not None:
            self._forwarded_room.end(is_filled=False)
            self._forwarded_room = None
        HOLDERS.discard(self)
        self.items.clear()
        self.keyed.clear()
        self._staged.clear()
        self.forwarded_to = None

    def make_room(self) -> None:
        """Have full queues make room for all outputs, or for none.

        :raises QueueError: it could not be made.
        """
        make_room(item.room for item in self.items)

    # The steps of the commit; ``commit_all`` puts the flushes of many between them.

    def stage_outputs(self) -> None:
        """Step 2."""
        stage = self.stage
        for number, item in enumerate(self.items):
            name = f'{self.name}:{number}:{item.queue}:{item.filebase}'
            draft = item.draft
            stage.folder.receive(draft.folder, draft.name, name)
            self._staged.append(name)

    def rename_input(self) -> None:
        """Step 3.

        :raises EntryTakenError: this process does not hold the input any more.
        """
        stage = self.stage
        record = self._new_record() if self._place is None else self.claim
        try:
            record.replace(stage.folder, self.name, f':{COMMIT}')
        except BaseException:
            if self._place is None:
                stage.pool.abandon(PoolFile(record.fd, record.folder, record.name, record.size))
            raise
        self._record = record

    @property
    def record_fd(self) -> int:
        """The commit record's descriptor, after step 3."""
        assert self._record is not None
        return self._record.fd

    def _new_record(self) -> Claim:
        return Claim.of_new(self.stage.pool.acquire(), self.stage.disk)

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
            event(log, logging.ERROR, None, 'not synced', transaction=self.name, error=error)
            return False
        return True

    def end_input(self) -> None:
        """Finish the input when there are no outputs.

        :raises QueueError: it could not be.
        """
        if self._place is None:
            return
        claim = self.claim
        if self.forwarded_to is not None:
            make_room((self._forwarded_room,))
            move(claim, self.queue, self.forwarded_to, when_ns=self._forwarded_when_ns)
            if self._forwarded_room is not None:
                self._forwarded_room.end(is_filled=True)
        else:
            self.queue.finish(claim.filebase)

    def publish_outputs(self) -> None:
        """Step 4, first half."""
        stage = self.stage
        for item, staged in zip(self.items, self._staged, strict=True):
            item.folder.receive(stage.folder, staged, item.filebase + READY)
        for queue, filebase in self._reordered:
            queue.consumer.reordered(filebase)

    def remove_record(self) -> None:
        """Step 4, second half."""
        if self._record is not None:
            # The input's file goes where its queue's finished files go, which may empty them first.
            self._record.finish(self.stage.pool if self._queue is None else self._queue.pool)
            self._record = None

    def drop_locks(self) -> None:
        """Drop all locks: outputs not yet where they belong are recovery's work from here."""
        HOLDERS.discard(self)
        for item in self.items:
            item.leave(self.stage.disk)
        self.items.clear()
        if self._record is not None:
            self._record.close()
            self._record = None

    def forget(self) -> None:
        """In a child after a fork: it is the parent's.

        Its locks are not unlocked, for they are the same as the parent's.  The record is let go of with all claims.
        """
        for item in self.items:
            self.stage.disk.let_go(item.draft.fd)
        self.items.clear()
        self.keyed.clear()
        self._staged.clear()
        self._record = None
        self.forwarded_to = None


def _order(transactions: Sequence[Transaction]) -> int:
    """:return: the effect of a flush of a file on names that is relied on: the least of all."""
    return min((name_order(each.flush, each.stage.folder) for each in transactions), default=APART)


def _flush(transactions: Sequence[Transaction], folders: Iterable[Folder]) -> None:
    """Have the names in directories on the disk."""
    if any(transaction.full for transaction in transactions):
        for folder in {id(folder): folder for folder in folders}.values():
            folder.sync()


def _flush_files(transactions: Sequence[Transaction], fds: Sequence[int]) -> None:
    """Have files on the disk, by an order of `WITH_FILE` or better: their content and their names."""
    if fds and any(transaction.full for transaction in transactions):
        transactions[0].stage.disk.sync_files(fds, names=True)


def commit_all(transactions: Sequence[Transaction]) -> dict[Transaction, QueueError]:
    """Commit many transactions with the flushes of one.

    :return: the transactions that were not committed, and why: their outputs are thrown away and their inputs stay claimed.  After
        step 3 nothing fails any more: what the disk refuses then is logged, and recovery does it.
    """
    failed: dict[Transaction, QueueError] = {}
    if transactions and transactions[0].stage.is_stuck:
        transactions = _not_behind(transactions, failed)
    handoffs = [transaction for transaction in transactions if transaction.items]
    without_outputs = [transaction for transaction in transactions if not transaction.items]
    if handoffs:
        _publish(_rename_inputs(_stage(_with_room(handoffs, failed), failed), failed))
        if without_outputs and handoffs[0].stage.is_stuck:
            without_outputs = _not_behind(without_outputs, failed)
    for transaction in without_outputs:
        try:
            transaction.end_input()
        except QueueError as error:
            failed[transaction] = error
    return failed


def _not_behind(
    transactions: Sequence[Transaction], failed: dict[Transaction, QueueError]
) -> list[Transaction]:
    """Try again to publish what the disk refused before.

    :return: the transactions that may go on: no output or forwarded input of theirs would pass one of the same order key.
    """
    try:
        waiting = transactions[0].stage.publish_stuck()
    except OSError as error:
        for transaction in transactions:
            _fail(transaction, error, failed)
        return []
    free = []
    for transaction in transactions:
        if transaction.order_keys().isdisjoint(waiting):
            free.append(transaction)
        else:
            _fail(transaction, DurabilityError(STUCK, step='rename'), failed)
    return free


def _fail(
    transaction: Transaction, error: OSError | QueueError, failed: dict[Transaction, QueueError]
) -> None:
    queue = transaction.items[0].queue if transaction.items else ''
    # What a failed sync left in the page cache is not to be trusted with the next message.
    transaction.discard(reusable=isinstance(error, QueueError))
    failed[transaction] = refusal(error, 'hand-off', queue)


def _with_room(handoffs: Sequence[Transaction], failed: dict[Transaction, QueueError]) -> list[Transaction]:
    """Have room for the outputs where full queues have to make it: for those that can, one after the other."""
    there = []
    for transaction in handoffs:
        try:
            transaction.make_room()
            there.append(transaction)
        except QueueError as error:
            _fail(transaction, error, failed)
    return there


def _stage(handoffs: Sequence[Transaction], failed: dict[Transaction, QueueError]) -> list[Transaction]:
    """Steps 1 and 2, for those that can."""
    order = _order(handoffs)
    try:
        written = [item.draft.fd for each in handoffs if each.full for item in each.items]
        if written and not all(is_one_flush(each.flush, each.stage.folder) for each in handoffs):
            handoffs[0].stage.disk.sync_files(written)
    except OSError as error:
        for transaction in handoffs:
            _fail(transaction, error, failed)
        return []
    staged = []
    for transaction in handoffs:
        try:
            transaction.stage_outputs()
            staged.append(transaction)
        except OSError as error:
            _fail(transaction, error, failed)
            if isinstance(error, FileNotFoundError):
                transaction.stage.revive()  # for the next one
    try:
        if order == APART:
            _flush(staged, [transaction.stage.folder for transaction in staged])
        else:
            _flush_files(staged, [item.draft.fd for each in staged if each.full for item in each.items])
    except OSError as error:
        for transaction in staged:
            _fail(transaction, error, failed)
        return []
    return staged


def _rename_inputs(staged: Sequence[Transaction], failed: dict[Transaction, QueueError]) -> list[Transaction]:
    """Step 3, for those that can."""
    committed = []
    for transaction in staged:
        try:
            transaction.rename_input()
            committed.append(transaction)
        except (OSError, QueueError) as error:
            _fail(transaction, error, failed)
    order = _order(committed)
    try:
        records = [transaction.record_fd for transaction in committed]
        if order == APART:
            _flush(committed, [transaction.stage.folder for transaction in committed])
        else:
            # In order: the last one brings those before it along.
            _flush_files(committed, records[-1:] if order == IN_ORDER else records)
    except OSError as error:
        _take_back(committed, error, failed)
        return []
    return committed


def _take_back(
    committed: Sequence[Transaction], error: OSError, failed: dict[Transaction, QueueError]
) -> None:
    """Undo step 3, of which nobody knows how much is on the disk."""
    taken_back = []
    for transaction in committed:
        if transaction.take_back_input():
            taken_back.append(transaction)
        else:
            transaction.drop_locks()
    try:
        # Before an output goes: a power cut that left the record and no outputs would have lost the input.
        if any(transaction.full for transaction in taken_back):
            for folder in {id(each.input_folder): each.input_folder for each in taken_back}.values():
                folder.settle()
    except OSError as another:
        event(log, logging.ERROR, None, 'not taken back', error=another)
    for transaction in taken_back:
        _fail(transaction, error, failed)


def _publish(committed: Sequence[Transaction]) -> None:
    """Step 4.  What fails here is left to recovery, and nothing of the same order key passes it."""
    published, left = [], []
    stuck: set[OrderKey] = set()
    for transaction in committed:
        try:
            if not stuck or transaction.order_keys().isdisjoint(stuck):
                transaction.publish_outputs()
                published.append(transaction)
                continue
        except OSError as error:
            event(log, logging.ERROR, None, 'committed in part', transaction=transaction.name, error=error)
        stuck |= transaction.order_keys()
        left.append(transaction.name)
        transaction.drop_locks()
    order = _order(published)
    items = [item for transaction in published for item in transaction.items]
    try:
        if order == APART:
            _flush(published, [item.folder for item in items])
        elif order == WITH_FILE:
            _flush_files(published, [item.draft.fd for item in items])
        # In order: a record that is gone tells that the outputs' names are there, and until then it tells of them itself.
        for transaction in published:
            transaction.remove_record()
    except OSError as error:
        event(log, logging.ERROR, None, 'records stay', error=error)
    for transaction in published:
        transaction.drop_locks()
    if left:
        committed[0].stage.roll_on(left)
