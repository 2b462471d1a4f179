"""What runners emit with a ``dedupe_key``: at the commit it is seen whether the key is known, and then the message is dropped.

The locks of the keys are taken together at the commit, in one order, and not one by one when messages are emitted: two runners
that emit the same keys in different orders would wait for each other for ever.  What is stored under a lock, and why that is exact, is
told in ``dedupe``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

from switchboard.errors import QueueError
from switchboard.handoff.deduplication import Dedupe, marker_of
from switchboard.handoff.stage import Stage
from switchboard.handoff.transaction import Transaction, commit_all
from switchboard.queue.switchboard import Switchboard
from switchboard.store.publishing import refusal


class Keys(Protocol):
    """What is needed of a spool."""

    stage: Stage

    def __getitem__(self, name: str) -> Switchboard: ...

    def dedupe(self, board: Switchboard) -> Dedupe: ...


Names = set[tuple[str, str]]


def commit_once(spool: Keys, transactions: Sequence[Transaction]) -> dict[Transaction, QueueError]:
    """Commit many transactions with the flushes of one, but for messages whose keys are known.

    :return: those that were not committed, and why: as `commit_all`.
    """
    if not any(transaction.keyed for transaction in transactions):
        return commit_all(transactions)
    failed: dict[Transaction, QueueError] = {}
    for group in _groups(transactions):
        failed |= _Group(spool, group).commit()
    return failed


def _names(transaction: Transaction) -> Names:
    return {(item.queue, marker_of(key)) for item, key in transaction.keyed}


def _groups(transactions: Sequence[Transaction]) -> Iterator[list[Transaction]]:
    """Part them so that no key comes twice in a group: what one of them stores is known to the next only when it is committed."""
    group: list[Transaction] = []
    seen: Names = set()
    for transaction in transactions:
        names = _names(transaction)
        if names & seen:
            yield group
            group, seen = [], set()
        group.append(transaction)
        seen |= names
    yield group


class _Group:
    def __init__(self, spool: Keys, transactions: Sequence[Transaction]) -> None:
        self._spool = spool
        self._transactions = transactions
        self._keys: dict[str, Dedupe] = {}
        self._failed: dict[Transaction, QueueError] = {}

    def commit(self) -> dict[Transaction, QueueError]:
        keyed = [transaction for transaction in self._transactions if transaction.keyed]
        with ExitStack() as locks:
            try:
                self._lock(locks, keyed)
            except (OSError, QueueError) as error:
                for transaction in keyed:
                    self._fail(transaction, error)
            for transaction in keyed:
                if transaction not in self._failed:
                    self._look(transaction)
            rest = [transaction for transaction in self._transactions if transaction not in self._failed]
            self._failed |= commit_all(rest)
        return self._failed

    def _lock(self, locks: ExitStack, keyed: Sequence[Transaction]) -> None:
        markers: dict[str, set[str]] = {}
        for transaction in keyed:
            for queue, marker in _names(transaction):
                markers.setdefault(queue, set()).add(marker)
        for queue in sorted(markers):
            self._keys[queue] = self._spool.dedupe(self._spool[queue])
            locks.enter_context(self._keys[queue].locked(markers[queue]))
        if markers:
            self._spool.stage.recover()

    def _look(self, transaction: Transaction) -> None:
        """Drop the messages whose keys are known, and have the others' keys remembered by the same commit."""
        new: Names = set()
        try:
            for item, key in transaction.keyed:
                keys, name = self._keys[item.queue], (item.queue, marker_of(key))
                if name in new or keys.known(name[1]) is not None:
                    transaction.drop(item)
                else:
                    new.add(name)
                    transaction.add(self._spool[item.queue], keys.mark(name[1], item.filebase))
        except (OSError, QueueError) as error:
            self._fail(transaction, error)

    def _fail(self, transaction: Transaction, error: OSError | QueueError) -> None:
        queue = transaction.keyed[0][0].queue
        transaction.discard()
        self._failed[transaction] = refusal(error, 'look for the key', queue)
