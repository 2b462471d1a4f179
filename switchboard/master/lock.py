"""Who is master of a spool: the lock that says so, and the file that says which process it is.

The lock is ``flock`` on ``<spool>/.run/master.lock``, held for the life of the process.  The kernel drops it with its
owner, so it cannot go stale, whatever happened to the machine, its name or its clock, and there is nothing to force.
The file is never removed: a lock on a removed file excludes nobody.

``master.pid`` is information for people and tools.  Nothing here decides by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Self

from switchboard.errors import AlreadyRunningError

RUN_DIRECTORY = '.run'
LOCK, PID, BOARD, CONTROL = 'master.lock', 'master.pid', 'board', 'control'

# Who asks whether a master lives holds the lock shared for an instant; a master that starts just then looks again.
LOOK_AGAIN_S = 0.25
LOOK_EVERY_S = 0.01


def run_directory(spool: str | os.PathLike[str]) -> Path:
    """:return: where the master of this spool keeps its lock, its board and its control socket."""
    return Path(spool) / RUN_DIRECTORY


class MasterLock:
    """The right to be the master of one spool.

    :param run: the spool's run directory, which is made if need be.
    :param pid_file: where to note the process, if not beside the lock.
    """

    def __init__(self, run: Path, pid_file: Path | None = None) -> None:
        self.pid_file = pid_file or run / PID
        run.mkdir(mode=0o770, parents=True, exist_ok=True)
        self._descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)

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
        fresh = self.pid_file.with_name(self.pid_file.name + '.new')
        fresh.write_text(f'{os.getpid()}\n')
        fresh.rename(self.pid_file)

    def fileno(self) -> int:
        """:return: the descriptor; a forked child closes it at once, for it would keep the lock."""
        return self._descriptor

    def close(self) -> None:
        """Be the master no longer."""
        os.close(self._descriptor)

    def forget_pid(self) -> None:
        """Take the pid file away.  Assumes that the lock is still held, so the file is ours."""
        with contextlib.suppress(OSError):
            self.pid_file.unlink()


def read_pid(pid_file: Path) -> int | None:
    """:return: the process that the file names, if it can be read."""
    try:
        return int(pid_file.read_text())
    except (OSError, ValueError):
        return None


def master_alive(spool: str | os.PathLike[str]) -> bool:
    """:return: whether a master holds this spool at this moment."""
    try:
        descriptor = os.open(run_directory(spool) / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that any number may ask at once and no two of them take each other for a master.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
