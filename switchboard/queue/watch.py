"""Sleeping until something happens: a name in some directories, a word from another thread or a signal handler, a timer.

inotify tells new names at once, but a busy process would get an event for each of its own renames: a watch stands only while there is
nothing to do, and its owner looks at the directory once more after setting it.  Where there is no inotify, or a file system sends no
events (NFS), the timer is all there is; so every sleep has one.

Rejected: ``eventfd`` for the word, which exists on Linux only, and cannot carry the number of a signal.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# The kernel's own numbers (sys/inotify.h): the library is imported when something is watched, because it brings ctypes, which takes
# longer to load than a command line that only looks.
_ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
_MOVE_SELF, _UNMOUNT, _Q_OVERFLOW, _IGNORED, _ONLYDIR = 0x800, 0x2000, 0x4000, 0x8000, 0x1000000

# A name that is complete.  Never CREATE: a file that is being created is not finished.
ARRIVALS = _MOVED_TO | _CLOSE_WRITE | _ONLYDIR
RENAMES = _MOVED_TO | _ONLYDIR
# A new directory, and a file in a maildir: some mail servers link a finished file into it.
CREATIONS = _CREATE
CLOSED = _CLOSE_WRITE
DEPARTURES = _MOVED_FROM | _DELETE
# The directory itself was renamed away: names come elsewhere from now on.
MOVED = _MOVE_SELF
# Its own attributes have changed (the event has no name then): another directory may have taken its place, or it is to be deleted.
RENEWED = _ATTRIB
LOSSES = _Q_OVERFLOW | _UNMOUNT
IGNORED = _IGNORED

# Of the events that have come, so many bytes are read with one call: some 700 of entries.
EVENTS_BYTES = 65_536
# An event as the kernel writes it, up to its name: the watch, `_CLOSE_WRITE` or `_MOVED_TO` and nothing else, the cookie, the name's length.  Zeros
# follow the name.
_ARRIVAL_HEAD = r'[\s\S]{4}[\x08\x80]\0{3}[\s\S]{4}[\s\S]\0{3}'

# Without events, how long a message may lie before it is seen.
POLL_S = 1.0
# A sleep without an end is made of such sleeps: Ctrl-C that comes in the instant before one, when Python has last looked for signals and the
# kernel has not begun to wait, does not end it, and is dealt with when it is over.
SIGNAL_CHECK_S = 1.0
# The kernel counts milliseconds in 31 bits.  An entry may be delayed for longer.
LONGEST_S = 1_000_000.0
# As many bytes as a pipe holds: one read empties it.
PIPE_BYTES = 65_536
# How long a closing or waking thread waits for another one to have done reading: no longer, since after a fork that thread may not be there.
LOCK_WAITS_S = 1.0


def load_inotify() -> Any:
    """:return: the library's class; None where there is no inotify."""
    try:
        from inotify_simple import INotify  # type: ignore[import-untyped]  # it has no types
    except ImportError:  # not Linux
        return None
    return INotify


def arrival_matcher(names: str) -> Callable[[bytes], object]:
    """:return: a function that says of some events, as the kernel gives them, whether all are arrivals of names that match a pattern.

    That takes a fifth of the time of reading each.
    """
    import re  # here, because `drop` never asks

    return re.compile(f'(?:{_ARRIVAL_HEAD}{names}\\0+)+'.encode()).fullmatch


def wait_readable(descriptors: Sequence[int], timeout_s: float | None) -> list[int]:
    """Wait until one of some descriptors can be read.

    :param timeout_s: how long at most; None for ever.
    :return: the descriptors that can be read; none if the time is over.
    """
    if timeout_s is not None:
        return _readable(descriptors, min(timeout_s, LONGEST_S))
    while not (ready := _readable(descriptors, SIGNAL_CHECK_S)):
        pass
    return ready


def _readable(descriptors: Sequence[int], timeout_s: float) -> list[int]:
    if hasattr(select, 'poll'):
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        # Rounded up: waking a moment too early would mean a round for nothing.
        return [fd for fd, _ in poll.poll(int(timeout_s * 1000) + (timeout_s > 0))]
    # eventlet takes `poll` and `epoll` away; its `select` lets other green threads run, and knows no limit of descriptors.
    return select.select(descriptors, (), (), timeout_s)[0]


class SelfPipe:
    """A descriptor that is readable from the moment at which something was written to it until it is emptied.

    Signal handlers and other threads may write.  It crosses a fork, needs no clean-up by name, and is waited for with a time-out.
    """

    def __init__(self) -> None:
        self.read_end = self.write_end = -1
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """:return: the descriptor to wait on."""
        return self.read_end

    def wake(self) -> None:
        """Make it readable.  Safe to call from a signal handler."""
        try:
            os.write(self.write_end, b'!')
        except BlockingIOError:
            pass  # it is readable already

    def empty(self) -> bytes:
        """:return: the bytes that were written since the last call; none if there are none.

        Under eventlet only when it is readable: its `os.read` waits where there is nothing, whatever the descriptor was made as.
        """
        try:
            return os.read(self.read_end, PIPE_BYTES)
        except BlockingIOError:
            return b''

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Give the descriptors back.  After a fork, parent and child close their own.

        Not as `Disk.close` does: a loop that has waited on a number must forget it before another file gets the number, or that file is not watched.
        gevent's `os.close` has its loop forget it, and closes in the loop's next round.
        """
        for end in (self.read_end, self.write_end):
            if end >= 0:
                close(end)
        self.read_end = self.write_end = -1

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        self.close(close)  # at the end of a process `os` may be gone already


class DirectoryWatch:
    """Sleeps until a name comes into one of some directories, another thread wakes it, or the time is over.

    inotify is opened with the first watch: a user may have few of its descriptors (128, unless the administrator says otherwise).
    """

    def __init__(self) -> None:
        # Watches by directory, and directories by watch: the kernel never gives a watch's number again.
        self._watched: dict[str, int] = {}
        self._directories: dict[int, str] = {}
        self._inotify: Any = None  # the library has no types
        self._number = -1
        # Another thread may close it, and a descriptor's number is somebody else's then.
        self._lock = threading.RLock()
        self.pipe = SelfPipe()

    def open(self) -> bool:
        """:return: False if the kernel tells no events: there is no inotify, or this user has as many as allowed, perhaps not for long."""
        inotify = load_inotify()
        if self._inotify is None and inotify is not None and self.pipe.read_end >= 0:
            try:
                # Its descriptor is closed by the watch: where both are rubbish, either may go first.
                self._inotify = inotify(nonblocking=True, closefd=False)
                self._number = self._inotify.fileno()
            except OSError:
                return False
        return self._inotify is not None

    def watch(self, directory: str, mask: int) -> bool:
        """Watch one more directory.  Look at it once more afterwards, before sleeping.

        :param mask: the events of interest.
        :return: False if that is not possible: then only the timer tells.
        """
        with self._lock:
            if directory in self._watched:
                return True
            if not self.open():
                return False
            try:
                watch = self._inotify.add_watch(directory, mask | RENEWED)
            except OSError:  # the limit of watches, or the directory is gone
                return False
            self._watched[directory] = watch
            self._directories[watch] = directory
            return True

    def watch_only(self, directories: set[str], mask: int) -> bool:
        """Watch these directories from now on, and no others.

        :return: False if one of them cannot be watched.
        """
        with self._lock:
            if not directories and not self._watched:
                return True
            for directory in self._watched.keys() - directories:
                self.unwatch(directory)
            return self.open() and all(self.watch(directory, mask) for directory in directories)

    def unwatch(self, directory: str) -> None:
        """Watch a directory no longer."""
        with self._lock:
            watch = self._watched.pop(directory, None)
            if watch is None or self._inotify is None:
                return
            self._directories.pop(watch, None)
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                pass  # the directory went away, and the watch with it

    def unwatch_all(self) -> None:
        """Watch nothing."""
        with self._lock:
            for directory in list(self._watched):
                self.unwatch(directory)

    def watch_number(self, directory: str | None) -> int | None:
        """:return: the number of a directory's watch, another one each time that it is set; None if it is not watched."""
        return None if directory is None else self._watched.get(directory)

    def events(self, is_ignorable: Callable[[bytes], object] | None = None) -> list[tuple[str, str, int]]:
        """Read the events, so that they wake nobody any more.

        A directory in whose place another one may stand by now is watched no longer: it is to be watched, and looked at, anew.

        :param is_ignorable: says of many events together that none of them is of interest (see `arrival_matcher`): then they are left out.
        :return: directory, name and mask of each; the directory is empty where the kernel says that it lost some.
        """
        with self._lock:
            read = []
            for event in self._read(is_ignorable):
                directory = self._directories.get(event.wd)
                if directory is None:
                    if event.mask & LOSSES:
                        read.append(('', '', event.mask))
                    continue  # of a watch that was removed
                if event.mask & RENEWED:
                    if event.name:
                        continue  # of something in it
                    self.unwatch(directory)
                if event.mask & IGNORED:  # the directory was deleted
                    self._directories.pop(event.wd)
                    self._watched.pop(directory, None)
                read.append((directory, event.name, event.mask))
            return read

    def _read(self, is_ignorable: Callable[[bytes], object] | None) -> Iterator[Any]:
        while self._inotify is not None and wait_readable([self._inotify.fileno()], 0):
            content = os.read(self._inotify.fileno(), EVENTS_BYTES)
            if is_ignorable is None or not is_ignorable(content):
                from inotify_simple import parse_events  # loaded by `load_inotify`

                yield from parse_events(content)
            if len(content) < EVENTS_BYTES // 2:
                break

    def clear_wakes(self) -> bool:
        """Forget every :meth:`wake`.

        :return: whether there was one.
        """
        with self._lock:
            if self.pipe.read_end < 0 or not wait_readable([self.pipe.read_end], 0):
                return False
            self.pipe.empty()
            return True

    def descriptors(self) -> list[int]:
        """:return: the descriptors that an event loop waits on; one more once something is watched."""
        with self._lock:  # another thread may be closing it
            return [self.pipe.read_end] + ([self._inotify.fileno()] if self._inotify is not None else [])

    def wait(self, timeout_s: float | None) -> bool:
        """Sleep until something comes, or the end of the time; what came is to be read.

        :return: False if the time ran out.
        """
        descriptors = self.descriptors()
        # Or another thread has closed it.
        return -1 in descriptors or bool(wait_readable(descriptors, timeout_s))

    def wake(self) -> None:
        """End the sleep, or the next one, from any thread or signal handler."""
        with self._locked_if_possible():
            if self.pipe.write_end >= 0:
                self.pipe.wake()

    def close(self) -> None:
        """Give the descriptors back.  In a forked child that ends nothing for its parent."""
        with self._locked_if_possible():
            self._close_inotify()
            self.pipe.close()
            self._watched.clear()
            self._directories.clear()

    def _close_inotify(self, close: Callable[[int], None] = os.close) -> None:
        if self._inotify is None:
            return
        self._inotify.close()
        self._inotify = None
        close(self._number)

    def __del__(self) -> None:
        self._close_inotify()

    @contextmanager
    def _locked_if_possible(self) -> Iterator[None]:
        is_mine = self._lock.acquire(timeout=LOCK_WAITS_S)
        try:
            yield
        finally:
            if is_mine:
                self._lock.release()
