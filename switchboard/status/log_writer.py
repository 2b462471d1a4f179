"""Lines to a descriptor whose reader may have stopped reading: the log of a process that must not wait for it.

A standard error that is a pipe, a terminal or a service manager's socket blocks its writers when nobody empties it, and a runner that floods its
output fills it in no time.  So no write here waits: lines that are not taken are kept up to `MAX_WAITING_BYTES`, then dropped and counted.  A thread for it was
rejected, because the master forks; and setting the inherited descriptor to non-blocking would have set it for all others that have it.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable

MAX_WAITING_BYTES = 4 << 20
# A reader that is only slow loses nothing of a burst: it is waited for, at most so long at once, and for that part of all time.
PATIENCE_S, PATIENCE_PART = 0.5, 0.02
# Less is not worth a wait, of which each line of a flood would have one.
LEAST_PATIENCE_S = 0.05
# A terminal is ready where it has room for anything.  The kernel gives it room by 256 bytes, and a line's end takes two of them.
_TERMINAL_BYTES = 128


def nonblocking_copy(descriptor: int) -> int:
    """Open what lies behind a descriptor once more, so that writes to it do not wait and writes by others do as before.

    :return: the new descriptor; or the old one: of a file, which does not wait, of a socket, or of a pipe that another user has opened for this process.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return descriptor
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fresh = os.open(f'/proc/self/fd/{descriptor}', flags)
    except OSError:
        return descriptor
    if fresh > 2:
        return fresh
    try:  # a standard stream was closed; its number is not ours to take
        return fcntl.fcntl(fresh, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fresh)


def write_nonblocking(descriptor: int, content: bytes) -> int:
    """Write to a descriptor as much as is taken at once.

    :return: how many bytes were taken.
    :raises BlockingIOError: none.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        connection = socket.socket(fileno=descriptor)
        try:
            return connection.send(content, socket.MSG_DONTWAIT)
        finally:
            connection.detach()
    if not stat.S_ISREG(mode) and os.get_blocking(descriptor):
        # It could not be opened anew.  Of a pipe or a terminal that is ready so much is taken at once.
        content = content[: _TERMINAL_BYTES if os.isatty(descriptor) else select.PIPE_BUF]
        if not _is_ready(descriptor, 0):
            raise BlockingIOError
    return os.write(descriptor, content)


def _is_ready(descriptor: int, most_s: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    return bool(poller.poll(most_s * 1000))


class LogWriter:
    """Whole lines in their order, and a count of those that nobody took.

    :param note: makes the line that says how many were lost.
    """

    def __init__(self, note: Callable[[int], bytes]) -> None:
        self._note = note
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._has_begun = False  # the first that waits is the rest of a line
        self._patience_s, self._waited_s = PATIENCE_S, time.monotonic()

    def write(self, descriptor: int, line: bytes) -> None:
        """Write a line after those that wait, which may give a slow reader a moment."""
        if self._pid != os.getpid():  # what waited at a fork is the parent's to write
            self._forget()
        self._add(line)
        self.flush_and_wait(descriptor)

    def _add(self, line: bytes) -> None:
        if self._bytes + len(line) > MAX_WAITING_BYTES:
            self._lost += 1
        else:
            self._waiting.append(line)
            self._bytes += len(line)

    def flush(self, descriptor: int) -> bool:
        """Write as much as is taken at once.

        :return: whether nothing waits any more.
        """
        if self._pid != os.getpid():
            self._forget()
        try:
            self._write_all(descriptor)
            if self._lost:
                lost, self._lost = self._lost, 0
                self._add(self._note(lost))
                self._write_all(descriptor)
        except BlockingIOError:
            return False
        except OSError:  # a full disk, a pipe without a reader: what comes later may find it mended
            self._lost += sum(each != b'\n' for each in self._waiting)
            self._waiting.clear()
            if self._has_begun:
                self._waiting.append(b'\n')
            self._bytes, self._has_begun = len(self._waiting), False
        return True

    def _write_all(self, descriptor: int) -> None:
        while self._waiting:
            line = self._waiting[0]
            taken = write_nonblocking(descriptor, line)
            self._bytes -= taken
            if taken == len(line):
                self._waiting.popleft()
                self._has_begun = False
            else:
                self._waiting[0] = line[taken:]
                self._has_begun = True

    @property
    def is_behind(self) -> bool:
        """True while lines wait."""
        return bool(self._waiting) and self._pid == os.getpid()

    def flush_and_wait(self, descriptor: int) -> None:
        """Write as much as is taken, and wait for a slow reader as long as patience lasts."""
        if self.flush(descriptor):
            return
        now_s = time.monotonic()
        self._patience_s = min(PATIENCE_S, self._patience_s + PATIENCE_PART * (now_s - self._waited_s))
        if self._patience_s >= LEAST_PATIENCE_S:
            self._wait(descriptor, now_s + self._patience_s)
            began_s, now_s = now_s, time.monotonic()
            self._patience_s = max(0.0, self._patience_s - (now_s - began_s))
        self._waited_s = now_s

    def _wait(self, descriptor: int, until_s: float) -> None:
        while (
            (left_s := until_s - time.monotonic()) > 0
            and _is_ready(descriptor, left_s)
            and not self.flush(descriptor)
        ):
            pass
