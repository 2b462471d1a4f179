"""Many messages stored with the flushes of one, each in all of its queues or in none.

For doors with many connections: what arrives while the disk is busy with one flush shares the next.  Unlike a batch, it
tells of each message what became of it, because each has a sender of its own who waits for the answer.

Messages with a ``dedupe_key`` are looked at together, and go in by one hand-off, with the markers of their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from switchboard.errors import QueueError, SwitchboardError
from switchboard.handoff.deduplication import Dedupe, marker_of
from switchboard.handoff.stage import Stage
from switchboard.handoff.transaction import Transaction, commit_all
from switchboard.message.journal import Record
from switchboard.queue.switchboard import Switchboard
from switchboard.store.publishing import BATCH_LIMIT, PreparedEntry, publish, refusal

# With a marker for each, and two flushes for all: as many descriptors as a batch holds.
KEYED_LIMIT = BATCH_LIMIT // 2


class Publication(NamedTuple):
    """A message, its metadata, the queues that it is for, and its history so far."""

    msg: Any
    metadata: Mapping[str, Any]
    queues: Sequence[str]
    records: Sequence[Record] = ()

    @property
    def marker(self) -> str | None:
        """Under which name it is remembered, if it is to be stored only once."""
        key = self.metadata.get('dedupe_key')
        return None if key is None else marker_of(str(key))


# Where each message went, filebases by queue, or why it is nowhere.
Outcome = dict[str, str] | SwitchboardError


def publish_many(
    board: Callable[[str], Switchboard], stage: Stage, parcels: Sequence[Publication]
) -> list[Outcome]:
    """Store messages.

    :param board: finds a queue by its name.
    :param stage: over the queues, for messages that go to several.
    :return: what became of each, in the same order.
    """
    outcomes: list[Outcome] = [{} for _ in parcels]
    # One queue: a rename is all it takes.  Several: a transaction, so that no crash leaves it in some of them.
    single: dict[str, list[tuple[int, PreparedEntry]]] = {}
    several: dict[Transaction, int] = {}
    keyed: list[int] = []
    for number, parcel in enumerate(parcels):
        try:
            if parcel.marker is not None:
                keyed.append(number)
            elif len(parcel.queues) == 1:
                [name] = parcel.queues
                single.setdefault(name, []).append((number, _prepare(board(name), parcel)))
            elif parcel.queues:
                transaction, filebases = _emit(board, stage, parcel)
                several[transaction] = number
                outcomes[number] = filebases
        except SwitchboardError as error:
            outcomes[number] = error
    for name, items in single.items():
        for start in range(0, len(items), BATCH_LIMIT):
            _publish(board(name), items[start : start + BATCH_LIMIT], outcomes)
    for transaction, failure in commit_all(list(several)).items():
        outcomes[several[transaction]] = failure
    for start in range(0, len(keyed), KEYED_LIMIT):
        numbers = keyed[start : start + KEYED_LIMIT]
        stored = _Once(board, stage, [parcels[number] for number in numbers]).store()
        for number, outcome in zip(numbers, stored, strict=True):
            outcomes[number] = outcome
    _forget_ways(outcomes)
    return outcomes


def _forget_ways(outcomes: Sequence[Outcome]) -> None:
    """Let go of the ways by which errors came: they would keep what was written beside, and it would be counted as unpublished."""
    for outcome in outcomes:
        error: BaseException | None = outcome if isinstance(outcome, SwitchboardError) else None
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__


def _prepare(board: Switchboard, parcel: Publication) -> PreparedEntry:
    return board.prepare(parcel.msg, dict(parcel.metadata), records=parcel.records)


def _emit(
    board: Callable[[str], Switchboard], stage: Stage, parcel: Publication
) -> tuple[Transaction, dict[str, str]]:
    transaction = Transaction(stage)
    try:
        filebases = {
            name: transaction.add(board(name), _prepare(board(name), parcel)) for name in parcel.queues
        }
    except BaseException:
        transaction.discard()
        raise
    return transaction, filebases


def _publish(board: Switchboard, items: Sequence[tuple[int, PreparedEntry]], outcomes: list[Outcome]) -> None:
    try:
        sync = board.options.durability == 'full'
        publish([item for _, item in items], board.pool, board.disk, sync=sync)
    except QueueError as error:
        for number, _ in items:
            outcomes[number] = error
    else:
        for number, item in items:
            outcomes[number] = {board.name: item.filebase}


class _Once:
    """Messages with keys: each is stored where its key is new, all by one transaction."""

    def __init__(
        self, board: Callable[[str], Switchboard], stage: Stage, parcels: Sequence[Publication]
    ) -> None:
        self._board = board
        self._stage = stage
        self._parcels = parcels
        self._transaction = Transaction(stage)
        self._outcomes: list[Outcome] = [{} for _ in parcels]
        # By queue and marker, what this transaction stores: the same key may come twice.
        self._new: dict[tuple[str, str], str] = {}
        self._keys: dict[str, Dedupe] = {}

    def store(self) -> list[Outcome]:
        """:return: what became of each; where its key was known, the filebase of the first."""
        try:
            with ExitStack() as locks:
                for name, markers in sorted(self._markers().items()):
                    locks.enter_context(self._keys[name].locked(markers))
                self._stage.recover()
                self._store()
        except OSError as error:
            self._transaction.discard()
            self._fail_all(refusal(error, 'look for the keys', ''))
        except BaseException:
            self._transaction.discard()
            raise
        return self._outcomes

    def _markers(self) -> dict[str, set[str]]:
        """:return: the keys to look for, by queue."""
        found: dict[str, set[str]] = {}
        for number, parcel in enumerate(self._parcels):
            try:
                for name in parcel.queues:
                    self._keys.setdefault(name, Dedupe(self._stage, self._board(name)))
            except SwitchboardError as error:
                self._outcomes[number] = error
                continue
            for name in parcel.queues:
                assert parcel.marker is not None
                found.setdefault(name, set()).add(parcel.marker)
        return found

    def _store(self) -> None:
        for number, parcel in enumerate(self._parcels):
            if not isinstance(self._outcomes[number], SwitchboardError):
                try:
                    self._outcomes[number] = self._add(parcel)
                except QueueError as error:
                    self._outcomes[number] = error
        if self._transaction.items:
            for failure in commit_all((self._transaction,)).values():
                self._fail_all(failure)

    def _fail_all(self, error: QueueError) -> None:
        self._outcomes = [one if isinstance(one, SwitchboardError) else error for one in self._outcomes]

    def _add(self, parcel: Publication) -> dict[str, str]:
        """Put a message and its markers into the transaction: for all of its queues, or for none.

        :return: where it went, or was before.
        """
        assert parcel.marker is not None
        filebases: dict[str, str] = {}
        items: list[tuple[Switchboard, PreparedEntry]] = []
        fresh: dict[tuple[str, str], str] = {}
        try:
            for name in parcel.queues:
                key, board = (name, parcel.marker), self._board(name)
                known = self._new.get(key) or self._keys[name].known(parcel.marker)
                if known is None:
                    item = _prepare(board, parcel)
                    items.append((board, item))
                    known = fresh[key] = item.filebase
                    items.append((board, self._keys[name].mark(parcel.marker, known)))
                filebases[name] = known
        except BaseException:
            for board, item in items:
                board.discard(item)
            raise
        for board, item in items:
            self._transaction.add(board, item)
        self._new |= fresh
        return filebases
