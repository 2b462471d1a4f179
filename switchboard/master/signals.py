"""Signals as bytes in a pipe, so that one loop can wait for them together with everything else.

The handler that the interpreter installs writes the signal's number to the pipe and does nothing more; what a signal means
is decided by the loop, in its own time.  ``signalfd`` would do as well, but exists on Linux only.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from switchboard.queue.watch import SelfPipe


def ignore_signal(signum: int, frame: FrameType | None) -> None:
    """A handler for signals that only have to wake somebody.

    ``SIG_IGN`` would not do: it survives ``exec``, and a program that a runner starts would ignore the signal as well.
    """


@contextlib.contextmanager
def exiting_on_signal() -> Iterator[None]:
    """End this process with status 0 on TERM or INT while it has no loop yet that could stop.

    What a handler raises gets lost where the interpreter is in a destructor or in the callback of a weak reference, and each import has
    one.  So it is noted as well, and a `SignalPipe` that is made later begins with it.
    """

    def leave(signum: int, _frame: FrameType | None) -> None:
        _early_signals.append(signum)
        raise SystemExit(os.EX_OK)

    stops = (signal.SIGTERM, signal.SIGINT)
    before = {signum: signal.signal(signum, leave) for signum in stops}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _early_signals.clear()


# The signals that came before this process had a loop.
_early_signals: list[int] = []


class SignalPipe:
    """Takes over `signals` until it is closed.  Only the main thread may make one."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._pipe = SelfPipe()
        # A full pipe holds thousands of signals that are still to be read; one more says nothing new.
        self._wakeup_before = signal.set_wakeup_fd(self._pipe.write_end, warn_on_full_buffer=False)
        self._before: dict[signal.Signals, Any] = {
            each: signal.signal(each, ignore_signal) for each in signals
        }
        for signum in _early_signals:
            os.write(self._pipe.write_end, bytes((signum,)))

    def fileno(self) -> int:
        """:return: the descriptor to wait on."""
        return self._pipe.fileno()

    def descriptors(self) -> tuple[int, int]:
        """:return: the descriptors that a forked child closes at once."""
        return self._pipe.read_end, self._pipe.write_end

    def take(self) -> list[signal.Signals]:
        """:return: the signals that came since the last call, each once, in the order of their first coming."""
        numbers = dict.fromkeys(self._pipe.empty())
        return [signal.Signals(number) for number in numbers if number in self._before]

    def close(self) -> None:
        """Put everything back as it was."""
        signal.set_wakeup_fd(self._wakeup_before)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._pipe.close()


@contextlib.contextmanager
def signals_blocked() -> Iterator[set[Any]]:
    """Hold all signals back; yields the mask that was there before.

    Around a fork: a signal that meets the child before it has handlers of its own would be written to its parent's pipe.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StackDump:
    """The answer to QUIT: where every thread of this process is, written at once, whatever the process is busy with.

    Assumes that the signal has a handler already, if the dump is to be `taken`.

    :param descriptor: the log, if plain lines may stand in it; None for a log of events, to which the loop adds what it has `taken`.  Until
        then, for a loop that hangs, the dump can be read in ``/proc/PID/fd``.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._memory = os.memfd_create('stacks') if descriptor is None else -1
        into = self._memory if descriptor is None else descriptor
        faulthandler.register(signal.SIGQUIT, file=into, all_threads=True, chain=descriptor is None)

    def descriptors(self) -> list[int]:
        """:return: the descriptors that a process which is forked has to close."""
        return [self._memory] if self._memory >= 0 else []

    def taken(self) -> list[bytes]:
        """:return: the lines that were not taken before."""
        if self._memory < 0:
            return []
        size = os.fstat(self._memory).st_size
        lines = os.pread(self._memory, size, 0).splitlines()
        os.ftruncate(self._memory, 0)
        os.lseek(self._memory, 0, os.SEEK_SET)
        return lines

    def close(self) -> None:
        """Answer no more."""
        faulthandler.unregister(signal.SIGQUIT)
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
