"""What an idle consumer sleeps on: all its queues' directories by one inotify descriptor, and a word from another thread.

Three things wake it: a new entry (a name ending in ``.pck`` that appears), the death of another consumer (its ``.bak`` files are closed by
the kernel, which inotify tells), and a touch of an operator's (a file that is closed).  A busy consumer would be told of each of its own renames, so the watches
stand only while there is nothing to do.  Where there is no inotify, the timer is all there is.

inotify is opened when somebody is first going to sleep: a user may have few of its descriptors (128, unless the administrator says otherwise), and those
who only publish need none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from switchboard.message.naming import CLAIMED
from switchboard.store.watch import readable

try:
    from inotify_simple import INotify, flags  # type: ignore[import-untyped]
except ImportError:  # not Linux
    INotify = None

# Without events, how long a message may lie before it is seen.
POLL_S = 1.0

# How long is waited for another thread to have done reading: no longer, since after a fork that thread may not be there.
LOCK_WAITS_S = 1.0


class DirectoryWatch:
    """Watches directories while nothing is to be done."""

    def __init__(self) -> None:
        # Watches by directory, and directories by watch: the kernel never gives a watch's number again.
        self._watched: dict[str, int] = {}
        self._directories: dict[int, str] = {}
        self._inotify: INotify | None = None
        self._wake_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Another thread may close it, and a descriptor's number is somebody else's then.
        self._lock = threading.RLock()

    def _open(self) -> bool:
        if self._inotify is None and INotify is not None:
            try:
                self._inotify = INotify(nonblocking=True)
            except OSError:  # the limit of inotify instances of this user; perhaps not for long
                return False
        return self._inotify is not None

    def filenos(self) -> list[int]:
        """:return: the descriptors for an event loop; there may be one more after :meth:`follow`."""
        return [self._wake_end] + ([self._inotify.fileno()] if self._inotify is not None else [])

    def follow(self, directories: Iterable[str]) -> bool:
        """DirectoryWatch these directories from now on, and no others.  Look at them once more afterwards, before sleeping.

        :return: False if one of them cannot be watched: then only the timer tells.
        """
        with self._lock:
            return self._follow(set(directories))

    def _follow(self, wanted: set[str]) -> bool:
        if not wanted and not self._watched:
            return True
        if self._wake_end < 0 or not self._open():
            return False
        assert self._inotify is not None
        for directory in self._watched.keys() - wanted:
            self._unwatch(directory)
        mask = flags.MOVED_TO | flags.CLOSE_WRITE | flags.ONLYDIR
        for directory in wanted - self._watched.keys():
            try:
                self._watched[directory] = watch = self._inotify.add_watch(directory, mask)
            except OSError:  # the limit of watches, or the directory is gone
                return False
            self._directories[watch] = directory
        return True

    def _unwatch(self, directory: str) -> None:
        watch = self._watched.pop(directory)
        self._directories.pop(watch, None)
        try:
            self._inotify.rm_watch(watch)  # type: ignore[union-attr]
        except OSError:
            pass  # the directory went away, and the watch with it

    def rest(self) -> None:
        """Stop watching."""
        with self._lock:
            for directory in list(self._watched):
                self._unwatch(directory)

    def read(self) -> set[tuple[str, str]]:
        """Read what has come, so that it wakes nobody any more.

        :return: the claims that somebody has closed, by directory and filebase: because he died, or because he looked
            whether another one had.
        """
        with self._lock:
            return self._read() if self._wake_end >= 0 else set()

    def _read(self) -> set[tuple[str, str]]:
        # Looked at first, because eventlet's `os.read` waits where there is nothing, whatever the descriptor was made as.
        while readable([self._wake_end], 0):
            os.read(self._wake_end, 4096)
        closed = set()
        for event in self._inotify.read(timeout=0) if self._inotify is not None else ():
            directory = self._directories.get(event.wd)
            if directory is None:
                continue
            if event.mask & flags.IGNORED:  # the directory was deleted
                self._watched.pop(directory, None)
            elif event.mask & flags.CLOSE_WRITE and event.name.endswith(CLAIMED):
                closed.add((directory, event.name[: -len(CLAIMED)]))
        return closed

    def wait(self, timeout_s: float | None) -> bool:
        """Sleep until something comes, or the end of the time.

        :return: False if the time ran out.
        """
        descriptors = self.filenos()
        return -1 in descriptors or bool(
            readable(descriptors, timeout_s)
        )  # or it was closed by another thread

    def wake(self) -> None:
        """End the sleep, or the next one, from any thread."""
        with self._locked_if_possible():
            try:
                os.write(self._write_end, b'!')
            except OSError:
                pass  # it was told often enough, or is closed

    def close(self) -> None:
        """Give the descriptors back.  In a forked child that ends nothing for its parent."""
        with self._locked_if_possible():
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None
            for end in (self._wake_end, self._write_end):
                if end >= 0:
                    os.close(end)
            self._wake_end = self._write_end = -1
            self._watched.clear()

    @contextmanager
    def _locked_if_possible(self) -> Iterator[None]:
        is_mine = self._lock.acquire(timeout=LOCK_WAITS_S)
        try:
            yield
        finally:
            if is_mine:
                self._lock.release()

    def __del__(self) -> None:
        self.close()
