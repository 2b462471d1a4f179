"""The flags that operators set on a queue while it works: *pause* (nothing is taken out) and *drain* (nothing is let in).

A flag is a file, ``.run/paused/<queue>`` or ``.run/draining/<queue>``: it is there or it is not, survives a restart, and a shell
script can ask for it.  Its content says since when and why, for people.  Each process looks at most ten times a second.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Literal

from switchboard.clock import Clock
from switchboard.events import log_event
from switchboard.message.journal import load_record
from switchboard.message.naming import NS_PER_S
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder

log = logging.getLogger('switchboard.queue')

Flag = Literal['paused', 'draining']

LOOK_EVERY_NS = NS_PER_S // 10
# A reason is a line for a person.
MAX_CONTENT_BYTES = 4096


class Flags:
    """The flags of a spool's queues.

    :param run: the directory ``.run``.
    """

    def __init__(self, run: str, disk: Disk, clock: Clock) -> None:
        self._run = run
        self._disk = disk
        self._clock = clock
        self._folders: dict[str, Folder] = {}
        # By flag and queue, until when an answer is good, and the answer.
        self._known: dict[tuple[str, str], tuple[int, bool]] = {}

    def _folder(self, flag: Flag) -> Folder:
        folder = self._folders.get(flag)
        if folder is None:
            folder = Folder(os.path.join(self._run, flag), self._disk)
            folder.make()
            folder = self._folders.setdefault(flag, folder)
        return folder

    def is_set(self, flag: Flag, queue: str, *, refresh: bool = False) -> bool:
        """Is the flag up?

        :param refresh: look; else the answer may be a tenth of a second old.
        """
        now_ns = self._clock.monotonic_ns()
        known = self._known.get((flag, queue))
        if known is not None and now_ns < known[0] and not refresh:
            return known[1]
        answer = known is not None and known[1]
        try:
            folder = self._folder(flag)
            if known is not None and folder.is_replaced():
                folder.make()
            answer = self._disk.exists(queue, folder.fd)
        except OSError as error:
            log_event(log, logging.WARNING, None, 'flag unreadable', flag=flag, queue=queue, error=error)
        self._known[flag, queue] = now_ns + LOOK_EVERY_NS, answer
        return answer

    def set(self, flag: Flag, queue: str, reason: str = '', by: str = '') -> None:
        """Put the flag up; if it is, its time and reason stay.  It is on the disk when this returns,
        without the content that the disk refuses.

        :param by: the operator.

        :raises OSError: it could not be written.
        """
        said = {'since': self._clock.time_ns() / NS_PER_S, 'reason': reason[:1000]} | (
            {'by': by[:100]} if by else {}
        )
        content = json.dumps(said).encode()
        folder = self._folder(flag)
        try:
            with folder.path_in_errors(queue):
                fd = self._disk.create_locked(queue, folder.fd)
        except FileExistsError:
            return
        try:
            self._disk.write_all(fd, content)
            self._disk.fdatasync(fd)
        except OSError:
            pass  # a full disk, or a broken one: people read it, nobody else does, and the flag is up already
        finally:
            self._disk.unlock_and_close(fd)
        folder.sync()
        self._known.pop((flag, queue), None)

    def clear(self, flag: Flag, queue: str) -> bool:
        """Take the flag down.

        :return: False if it was not up.
        """
        self._known.pop((flag, queue), None)
        folder = self._folder(flag)
        try:
            with folder.path_in_errors(queue):
                self._disk.unlink(queue, dir_fd=folder.fd)
        except FileNotFoundError:
            return False
        folder.sync()
        return True

    def read(self, flag: Flag, queue: str) -> Mapping[str, Any] | None:
        """:return: since when (seconds since the epoch) and why the flag is up; None if it is not."""
        text = self._folder(flag).read(queue, MAX_CONTENT_BYTES)
        # One put up by hand, perhaps with `touch`, says nothing.
        return None if text is None else load_record(text) or {}
