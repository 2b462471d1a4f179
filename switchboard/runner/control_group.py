"""A control group for the processes of one message, where the kernel lets this process have one.

Signals do not reach a program that has become another user's, and an environment that cannot be read has no mark in it.  A control group (cgroup v2)
holds all that a program starts, whatever it becomes, and ``cgroup.kill`` ends all of it, whichever user it runs as.

There is one where the group of this process has been delegated to it: it may make others below its own.  The root of all groups is nobody's, and
of root's processes under systemd only those of a unit with ``Delegate=yes`` may.  Nothing here is a fence: a program that has the same rights as
this process may leave its group, and a program that asks a service manager to start something (``systemd-run``, a login) has it started elsewhere.

Control groups have the message's name, so that the next attempt, in another process and after any death, finds its processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Callable

PROC = '/proc'
PREFIX = 'switchboard-'
# The state of a group and the way to end it; both came with Linux 5.14 at the latest.
EVENTS, KILL, MEMBERS = 'cgroup.events', 'cgroup.kill', 'cgroup.procs'
SYSTEMD = '/run/systemd/system'
DELEGATED = ('user.delegate', 'trusted.delegate')
# Between two looks whether a group is empty; the kernel tells of it before.
LOOK_S = 0.1
_MAX_BYTES = 1 << 20


def cgroup_of(pid: int | str = 'self') -> str | None:
    """:return: the directory of a process's control group; None where there is no cgroup v2."""
    try:
        with open(f'{PROC}/{pid}/cgroup', encoding='utf-8', errors='surrogateescape') as file:
            path = next((line[3:].rstrip('\n') for line in file if line.startswith('0::')), None)
        with open(f'{PROC}/self/mountinfo', encoding='utf-8', errors='surrogateescape') as file:
            mounts = [line.partition(' - ') for line in file]
    except OSError:
        return None
    for before, _, after in mounts:
        root, place = before.split()[3:5]
        if path is not None and after.startswith('cgroup2 ') and path.startswith(root.rstrip('/')):
            return os.path.normpath(f'{place}/{path.removeprefix(root.rstrip("/"))}')
    return None


def delegated_cgroup() -> str | None:
    """:return: the control group of this process, if it may make others below it."""
    path = cgroup_of()
    # The root of all groups cannot be ended, and is not ours.
    if path is None or not os.path.exists(f'{path}/{KILL}'):
        return None
    if not all(os.access(each, os.W_OK) for each in (path, f'{path}/{MEMBERS}')):
        return None
    if os.geteuid() == 0 and os.path.isdir(SYSTEMD) and not _is_given(path):
        return None
    return path


def _is_given(path: str) -> bool:
    for name in DELEGATED:
        with contextlib.suppress(OSError):  # a kernel without it
            if os.getxattr(path, name) == b'1':
                return True
    return False


class ControlGroup:
    """The group of one message.

    :param base: the group below which it is.
    :param name: the message's name.
    """

    def __init__(self, base: str, name: str) -> None:
        self.path = f'{base}/{PREFIX}{re.sub(r"[^0-9A-Za-z_.-]", "_", name)}'

    def make(self) -> bool:
        """Make it, if it is not there.

        :return: False if that is refused: then the message goes without.
        """
        return self._is_done(os.mkdir, FileExistsError)

    def join(self) -> None:
        """Go into it with this process, if that is possible.  Called between a fork and the start of a program."""
        # Refused if another process has found it empty, and taken it away.
        _write(f'{self.path}/{MEMBERS}', b'0')

    def members(self) -> list[int]:
        """:return: the processes in it; none if it is not there."""
        try:
            with open(f'{self.path}/{MEMBERS}', 'rb') as file:
                return [int(pid) for pid in file.read(_MAX_BYTES).split()]
        except OSError:
            return []

    def kill(self) -> None:
        """Kill all that is in it."""
        _write(f'{self.path}/{KILL}', b'1')

    def end(self, within_s: float) -> list[int]:
        """Kill all that is in it, and take it away when it is empty.

        :return: the processes left in it after that time: processes that hang in the kernel.
        """
        self.kill()
        ends_s = time.monotonic() + within_s
        while not self.remove():
            if time.monotonic() >= ends_s:
                return self.members()
            self._wait()
        return []

    def remove(self) -> bool:
        """Take it away, if nothing is in it.

        :return: whether it is gone.
        """
        return self._is_done(os.rmdir, FileNotFoundError)

    def _is_done(self, act: Callable[[str], None], done: type[OSError]) -> bool:
        try:
            act(self.path)
        except OSError as error:
            return isinstance(error, done)
        return True

    def _wait(self) -> None:
        with contextlib.suppress(OSError):  # it has gone: nothing to wait for
            fd = os.open(f'{self.path}/{EVENTS}', os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.pread(fd, 4096, 0)
                poll = select.poll()
                poll.register(fd, select.POLLPRI)
                poll.poll(int(LOOK_S * 1000))
            finally:
                os.close(fd)


def _write(path: str, text: bytes) -> None:
    with contextlib.suppress(OSError):  # the group has gone, or is not ours to write to
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)


def kill_cgroup_of(pid: int) -> bool:
    """Kill a process that refuses signals by its group, if that is one of a message, below our own.

    :return: whether that could be tried.
    """
    own, path = cgroup_of(), cgroup_of(pid)
    if own is None or path is None:
        return False
    head, _, _ = path.removeprefix(own.rstrip('/')).lstrip('/').partition('/')
    if not path.startswith(own.rstrip('/')) or not head.startswith(PREFIX):
        return False
    _write(f'{own}/{head}/{KILL}', b'1')
    return True


def remove_empty_cgroups(base: str) -> None:
    """Take the groups away in which nothing is any more."""
    with contextlib.suppress(OSError):  # there is no such place
        for name in os.listdir(base):
            if name.startswith(PREFIX):
                with contextlib.suppress(OSError):  # somebody is in it
                    os.rmdir(f'{base}/{name}')
