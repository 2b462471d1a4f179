"""A runner dies with its master, however the master dies.

Two independent means, because each has a gap.  ``PR_SET_PDEATHSIG`` (Linux) kills the runner when its parent is gone, but not
the programs that the runner has started.  The lifeline is a pipe whose one writing end the master holds: when the kernel
closes it, it sends SIGKILL to the runner's whole process group, without a thread, a timer or any help from Python, so a
runner that hangs in C code goes as well.  Where the kernel cannot send a signal of choice (no ``F_SETSIG``), a handler of SIGIO does it.

KILL and not TERM: the death of a master is an accident, and after it nobody is left who would end a runner that
does not go by itself.  Nothing is lost by it; recovery puts back what was claimed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1
# Loaded once in the master, so that no child pays for it.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == 'linux' else None
_F_SETSIG: int | None = getattr(fcntl, 'F_SETSIG', None)


def die_with(parent: int, lifeline: int) -> None:
    """Tie this process and its group to the life of `parent`.

    Assumes that this process leads its own group, and that nobody but `parent` holds the other end of `lifeline`.

    :param parent: the process id, taken before the fork: afterwards it may be somebody else's already.
    :param lifeline: the reading end of a pipe into which nobody ever writes.
    """
    killed_by_kernel = _ask_kernel()
    try:
        _tie_group(lifeline)
    except OSError:
        # Some sandboxes know neither.  One of the two must hold.
        if not killed_by_kernel:
            raise
    _go_if_orphaned(parent)


def die_with_parent(parent: int) -> None:
    """Tie this process, which starts no others, to the life of `parent`; where the kernel cannot, it lives on.

    :param parent: the process id, taken before the fork.
    """
    _ask_kernel()
    _go_if_orphaned(parent)


def _ask_kernel() -> bool:
    return _LIBC is not None and _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0


def _go_if_orphaned(parent: int) -> None:
    if os.getppid() != parent:
        # It died between the fork and here, when none of the above was in force yet.
        os._exit(os.EX_TEMPFAIL)


def _tie_group(lifeline: int) -> None:
    if _F_SETSIG is None:
        signal.signal(signal.SIGIO, _end_group)
    else:
        fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    # A negative owner is a process group.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _end_group(_signum: int, _frame: FrameType | None) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)
