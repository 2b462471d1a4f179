"""Hand-off: an input is finished and the outputs made from it are published, as one step.

1. every output is written into a draft (locked, meaningless);
2. the drafts are renamed to ``.stage/<transaction>:<n>:<queue>:<filebase>``;
3. **commit**: the input's ``.bak`` is renamed to ``.stage/<transaction>:commit``, in one step;
4. the outputs are renamed into their queues, and the commit record becomes a spare.

With ``full``, the bytes are on the disk before 2 ends, the stage's names before 3 and again after it, the queues' names
before the record goes.  A crash before 3 leaves the input claimed and outputs without a record: recovery makes the
input ready again and the outputs spares.  A crash after 3 leaves a record: recovery does step 4.  Until the
end everything is locked by its owner, and recovery leaves alone what is locked.

A transaction has a name of its own, not its input's: an input that is tried a second time must not find the outputs of the
first.  Outputs are staged at the commit, not when they are emitted: until then a plain draft says all there is to say,
and throwing it away needs no rename.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from zope.interface import implementer

from switchboard.claims import HELD, Claim
from switchboard.disk import Folder
from switchboard.entry import READY
from switchboard.errors import QueueError
from switchboard.interfaces import ITransaction
from switchboard.journal import Record
from switchboard.moving import move
from switchboard.publishing import Unpublished, refuse
from switchboard.spares import Draft
from switchboard.stage import COMMIT, Stage
from switchboard.switchboard import Switchboard

log = logging.getLogger('switchboard.queue')


@implementer(ITransaction)
class Transaction:
    """One input, and its outputs.  See `ITransaction`.

    :param board: the input's queue; None for a message that is published to several queues at once.
    """

    def __init__(self, stage: Stage, board: Switchboard | None = None, filebase: str | None = None) -> None:
        self.stage = stage
        self.board = board
        self.filebase = filebase
        self.name = stage.namer.digest('00000000')
        self.items: list[Unpublished] = []
        self.full = False
        self.forwarded_to: Switchboard | None = None
        self._staged: list[str] = []
        self._record: tuple[int, int] = (-1, 0)
        self._claim: Claim | None = None

    def emit(self, queue: Switchboard, msg: Any, metadata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        if self.forwarded_to is not None:
            self.forward()  # no longer the only output: it becomes a copy
        return self.add(queue, queue.prepare(msg, metadata))

    def forward(self, *queues: Switchboard, record: Record | None = None) -> None:
        """Hand the input on as it is: to one queue by one rename, to several, or beside other outputs, by copies.

        :param record: what the history of copies says more than the input's.
        :raises ContentDisallowedError: a queue does not accept its kind.
        :raises QueueError: a copy could not be stored.
        """
        assert self.board is not None
        assert self.filebase is not None
        if len(queues) == 1 and not self.items and self.forwarded_to is None:
            queues[0].check_room(self.board.held(self.filebase).read())
            self.forwarded_to = queues[0]
            return
        if self.forwarded_to is not None:
            queues = (self.forwarded_to, *queues)
            self.forwarded_to = None
        entry = self.board.held(self.filebase).read()
        for queue in queues:
            self.add(queue, queue.prepare_copy(entry, record))

    def keep(self, msg: Any, msgdata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        assert self.board is not None
        assert self.filebase is not None
        self.discard()
        if self.board.is_changed(self.filebase, msg):
            filebase = self.replace_input(msg, msgdata)
            self.commit()
            return filebase
        changed = self.board.changes(self.filebase, msgdata)
        return self.board.release(self.filebase, record={'event': 'kept', **changed} if changed else None)

    def replace_input(self, msg: Any, metadata: dict[str, Any]) -> str:
        """Put a changed message into the input's place: same queue, same time, same history.

        :return: its filebase.
        """
        assert self.board is not None
        assert self.filebase is not None
        entry = self.board.held(self.filebase).read()
        return self.add(self.board, self.board.prepare(msg, dict(metadata), instead_of=entry))

    def add(self, queue: Switchboard, item: Unpublished) -> str:
        """Have a prepared message published at the commit."""
        self.full |= queue.options.durability == 'full'
        self.items.append(item)
        return item.filebase

    def commit(self) -> None:
        """See `ITransaction`.

        :raises QueueError: it could not be; the outputs are thrown away, the input stays claimed.
        """
        for error in commit_all((self,)).values():
            raise error

    def discard(self, *, reusable: bool = True) -> None:
        """See `ITransaction`."""
        disk = self.stage.disk
        for item, staged in zip(self.items, self._staged, strict=False):
            draft = item.draft
            try:
                disk.rename(staged, draft.name, src_dir_fd=self.stage.folder.fd, dst_dir_fd=draft.folder.fd)
            except OSError:
                item.draft = Draft(draft.fd, self.stage.folder, staged, draft.size)
        for item in self.items:
            self.stage.workshop.discard(item.draft, reusable=reusable)
        self.items.clear()
        self._staged.clear()
        self.forwarded_to = None

    # The steps of the commit; ``commit_all`` puts the flushes of many between them.

    def stage_outputs(self) -> None:
        """Step 2."""
        stage = self.stage
        for number, item in enumerate(self.items):
            name = f'{self.name}:{number}:{item.queue}:{item.filebase}'
            draft = item.draft
            stage.disk.rename(draft.name, name, src_dir_fd=draft.folder.fd, dst_dir_fd=stage.folder.fd)
            self._staged.append(name)

    def rename_input(self) -> None:
        """Step 3."""
        stage = self.stage
        record = f'{self.name}:{COMMIT}'
        if self.board is None or self.filebase is None:
            draft = stage.workshop.take()
            try:
                stage.disk.rename(draft.name, record, src_dir_fd=draft.folder.fd, dst_dir_fd=stage.folder.fd)
            except BaseException:
                stage.workshop.discard(draft)
                raise
            self._record = (draft.fd, draft.size)
            return
        self._claim = claim = self.board.held(self.filebase)
        stage.disk.rename(claim.name, record, src_dir_fd=claim.folder.fd, dst_dir_fd=stage.folder.fd)
        HELD.pop((claim.folder.key, claim.filebase), None)
        self._record = (claim.fd, claim.size)

    @property
    def input_folder(self) -> Folder:
        """Where the input is when it was taken back."""
        return self.stage.folder if self._claim is None else self._claim.folder

    def take_back_input(self) -> bool:
        """Undo step 3.

        :return: False if the disk refuses that as well: then it stays committed.
        """
        stage, claim = self.stage, self._claim
        record = f'{self.name}:{COMMIT}'
        try:
            if claim is None:
                self.remove_record()
                return True
            stage.disk.rename(record, claim.name, src_dir_fd=stage.folder.fd, dst_dir_fd=claim.folder.fd)
        except OSError as error:
            log.error('%s: committed, though a sync failed error=%s', self.name, error)
            return False
        HELD[claim.folder.key, claim.filebase] = claim
        self._record = (-1, 0)
        return True

    def end_input(self) -> None:
        """Finish the input when there are no outputs.

        :raises QueueError: it could not be.
        """
        if self.board is None or self.filebase is None:
            return
        if self.forwarded_to is not None:
            move(self.board.held(self.filebase), self.board, self.forwarded_to)
        else:
            self.board.finish(self.filebase)

    def publish_outputs(self) -> None:
        """Step 4, first half."""
        stage = self.stage
        for item, staged in zip(self.items, self._staged, strict=True):
            stage.disk.rename(
                staged, item.filebase + READY, src_dir_fd=stage.folder.fd, dst_dir_fd=item.folder.fd
            )

    def remove_record(self) -> None:
        """Step 4, second half."""
        fd, size = self._record
        # The input's file goes where its queue's finished files go, which may empty them first.
        workshop = self.stage.workshop if self.board is None else self.board.workshop
        reusable = self._claim is None or self._claim.writable
        workshop.give(fd, self.stage.folder, f'{self.name}:{COMMIT}', size, reusable=reusable)
        self._record = (-1, 0)

    def let_go(self) -> None:
        """Drop all locks: what is not yet where it belongs is recovery's work from here."""
        disk = self.stage.disk
        for item in self.items:
            disk.unlock_and_close(item.draft.fd)
        self.items.clear()
        if self._record[0] >= 0:
            disk.unlock_and_close(self._record[0])
            self._record = (-1, 0)


def _flush(transactions: Sequence[Transaction], folders: Iterable[Folder]) -> None:
    if any(transaction.full for transaction in transactions):
        for folder in {id(folder): folder for folder in folders}.values():
            folder.sync()


def commit_all(transactions: Sequence[Transaction]) -> dict[Transaction, QueueError]:
    """Commit many transactions with the flushes of one.

    :return: those that were not committed, and why: their outputs are thrown away and their inputs stay claimed.  After
        step 3 nothing fails any more: what the disk refuses then is logged, and recovery does it.
    """
    failed: dict[Transaction, QueueError] = {}
    handoffs = [transaction for transaction in transactions if transaction.items]
    if handoffs:
        _publish(_rename_inputs(_stage(handoffs, failed), failed))
    for transaction in transactions:
        if transaction not in handoffs:
            try:
                transaction.end_input()
            except QueueError as error:
                failed[transaction] = error
    return failed


def _fail(
    transaction: Transaction, error: OSError | QueueError, failed: dict[Transaction, QueueError]
) -> None:
    queue = transaction.items[0].queue if transaction.items else ''
    # What a failed sync left in the page cache is not to be trusted with the next message.
    transaction.discard(reusable=isinstance(error, QueueError))
    try:
        if isinstance(error, OSError):
            refuse(error, 'hand-off', queue)
        raise error
    except QueueError as refused:
        failed[transaction] = refused


def _stage(handoffs: Sequence[Transaction], failed: dict[Transaction, QueueError]) -> list[Transaction]:
    """Steps 1 and 2, for those that can."""
    try:
        written = [item.draft.fd for each in handoffs if each.full for item in each.items]
        if written:
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
    try:
        _flush(staged, [transaction.stage.folder for transaction in staged])
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
    try:
        _flush(committed, [transaction.stage.folder for transaction in committed])
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
            transaction.let_go()
    try:
        # Before an output goes: a power cut that left the record and no outputs would have lost the input.
        _flush(taken_back, [transaction.input_folder for transaction in taken_back])
    except OSError as another:
        log.error('not committed, which the disk may not know yet error=%s', another)
    for transaction in taken_back:
        _fail(transaction, error, failed)


def _publish(committed: Sequence[Transaction]) -> None:
    """Step 4.  What fails here is left to recovery."""
    published = []
    for transaction in committed:
        try:
            transaction.publish_outputs()
            published.append(transaction)
        except OSError as error:
            log.error('%s: committed, to be rolled forward error=%s', transaction.name, error)
            transaction.let_go()
    try:
        _flush(published, [item.folder for transaction in published for item in transaction.items])
        for transaction in published:
            transaction.remove_record()
    except OSError as error:
        log.error('commit records stay, to be removed by recovery error=%s', error)
    for transaction in published:
        transaction.let_go()
