"""A signal that is waited for instead of sleeping: between threads, and between a process and what it has forked.

It is a `SelfPipe` that somebody writes a byte to and nobody reads.  `threading.Event` does not cross a fork, and `multiprocessing.Event`
brings a helper process and a semaphore that must be unlinked.
"""

from __future__ import annotations

from switchboard.queue.watch import SelfPipe, wait_readable

# Long enough for a busy machine, short enough for an impatient person.
TIMEOUT_S = 120.0


class Signal:
    """Not set at first; once set it stays so, for everybody who holds it."""

    def __init__(self) -> None:
        self._pipe = SelfPipe()

    def set(self) -> None:
        """Wake all who wait.  Safe to call from a signal handler."""
        self._pipe.wake()

    def is_set(self) -> bool:
        """Has anybody set the signal?"""
        return bool(wait_readable([self._pipe.fileno()], 0))

    def wait_or_timeout(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until it is set.

        :raises TimeoutError: it was not, in all that time.
        """
        if not wait_readable([self._pipe.fileno()], timeout_s):
            raise TimeoutError(f'the signal did not come within {timeout_s} seconds')

    def close(self) -> None:
        """Give the descriptors back."""
        self._pipe.close()
