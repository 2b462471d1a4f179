"""A disk whose n-th call fails, so that a test can ask of every call what happens if just this one does.

::

    for number in itertools.count(1):
        disk = FaultyDisk(fail_at=number, error=errno.ENOSPC)
        ...                         # one operation with this disk, then look at the files
        if not disk.failed_call:
            break                   # the operation made fewer calls than that: all of them have failed once

What a failing call does: a call that is refused has no effect, but for three.  ``close`` gives the descriptor back, as
Linux does; a short write has written its first half; what a failed sync has put on the disk is unknown, and the model of a
power cut (:mod:`switchboard.testing.power`) keeps all of it open.

The disk also keeps the books on descriptors: a call on one that it has not opened, or has closed, is a mistake that may
hit somebody else's file, and the open files at the end can be compared with those that the caller says it holds.
"""

from __future__ import annotations

import errno
import os
import signal
import stat as stat_module
from collections.abc import Callable, Container
from typing import Any, Literal

from switchboard.store.claims import OWN_CLAIMS
from switchboard.store.disk import Disk
from switchboard.store.folder import close_folders

# The primitives that are system calls and can fail: those on a descriptor, and all.
ON_DESCRIPTORS = (
    *('close', 'flock', 'fstat', 'pread', 'pwrite', 'ftruncate', 'fchmod', 'fchown'),
    *('fdatasync', 'fsync', 'syncfs'),
)
CALLS = (
    *('open', 'dup2', 'stat', *ON_DESCRIPTORS),
    *('rename', 'unlink', 'mkdir', 'rmdir', 'scandir', 'utime', 'statvfs', 'renameat2', 'copy_attributes'),
)
# What fails on a disk that is full, or that was remounted read-only: the rest goes on.
CHANGING = frozenset(
    'pwrite ftruncate fchmod fchown rename unlink mkdir rmdir utime renameat2 fdatasync fsync syncfs'.split()
)

Kill = Literal['', 'simulated', 'real']


class Killed(BaseException):
    """The exception of a simulated kill.  No ``except Exception`` catches it, and nothing is cleaned up."""


class FaultyDisk(Disk):
    """Fails one call, and counts all.

    :param fail_at: which call, counted from 1; 0: none.
    :param error: the error that it fails with.
    :param short: if the call is a write or a read, it does half of its work and says so; a write is followed by one
        that fails with `error`, if that is not 0.  Any other call is left alone.
    :param kill: the process dies at the call instead: ``real`` sends SIGKILL to the calling process, ``simulated`` raises
        `Killed` there and lets no later call do anything, so that a test need not fork.  See :meth:`end_process`.
    :param persistent: from the call on, each one of the same family fails: the disk stays full, or read-only.
    :param calls: the names of the calls that count.
    :param disk: the disk below.
    :param sync: really wait for the disk.  A test that does not cut the power has nothing to wait for.
    :param fsync_scope: the effect of a flush of a file, see `Folder.fsync_scope`; by default that of the disk below.
    """

    def __init__(
        self,
        fail_at: int = 0,
        error: int = errno.EIO,
        *,
        short: bool = False,
        kill: Kill = '',
        persistent: bool = False,
        calls: Container[str] = CALLS,
        disk: Disk | None = None,
        sync: bool = False,
        fsync_scope: int | None = None,
    ) -> None:
        self.fail_at = fail_at
        self.error = error
        self.short = short
        self.kill = kill
        self.persistent = persistent
        self.calls = calls
        self.disk = disk or Disk()
        self.sync = sync
        self._fsync_scope = fsync_scope
        # How many calls there were, which of them failed, and the names of all.
        self.count = 0
        self.failed_call = ''
        self.trace: list[str] = []
        # Calls on descriptors that were not open.
        self.bad_descriptor_calls: list[str] = []
        self.is_dead = False
        self._open: dict[int, str] = {}
        self._write_fails = False

    def arm(self, fail_at: int) -> None:
        """Count from here, and fail the call number `fail_at`."""
        self.count, self.fail_at, self.failed_call = 0, fail_at, ''
        self.trace.clear()

    def open_files(self) -> dict[int, str]:
        """:return: the names of the files that are open, by descriptor; directories are not among them."""
        return dict(self._open)

    def fsync_scope(self, fd: int) -> int:
        """See `Disk`."""
        return self.disk.fsync_scope(fd) if self._fsync_scope is None else self._fsync_scope

    def can_open_more(self, error: OSError) -> bool:
        """See `Disk`: this process stands at its hard limit, so that what fails has failed."""
        return False

    def end_process(self) -> None:
        """Do what the kernel does when a process has died: close its files, and so drop its locks."""
        # Nothing fails any more.  Directories are closed by their objects, of which some stand in circles.
        self.calls, self.is_dead = (), False
        close_folders(self)
        self.is_dead = True
        for key, claim in list(OWN_CLAIMS.items()):
            if claim.folder.disk is self:
                del OWN_CLAIMS[key]
        while self._open:
            fd, _ = self._open.popitem()
            self.disk.close(fd)

    def _call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], keys: Any) -> Any:
        if self.is_dead:
            if name in ('close', 'flock'):
                return None  # what a destructor may call
            raise Killed
        if name in ON_DESCRIPTORS and arguments[0] not in self._open:
            self._check(name, arguments[0])
        if name in self.calls:
            self.count += 1
            self.trace.append(name)
            if self.count >= self.fail_at > 0 and self._fails(name):
                return self._fail(name, function, arguments, keys)
        return self._carry_out(name, function, arguments, keys)

    def _check(self, name: str, fd: int) -> None:
        try:
            if stat_module.S_ISDIR(os.fstat(fd).st_mode):
                return
        except OSError:
            pass  # not open at all
        self.bad_descriptor_calls.append(f'{name}({fd})')

    def _fails(self, name: str) -> bool:
        if name == 'pwrite' and self._write_fails:
            return True
        if self.count == self.fail_at:
            return not self.short or name in ('pwrite', 'pread')
        if self.persistent and self.failed_call and self.count > self.fail_at:
            return name in CHANGING if self.failed_call in CHANGING else name == self.failed_call
        return False

    def _fail(
        self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], keys: dict[str, Any]
    ) -> Any:
        self.failed_call = self.failed_call or name
        if self.kill == 'real':
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kill == 'simulated':
            self.is_dead = True
            raise Killed
        if self.short and not self._write_fails:
            return self._do_half(name, function, arguments)
        if name == 'close':
            self._carry_out(name, function, arguments, keys)
        if name == 'renameat2':
            return self.error
        # As the real calls do: a descriptor has no name.
        names = [each for each in arguments[:2] if isinstance(each, str)]
        raise OSError(
            self.error, os.strerror(self.error), *names[:1], *((None, names[1]) if names[1:] else ())
        )

    def _do_half(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        fd, what, offset = arguments
        if name == 'pread':
            return function(fd, (what + 1) // 2, offset)
        self._write_fails = self.error != 0
        return function(fd, memoryview(what)[: (len(what) + 1) // 2], offset)

    def _carry_out(
        self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], keys: dict[str, Any]
    ) -> Any:
        if name in ('fsync', 'fdatasync') and not self.sync and type(self.disk) is Disk:
            return None
        result = function(*arguments, **keys)
        if name == 'open':
            if not arguments[1] & os.O_DIRECTORY and not stat_module.S_ISDIR(os.fstat(result).st_mode):
                self._open[result] = str(arguments[0])
        elif name == 'close':
            self._open.pop(arguments[0], None)
        return result

    # `Disk` asks for this one as a function that gives an error number; None would mean that there is none.
    def renameat2(self) -> Callable[..., int] | None:
        """See `Disk`."""
        below = self.disk.renameat2()
        if below is None:
            return None

        def call(*arguments: Any) -> int:
            code: int = self._call('renameat2', below, arguments, {})
            return code

        return call


def _intercept(name: str) -> Callable[..., Any]:
    def call(self: FaultyDisk, *arguments: Any, **keys: Any) -> Any:
        return self._call(name, getattr(self.disk, name), arguments, keys)

    call.__name__ = name
    return call


for _name in CALLS:
    if _name != 'renameat2':
        setattr(FaultyDisk, _name, _intercept(_name))
