"""The steps of a hand-off's commit, for many transactions with the flushes of one.

What the steps are, and what a crash leaves after each, is told in ``handoff``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from switchboard.errors import QueueError
from switchboard.events import event
from switchboard.store.disk import Folder
from switchboard.store.publishing import refusal

if TYPE_CHECKING:
    from switchboard.handoff.transaction import Transaction

log = logging.getLogger('switchboard.queue')


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
    failed[transaction] = refusal(error, 'hand-off', queue)


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
        event(log, logging.ERROR, None, 'not taken back', error=another)
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
            event(log, logging.ERROR, None, 'committed in part', transaction=transaction.name, error=error)
            transaction.let_go()
    try:
        _flush(published, [item.folder for transaction in published for item in transaction.items])
        for transaction in published:
            transaction.remove_record()
    except OSError as error:
        event(log, logging.ERROR, None, 'records stay', error=error)
    for transaction in published:
        transaction.let_go()
