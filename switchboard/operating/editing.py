"""Changing a message on an operator's word: the changed one takes its place, and its history says so.

An entry's header, metadata and body never change.  So the changed message is a new entry with the old one's place, slice and history,
and it appears in one step with the end of the old one, as any hand-off: a crash leaves the one or the other.

The history keeps the old parts, so an edit can be looked at, as a difference, and undone, which is an edit back: of the metadata
the changed ones, of the body all, up to `MAX_KEPT_BYTES`.

While somebody edits, the entry is claimed, so that no runner works on a message that is about to change.  If the editing process
dies, recovery gives it back.  One of the bad queue, edited, goes back to where it came from, as after a retry.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Self

from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    QueueError,
    UnserializableError,
)
from switchboard.handoff.moving import claim_idle, released_on_failure, require_origin_queue
from switchboard.handoff.transaction import Transaction
from switchboard.message.entry import MAILMAN, Entry
from switchboard.message.expiry import EXPIRES, is_expired
from switchboard.message.journal import Record
from switchboard.message.metadata import FIXED_METADATA, find_mistake, load_metadata
from switchboard.message.naming import CLAIMED, CLOCK_SLACK_NS, PRESERVED, READY, with_when
from switchboard.message.serializers import EncodedBody, kind_family
from switchboard.message.typed_json import plain_json
from switchboard.operating.acts import check_is_consumed
from switchboard.operating.audit import Operator
from switchboard.queue.recovery import record_time
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from switchboard.store.claims import Claim
from switchboard.store.layout import BAD
from switchboard.store.publishing import raise_queue_error

# A body that is longer is edited without a way back: a history is read at each look.
MAX_KEPT_BYTES = 256 << 10
# A body that cannot be read without running something is not read to check it.
_UNCHECKED = ('pickle',)


class Editing:
    """One entry, claimed for as long as somebody changes it.  Use it in a ``with`` block.

    :param to: where the changed message is to go; by default where it is or, from the bad queue, where it came from.
    :param operator: the editor, for the history.
    :raises QueueError: it is at work, gone, damaged, or of a kind that is never written.
    """

    def __init__(
        self, spool: Spool, queue: str, filebase: str, to: str | None = None, operator: Operator | None = None
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
                check_is_consumed(to, queue, filebase)
            self._target = (
                spool[to] if to else spool[require_origin_queue(opened, filebase)] if queue == BAD else opened
            )
        except BaseException as error:
            self._give_back()
            if isinstance(error, OSError):
                raise_queue_error(error, 'read', queue, self._claim.path)
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
        if mistake := find_mistake(changed):
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
                'time': record_time(source.clock),
                'metadata': changed,
                'body': new_body != entry.body,
                **_kept(changed, before, after, entry.body if new_body != entry.body else None),
                **({'undoes': True} if undoes else {}),
                **self._says,
            }
        ]
        # Beside a name in the future, a file's date in the future tells of a turned clock, and not of a delay.
        is_delayed = self._claim.modified_ns <= self._queue.clock.time_ns() + CLOCK_SLACK_NS
        reservation = None
        if target is not source:
            reservation = target.reserve_for(entry)
            records.append(self._move(after))
            place = with_when(self.filebase, target.clock.time_ns())
            entry, is_delayed = dataclasses.replace(entry, filebase=place), False
        raw = EncodedBody(entry.kind, new_body)
        item = target.prepare(raw, after, replaces=entry, records=records, is_delayed=is_delayed)
        item.reservation = reservation
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
        return {
            'event': event,
            'time': record_time(queue.clock),
            'queue': queue.name,
            'to': self._target.name,
        }

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
    """Lock an entry that nobody works on.  One that is ready is at work from here on, and shown as such."""
    claim = claim_idle(queue, filebase, (READY, PRESERVED))
    if claim.suffix == READY:
        with released_on_failure(claim, queue, 'claim'):
            claim.rename_unchecked(queue.folder, filebase, CLAIMED)
    return claim


def _check(kind: str, body: bytes, target: Switchboard) -> None:
    """:raises QueueError: a runner of the queue could not read it."""
    serializer = target.serializers.for_kind(kind)
    if serializer is None:
        raise ContentDisallowedError(kind, queue=target.name)
    if kind_family(kind) not in _UNCHECKED:
        try:
            serializer.loads(body)
        except Exception as error:  # a program's own serializer raises what it likes
            raise UnserializableError(f'this is no {kind} any more: {error}', queue=target.name) from error


# What an edit kept in the history.


class Content(NamedTuple):
    """Metadata, without what every message has, and body."""

    metadata: dict[str, Any]
    body: bytes


def content_of(entry: Entry) -> Content:
    """:return: message and metadata, as a runner would get them of an entry that is not damaged."""
    metadata = entry.apply_history(load_metadata(entry.metadata))
    return Content({key: value for key, value in metadata.items() if key not in FIXED_METADATA}, entry.body)


def _kept(
    changed: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any], body: bytes | None
) -> dict[str, Any]:
    """:return: the fields of the record by which it can be undone; ``body`` is the old one, if it is another now."""
    kept: dict[str, Any] = {'metadata': {key: before[key] for key in changed if key in before}}
    if body is not None:
        if len(body) > MAX_KEPT_BYTES:
            return {}
        try:
            kept['body'] = body.decode('utf-8')
        except UnicodeDecodeError:
            kept['base64'] = base64.b64encode(body).decode('ascii')
    return {'before': kept, 'after': {'metadata': {key: after[key] for key in changed if key in after}}}


def before_last_edit(entry: Entry) -> Content | None:
    """:return: the message before its last edit; None if it never was edited, or the old one was not kept."""
    now = content_of(entry)
    for record in reversed(entry.records):
        if record.get('event') == 'edited':
            return _undone(record, now)
    return None


def _undone(record: Record, now: Content) -> Content | None:
    kept, keys = record.get('before'), record.get('metadata')
    if not isinstance(kept, dict) or not isinstance(keys, list) or not isinstance(kept.get('metadata'), dict):
        return None
    metadata = {key: value for key, value in now.metadata.items() if key not in keys} | kept['metadata']
    if not record.get('body'):
        return Content(metadata, now.body)
    body = _body_of(kept)
    return None if body is None else Content(metadata, body)


def _body_of(kept: Mapping[str, Any]) -> bytes | None:
    text, packed = kept.get('body'), kept.get('base64')
    try:
        if isinstance(text, str):
            return text.encode('utf-8')
        if isinstance(packed, str):
            return base64.b64decode(packed, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        pass  # somebody else has written that
    return None


def differences(entry: Entry) -> dict[int, list[str]]:
    """:return: for each edit of the history, by its place in there, what it changed: see `difference`."""
    found: dict[int, list[str]] = {}
    body = entry.body
    for place in range(len(entry.records) - 1, -1, -1):
        record = entry.records[place]
        kept, after = record.get('before'), record.get('after')
        if record.get('event') != 'edited' or not isinstance(kept, dict) or not isinstance(after, dict):
            continue
        before = _body_of(kept) if record.get('body') else body
        if before is None:
            break  # and the state before that is not known
        old, new = kept.get('metadata'), after.get('metadata')
        if isinstance(old, dict) and isinstance(new, dict):
            found[place] = difference(Content(old, before), Content(new, body))
        body = before
    return found


def difference(before: Content, after: Content) -> list[str]:
    """:return: the differences, as lines that begin with ``-``, ``+`` or a blank, as ``diff -u`` writes them without its head."""
    return [
        *_changed_lines(_metadata_lines(before), _metadata_lines(after)),
        *_changed_lines(_lines(before.body), _lines(after.body)),
    ]


def _metadata_lines(content: Content) -> list[str]:
    return [
        f'{key}: {json.dumps(plain_json(value), ensure_ascii=False, sort_keys=True)}'
        for key, value in sorted(content.metadata.items())
    ]


def _lines(body: bytes) -> list[str]:
    # Not `splitlines`, for which a form feed in a subject begins a line.  Only a line's end may have been changed.
    *lines, rest = body.decode('utf-8', 'backslashreplace').split('\n')
    return [*lines, f'{rest}\\ no end of line'] if rest else lines


def _changed_lines(before: list[str], after: list[str]) -> Iterator[str]:
    # Less the two lines of its head: a line `-- ` that is gone looks as one of them does.
    for line in islice(difflib.unified_diff(before, after, n=3, lineterm=''), 2, None):
        if not line.startswith('@@'):
            yield line
