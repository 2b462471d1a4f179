"""The transaction of a message at work: what its runner emits becomes a hand-off.

A :class:`Transaction` is a `Handoff` that is filled by a runner: it routes nothing, and writes each output at once, into a draft that means
nothing until the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zope.interface import implementer

from switchboard.errors import OutputsNeverFitError, QueueError, QueueFullError
from switchboard.handoff.commit import commit_all
from switchboard.handoff.handoff import DedupedOutput, Handoff
from switchboard.interfaces import ITransaction
from switchboard.message.entry import MAILMAN
from switchboard.message.journal import Record, first_digest_record, has_many_kept_records
from switchboard.message.naming import digest_of, with_when
from switchboard.message.serializers import EncodedBody
from switchboard.queue.switchboard import Switchboard
from switchboard.store.kernel import open_files_limit
from switchboard.store.publishing import PreparedEntry, is_too_many_open_files


@implementer(ITransaction)
class Transaction(Handoff):
    """One input, and its outputs.  See `ITransaction`."""

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
            self.deduped.append(DedupedOutput(queue, str(key), self.items[-1]))
        if self._claim is not None and not is_delayed:
            self._note(queue, filebase)
        return filebase

    def _note(self, queue: Switchboard, filebase: str) -> None:
        self.stage.last_outputs.note(self._queue.name if self._queue else '', queue.name, filebase)

    def _is_passed_by(self, queue: Switchboard, filebase: str) -> bool:
        return self.stage.last_outputs.would_overtake(
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
            self.drop_after(kept)
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
            self._forwarded_reservation = queues[0].reserve_for(entry)
            self.forwarded_to, self._forwarded_when_ns = queues[0], None
            if self._is_passed_by(queues[0], entry.filebase):
                self._forwarded_when_ns = self.stage.name_generator.next_when_ns()
                self._note(queues[0], with_when(entry.filebase, self._forwarded_when_ns))
            return
        before, kept = self.forwarded_to, len(self.items)
        if before is not None:
            queues = (before, *queues)
            self.forwarded_to = None
            if self._forwarded_reservation is not None:
                # The copy asks for its own; should that fail, it is asked for again.
                self._forwarded_reservation.end(is_used=False)
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
            self.drop_after(kept)
            self.forwarded_to = before
            raise

    def _add_output(self, queue: Switchboard, item: PreparedEntry, *, has_place: bool = False) -> str:
        """As :meth:`add`, where a full queue is to make room for all outputs of the message.

        :raises OutputsNeverFitError: it never can; the output is thrown away.
        """
        if item.reservation is not None and not item.reservation.is_granted:
            try:
                self._check_can_fit(queue, lambda: item.size)
            except BaseException:
                item.discard(queue.pool)
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
        elif is_too_many_open_files(error) and len(self.items) > open_files_limit() // 2:
            reason = f'{len(self.items) + 1} outputs or more, and {open_files_limit()} files may be open'
        if reason:
            raise OutputsNeverFitError(
                f'one message has {reason}: this can never be stored', queue=queue.name
            ) from error

    def keep(self, msg: Any, msgdata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        self.discard()
        queue, filebase = self.queue, self.claim.filebase
        if not queue.is_message_changed(filebase, msg):
            entry = self.claim.read()
            if not has_many_kept_records(entry.records) or entry.kind == MAILMAN:
                changed = queue.metadata_changes(filebase, msgdata)
                return queue.release(filebase, record={'event': 'kept', **changed} if changed else None)
            # Each taking reads all of its history: it is stored anew, with the same bytes, and the records of its keepings as one.
            msg = EncodedBody(entry.kind, entry.body)
        filebase = self.replace_input(msg, msgdata)
        self.commit()
        return filebase

    def replace_input(self, msg: Any, metadata: dict[str, Any], records: Sequence[Record] = ()) -> str:
        """Put a changed message into the input's place: same queue, same time, same history.

        :param records: an addition to the history.
        :return: its filebase.
        """
        queue, entry = self.queue, self.claim.read()
        records = [*first_digest_record(entry.records, digest_of(entry.filebase)), *records]
        item = queue.prepare(msg, dict(metadata), replaces=entry, records=records)
        return self.add(queue, item, has_place=True)

    def commit(self) -> None:
        """See `ITransaction`.

        :raises QueueError: it could not be; the outputs are thrown away, the input stays claimed.
        """
        for error in commit_all((self,)).values():
            raise error
