"""Logs: one logger for each purpose, one line for each event (see `events`), for people or as JSON.

A record is one ``write`` to a descriptor in append mode, so the lines of many processes in one file do not mix.
Rotation is `logrotate`'s work: it renames the file and asks for `reopen` (``switchboard reopen``, USR2).  Rotating by
ourselves was rejected, because sixteen processes would have to agree when.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from switchboard.events import FILEBASE_AT_WORK, format_pairs, json_value, log_event
from switchboard.regular_file import open_or_make
from switchboard.status.alive import MASTER_FILE_MODE
from switchboard.status.log_writer import LogWriter, nonblocking_copy

LOGGER_NAMES = ('queue', 'exchange', 'runner', 'master', 'drop', 'web', 'config')
ROOT = 'switchboard'
# Control characters of a message would forge lines and play tricks on terminals.
CONTROL = re.compile('[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]')


# Of a line that is not ours, so much is kept: a library may log all that it was sent.
MAX_CHARACTERS = 8192
# The words in which systemd's journal reads how severe a line is, from the most severe down (see sd-daemon(3)).
PRIORITIES = (
    (logging.CRITICAL, '<2>'),
    (logging.ERROR, '<3>'),
    (logging.WARNING, '<4>'),
    (logging.INFO, '<6>'),
    (0, '<7>'),
)
# What every record has; all else was given as ``extra``.
_KNOWN = frozenset({*vars(logging.makeLogRecord({})), 'message', 'asctime', 'taskName'})


def logger(name: str) -> logging.Logger:
    """:return: the logger of one of `LOGGER_NAMES`."""
    assert name in LOGGER_NAMES, name
    return logging.getLogger(f'{ROOT}.{name}')


def escape(text: str) -> str:
    """:return: the text with its control characters written out, fit for one line on a terminal."""
    return CONTROL.sub(lambda match: match[0].encode('unicode_escape').decode('ascii'), text)


def rfc3339(created: float) -> str:
    """:return: the time as RFC 3339 in UTC, to the millisecond."""
    return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(created)) + f'.{int(created * 1000) % 1000:03d}Z'


class LineFormatter(logging.Formatter):
    """For people: time, level, logger, process, message; a traceback follows, indented.

    ``process_name`` is the name of the process, such as ``in 1/2``; a record about another process has that one as its ``named_process``.
    """

    process_name = 'master'

    def format(self, record: logging.LogRecord) -> str:
        name = record.name
        if name.startswith(f'{ROOT}.'):
            name = name.split('.')[1]
        process_name, pid = getattr(record, 'named_process', (self.process_name, record.process))
        who = name if name == process_name else f'{name} {process_name}'
        head = f'{rfc3339(record.created)} {record.levelname.lower()} {who}[{pid}]'
        text = record.getMessage()
        if not hasattr(record, 'members'):
            text = ' '.join(
                filter(None, (FILEBASE_AT_WORK.get(), truncate(text), format_pairs(**_extra(record))))
            )
        return '\n    '.join([f'{head} {escape(text)}', *map(escape, self.traceback_lines(record))])

    def traceback_lines(self, record: logging.LogRecord) -> list[str]:
        """:return: the lines of the record's traceback, if it has one."""
        return self.formatException(record.exc_info).splitlines() if record.exc_info else []


class JsonFormatter(LineFormatter):
    """For programs: one JSON object a line.  Readers ignore members that they do not know."""

    def format(self, record: logging.LogRecord) -> str:
        process_name, pid = getattr(record, 'named_process', (self.process_name, record.process))
        fields: dict[str, Any] = {
            'time': rfc3339(record.created),
            'level': record.levelname.lower(),
            'logger': record.name,
            'process': process_name,
            'pid': pid,
        }
        members: Mapping[str, Any] | None = getattr(record, 'members', None)
        for key, value in (_members(record) if members is None else members).items():
            fields.setdefault(key, value)
        if record.exc_info:
            fields['traceback'] = self.traceback_lines(record)
        # What breaks lines or acts on a terminal, and JSON lets stand.
        return CONTROL.sub(
            lambda match: f'\\u{ord(match[0]):04x}', json.dumps(fields, ensure_ascii=False, default=str)
        )


def truncate(text: str) -> str:
    """:return: the text, or its beginning and how much was left out."""
    left_out = len(text) - MAX_CHARACTERS
    return f'{text[:MAX_CHARACTERS]}... ({left_out} characters more)' if left_out > 0 else text


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _KNOWN}


def _members(record: logging.LogRecord) -> dict[str, object]:
    """:return: the fields of a line that was not written by `event`: a runner's own, or a library's."""
    members: dict[str, object] = {
        'filebase': FILEBASE_AT_WORK.get(),
        'event': 'logged',
        'message': truncate(record.getMessage()),
    }
    members |= {key: json_value(value) for key, value in _extra(record).items()}
    return {key: value for key, value in members.items() if value is not None}


def with_priority(text: str, level: int) -> str:
    """:return: the text as the journal reads it, each line of this level."""
    priority = next(word for lowest, word in PRIORITIES if level >= lowest)
    return priority + text.replace('\n', f'\n{priority}')


def is_journal(descriptor: int) -> bool:
    """Does a descriptor lead to systemd's journal, as the environment says of a service's?"""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get('JOURNAL_STREAM') == f'{status.st_dev}:{status.st_ino}'


class LogFile(logging.Handler):
    """Appends to a file that may be renamed away under it; or to standard error, when there is no file.  Lines for the journal begin with their priority.

    :param path: the file; without one, descriptor 2.
    :param directory: the descriptor of the directory in which it lies, if no link is to be followed on the way to it.
    :param takes_stderr: whether descriptors 1 and 2 lead to the file as well, so that what an interpreter or a
        library prints is not lost when nobody looks at the terminal.
    :param waits: whether a reader that is slow is waited for, as a command in a shell does it; otherwise see `LogWriter`.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        directory: int | None = None,
        takes_stderr: bool = False,
        waits: bool = False,
    ) -> None:
        super().__init__()
        self.path = path.absolute() if path else None
        # A descriptor of its own, for it is opened anew as long as there is a log.
        self._directory = None if directory is None else fcntl.fcntl(directory, fcntl.F_DUPFD_CLOEXEC, 3)
        self.takes_stderr = takes_stderr
        self._descriptor = 2 if waits or path else nonblocking_copy(2)
        self._writer = None if waits else LogWriter(self._lost)
        self._is_journal = path is None and is_journal(2)
        self.reopen()

    def reopen(self) -> None:
        """Open the file of that name, which is a new one after a rotation.  The old one stays in use if that fails."""
        if self.path is None:
            return
        # Not to wait is said for a fifo; to a file it makes no difference.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        if self._directory is None:
            fresh = os.open(self.path, flags | os.O_CREAT, MASTER_FILE_MODE)
        else:
            try:
                fresh = open_or_make(self.path.name, flags, MASTER_FILE_MODE, self._directory)
            except OSError as error:
                error.filename = str(self.path)
                raise
        if self._descriptor == 2:
            self._descriptor = fresh
        else:
            # The number stays the same, for the line that a signal interrupts may be just about to be written to it.
            os.dup2(fresh, self._descriptor, inheritable=False)
            os.close(fresh)
        if self.takes_stderr:
            for stream in (sys.stdout, sys.stderr):
                # Closed, or full: the new file is in use all the same.
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os.dup2(self._descriptor, 1)
            os.dup2(self._descriptor, 2)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # arguments that do not fit the message are the caller's slip
            message = truncate(repr(record.msg))
            line = self._own(
                lambda own: log_event(
                    own, logging.ERROR, None, 'logging error', message=message, exc_info=True
                )
            )
        if self._writer is not None:
            self._writer.write(self._descriptor, line)
            return
        with contextlib.suppress(OSError):  # a full disk ends nobody, and there is nowhere left to say it
            os.write(self._descriptor, line)

    def _line(self, record: logging.LogRecord) -> bytes:
        text = self.format(record)
        if self._is_journal:
            text = with_priority(text, record.levelno)
        return f'{text}\n'.encode('utf-8', 'backslashreplace')

    def _own(self, say: Callable[[logging.Logger], None]) -> bytes:
        """:return: a line of the log about the log: it cannot be logged while a line is being written."""
        lines: list[bytes] = []
        own = logging.Logger(f'{ROOT}.master')
        own.handle = lambda record: lines.append(self._line(record))  # type: ignore[method-assign]  # of one object, and for one line
        say(own)
        return b''.join(lines)

    def _lost(self, number: int) -> bytes:
        return self._own(lambda own: log_event(own, logging.WARNING, None, 'log lines lost', number=number))

    def flush(self) -> None:
        """Write what waits for its reader and is taken now."""
        if self._writer is not None:
            self._writer.flush(self._descriptor)

    def flush_and_wait(self) -> None:
        """Write what waits for its reader, and wait a little for that."""
        if self._writer is not None:
            self._writer.flush_and_wait(self._descriptor)

    def fileno(self) -> int:
        """:return: the descriptor; its number stays the same for good once there is a file."""
        return self._descriptor

    def is_behind(self) -> bool:
        """:return: whether lines wait for their reader."""
        return self._writer is not None and self._writer.is_behind

    def leave_standard_streams(self) -> None:
        """Write to a descriptor of its own from now on, and have 1 and 2 lead wherever this process likes."""
        self.takes_stderr = False
        self.use_own_descriptor()

    def use_own_descriptor(self) -> None:
        """Write to a descriptor of its own from now on."""
        if self._descriptor == 2:
            self._descriptor = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)

    def close(self) -> None:
        self.flush_and_wait()
        if self._descriptor != 2:
            os.close(self._descriptor)
            self._descriptor = 2
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None
        super().close()

    def descriptors(self) -> list[int]:
        """:return: the descriptors that a process has to keep when it closes all others."""
        return [each for each in (self._descriptor, self._directory) if each is not None and each != 2]


# What `configure` has opened: one log, or none.
_opened: list[LogFile] = []


def configure(
    path: Path | None = None,
    *,
    directory: int | None = None,
    level: str = 'INFO',
    as_json: bool = False,
    takes_stderr: bool = False,
    waits: bool = False,
) -> LogFile:
    """Send all our loggers to one place, in one form, instead of where they went before.

    :param path: the file, made if need be; without one, standard error.
    :param directory: as in `LogFile`, and so are the others.
    """
    root = logging.getLogger(ROOT)
    while _opened:
        before = _opened.pop()
        root.removeHandler(before)
        before.close()
    log_file = LogFile(path, directory=directory, takes_stderr=takes_stderr, waits=waits)
    log_file.setFormatter(JsonFormatter() if as_json else LineFormatter())
    root.addHandler(log_file)
    _opened.append(log_file)
    root.setLevel(level.upper())
    root.propagate = False
    return log_file


def capture_other_loggers() -> None:
    """Have what other libraries and the users' own code log in this process come to our log too, at our level."""
    ours, root = logging.getLogger(ROOT), logging.getLogger()
    for log_file in _opened:
        if log_file not in root.handlers:
            root.addHandler(log_file)
    root.setLevel(max(ours.getEffectiveLevel(), logging.INFO))


def leave_standard_streams() -> None:
    """Have the log go where it went, whatever descriptors 1 and 2 are from now on."""
    for log_file in _opened:
        log_file.leave_standard_streams()


def use_own_descriptor() -> None:
    """Have the log go where it went while descriptors 1 and 2 lead elsewhere for a while."""
    for log_file in _opened:
        log_file.use_own_descriptor()


def descriptors() -> list[int]:
    """:return: the descriptors of the file that `configure` opened."""
    return [descriptor for log_file in _opened for descriptor in log_file.descriptors()]


def add_filter(which: logging.Filter) -> None:
    """Have the log of this process leave out what a filter does not let pass."""
    for log_file in _opened:
        log_file.addFilter(which)


def flush() -> bool:
    """Write what waits for a reader, so far as it is taken now.

    :return: whether all is written.
    """
    for log_file in _opened:
        log_file.flush()
    return not any(log_file.is_behind() for log_file in _opened)


def flush_and_wait() -> None:
    """Write what waits before this process ends, and wait a little for its reader."""
    for log_file in _opened:
        log_file.flush_and_wait()


def descriptor() -> int:
    """:return: where the lines go: for what writes past Python."""
    return next((each.fileno() for each in _opened), 2)


def set_process_name(process_name: str) -> None:
    """Let the lines of this process say who it is: ``in 1/2``."""
    for log_file in _opened:
        if isinstance(log_file.formatter, LineFormatter):
            log_file.formatter.process_name = process_name


def reopen() -> list[str]:
    """Reopen the file that `configure` opened.  Fit for a signal handler: it does not log.

    :return: the error, in words; the old file is in use then.
    """
    errors = []
    for log_file in _opened:
        try:
            log_file.reopen()
        except OSError as error:
            errors.append(f'cannot reopen the log {format_pairs(path=log_file.path, error=error.strerror)}')
    return errors
