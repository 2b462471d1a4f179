"""The pages about entries: which fit a selection, one of them whole, and what became of the first that were sent back.

None walks over a queue without a budget; a page says which part was not looked at.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from switchboard.errors import SwitchboardError, UnknownEntryError
from switchboard.message.naming import is_filebase, sort_key
from switchboard.message.typed_json import plain_json
from switchboard.operating.editing import differences
from switchboard.operating.entry_fields import (
    HISTORY_ERRORS,
    LockHolders,
    body_fields,
    describe_body,
    entry_fields,
)
from switchboard.operating.finding import FoundEntry
from switchboard.operating.queue_counts import directory_stamp
from switchboard.operating.selection import Budget, Selection, select
from switchboard.operating.spool_view import QueueFolder, read_flags
from switchboard.operating.summary import EntrySummary, summarize
from switchboard.store.layout import BAD
from switchboard.web.desk import Desk
from switchboard.web.forms import BadRequestError, Form
from switchboard.web.message_body import check_long, damage_of, describe, redacted, title_of, whole_entry

# A page is there within a second, on a machine that is busy too.
BUDGET_S = 0.4
# Looks that take longer are kept: all of them together take one part in so many of a processor.
CACHED_FROM_S, REST_TIMES, MAX_CACHED_LISTS = 0.05, 25, 32
# A list that nobody has asked for so long is open nowhere.
LEFT_S = 120.0
ROWS, MAX_ROWS = 50, 500
MAX_EXPORTED = 20_000
EXPORT_S = 20.0
MAX_CANARY = 50
MAX_SELECTION = 2000
# The usual words of a selection, each of which may be a field of its own.
WORDS = 'queue state error match origin kind older younger tries sent_back size sender'.split()


def selection_of(form: Form) -> Selection:
    """:return: the selection that a query or a form says: ``q``, and a field for each of the usual words.

    :raises SelectionError: it cannot be read.
    """
    selection = Selection.parse(form.text('q', limit=MAX_SELECTION))
    for name in (*WORDS, 'retried'):  # the last is a name before
        text = form.text(name, limit=200)
        if not text:
            continue
        words: dict[str, Any] = {'metadata': {'sender': text}} if name == 'sender' else {name: text}
        selection &= Selection.of(**words)
    return selection


class ListQuery:
    """A look at the entries that fit, within a budget: the first so many, and how many there are as far as was looked."""

    def __init__(
        self, desk: Desk, selection: Selection, limit: int, after: str = '', seconds: float = BUDGET_S
    ) -> None:
        began_s = time.monotonic()
        self.at_ns = time.time_ns()
        self.budget = Budget(seconds)
        self.matching = 0
        last_queue, _, last = after.partition('/')
        behind = (sort_key(last), last_queue) if last else None
        queue_folders = queue_folders_of(desk, selection)
        # As long as it is the same, another look would find the same.
        self.stamp = None if selection.changes_with_time else stamps_of(queue_folders)

        def counted() -> Iterator[FoundEntry]:
            for found in select(queue_folders, selection, self.at_ns, self.budget):
                self.matching += 1
                if behind is None or (sort_key(found.filebase), found.queue) > behind:
                    yield found._replace(summary=None)

        self.found: list[FoundEntry] = []
        # Why nothing could be seen.
        self.trouble = ''
        try:
            self.found = heapq.nsmallest(
                limit + 1, counted(), key=lambda one: (sort_key(one.filebase), one.queue)
            )
        except PermissionError as error:
            self.trouble = f'{" ".join(selection.values("queue") or (BAD,))}: {error.strerror}'
        self.has_more = len(self.found) > limit
        del self.found[limit:]
        self.ended_s = self.asked_s = time.monotonic()
        self.took_s = self.ended_s - began_s


def queue_folders_of(desk: Desk, selection: Selection) -> list[QueueFolder]:
    """:return: the queues that a list is about: the bad one, if its filter names none."""
    return desk.view.folders_to_search(selection, () if selection.values('queue') else (BAD,))


def stamps_of(queue_folders: Sequence[QueueFolder]) -> tuple[tuple[int, ...], ...] | None:
    """:return: the marks of these directories; None if one of them has none."""
    stamps = [directory_stamp(folder, time.time_ns()) for _, folder in queue_folders]
    return None if None in stamps else tuple(filter(None, stamps))


def _look(desk: Desk, selection: Selection, limit: int, after: str) -> ListQuery:
    """:return: a look; one from before, if nothing has come or gone since, or if looking takes long: tabs that are left open are not to take a processor.

    Entries that are gone by then are not shown all the same, and an act has everything looked for anew.
    """
    key = (str(selection), limit, after)
    kept: ListQuery | None = desk.list_cache.get(key)
    if kept is not None:
        now_s = kept.asked_s = time.monotonic()
        took_s = sum(one.took_s for one in [*desk.list_cache.values()] if now_s - one.asked_s < LEFT_S)
        if now_s - kept.ended_s < REST_TIMES * took_s or (
            kept.stamp is not None and kept.stamp == stamps_of(queue_folders_of(desk, selection))
        ):
            return kept
    look = ListQuery(desk, selection, limit, after)
    desk.list_cache.pop(key, None)
    if look.took_s >= CACHED_FROM_S:
        while len(desk.list_cache) >= MAX_CACHED_LISTS:
            desk.list_cache.pop(next(iter(desk.list_cache)), None)
        desk.list_cache[key] = look
    return look


def entries(desk: Desk, form: Form) -> dict[str, Any]:
    """The entries that fit the filter, in the order in which they would be taken; the bad queue's, if it names no queue."""
    selection = selection_of(form)
    limit = form.number('limit', ROWS, 1, MAX_ROWS)
    after = form.text('after', limit=200)
    if after and not is_filebase(after.partition('/')[2]):
        raise BadRequestError('after names no entry')
    look = _look(desk, selection, limit, after)
    now_ns = time.time_ns()
    owners = LockHolders()
    rows = [
        _entry(summary, now_ns, owners) | {'title': title_of(found, summary.kind)}
        for found in look.found
        if (summary := found.look()) is not None
    ]
    named = selection.values('queue') or (BAD,)
    queues = desk.counter.last.queues
    counted = [queues[name] for name in named if name in queues]
    return {
        'selection': str(selection),
        'queues': list(named),
        'entries': rows,
        'matching': look.matching,
        'is_whole': not look.budget.is_spent,
        'looked_at': look.budget.names,
        'counted_at_ns': str(look.at_ns),
        'without_filter': sum(max(0, one.entries) for one in counted) if counted else None,
        'trouble': [look.trouble] if look.trouble else [one.trouble for one in counted if one.trouble],
        'next': f'{look.found[-1].queue}/{look.found[-1].filebase}' if look.has_more else None,
        'command': desk.command_for(('ls', *(() if selection.values('queue') else (BAD,))), selection),
    }


def _entry(summary: EntrySummary, now_ns: int, owners: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    return entry_fields(summary, now_ns, owners) | {'ready_at_ns': str(summary.due_ns(now_ns))}


def locate(desk: Desk, name: str, filebase: str) -> FoundEntry:
    """:return: the entry, by its whole name in its queue.

    :raises UnknownEntryError: it is not there.
    """
    if not is_filebase(filebase):
        raise UnknownEntryError('that is no name of an entry')
    found = locate_or_none(desk, name, filebase)
    if found is None:
        raise UnknownEntryError(
            'it is not there any more: it was done, moved or removed', queue=name, filebase=filebase
        )
    return found


def locate_or_none(desk: Desk, name: str, filebase: str) -> FoundEntry | None:
    """:return: the entry; None if it is not there."""
    ((_, folder),) = desk.view.queue_folders([name])
    try:
        entry = summarize(folder, name, filebase)
    except FileNotFoundError:
        return None
    return None if entry is None else FoundEntry(name, folder, filebase, entry.suffix, entry)


def entry(desk: Desk, form: Form, name: str, filebase: str) -> dict[str, Any]:
    """One entry: metadata, its whole history, its body, and who holds it by the kernel's word."""
    found = locate(desk, name, filebase)
    summary = found.look()
    assert summary is not None
    now_ns, owners = time.time_ns(), LockHolders()
    fields = _entry(summary, now_ns, owners)
    patterns = desk.settings.redact
    metadata = redacted(summary.metadata(), patterns)
    entire = whole_entry(found, summary)
    damage, is_checked = check_long(found, summary) if entire is None else (damage_of(summary, entire), True)
    return fields | {
        'damage': damage or None,
        'is_checked': is_checked,
        **({'body': None} if entire is None else body_fields(entire.body)),
        'queue_flags': read_flags(desk.directory, name),
        'holder': _holder(desk, fields),
        'home': _or_none(lambda: summary.retry_queue),
        'metadata': json.loads(json.dumps(plain_json(metadata), default=str)),
        'history': _history(found, summary, patterns),
        'is_edited': any(record.get('event') == 'edited' for record in summary.entry.records),
        'content': describe(found, summary.kind),
        'described': describe_body(summary.kind, entire.body) if entire is not None else {},
        'comes_back': fields['sent_back'] >= 3,
        'file': str(desk.directory / name / (filebase + found.suffix)),
        'command': desk.command('show', f'{name}/{filebase}'),
    }


def _history(found: FoundEntry, summary: EntrySummary, patterns: tuple[str, ...]) -> list[dict[str, Any]]:
    """:return: its records; of an edit, the difference that it made instead of the old parts."""
    records = [redacted(dict(record), patterns) for record in summary.entry.records]
    edits: dict[int, list[str]] = {}
    if any(record.get('event') == 'edited' for record in records):
        entry = whole_entry(found, summary)
        edits = differences(dataclasses.replace(entry, records=records)) if entry is not None else {}
    for place, record in enumerate(records):
        if record.get('event') == 'edited':
            record.pop('before', None)
            record.pop('after', None)
            if place in edits:
                record['difference'] = edits[place]
    return records


def _or_none(read: Any) -> Any:
    try:
        return read()
    except HISTORY_ERRORS:
        return None


def _holder(desk: Desk, fields: dict[str, Any]) -> dict[str, Any]:
    """:return: ``state``: claimed, owner gone, or not claimed; and of a runner's process, which."""
    if fields['state'] != 'claimed':
        return {'state': 'not claimed'}
    if not fields['owner_pid']:
        return {'state': 'owner gone'}
    for record in desk.snapshot().records:
        if record.pid == fields['owner_pid']:
            return {'state': 'claimed', 'pid': record.pid, 'runner': record.title}
    return {'state': 'claimed', 'pid': fields['owner_pid'], 'runner': None}


def canary(desk: Desk, form: Form) -> dict[str, Any]:
    """The fate of the few that were sent back first: gone through, back again, or not done yet."""
    names = form.all('entry', MAX_CANARY)
    selection = Selection.parse(form.text('q', limit=MAX_SELECTION))
    states = [{'entry': name, 'became': _became(desk, name)} for name in names]
    counts = {
        word: sum(one['became'] == word for one in states)
        for word in ('went through', 'failed again', 'not done yet')
    }
    return {
        'entries': states,
        'counts': counts,
        'is_over': not counts['not done yet'],
        'selection': str(selection),
        'command': desk.command_for(('retry',), selection, '--canary', str(len(names) or 1)),
    }


def _became(desk: Desk, name: str) -> str:
    queue, _, filebase = name.partition('/')
    if not is_filebase(filebase):
        raise BadRequestError('that is no name of an entry')
    digest = filebase.partition('+')[2]
    for where in filter(None, (queue, BAD)):
        try:
            queue_folders = desk.view.queue_folders([where])
        except SwitchboardError:
            continue  # there is no such queue any more
        budget = Budget(BUDGET_S / 4)
        for found in select(queue_folders, Selection.parse(f'id:{digest}'), time.time_ns(), budget):
            summary = found.look()
            if summary is not None:
                return (
                    'failed again'
                    if where == BAD or summary.attempts + summary.recoveries
                    else 'not done yet'
                )
    return 'went through'


def export(desk: Desk, form: Form) -> tuple[list[dict[str, Any]], bool]:
    """:return: the entries that fit, as objects, and whether they are all."""
    selection = selection_of(form)
    limit = form.number('limit', MAX_EXPORTED, 1, MAX_EXPORTED)
    look = ListQuery(desk, selection, limit, seconds=EXPORT_S)
    now_ns, owners = time.time_ns(), LockHolders()
    rows = [_entry(summary, now_ns, owners) for found in look.found if (summary := found.look()) is not None]
    return rows, not look.has_more and not look.budget.is_spent
