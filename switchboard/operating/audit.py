"""The record of operators' acts: a line for each, for the log and for the page of recent acts.

The history of each entry says who did what to it and why; but an entry that was removed takes its history with it, and nobody looks
through a million of them for what happened last night.  So each act is also a line of JSON in ``.run/acts``, which is appended to, and set aside as
``.run/acts.old`` when it has grown.  It is information: that it cannot be written keeps nobody from acting.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from switchboard.clock import SYSTEM_CLOCK
from switchboard.events import log_event
from switchboard.message.journal import load_record
from switchboard.regular_file import open_regular_file
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import ACTS, OLD_ACTS, RUN
from switchboard.trace_context import inject_context

log = logging.getLogger('switchboard.operator')

# Some ten thousand acts; twice as much is kept.
MAX_ACTS_BYTES = 2 << 20
# A reason is a line for a person.
MAX_REASON = 1000


class Operator(NamedTuple):
    """The operator of an act: who, by which way, and why, for the history of an entry.

    :param by: a user's name.
    :param via: ``cli``, ``desk`` or ``api``.
    """

    by: str
    via: str = 'cli'
    reason: str = ''

    def fields(self) -> dict[str, Any]:
        """:return: the members of a record; without a reason if there is none."""
        fields = {'by': self.by[:100], 'via': self.via}
        inject_context(fields)  # the next attempt is linked to the span in which somebody has sent it back
        return fields | {'reason': self.reason[:MAX_REASON]} if self.reason else fields


def user_name() -> str:
    """:return: the user of this process; behind ``sudo``, the user who called that, and as whom."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    before = os.environ.get('SUDO_USER')
    return f'{before} as {name}' if before and before != name else name


def note_act(
    directory: Path, operator: Operator, act: str, queue: str, entry: str = '', to: str = '', **more: Any
) -> None:
    """Write one act down.

    :param directory: the spool.
    :param to: where the entry went.
    """
    fields = {'act': act, 'queue': queue, 'entry': entry, 'to': to, **operator.fields(), **more}
    fields = {key: value for key, value in fields.items() if value not in ('', None)}
    others = {key: value for key, value in fields.items() if key != 'entry'}
    log_event(log, logging.INFO, entry or None, 'operator acted', **others)
    line = json.dumps({'time': SYSTEM_CLOCK.time_ns() / 1e9, **fields}) + '\n'
    disk = Disk()
    try:
        run = Folder(directory / RUN, disk)
        with run.path_in_errors(ACTS):
            descriptor = disk.open_lock_file(ACTS, run.fd, flags=os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode('ascii'))
            if disk.fstat(descriptor).st_size > MAX_ACTS_BYTES:
                disk.rename(ACTS, OLD_ACTS, src_dir_fd=run.fd, dst_dir_fd=run.fd)
        finally:
            disk.close(descriptor)
    except OSError as error:
        log_event(log, logging.WARNING, entry or None, 'not noted', error=error)


def recent_acts(directory: Path, number: int = 100) -> list[dict[str, Any]]:
    """:return: the last acts, the newest first; unreadable lines are left out."""
    return list(islice(_backwards(directory), number))


def _backwards(directory: Path) -> Iterator[dict[str, Any]]:
    for name in (ACTS, OLD_ACTS):
        lines: list[bytes] = []
        # Not there yet, or another user's.
        with contextlib.suppress(OSError), open_regular_file(directory / RUN / name) as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 2 * MAX_ACTS_BYTES))
            lines = stream.read(2 * MAX_ACTS_BYTES).splitlines()
        for line in filter(None, reversed(lines)):
            if (fields := load_record(line)) is not None:
                yield dict(fields)
