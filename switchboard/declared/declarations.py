"""Queues that programs declare while they run: one small file a queue, ``.run/declared/<queue>``.

The configuration file is the operator's and is never written.  What a program declares stands beside it: options, and
when the queue goes away again.

*exclusive*
    it has one owner, and goes when the owner does: ``owner`` names a ticket (see ``presence``) that the owner keeps locked;
*auto-delete*
    it goes when its last consumer leaves, after it had one;
*expiring*
    it goes when nobody has consumed from it or declared it for that long.

Records, and the file with the exchanges (see ``exchangestore``), change under one lock, ``.run/declared/.lock``, by writing a new file and
renaming it; readers need no lock.  The time of last use is the record's modification time.  How a queue is deleted while
others use it is described in `switchboard.declared.removal`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from switchboard.clock import Clock
from switchboard.errors import ConfigError, CorruptEntryError
from switchboard.events import log_event
from switchboard.message.naming import CLOCK_SLACK_NS, NS_PER_S, NameGenerator
from switchboard.message.typed_json import parse_json
from switchboard.options import QueueOptions, RetryPolicy
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.queue_defaults import OLD_SYNC_WORDS
from switchboard.store.disk import OPEN_FLAGS, Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import DECLARED, DECLARED_LOCK

log = logging.getLogger('switchboard.queue')

# A record holds options and a program's arguments, not messages.
MAX_RECORD_BYTES = 1 << 20

_FIELDS = frozenset(QueueOptions._fields)
# How fields are called in a record, where that differs: another version reads and writes the records, too.
_STORED_AS = {'discard_causes': 'discard', 'dead_letter_routing_key': 'dead_letter_key'}
_FIELDS_BY_STORED_NAME = {stored: field for field, stored in _STORED_AS.items()}


class Declaration(NamedTuple):
    """The declaration of a queue by a program.

    :param owner: the ticket of the one who has the queue for himself.
    :param options: the `QueueOptions` that differ from the defaults, by field; JSON values.
    :param arguments: the program's own words, to compare with a later declaration's.
    :param discard_causes: causes for which a message is dropped where it would go to the bad queue: ``expired``, ``overflow``.
    :param dead_letter_routing_key: the routing key that dead letters get, if not their own.
    :param deleted: being deleted; `removal` deals with the rest of its directory.
    """

    name: str
    owner: str | None = None
    auto_delete: bool = False
    expires_s: float | None = None
    options: Mapping[str, Any] = {}
    arguments: Mapping[str, Any] = {}
    discard_causes: tuple[str, ...] = ()
    dead_letter_routing_key: str | None = None
    deleted: bool = False

    @property
    def is_durable(self) -> bool:
        """Is the queue to be there after a power cut?"""
        return self.owner is None and not self.auto_delete and self.expires_s is None

    def applied_to(self, options: QueueOptions) -> QueueOptions:
        """:return: `options` with the declared ones put over them."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in self.options.items()
        }
        if isinstance(values.get('retry'), dict):
            values['retry'] = RetryPolicy(**values['retry'])
        return options._replace(**values)


def first_difference(known: Any, asked: Any) -> str:
    """:return: the first difference of two declarations, in words; empty if they are the same."""
    for name, mine, theirs in zip(known._fields, known, asked, strict=True):
        if mine != theirs:
            return f'is declared with {name} = {mine!r}, not {theirs!r}'
    return ''


def _with_new_names(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """:return: options by their names of today."""
    if 'flush' not in options:
        return options
    word = options['flush']
    others = {key: value for key, value in options.items() if key != 'flush'}
    return {'directory_sync': OLD_SYNC_WORDS.get(str(word), word), **others}


def checked_options(options: Mapping[str, Any], queue: str) -> dict[str, Any]:
    """Make options comparable with those read from a record.

    :raises ConfigError: a key is no field of `QueueOptions`, or is there by two names, or only the configuration may say it.
    """
    section = f'queue.{queue}'
    if {'flush', 'directory_sync'} <= options.keys():
        raise ConfigError('flush is the old name of directory_sync, which is there, too', section=section)
    options = _with_new_names(options)
    unknown = sorted(options.keys() - _FIELDS)
    if unknown:
        raise ConfigError(f'there is no queue option {", ".join(unknown)}', section=section)
    if options.get('url') is not None:
        raise ConfigError('only the configuration can say that a queue is on a broker', section=section)
    values = {key: one._asdict() if isinstance(one, RetryPolicy) else one for key, one in options.items()}
    read: dict[str, Any] = json.loads(json.dumps(values))
    return read


class Declarations:
    """The records of a spool's declared queues.

    :param run: the directory ``.run``.
    :param expiry_clock: the time by which queues expire.
    """

    def __init__(
        self,
        run: str,
        disk: Disk,
        clock: Clock,
        name_generator: NameGenerator,
        expiry_clock: ExpiryClock | None = None,
    ) -> None:
        self.disk = disk
        self.clock = clock
        self._expiry_clock = expiry_clock or ExpiryClock(clock)
        self._name_generator = name_generator
        self._path = os.path.join(run, DECLARED)
        # One object from the start: threads that each made it at first use would close it under each other.
        self._folder = Folder(self._path, self.disk)
        self._is_made = False

    @property
    def folder(self) -> Folder:
        """The directory of the records."""
        if not self._is_made:
            self._folder.make()
            self._is_made = True
        return self._folder

    def path(self, name: str) -> str:
        """:return: the path of a file beside the records."""
        return f'{self._path}/{name}'

    def is_made(self) -> bool:
        """Was anything ever declared?"""
        return self._is_made or self._folder.exists()

    @contextmanager
    def lock(self, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
        """Keep everybody else from changing declarations: yield whether that could be had.

        :param shared: only that: others may look at the same time.
        :param wait: until it is free; otherwise it may be that it was not.
        :raises LockTimeoutError: another process keeps it.
        """
        with self.folder.path_in_errors(DECLARED_LOCK):
            fd = self.disk.open_lock_file(DECLARED_LOCK, self.folder.fd)
        try:
            if wait:
                self.disk.lock_when_free(fd, 'the declarations', shared=shared)
            yield wait or self.disk.lock(fd, shared=shared)
        finally:
            self.disk.unlock_and_close(fd)

    def names(self) -> list[str]:
        """:return: the declared queues, those that are being deleted included, in no order."""
        return [name for name in self.folder.names() if not name.startswith('.')] if self.is_made() else []

    def get(self, name: str) -> Declaration | None:
        """:return: the declaration of a queue; None if there is none, or it is being deleted."""
        declaration = self.read(name)
        return None if declaration is None or declaration.deleted else declaration

    def read(self, name: str) -> Declaration | None:
        """:return: the record as it stands."""
        content = self.read_bytes(name)
        if content is None:
            return None
        try:
            stored = parse_json(content, name)[0]
            fields = {_FIELDS_BY_STORED_NAME.get(key, key): value for key, value in stored.items()}
            fields['discard_causes'] = tuple(fields.get('discard_causes', ()))
            fields['options'] = _with_new_names(fields.get('options', {}))
            declaration = Declaration(name, **fields)
            declaration.applied_to(QueueOptions())
        except (CorruptEntryError, ValueError, TypeError, AttributeError, OverflowError) as error:
            # A power cut may leave an empty file of a queue that was not to last.
            log_event(log, logging.WARNING, None, 'declaration unreadable', queue=name, error=error)
            return None
        return declaration

    def read_bytes(self, name: str) -> bytes | None:
        """:return: the content of a file beside the records; None if there is none."""
        if not self.is_made():
            return None  # nothing was ever declared here, and looking must not change that
        return self.folder.read(name, MAX_RECORD_BYTES)

    def write(self, declaration: Declaration) -> int:
        """Put a record in place.  Assumes that the lock is held.

        :return: its descriptor, which holds the lock on it: close it when nobody need know any more that this process
            works on it.
        """
        values = declaration._asdict()
        del values['name']
        fields = {_STORED_AS.get(key, key): value for key, value in values.items()}
        content = json.dumps(fields, separators=(',', ':')).encode()
        return self.write_bytes(declaration.name, content, sync=declaration.is_durable)

    def write_bytes(self, name: str, content: bytes, *, sync: bool) -> int:
        """Put a file in place by write and rename.  Assumes that the lock is held.

        :return: its descriptor, which holds the lock on it.
        """
        return self.folder.replace_locked(name, content, sync=sync, modified_ns=self.clock.time_ns())

    def new_name(self) -> str:
        """:return: a name that nothing else has."""
        return self._name_generator.digest('00000000')

    def remove(self, name: str) -> None:
        """Take a record away.  Assumes that the lock is held."""
        try:
            with self.folder.path_in_errors(name):
                self.disk.unlink(name, dir_fd=self.folder.fd)
        except FileNotFoundError:
            pass

    def is_locked(self, name: str) -> bool:
        """Does a living process hold the lock on this record?"""
        opened = self.disk.open_locked(name, self.folder.fd)
        if opened is None:
            return self.disk.exists(name, self.folder.fd)
        self.disk.unlock_and_close(opened[0])
        return False

    def note_use(self, name: str, used_ns: int | None = None) -> None:
        """Note that the queue is used now, or was at another time."""
        used_ns = self.clock.time_ns() if used_ns is None else used_ns
        try:
            fd = self.disk.open(name, os.O_RDONLY | OPEN_FLAGS, dir_fd=self.folder.fd)
        except OSError:
            return
        try:
            self.disk.utime(fd, ns=(used_ns, used_ns))
        except PermissionError:
            pass  # another user's: it expires by that user's own use of it
        finally:
            self.disk.close_quietly(fd)

    def unused_s(self, name: str) -> float:
        """:return: seconds since the queue was last used; a use in the future is none of which the time is known, and so it is noted anew."""
        try:
            status = self.disk.stat(name, dir_fd=self.folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            return 0.0
        now_ns, expiry_ns = self.clock.time_ns(), self._expiry_clock.time_ns()
        if status.st_mtime_ns > now_ns + CLOCK_SLACK_NS:
            self.note_use(name, now_ns)
            return 0.0
        unused_ns = max(0, expiry_ns - status.st_mtime_ns)
        if expiry_ns < now_ns and status.st_mtime_ns <= expiry_ns:
            # The clock was set forward since: the use is as long ago as before.
            self.note_use(name, now_ns - unused_ns)
        return unused_ns / NS_PER_S

    def clear_drafts(self) -> None:
        """Remove what processes left that died while they wrote."""
        if self.is_made():
            self.folder.clear_drafts()
