"""What a runner's process has started and left behind: found, ended, and waited for before its slice works on.

A program that a runner started may outlive it: a wrapper's child, a daemon that leads a session of its own, a program of another
user.  Should its message be tried again beside it, the work is done twice at once.  So the master adopts what loses its parent
(``PR_SET_CHILD_SUBREAPER``), and any child that it did not make itself is such a remainder.  Whose it is, its session, its group, or the
mark in its environment tell; what nobody living claims belongs to the one that has just ended.

Only the master's own children are signalled: nobody else waits for them, so a number cannot become a stranger's.  Their children are
adopted in turn, and found at the next look.  A master that was killed adopts nothing any more; the next one finds what is left by
the mark.  A control group for each slice would find the same, and needs one to be delegated; where a service manager does that, it ends
the whole of it with the master.

Elsewhere than on Linux there is nothing of all this: there a runner's process group ends with it, and no more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Collection

from switchboard.master.child import MARK, set_subreaper

PROC = '/proc'
MAX_ENVIRON_BYTES = 1 << 20


def adopt() -> bool:
    """Become the parent of what loses its own.

    :return: False where that is not to be had.
    """
    return sys.platform == 'linux' and set_subreaper()


def children() -> set[int]:
    """:return: the processes whose parent this one is."""
    found: set[int] = set()
    own = f'{PROC}/{os.getpid()}/task'
    with contextlib.suppress(OSError):
        for task in os.listdir(own):
            with contextlib.suppress(OSError), open(f'{own}/{task}/children', 'rb') as listed:
                found.update(map(int, listed.read().split()))
    return found


def end(owner: int, living: Collection[int], known: Collection[int]) -> list[int]:
    """Kill what the process `owner`, which has ended, has left behind.

    :param living: the other runners' processes.
    :param known: children that are no runner's remainders.
    :return: what was there; it is to be looked for again until nothing is.
    """
    found = [
        pid
        for pid in children()
        if pid not in living and pid not in known and _belongs_to(pid, owner, living)
    ]
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return found


def _belongs_to(pid: int, owner: int, living: Collection[int]) -> bool:
    try:
        with open(f'{PROC}/{pid}/stat', 'rb') as status:
            state, _, group, session = status.read().rpartition(b')')[2].split()[:4]
    except (OSError, ValueError):
        return False
    if state in (b'Z', b'X'):
        return False  # it has ended, and is about to be waited for
    if owner in (int(group), int(session)):
        return True
    marked = _marked(pid)
    return not any(each in living for each in (int(group), int(session), marked[1] if marked else 0))


def _marked(pid: int) -> tuple[str, int] | None:
    """:return: the spool and the runner's process that the environment of a process names."""
    try:
        with open(f'{PROC}/{pid}/environ', 'rb') as stream:
            variables = stream.read(MAX_ENVIRON_BYTES).split(b'\0')
    except OSError:
        return None
    prefix = os.fsencode(MARK) + b'='
    for variable in variables:
        if variable.startswith(prefix):
            number, _, spool = variable.removeprefix(prefix).partition(b' ')
            with contextlib.suppress(ValueError):
                return os.fsdecode(spool), int(number)
    return None


def end_all_of(spool: str) -> list[int]:
    """Kill what runners of an earlier master of this spool have left behind.  Assumes that its lock is held, so that master is dead.

    :return: the processes.
    """
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(PROC):
            if not name.isdecimal() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                # First the descriptor, then the look: so it is this process that is looked at and ended.
                descriptor = os.pidfd_open(int(name))
                try:
                    marked = _marked(int(name))
                    if marked is not None and marked[0] == spool:
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                        found.append(int(name))
                finally:
                    os.close(descriptor)
    return found


def describe(pid: int) -> str:
    """:return: the process as `status` names it."""
    try:
        with open(f'{PROC}/{pid}/comm', 'rb') as name:
            return f'{pid} ({name.read().decode("utf-8", "replace").strip()})'
    except OSError:
        return str(pid)
