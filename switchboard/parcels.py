"""Many messages stored with the flushes of one, each in all of its queues or in none.

For doors with many connections: what arrives while the disk is busy with one flush shares the next.  Unlike a batch, it
tells of each message what became of it, because each has a sender of its own who waits for the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from switchboard.errors import QueueError, SwitchboardError
from switchboard.handoff import Transaction, commit_all
from switchboard.publishing import BATCH_LIMIT, Unpublished, publish
from switchboard.stage import Stage
from switchboard.switchboard import Switchboard


class Parcel(NamedTuple):
    """A message, its metadata, and the queues that it is for."""

    msg: Any
    metadata: Mapping[str, Any]
    queues: Sequence[str]


# Where each message went, filebases by queue, or why it is nowhere.
Outcome = dict[str, str] | SwitchboardError


def store_all(board: Callable[[str], Switchboard], stage: Stage, parcels: Sequence[Parcel]) -> list[Outcome]:
    """Store messages.

    :param board: finds a queue by its name.
    :param stage: over the queues, for messages that go to several.
    :return: what became of each, in the same order.
    """
    outcomes: list[Outcome] = [{} for _ in parcels]
    # One queue: a rename is all it takes.  Several: a transaction, so that no crash leaves it in some of them.
    single: dict[str, list[tuple[int, Unpublished]]] = {}
    several: dict[Transaction, int] = {}
    for number, parcel in enumerate(parcels):
        try:
            if len(parcel.queues) == 1:
                [name] = parcel.queues
                item = board(name).prepare(parcel.msg, dict(parcel.metadata))
                single.setdefault(name, []).append((number, item))
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
    return outcomes


def _emit(
    board: Callable[[str], Switchboard], stage: Stage, parcel: Parcel
) -> tuple[Transaction, dict[str, str]]:
    transaction = Transaction(stage)
    try:
        filebases = {
            name: transaction.emit(board(name), parcel.msg, dict(parcel.metadata)) for name in parcel.queues
        }
    except BaseException:
        transaction.discard()
        raise
    return transaction, filebases


def _publish(board: Switchboard, items: Sequence[tuple[int, Unpublished]], outcomes: list[Outcome]) -> None:
    try:
        sync = board.options.durability == 'full'
        publish([item for _, item in items], board.workshop, board.disk, sync=sync)
    except QueueError as error:
        for number, _ in items:
            outcomes[number] = error
    else:
        for number, item in items:
            outcomes[number] = {board.name: item.filebase}
