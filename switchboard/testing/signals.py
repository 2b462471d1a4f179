"""A signal that is waited for instead of sleeping: between threads, and between a process and what it has forked.

It is a pipe that somebody writes a byte to and nobody reads: a pipe crosses a fork, needs no clean-up by name, and can be
waited for with a time-out.  `threading.Event` does not cross a fork, and `multiprocessing.Event` brings a
helper process and a semaphore that must be unlinked.
"""

from __future__ import annotations

import os
import select

# Long enough for a busy machine, short enough for somebody who waits for the answer.
TIMEOUT_S = 120.0


class Signal:
    """Not set at first; once set it stays so, for everybody who holds it."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def set(self) -> None:
        """Wake all who wait.  Safe to call from a signal handler."""
        try:
            os.write(self._write_end, b'!')
        except BlockingIOError:
            pass  # it is set 65,536 times already

    def is_set(self) -> bool:
        """Has anybody set it?"""
        return self._poll(0)

    def wait_or_timeout(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until it is set.

        :raises TimeoutError: it was not, in all that time.
        """
        if not self._poll(timeout_s):
            raise TimeoutError(f'the signal did not come within {timeout_s} seconds')

    def _poll(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._read_end, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self) -> None:
        """Give the descriptors back."""
        for end in (self._read_end, self._write_end):
            if end >= 0:
                os.close(end)
        self._read_end = self._write_end = -1

    def __del__(self) -> None:
        self.close()
