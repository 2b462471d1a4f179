"""The standard streams of a runner's process, as events in the log: lines with a time, the runner and its process id.

Two ways lead there.  What Python code prints in the process is seen by `LoggedStream`, which knows the entry at work.  What goes to the descriptors past
it (a program that inherits them, a library in C, the interpreter's own last words) comes through a pipe to the master, which outlives the process:
`OutputPipes`.  A thread in the runner was rejected as its reader: it would die with the process, and with it what a crash had to say.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import selectors
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from switchboard.events import FILEBASE_AT_WORK, log_event
from switchboard.status import log

LEVELS: Mapping[str, int] = MappingProxyType({'stdout': logging.INFO, 'stderr': logging.WARNING})
DESCRIPTORS: Mapping[str, int] = MappingProxyType({'stdout': 1, 'stderr': 2})
# The master reads no more at once, so that a process which writes without end does not keep it from the others.
READ_BYTES = 16 * 1024
# Of a process that has ended: as much as a pipe holds.  What it has started may go on writing.
LAST_BYTES = 64 * 1024


def split(content: bytes) -> tuple[list[bytes], bytes]:
    """:return: whole lines, or pieces of those that are too long; and what comes before the next line's end."""
    *lines, rest = content.split(b'\n')
    while len(rest) >= log.MAX_CHARACTERS:
        lines.append(rest[: log.MAX_CHARACTERS])
        rest = rest[log.MAX_CHARACTERS :]
    return lines, rest


class LoggedStreams:
    """Both standard streams as `LoggedStream`; a master makes them in advance for the process that is to use them.

    :param logger_name: one of `LOGGER_NAMES`.
    """

    def __init__(self, logger_name: str = 'runner') -> None:
        self._raw = [LoggedStream(name, logger_name) for name in LEVELS]
        self._stdout, self._stderr = (
            io.TextIOWrapper(cast(Any, each), encoding='utf-8', errors='backslashreplace', write_through=True)
            for each in self._raw
        )

    def use(self) -> None:
        """Turn what Python code prints in this process into events, from now on."""
        sys.stdout, sys.stderr = self._stdout, self._stderr

    def end_lines(self) -> None:
        """Write the last lines, which have no end."""
        for each in self._raw:
            each.end_line()


@contextlib.contextmanager
def output_as_events(logger_name: str, *, raw: bool = False) -> Iterator[None]:
    """Turn what this process prints meanwhile into events; later it goes where it went before.

    :param raw: also the output past Python, to the descriptors: its lines are events at the end; until then they can be read in ``/proc/PID/fd``.
    """
    before = sys.stdout, sys.stderr
    with _kept(logger_name) if raw else contextlib.nullcontext():
        streams = LoggedStreams(logger_name)
        streams.use()
        try:
            yield
        finally:
            streams.end_lines()
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _kept(logger_name: str) -> Iterator[None]:
    """Keep the bytes for descriptors 1 and 2 in memory: a pipe would fill, and its only reader is the process that writes."""
    log.use_own_descriptor()
    sinks = {name: os.memfd_create(name) for name in DESCRIPTORS}
    before = {name: os.dup(descriptor) for name, descriptor in DESCRIPTORS.items()}
    for name, descriptor in DESCRIPTORS.items():
        os.dup2(sinks[name], descriptor)
    try:
        yield
    finally:
        for name, descriptor in DESCRIPTORS.items():
            os.dup2(before[name], descriptor)
            os.close(before[name])
            with open(sinks[name], 'rb') as kept:
                kept.seek(0)
                for line in iter(partial(kept.readline, log.MAX_CHARACTERS), b''):
                    log_printed_line(log.logger(logger_name), name, line)


def log_printed_line(
    logger: logging.Logger, stream: str, line: bytes, entry: str | None = None, **more: Any
) -> None:
    """Write the event of a printed line, of as much of it as the log takes; nothing if there is nothing to see."""
    if text := log.truncate(line.decode('utf-8', 'backslashreplace').rstrip()):
        log_event(logger, LEVELS[stream], entry, 'printed', stream=stream, text=text, **more)


class LoggedStream(io.RawIOBase):
    """A standard stream whose lines are events, each with the entry at work; blank ones are left out.

    :param name: ``stdout`` or ``stderr``.
    :param logger_name: one of `LOGGER_NAMES`.
    """

    def __init__(self, name: str, logger_name: str = 'runner') -> None:
        self._name = name
        self._logger_name = logger_name
        # Of two threads that print at the same time, each has its own line.
        self._own = threading.local()

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def fileno(self) -> int:
        """:return: the descriptor, for a program that is to inherit it."""
        return DESCRIPTORS[self._name]

    def write(self, written: Any) -> int:
        """See `io.RawIOBase`: all of it is taken."""
        content = bytes(written)
        if getattr(self._own, 'is_writing', False):  # the log itself complains, about this very line
            os.write(self.fileno(), content)
            return len(content)
        rest, entry = getattr(self._own, 'rest', (b'', None))
        if rest and entry != FILEBASE_AT_WORK.get():
            self._say(rest, entry)
            rest = b''
        lines, rest = split(rest + content)
        for line in lines:
            self._say(line, FILEBASE_AT_WORK.get())
        self._own.rest = (rest, FILEBASE_AT_WORK.get())
        return len(content)

    def _say(self, line: bytes, entry: str | None) -> None:
        self._own.is_writing = True
        try:
            log_printed_line(log.logger(self._logger_name), self._name, line, entry)
        finally:
            self._own.is_writing = False

    def end_line(self) -> None:
        """Write the last line, which has no end."""
        rest, entry = getattr(self._own, 'rest', (b'', None))
        self._own.rest = (b'', None)
        self._say(rest, entry)

    def close(self) -> None:
        """End the last line, and take no more."""
        if not self.closed:
            self.end_line()
        super().close()


class OutputPipes:
    """The pipes behind descriptors 1 and 2 of one process, which its master reads.

    :param selector: where the reading ends are registered; a loop calls `on_readable` of what it finds there.
    :param process_name: the process in the log: ``in 1/2``.
    :raises OSError: no descriptor is left.
    """

    def __init__(self, selector: selectors.BaseSelector, process_name: str) -> None:
        # Of the process; until it is forked.
        self.pid = 0
        self._streams: list[_RawStream] = []
        try:
            for name in LEVELS:
                self._streams.append(_RawStream(self, name, selector, process_name))
        except OSError:
            self.close()
            self.close_ends()
            raise

    def ends(self) -> tuple[int, ...]:
        """:return: the writing ends, the process's 1 and 2."""
        return tuple(each.writing for each in self._streams)

    def descriptors(self) -> list[int]:
        """:return: the reading ends, which every process that is forked has to close."""
        return [each.reading for each in self._streams if each.reading >= 0]

    def close_ends(self) -> None:
        """Let the writing ends go: they are the process's now, or nobody's."""
        for each in self._streams:
            each.close_end()

    def close(self) -> None:
        """Write the rest, and read no more."""
        for each in self._streams:
            each.close()


class _RawStream:
    def __init__(
        self, output: OutputPipes, name: str, selector: selectors.BaseSelector, process_name: str
    ) -> None:
        self._output = output
        self._name = name
        self._selector = selector
        self._process_name = process_name
        self._rest = b''
        self.reading, self.writing = os.pipe2(os.O_CLOEXEC)
        # The reader's end alone: programs expect a standard output that waits for them.
        os.set_blocking(self.reading, False)
        selector.register(self.reading, selectors.EVENT_READ, self)

    def on_readable(self, _now_s: float) -> None:
        """Make lines of the bytes that have come; nothing, if its end was noticed a moment ago."""
        if self.reading >= 0:
            self._read(READ_BYTES)

    def _read(self, most: int) -> bool:
        try:
            content = os.read(self.reading, most)
        except BlockingIOError:
            return False
        if not content:  # nobody has the other end any more
            self._stop()
            return False
        lines, self._rest = split(self._rest + content)
        for line in lines:
            self._say(line)
        return True

    def _say(self, line: bytes) -> None:
        named_process = self._process_name, self._output.pid
        log_printed_line(log.logger('runner'), self._name, line, named_process=named_process)

    def _stop(self) -> None:
        if self.reading >= 0:
            with contextlib.suppress(KeyError):  # there was no memory to register it
                self._selector.unregister(self.reading)
            os.close(self.reading)
            self.reading = -1
        rest, self._rest = self._rest, b''
        self._say(rest)

    def close(self) -> None:
        left = LAST_BYTES
        while self.reading >= 0 and left > 0 and self._read(READ_BYTES):
            left -= READ_BYTES
        self._stop()

    def close_end(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1


def become_standard_streams(ends: tuple[int, ...]) -> None:
    """Have descriptors 1 and 2 of this process lead into these ends, and the log go where it went."""
    log.leave_standard_streams()
    for descriptor, end in zip(DESCRIPTORS.values(), ends, strict=True):
        os.dup2(end, descriptor)
        os.close(end)
