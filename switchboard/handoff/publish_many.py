"""Many messages stored with the flushes of one, each in all of its queues or in none.

For doors with many connections: what arrives while the disk is busy with one flush shares the next.  Unlike a batch, it
gives the outcome of each message, because each has a sender of its own that waits for the answer.

Messages with a ``dedupe_key`` are looked at together, and go in by one hand-off, with the markers of their keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from switchboard.errors import QueueError, SwitchboardError
from switchboard.handoff.commit import commit_all
from switchboard.handoff.deduplication import DedupeSpool, commit_deduplicated
from switchboard.handoff.handoff import DedupedOutput, Handoff
from switchboard.message.journal import Record
from switchboard.queue.switchboard import Switchboard
from switchboard.store.limits import make_room
from switchboard.store.publishing import BATCH_LIMIT, PreparedEntry

# Each has a record, one output or more, and perhaps a marker: about as many descriptors as a batch holds.
COMMITTED_AT_ONCE = BATCH_LIMIT // 3


class Publication(NamedTuple):
    """A message, its metadata, the queues that it is for, and its history so far."""

    msg: Any
    metadata: Mapping[str, Any]
    queues: Sequence[str]
    records: Sequence[Record] = ()

    @property
    def dedupe_key(self) -> str | None:
        """By which it is remembered, if it is to be stored only once."""
        key = self.metadata.get('dedupe_key')
        return None if key is None else str(key)


# Where each message went, filebases by queue, or why it is nowhere.
PublishOutcome = dict[str, str] | SwitchboardError


class PublishSpool(DedupeSpool, Protocol):
    """The part of a spool that is needed here."""

    def __getitem__(self, name: str) -> Switchboard: ...


def publish_many(spool: PublishSpool, publications: Sequence[Publication]) -> list[PublishOutcome]:
    """Store messages.

    :return: the outcome of each, in the same order; where its key was known, the filebase of the first.
    """
    outcomes: list[PublishOutcome] = [{} for _ in publications]
    # One queue: a rename is all it takes.  Several, or a key: a hand-off, so that no crash leaves it in some of them, or
    # stored and not remembered.
    single: dict[str, list[tuple[int, PreparedEntry]]] = {}
    several: dict[Handoff, int] = {}
    for number, publication in enumerate(publications):
        try:
            if len(publication.queues) == 1 and publication.dedupe_key is None:
                [name] = publication.queues
                single.setdefault(name, []).append((number, _prepare(spool[name], publication)))
            elif publication.queues:
                handoff, outcomes[number] = _emit(spool, publication)
                several[handoff] = number
        except SwitchboardError as error:
            outcomes[number] = error
    for name, items in single.items():
        there = _with_room(spool[name], items, outcomes)
        for start in range(0, len(there), BATCH_LIMIT):
            _publish(spool[name], there[start : start + BATCH_LIMIT], outcomes)
    failed = commit_all([handoff for handoff in several if not handoff.deduped])
    deduped = [handoff for handoff in several if handoff.deduped]
    for start in range(0, len(deduped), COMMITTED_AT_ONCE):
        group = deduped[start : start + COMMITTED_AT_ONCE]
        failed |= commit_deduplicated(spool, group)
        for handoff in group:
            outcomes[several[handoff]] = {output.queue.name: output.filebase for output in handoff.deduped}
    for handoff, failure in failed.items():
        outcomes[several[handoff]] = failure
    _forget_ways(outcomes)
    return outcomes


def _forget_ways(outcomes: Sequence[PublishOutcome]) -> None:
    """Drop the tracebacks of errors: their frames would keep the files written beside, which would be counted as unpublished."""
    for outcome in outcomes:
        error: BaseException | None = outcome if isinstance(outcome, SwitchboardError) else None
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__


def _prepare(queue: Switchboard, publication: Publication) -> PreparedEntry:
    return queue.prepare(publication.msg, dict(publication.metadata), records=publication.records)


def _emit(spool: PublishSpool, publication: Publication) -> tuple[Handoff, dict[str, str]]:
    handoff = Handoff(spool.stage)
    filebases: dict[str, str] = {}
    try:
        if len(publication.queues) > 1:
            serializers = spool[publication.queues[0]].serializers
            publication = publication._replace(msg=serializers.serialize(publication.msg))
        for name in publication.queues:
            queue = spool[name]
            if publication.dedupe_key is None:
                filebases[name] = handoff.add(queue, _prepare(queue, publication))
            else:
                handoff.deduped.append(
                    DedupedOutput(queue, publication.dedupe_key, make=partial(_prepare, queue, publication))
                )
    except BaseException:
        handoff.discard()
        raise
    return handoff, filebases


def _with_room(
    queue: Switchboard, items: Sequence[tuple[int, PreparedEntry]], outcomes: list[PublishOutcome]
) -> list[tuple[int, PreparedEntry]]:
    """:return: the messages for which there is room, made where it has to be: each stands for itself."""
    there = []
    for number, item in items:
        try:
            make_room((item.reservation,))
            there.append((number, item))
        except QueueError as error:
            item.discard(queue.pool)
            outcomes[number] = error
    return there


def _publish(
    queue: Switchboard, items: Sequence[tuple[int, PreparedEntry]], outcomes: list[PublishOutcome]
) -> None:
    try:
        queue.producer.publish_all([item for _, item in items])
    except QueueError as error:
        for number, _ in items:
            outcomes[number] = error
    else:
        for number, item in items:
            outcomes[number] = {queue.name: item.filebase}
