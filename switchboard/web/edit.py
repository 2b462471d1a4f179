"""Changing one message in a browser: a form, the difference for somebody to say yes to, and the act.

It is there only where the desk's settings allow it.  What a form may change are the body, if it is text that comes back from a browser as it
went there, and the metadata, but for those keys that say who the message is and which way it goes, and those whose values are not shown.
The old parts stay in the history, so that an edit can be looked at and undone.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from switchboard.errors import CorruptEntryError, QueueError
from switchboard.message.entry import Entry
from switchboard.message.metadata import find_mistake
from switchboard.message.typed_json import load_json, tagged
from switchboard.operating.audit import Operator, note_act
from switchboard.operating.editing import Content, Editing, before_last_edit, content_of, difference
from switchboard.operating.text import escape_terminal
from switchboard.store.layout import BAD, TRASH
from switchboard.web.desk import Desk
from switchboard.web.entry_pages import locate
from switchboard.web.forms import BadRequestError, Form
from switchboard.web.message_body import MAX_WHOLE_BYTES, damage_of, is_hidden, redacted, whole_entry

# A form with a body of that size, written out.
MAX_FIELD = 4 * MAX_WHOLE_BYTES
# Who the message is and which way it goes: a trace, a key of those that are taken for one, an order, a route.
LOCKED = ('traceparent', 'tracestate', 'dedupe_key', 'order_key', 'exchange', 'routing_key')
KINDS = ('mail', 'text', 'json', 'yaml', 'bytes')


def editable(desk: Desk, form: Form, name: str, filebase: str) -> dict[str, Any]:
    """The parts of one entry that can be changed, as they are now."""
    found = locate(desk, name, filebase)
    summary = found.look()
    assert summary is not None
    entry = whole_entry(found, summary)
    fields: dict[str, Any] = {
        'queue': name,
        'filebase': found.filebase,
        'home': summary.retry_queue if summary.damage == '' else None,
        'why_not': None,
        'seen': '',
        'metadata': '',
        'body': None,
        'body_note': '',
        'locked': [],
        'is_edited': False,
        'command': desk.command('edit', f'{name}/{filebase}'),
    }
    damage = damage_of(summary, entry)
    if name == TRASH or entry is None or damage or summary.suffix == '.bak':
        reason = (
            'it is in the trash' if name == TRASH else damage or 'a process is working on it, or it is long'
        )
        return fields | {'why_not': f'It cannot be changed here: {reason}.'}
    try:
        content = content_of(entry)
    except CorruptEntryError as error:
        return fields | {'why_not': f'It cannot be changed here: {error}.'}
    open_keys = {key: value for key, value in content.metadata.items() if not _is_locked(desk, key, value)}
    text, note_ = _as_field(entry)
    return fields | {
        'seen': _stamp(found.filebase, entry),
        'metadata': json.dumps(tagged(open_keys, 'metadata'), indent=2),
        'body': text,
        'body_note': note_,
        'locked': sorted(content.metadata.keys() - open_keys.keys()),
        'is_edited': before_last_edit(entry) is not None,
    }


def _is_locked(desk: Desk, key: str, value: Any) -> bool:
    return key in LOCKED or key.startswith('_') or _hides(value, desk.settings.redact, key)


def _hides(value: Any, patterns: tuple[str, ...], key: str) -> bool:
    """Does any key in there have a value that is not shown?"""
    if is_hidden(key, patterns):
        return True
    if isinstance(value, dict):
        return any(_hides(one, patterns, str(inner)) for inner, one in value.items())
    return isinstance(value, list | tuple) and any(_hides(one, patterns, '') for one in value)


def _as_field(entry: Entry) -> tuple[str | None, str]:
    """:return: the body as a form can hold it, or None and why not."""
    base, plus, _ = entry.kind.partition('+')
    if plus or base not in KINDS:
        return None, f'A body of the kind {entry.kind} is not changed here.'
    try:
        text = entry.body.decode('utf-8')
    except UnicodeDecodeError:
        return None, 'The body is no text.'
    plain = text.replace('\r\n', '\n') if _ends_with_cr(text) else text
    if '\r' in plain or escape_terminal(plain) != plain:
        return None, 'The body has characters that a form would change: use the command line.'
    return plain, ''


def _ends_with_cr(text: str) -> bool:
    """Does every line end as in a mail on its way?"""
    return '\r\n' in text and not re.search('(?<!\r)\n|\r(?!\n)', text)


def _stamp(filebase: str, entry: Entry) -> str:
    state = f'{filebase} {len(entry.records)} '.encode()
    return hashlib.sha256(state + entry.metadata + b'\0' + entry.body).hexdigest()[:32]


class RequestedEdit:
    """Read a form into the changes of an entry.

    :raises BadRequestError: the form cannot be meant, or would change a locked part.
    """

    def __init__(self, desk: Desk, form: Form, filebase: str, entry: Entry) -> None:
        self.now = content_of(entry)
        self.undoes = form.text('undo') == 'yes'
        if form.text('seen', limit=64) not in ('', _stamp(filebase, entry)):
            raise QueueError('it was changed meanwhile: look at it again')
        if self.undoes:
            before = before_last_edit(entry)
            if before is None:
                raise QueueError('it was not edited, or too large for what it was before to be kept')
            self.then = before
        else:
            self.then = Content(self._metadata(desk, form), self._body(form, entry))

    def _metadata(self, desk: Desk, form: Form) -> dict[str, Any]:
        try:
            given = load_json(form.text('metadata', '{}', MAX_FIELD).encode(), 'metadata', unique=True)
        except (CorruptEntryError, UnicodeEncodeError) as error:
            raise BadRequestError(f'the metadata cannot be read: {error}') from error
        if not isinstance(given, dict):
            raise BadRequestError('the metadata are no JSON object')
        kept = {key: value for key, value in self.now.metadata.items() if _is_locked(desk, key, value)}
        wrong = sorted(key for key, value in given.items() if key in kept or _is_locked(desk, key, value))
        if wrong:
            raise BadRequestError(f'{", ".join(wrong)} cannot be changed here')
        changed = {key: value for key, value in given.items() if self.now.metadata.get(key) != value}
        if mistake := find_mistake(changed):
            raise BadRequestError(mistake)
        return kept | given

    def _body(self, form: Form, entry: Entry) -> bytes:
        if not form.has('body'):
            return entry.body
        before, reason = _as_field(entry)
        if before is None:
            raise BadRequestError(reason)
        # A browser ends each line as a mail on its way does, whatever it was given.
        text = form.text('body', limit=MAX_FIELD).replace('\r\n', '\n')
        if text == before:
            return entry.body
        return (text.replace('\n', '\r\n') if _ends_with_cr(entry.body.decode()) else text).encode(
            'utf-8', 'surrogateescape'
        )


def review(desk: Desk, form: Form, name: str, filebase: str) -> dict[str, Any]:
    """:return: the changes that an edit, or its undoing, would make."""
    found = locate(desk, name, filebase)
    summary = found.look()
    entry = None if summary is None else whole_entry(found, summary)
    if summary is None or entry is None or damage_of(summary, entry):
        raise QueueError('it cannot be changed here', queue=name, filebase=filebase)
    wanted = RequestedEdit(desk, form, found.filebase, entry)
    to = form.text('to', limit=200)
    if to:
        desk.view.check_queues([to])
    patterns = desk.settings.redact
    return {
        'queue': name,
        'filebase': filebase,
        'to': to,
        'reason': form.text('reason', limit=1000),
        'undoes': wanted.undoes,
        'seen': _stamp(found.filebase, entry),
        'metadata': form.text('metadata', '{}', MAX_FIELD).replace('\r\n', '\n'),
        'body': form.text('body', limit=MAX_FIELD).replace('\r\n', '\n') if form.has('body') else None,
        'difference': difference(
            *(one._replace(metadata=redacted(one.metadata, patterns)) for one in (wanted.now, wanted.then))
        ),
        'goes_to': to or (summary.retry_queue if summary is not None and name == BAD else name),
        'command': desk.command('edit', f'{name}/{filebase}', *(('--undo',) if wanted.undoes else ())),
    }


def store(desk: Desk, form: Form, name: str, filebase: str, operator: Operator) -> dict[str, Any]:
    """Put the changed message into the old one's place, and send it back if it was bad.

    :return: as `acts.act` of one entry.
    """
    found = locate(desk, name, filebase)
    to = form.text('to', limit=200)
    desk.view.check_queues([name, *((to,) if to else ())])
    if not form.text('seen', limit=64):
        raise BadRequestError('seen is missing: which version is changed?')
    with desk.operator_session(operator) as session:
        with Editing(session.spool, name, found.filebase, to or None, operator) as editing:
            wanted = RequestedEdit(desk, form, found.filebase, editing.entry)
            queue, now = editing.store(wanted.then.metadata, wanted.then.body, undoes=wanted.undoes)
        note_act(
            desk.directory,
            operator,
            'undo' if wanted.undoes else 'edit',
            name,
            found.filebase,
            f'{queue}/{now}',
        )
    return {
        'act': 'edit',
        'word': 'Undo the edit' if wanted.undoes else 'Change',
        'done': [{'entry': found.filebase, 'from': name, 'queue': queue, 'filebase': now}],
        'not_done': [],
        'gone': [],
        'left': 0,
        'canary': 0,
        'is_repeated': False,
        'selection': f'queue:"{name}"',
        'command': desk.command('edit', f'{name}/{filebase}', *(('--undo',) if wanted.undoes else ())),
    }
