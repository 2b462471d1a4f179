"""What `ls`, `tail` and `retry` say about one entry: the same words in a row, a line and a JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchboard.cli.layout import Cell, Column
from switchboard.cli.wording import age, size
from switchboard.message.naming import NS
from switchboard.operating.summary import EntrySummary

# Wide enough for whole names and some words beside them.
WHOLE_NAMES_COLUMNS = 150

STYLES = {'waiting': 'green', 'delayed': 'cyan', 'held': 'magenta', 'claimed': 'yellow', 'preserved': 'red'}

ENTRY, QUEUE, FROM = Column('ENTRY'), Column('QUEUE', shrink_to=8), Column('FROM', shrink_to=6)
STATE, AGE, SIZE = Column('STATE', drop=4), Column('AGE', right=True), Column('SIZE', right=True, drop=3)
KIND, TRIES, AGAIN = (
    Column('KIND', drop=2),
    Column('TRIES', right=True, drop=1),
    Column('RETRIED', right=True, drop=5),
)
ERROR = Column('LAST ERROR', shrink_to=16)


def columns_of(queue: str) -> tuple[Column, ...]:
    """:return: the columns of a list of `queue`: the bad queue's entries are all preserved, and came from somewhere."""
    return (ENTRY, FROM if queue == 'bad' else STATE, AGE, SIZE, KIND, TRIES, AGAIN, ERROR)


def short_name(filebase: str) -> str:
    """:return: the beginning of a name, which is enough to find the entry: no two are of one nanosecond, or hardly ever."""
    return filebase.partition('+')[0]


def state_text(seen: EntrySummary, now_ns: int, owners: Mapping[tuple[int, int], int]) -> str:
    """:return: the state, and for a claimed entry the process that holds it, if it can be told."""
    state = seen.state(now_ns)
    owner = owners.get(seen.inode) if state == 'claimed' else None
    return f'{state} by {owner}' if owner else state


def error_text(seen: EntrySummary) -> str:
    """:return: what went wrong last, or what is wrong with the file."""
    kind, text = seen.last_error
    parts = [f'damaged: {seen.damage}'] if seen.damage else []
    if kind or text:
        parts.append(f'{kind}: {text}' if text else kind)
    return '; '.join(parts)


def row(
    seen: EntrySummary, queue: str, now_ns: int, owners: Mapping[tuple[int, int], int], *, whole_names: bool
) -> list[Cell]:
    """:return: the cells for `columns_of(queue)`."""
    state = (state_text(seen, now_ns, owners), STYLES[seen.state(now_ns)])
    return [
        seen.filebase if whole_names else short_name(seen.filebase),
        seen.origin or '' if queue == 'bad' else state,
        age(seen.age_s(now_ns)),
        size(seen.body_bytes),
        seen.kind,
        str(seen.attempts + seen.recoveries) if seen.attempts + seen.recoveries else '',
        f'{seen.retried}x' if seen.retried else '',
        (error_text(seen), 'red'),
    ]


def fields_of(seen: EntrySummary, now_ns: int, owners: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    """:return: the entry for programs."""
    error, text = seen.last_error
    return {
        'filebase': seen.filebase,
        'queue': seen.queue,
        'state': seen.state(now_ns),
        'owner_pid': owners.get(seen.inode) or None if seen.suffix == '.bak' else None,
        'ready_at': seen.when_ns / NS,
        'age_s': round(seen.age_s(now_ns), 3),
        'priority': seen.priority,
        'kind': seen.kind,
        'body_bytes': seen.body_bytes,
        'file_bytes': seen.size_bytes,
        'attempts': seen.attempts,
        'recoveries': seen.recoveries,
        'sent_back': seen.retried,
        'origin': seen.origin,
        'cause': seen.cause or None,
        'error': error or None,
        'message': text or None,
        'damage': seen.damage or None,
    }
