"""Changing a message on an operator's word: the changed one takes its place, and its history says so.

An entry's header, metadata and body never change.  So the changed message is a new entry with the old one's place, slice and history,
and it appears in one step with the end of the old one, as any hand-off: a crash leaves the one or the other.

The history keeps the old parts, so an edit can be looked at, as a difference, and undone, which is an edit back: of the metadata
the changed ones, of the body all, up to `MAX_KEPT_BYTES`.

While somebody edits, the entry is claimed, so that no runner works on a message that is about to change.  If the editing process
dies, recovery gives it back.  One of the bad queue, edited, goes back to where it came from, as after a retry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from switchboard.errors import ContentDisallowedError, CorruptEntryError, QueueError, UnserializableError
from switchboard.handoff.moving import claim_any, origin
from switchboard.handoff.transaction import Transaction
from switchboard.message.entry import MAILMAN, Content, Entry, before_last_edit, content_of, kept_of
from switchboard.message.expiry import EXPIRES, is_expired
from switchboard.message.journal import Record
from switchboard.message.metadata import mistake_in
from switchboard.message.naming import (
    CLOCK_SLACK_NS,
    PRESERVED,
    with_when,
)
from switchboard.message.serializers import Raw, family
from switchboard.operating.actions import check_is_worked_on
from switchboard.operating.audit import Operator
from switchboard.queue.recovery import timestamp
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from switchboard.store.claims import Claim, claim_ready
from switchboard.store.layout import BAD
from switchboard.store.publishing import refuse

# A body that cannot be read without running something is not read to check it.
_UNCHECKED = ('pickle',)


class Editing:
    """One entry, claimed for as long as somebody changes it.  Use it in a ``with`` block.

    :param to: where the changed message is to go; by default where it is or, from the bad queue, where it came from.
    :param operator: the editor, for the history.
    :raises QueueError: it is at work, gone, damaged, or of a kind that is never written.
    """

    def __init__(
        self,
        spool: Spool,
        queue: str,
        filebase: str,
        to: str | None = None,
        operator: Operator | None = None,
    ) -> None:
        self._says = operator.fields() if operator is not None else {}
        self._spool = spool
        self._queue = opened = spool[queue]
        self.filebase = filebase
        self._claim = _claim(opened, filebase)
        self._is_stored = False
        try:
            self.entry: Entry = self._claim.read()
            if self.entry.damage is not None:
                raise CorruptEntryError(self.entry.damage.reason, queue=queue, filebase=filebase)
            if self.entry.kind == MAILMAN:
                raise ContentDisallowedError(MAILMAN, queue=queue, filebase=filebase)
            if to:
                check_is_worked_on(to, queue, filebase)
            self._target = spool[to] if to else spool[origin(opened, filebase)] if queue == BAD else opened
        except BaseException as error:
            self._give_back()
            if isinstance(error, OSError):
                refuse(error, 'read', queue)
            raise

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that a runner would get, without those of every message."""
        return content_of(self.entry).metadata

    def check(self, metadata: Mapping[str, Any], body: bytes | None = None) -> None:
        """Look at what somebody has changed.

        :param body: None leaves it as it is.
        :raises UnserializableError: a change would not be stored, or do nothing, or no runner could read it.
        """
        _check(self.entry.kind, self.entry.body if body is None else body, self._target)
        before = self.metadata
        changed = {key: value for key, value in metadata.items() if key not in before or before[key] != value}
        if mistake := mistake_in(changed):
            raise UnserializableError(mistake, queue=self._queue.name, filebase=self.filebase)

    def before_last(self) -> Content:
        """:return: the message before its last edit.

        :raises QueueError: it was not edited, or what it was then was not kept.
        """
        before = before_last_edit(self.entry)
        if before is None:
            place = {'queue': self._queue.name, 'filebase': self.filebase}
            raise QueueError('it was not edited, or too large for what it was before to be kept', **place)
        return before

    def store(
        self, metadata: Mapping[str, Any], body: bytes | None = None, *, undoes: bool = False
    ) -> tuple[str, str]:
        """Put the changed message into the old one's place.

        :param body: None leaves it as it is.
        :param undoes: the history says so.
        :return: the queue and the filebase of the changed message.
        :raises QueueError: it cannot be stored; the old one is as it was, and still claimed.
        """
        entry, source, target = self.entry, self._queue, self._target
        new_body = entry.body if body is None else body
        if undoes:
            _check(entry.kind, new_body, target)
        else:
            self.check(metadata, body)
        before, after = self.metadata, dict(metadata)
        changed = sorted(key for key in before | after if before.get(key) != after.get(key))
        records: list[Record] = [
            {
                'event': 'edited',
                'time': timestamp(source.clock),
                'metadata': changed,
                'body': new_body != entry.body,
                **kept_of(changed, before, after, entry.body if new_body != entry.body else None),
                **({'undoes': True} if undoes else {}),
                **self._says,
            }
        ]
        is_delayed, room = self._is_wished(), None
        if target is not source:
            room = target.check_room(entry)
            records.append(self._move(after))
            place = with_when(self.filebase, target.clock.time_ns())
            entry, is_delayed = dataclasses.replace(entry, filebase=place), False
        raw = Raw(entry.kind, new_body)
        item = target.prepare(raw, after, replaces=entry, records=records, is_delayed=is_delayed)
        item.room = room
        transaction = Transaction(self._spool.stage, source, self._claim)
        transaction.add(target, item, has_place=True)
        transaction.commit()
        self._is_stored = True
        return target.name, item.filebase

    def _move(self, metadata: dict[str, Any]) -> Record:
        """:return: the record of the way to another queue: out of the bad one, as of a retry."""
        queue = self._queue
        is_retry = queue.name == BAD
        if is_retry and is_expired({EXPIRES: metadata.get(EXPIRES)}, queue.clock):
            del metadata[EXPIRES]  # or it would come back at once
        event = 'retried' if is_retry else 'moved'
        return {'event': event, 'time': timestamp(queue.clock), 'queue': queue.name, 'to': self._target.name}

    def _is_wished(self) -> bool:
        # Beside a name in the future, a file's date in the future tells of a turned clock, and not of a delay.
        return self._claim.modified_ns <= self._queue.clock.time_ns() + CLOCK_SLACK_NS

    def _give_back(self) -> None:
        if not self._claim.is_own() or self._claim.folder is not self._queue.folder:
            return  # committed, but for what recovery does
        if self._claim.suffix == PRESERVED:
            self._claim.close()
        else:
            self._queue.release(self.filebase)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._is_stored:
            self._give_back()


def _claim(queue: Switchboard, filebase: str) -> Claim:
    try:
        if queue.folder.has(filebase + PRESERVED):
            return claim_any(queue, filebase)
        return claim_ready(queue.folder, filebase, queue.disk)
    except QueueError as error:
        error.queue = queue.name
        raise
    except OSError as error:
        refuse(error, 'claim', queue.name)


def _check(kind: str, body: bytes, target: Switchboard) -> None:
    """:raises QueueError: a runner of the queue could not read it."""
    serializer = target.serializers.for_kind(kind)
    if serializer is None:
        raise ContentDisallowedError(kind, queue=target.name)
    if family(kind) not in _UNCHECKED:
        try:
            serializer.loads(body)
        except Exception as error:  # a program's own serializer raises what it likes
            raise UnserializableError(f'this is no {kind} any more: {error}', queue=target.name) from error
