"""The directory of the master's own files, ``<spool>/.run/master``: only its user writes there, the spool's group reads.

``.run`` belongs to the spool's group, as the queues do, so any member may put a link there under a name that the master is going to
write to.  Therefore the master's lock, process id, log, scoreboard and control socket lie one level deeper, in a directory that is refused when
anybody else could write to it.  It is opened once, step by step and without following a link; all else is done below its descriptor,
so a member who moves it away or puts something else in its place changes nothing but a name.

Files that the configuration names (``log_file``, ``pid_file``) lie where the administrator wants them: in a directory of the administrator's.

The lock is ``flock`` on ``<spool>/.run/master/master.lock``, held for the life of the process.  The kernel drops it with its
owner, so it cannot go stale, whatever happened to the machine, its name or its clock, and there is nothing to force.
The file is never removed: a lock on a removed file excludes nobody.

``master.pid`` is information for people and tools.  Nothing here decides by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from switchboard.errors import AlreadyRunningError, MasterError
from switchboard.operating.text import quoted
from switchboard.regular_file import open_or_make
from switchboard.status.alive import MASTER_FILE_MODE, master_directory, read_pid
from switchboard.store.disk import OPEN_FLAGS
from switchboard.store.layout import MASTER, MASTER_LOCK, MASTER_PID, RUN

DIRECTORY_MODE = 0o750
# A look whether a master lives holds the lock shared for an instant; a master that starts just then looks again.
LOOK_AGAIN_S = 0.25
LOOK_EVERY_S = 0.01


class MasterDirectory:
    """The open directory; a forked child closes its descriptor.

    :param spool: the spool; it and the directory are made if need be.
    :raises MasterError: somebody else can write to it.
    """

    def __init__(self, spool: str | os.PathLike[str]) -> None:
        self.path = master_directory(spool)
        Path(spool).mkdir(mode=0o770, parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            top = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, top)
            run = self._step(top, RUN, 0o770)
            stack.callback(os.close, run)
            self._descriptor = self._step(run, MASTER, DIRECTORY_MODE)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _step(self, above: int, name: str, mode: int) -> int:
        is_made = False
        try:
            os.mkdir(name, mode, dir_fd=above)
            is_made = True
        except FileExistsError:
            pass
        except OSError as error:
            error.filename = str(self.path if name == MASTER else self.path.parent)
            raise
        try:
            descriptor = os.open(name, os.O_DIRECTORY | OPEN_FLAGS, dir_fd=above)
        except OSError as error:
            raise MasterError(f'cannot open {name!r} on the way to {self.path}: {error.strerror}') from error
        if is_made:  # the umask may have taken some of it; the bits above are the directory's above
            try:
                os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o7000 | mode)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def _check(self) -> None:
        status = os.fstat(self._descriptor)
        if status.st_uid != os.geteuid():
            spool = self.path.parent.parent
            advice = 'start the master as the user of the spool'
            if spool.stat().st_uid == os.geteuid():
                advice = f'a master was started here as that user; as root: `chown -R --reference={quoted(spool)} {quoted(self.path)}`'
            raise MasterError(
                f'{self.path} belongs to user {status.st_uid}, and this is user {os.geteuid()}: {advice}'
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise MasterError(
                f'others than its user can write to {self.path}: `chmod go-w {quoted(self.path)}`'
            )

    def fileno(self) -> int:
        """:return: the descriptor."""
        return self._descriptor

    def is_removed(self) -> bool:
        """Has somebody removed the directory, perhaps with the whole spool?"""
        return os.fstat(self._descriptor).st_nlink == 0

    def open(self, name: str, flags: int) -> int:
        """Open one of its files, which is made if need be, without following a link."""
        try:
            return open_or_make(name, flags | OPEN_FLAGS, MASTER_FILE_MODE, self._descriptor)
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def remove(self, name: str) -> None:
        """Remove one of its files, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def replace_file(name: str, content: bytes, directory: int) -> None:
    """Write a file beside and rename it, so that no reader meets half of it and no link is followed.

    :param directory: the descriptor of the directory that holds it.
    """
    beside = f'{name}.{uuid.uuid4().hex}'
    descriptor = os.open(
        beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, MASTER_FILE_MODE, dir_fd=directory
    )
    try:
        os.fchmod(descriptor, MASTER_FILE_MODE)
        os.write(descriptor, content)
        os.rename(beside, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(beside, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)


class MasterLock:
    """The right to be the master of one spool; a context manager that holds it for the length of a block.

    :param directory: where it lies.
    :param pid_file: where to note the process, if not beside the lock.
    """

    def __init__(self, directory: MasterDirectory, pid_file: Path | None = None) -> None:
        self.pid_file = pid_file or directory.path / MASTER_PID
        self._directory = directory
        self._is_beside = pid_file is None
        self._descriptor = directory.open(MASTER_LOCK, os.O_RDWR)

    def acquire(self) -> Self:
        """Become the master.

        :raises AlreadyRunningError: another process is.
        """
        give_up_s = time.monotonic() + LOOK_AGAIN_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except BlockingIOError as error:
                if time.monotonic() >= give_up_s:
                    pid = read_pid(self.pid_file)
                    self.close()
                    raise AlreadyRunningError(pid) from error
            time.sleep(LOOK_EVERY_S)

    def note_pid(self) -> None:
        """Write down which process it is.  Assumes that the lock is held."""
        with self._place_of_pid() as place:
            try:
                replace_file(self.pid_file.name, b'%d\n' % os.getpid(), place)
            except OSError as error:
                error.filename = str(self.pid_file)
                raise

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

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.close()

    def forget_pid(self) -> None:
        """Take the pid file away.  Assumes that the lock is still held, so the file is ours."""
        with contextlib.suppress(OSError), self._place_of_pid() as place:
            os.unlink(self.pid_file.name, dir_fd=place)
