"""One entry of a key at a time: the lock that a queue of strict order takes with each claim, and a list of what came to an earlier place.

Which entry of a key comes first, a process finds out by reading the directory; and what it has read may be old, or have missed a name that
was given to a file meanwhile (see `Folder.reads_every_name`).  An operator holds the first entry, another process takes the second, the operator
releases the first: by an old reading it may be given out, and two of one key are at
work.  So the taker of an entry also locks its key, and does not take it if that is refused.  The kernel drops the lock with its holder.

All keys of a queue are bytes of one file, ``.run/order/<queue>``: the first eight digits of the digest say which.  The locks are those of an
open file description (``F_OFD_SETLK``), one for each claim, so threads and objects of one process keep each other out as well; the file
need not be that long.  Where the kernel has no such locks there are none, and the reading is all there is.

When an entry comes to another place than the last (given back, recovered, moved, forwarded, restored), its key is added to that file, after the rename and before
the lock of the key is let go.  A process that takes an entry looks whether its key is among those that were added since the directory was
read.  If so it reads the directory again, with the lock: then no entry of the key is taken or given back, and the reading
misses none.  Only what an operator does at the same moment may come a moment later.

A process that dies between the commit of an input and the end of its hand-off drops the lock, and leaves an input that is nowhere and outputs that are not
there yet.  So the taker also asks whether a hand-off of the key is under way.

The file begins with a name at random, and gets another one when it has grown and is emptied: that is as if all keys had been added.

Rejected: a file for each key (somebody would have to remove them), reading the directory for each claim (as dear as the queue is long), one
mark for all keys (of a thousand keys that wait for their retries each would have the directory read for all others).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from switchboard.message.naming import slice_digits_of
from switchboard.store.folder import Folder
from switchboard.store.kernel import lock_byte

_NAME_BYTES, _KEY_BYTES = 16, 4
# The list is emptied when it has so many bytes.
_MAX_BYTES = 64 * 1024


class Position(NamedTuple):
    """A place in the list of keys: what comes behind it is new."""

    name: bytes
    length: int


class OrderLock:
    """The locks of a queue's keys.

    :param folder: the directory of these files; made when the first is.
    :param is_handoff_unfinished: is an entry of the queue with the key of this one committed, and not all of its outputs there?
    """

    def __init__(
        self,
        folder: Folder,
        queue: str,
        is_handoff_unfinished: Callable[[str, str], bool] | None = None,
    ) -> None:
        self._folder = folder
        self._queue = queue
        self._disk = folder.disk
        self._is_handoff_unfinished = is_handoff_unfinished

    def lock(self, filebase: str) -> int | None:
        """Lock an entry's key.

        :return: the descriptor that holds the lock; None if another entry of the key is at work.
        :raises OSError: the file cannot be opened or made.
        """
        fd = self._open()
        try:
            if lock_byte(fd, int(slice_digits_of(filebase), 16)):
                return fd
        except BaseException:
            self._disk.close_quietly(fd)
            raise
        self._disk.close_quietly(fd)
        return None

    def is_handoff_unfinished(self, filebase: str) -> bool:
        """Is an entry of this one's key committed, and not all of its outputs there?  The hand-offs of dead processes are ended first.

        Assumes: the key is locked by the caller.

        :raises OSError: that cannot be found out.
        """
        return self._is_handoff_unfinished is not None and self._is_handoff_unfinished(self._queue, filebase)

    def _open(self) -> int:
        return self._folder.open_lock_file(self._queue, flags=os.O_RDWR | os.O_APPEND)

    def position(self, fd: int) -> Position:
        """:return: the end of the list; ask before the directory is read."""
        name = self._disk.read_all(fd, _NAME_BYTES)
        length = self._disk.fstat(fd).st_size
        if len(name) < _NAME_BYTES:
            self._begin(fd, length)
            return self.position(fd)
        return Position(name, length)

    def _begin(self, fd: int, length: int) -> None:
        self._disk.write_all(fd, os.urandom(_NAME_BYTES), length)

    def is_reordered_since(self, fd: int, filebase: str, position: Position | None) -> bool:
        """Has an entry of this one's key come to another place than the last since?"""
        if position is None or self._disk.read_all(fd, _NAME_BYTES) != position.name:
            return True
        return _bytes_of(filebase) in self._disk.read_all(fd, 2 * _MAX_BYTES, position.length)

    @property
    def is_used(self) -> bool:
        """Has anybody locked a key?  If not, nobody goes by a reading from before."""
        try:
            return self._folder.has(self._queue)
        except FileNotFoundError:
            return False

    def note_reordered(self, filebase: str) -> None:
        """Say that an entry has come to another place than the last.

        :raises OSError: it could not be said: processes that have read the directory before may give out a later one first.
        """
        fd = self._open()
        try:
            length = self._disk.fstat(fd).st_size
            if length >= _MAX_BYTES:
                self._disk.ftruncate(fd, 0)
                self._begin(fd, 0)
                length = _NAME_BYTES
            # What another process adds at the same time comes before or behind this: the kernel finds the end.
            self._disk.write_all(fd, _bytes_of(filebase), length)
        finally:
            self._disk.close_quietly(fd)


def _bytes_of(filebase: str) -> bytes:
    return int(slice_digits_of(filebase), 16).to_bytes(_KEY_BYTES, 'big')
