"""Who is master of a spool: the lock that says so, and the file that says which process it is.

The lock is ``flock`` on ``<spool>/.run/master/master.lock``, held for the life of the process.  The kernel drops it with its
owner, so it cannot go stale, whatever happened to the machine, its name or its clock, and there is nothing to force.
The file is never removed: a lock on a removed file excludes nobody.

``master.pid`` is information for people and tools.  Nothing here decides by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from switchboard.errors import AlreadyRunningError
from switchboard.master.directory import OwnDirectory, replace_file
from switchboard.status.alive import LOCK, PID, read_pid

# Who asks whether a master lives holds the lock shared for an instant; a master that starts just then looks again.
LOOK_AGAIN_S = 0.25
LOOK_EVERY_S = 0.01


class MasterLock:
    """The right to be the master of one spool.

    :param directory: where it lies.
    :param pid_file: where to note the process, if not beside the lock.
    """

    def __init__(self, directory: OwnDirectory, pid_file: Path | None = None) -> None:
        self.pid_file = pid_file or directory.path / PID
        self._directory = directory
        self._is_beside = pid_file is None
        self._descriptor = directory.open(LOCK, os.O_RDWR)

    @classmethod
    @contextlib.contextmanager
    def of(cls, directory: OwnDirectory, pid_file: Path | None = None) -> Iterator[Self]:
        """Hold it for the length of a block.

        :raises AlreadyRunningError: another process does.
        """
        lock = cls(directory, pid_file).acquire()
        try:
            yield lock
        finally:
            lock.close()

    def acquire(self) -> Self:
        """Become the master.

        :raises AlreadyRunningError: another process is.
        """
        give_up_s = time.monotonic() + LOOK_AGAIN_S
        while not self._try():
            if time.monotonic() >= give_up_s:
                pid = read_pid(self.pid_file)
                self.close()
                raise AlreadyRunningError(pid)
            time.sleep(LOOK_EVERY_S)
        return self

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def note_pid(self) -> None:
        """Write down which process it is.  Assumes that the lock is held."""
        with self._place_of_pid() as place:
            replace_file(self.pid_file.name, b'%d\n' % os.getpid(), place)

    @contextlib.contextmanager
    def _place_of_pid(self) -> Iterator[int]:
        if self._is_beside:
            yield self._directory.fileno()
            return
        place = os.open(self.pid_file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield place
        finally:
            os.close(place)

    def fileno(self) -> int:
        """:return: the descriptor; a forked child closes it at once, for it would keep the lock."""
        return self._descriptor

    def close(self) -> None:
        """Be the master no longer."""
        os.close(self._descriptor)

    def forget_pid(self) -> None:
        """Take the pid file away.  Assumes that the lock is still held, so the file is ours."""
        with contextlib.suppress(OSError), self._place_of_pid() as place:
            os.unlink(self.pid_file.name, dir_fd=place)
