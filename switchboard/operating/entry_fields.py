"""An entry as an object for programs: the same members for command line and API, documented in ``docs/reference/cli.md``.

Who holds an entry, the kernel's list of locks says.  Asking by trying to take a lock would take it, if only for a moment, from who just wants it; reading
the list disturbs nobody.  It is for people to read: nothing is decided by it, and on a system without the list, nobody is named.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from switchboard.errors import CorruptEntryError
from switchboard.message.naming import CLAIMED, NS_PER_S
from switchboard.message.typed_json import parse_json
from switchboard.operating.summary import EntrySummary
from switchboard.store.layout import TRASH

LOCKS = Path('/proc/locks')

# The errors that keep one entry's content from being described: each is the entry's fault, and no other's.
HISTORY_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, AttributeError, KeyError)


def entry_fields(entry: EntrySummary, now_ns: int, owners: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    """:return: an entry for programs; of one whose history makes nonsense, what its name says and that it is damaged.

    :param owners: the holder of each lock: `LockHolders`.
    """
    fields = {
        'filebase': entry.filebase,
        'queue': entry.queue,
        'state': entry.state(now_ns),
        'owner_pid': owners.get(entry.inode) or None if entry.suffix == CLAIMED else None,
        'ready_at': entry.due_ns(now_ns) / NS_PER_S,
        'age_s': None,
        'priority': entry.priority,
        'kind': entry.kind,
        'body_bytes': entry.body_bytes,
        'file_bytes': entry.size_bytes,
        'attempts': 0,
        'recoveries': 0,
        'sent_back': 0,
        'origin': None,
        'cause': None,
        'error': None,
        'message': None,
        'damage': entry.damage or None,
    }
    try:
        error, text = entry.last_error
        return fields | {
            'age_s': round(entry.age_s(now_ns), 3),
            'attempts': entry.attempts,
            'recoveries': entry.recoveries,
            'sent_back': entry.sent_back,
            'origin': entry.removed_from if entry.queue == TRASH else entry.origin,
            'cause': entry.cause or None,
            'error': error or None,
            'message': text or None,
        }
    except HISTORY_ERRORS as error:
        return fields | {'damage': entry.damage or f'its history cannot be shown: {type(error).__name__}'}


class LockHolders(Mapping[tuple[int, int], int]):
    """The process by device and inode number, for each ``flock``; a process of another container has the number 0.

    The list is read when something is looked up for the first time: while the kernel makes it, which takes some milliseconds, nobody on the machine
    can take or drop a lock.
    """

    def __init__(self, path: Path = LOCKS) -> None:
        self._path = path

    def __getitem__(self, inode: tuple[int, int]) -> int:
        return self._found[inode]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @cached_property
    def _found(self) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        try:
            lines = self._path.read_text().splitlines()
        except OSError:
            return found
        for line in lines:
            fields = line.split()
            # 1: FLOCK  ADVISORY  WRITE 18789 fe:00:2148713 0 EOF
            if len(fields) == 8 and fields[1] == 'FLOCK' and fields[3] == 'WRITE':
                major, minor, inode = fields[5].split(':')
                found[os.makedev(int(major, 16), int(minor, 16)), int(inode)] = max(0, int(fields[4]))
        return found


def body_fields(body: bytes) -> dict[str, str]:
    """:return: a body for programs: ``body``, or ``body_base64`` if it is no text."""
    try:
        return {'body': body.decode('utf-8')}
    except UnicodeDecodeError:
        return {'body_base64': base64.b64encode(body).decode('ascii')}


# The fields looked for stand at the beginning: a mail's header, a task's message without large arguments.
MAX_DESCRIBED_BYTES = 1 << 20
MAX_ARGUMENTS = 1000
# One of them stands in each message of Celery's, and most others need no second look then.
_OF_TASKS = (b'"task"', b'"content-type"')


def describe_body(kind: str, body: bytes) -> dict[str, str]:
    """:return: a person's names for the message: of a mail its ``subject``, of a Celery task ``task``, ``id``, ``args`` and ``kwargs``.

    Nothing is unpickled, and unknown fields are left out.
    """
    if kind.partition('+')[0] == 'mail':
        from email.parser import BytesHeaderParser
        from email.policy import default

        try:
            subject = BytesHeaderParser(policy=default).parsebytes(body[:65536])['subject']
        except Exception:  # the mail library raises what it likes
            return {}
        return {} if subject is None else {'subject': str(subject)}
    if kind != 'json' or len(body) > MAX_DESCRIBED_BYTES or not any(mark in body for mark in _OF_TASKS):
        return {}
    try:
        value, _ = parse_json(body, 'body')
    except CorruptEntryError:
        return {}
    task = _task_of(value) if isinstance(value, dict) else {}
    return {name: text[:MAX_ARGUMENTS] for name, text in task.items()} if 'task' in task else {}


def _task_of(message: dict[str, Any]) -> dict[str, str]:
    headers, body = message.get('headers'), message.get('body')
    named = {'task': 'task', 'id': 'id', 'args': 'argsrepr', 'kwargs': 'kwargsrepr'}
    if isinstance(headers, dict) and 'task' in headers:
        return {name: headers[key] for name, key in named.items() if isinstance(headers.get(key), str)}
    # Of Celery's first protocol all stands in the body; a compressed or pickled one stays closed.
    if message.get('content-type') != 'application/json' or not isinstance(body, str):
        return {}
    try:
        encoding = message.get('properties', {}).get('body_encoding')
        task, _ = parse_json(base64.b64decode(body) if encoding == 'base64' else body.encode(), 'body')
    except (CorruptEntryError, *HISTORY_ERRORS):
        return {}
    if not isinstance(task, dict):
        return {}
    texts = {name: task[name] for name in ('task', 'id') if isinstance(task.get(name), str)}
    return texts | {name: repr(task[name]) for name in ('args', 'kwargs') if name in task}
