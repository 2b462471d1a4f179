"""One entry of a key at a time: the lock that a queue of strict order takes with each claim, and a mark of what came to an earlier place.

Which entry of a key comes first, a process finds out by reading the directory; and what it has read may be old.  An operator holds the first
entry, another process takes the second, the operator releases the first: by an old reading it may be given out, and two of one key are at
work.  So the taker of an entry also locks its key, and does not take it if that is refused.  The kernel drops the lock with its holder.

All keys of a queue are bytes of one file, ``.run/order/<queue>``: the first eight digits of the digest say which.  The locks are those of an
open file description (``F_OFD_SETLK``), one for each claim, so threads and objects of one process keep each other out as well; the file
need not be that long.  Where the kernel has no such locks there are none, and the reading is all there is.

An entry that comes to another place than the last (released, moved, forwarded, restored) changes the file's content, after its rename.  A process that takes
an entry compares: should the content be another than before he read the directory, he gives it back and reads anew.

Rejected: a file for each key (somebody would have to remove them), reading the directory for each claim (as dear as the queue is long).
"""

from __future__ import annotations

import os

from switchboard.message.naming import key_of
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.kernel import lock_byte

_MARK_BYTES = 16


class OrderLock:
    """The locks of a queue's keys.

    :param folder: the directory of these files; made when the first is.
    """

    def __init__(self, folder: Folder, queue: str, disk: Disk) -> None:
        self._folder = folder
        self._queue = queue
        self._disk = disk

    def lock(self, filebase: str) -> int | None:
        """Lock an entry's key.

        :return: the descriptor that holds the lock; None if another entry of the key is at work.
        :raises OSError: the file cannot be opened or made.
        """
        fd = self._folder.open_lock_file(self._queue)
        try:
            if lock_byte(fd, int(key_of(filebase), 16)):
                return fd
        except BaseException:
            self._disk.let_go(fd)
            raise
        self._disk.let_go(fd)
        return None

    def mark(self, fd: int) -> bytes:
        """:return: the mark that differs when an entry has come to another place than the last since."""
        return self._disk.read_all(fd, _MARK_BYTES)

    def change(self) -> None:
        """Say that an entry has come to another place than the last.

        :raises OSError: it could not be said: processes that have read the directory before may give out a later one first.
        """
        fd = self._folder.open_lock_file(self._queue)
        try:
            self._disk.write_all(fd, os.urandom(_MARK_BYTES))
        finally:
            self._disk.let_go(fd)
