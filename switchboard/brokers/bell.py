"""Waking who sleeps on a connection, when another thread has read what it brought."""

from __future__ import annotations

import os
from collections.abc import Callable


class Bell:
    """A descriptor that is readable once it was rung, until it is hushed.

    For the thread that keeps a connection alive: what it has read there is no longer on the socket, and would wake nobody.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        for end in (self._read_end, self._write_end):
            os.set_blocking(end, False)

    def fileno(self) -> int:
        """:return: what to poll."""
        return self._read_end

    def ring(self) -> None:
        """Wake."""
        try:
            os.write(self._write_end, b'!')
        except BlockingIOError:
            pass  # it rings already

    def hush(self) -> None:
        """Be silent again."""
        try:
            os.read(self._read_end, 65_536)
        except BlockingIOError:
            pass

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # After a fork, parent and child close their own.  At the end of a process `os` may be gone already.
        close(self._read_end)
        close(self._write_end)
