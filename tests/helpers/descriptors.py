"""What is open, by number and path.

No test compares how many descriptors its process has before and after: objects that earlier tests have left in circles are collected, and
closed, at any time.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress


def open_files(pid: int | str = 'self') -> dict[int, str]:
    """:return: what a process has open: the paths by number."""
    found = {}
    for number in os.listdir(f'/proc/{pid}/fd'):
        with suppress(FileNotFoundError):  # closed meanwhile, as that of the listing itself
            found[int(number)] = os.readlink(f'/proc/{pid}/fd/{number}')
    return found


class Opened:
    """Tells what this process has opened since, and not closed."""

    def __init__(self) -> None:
        gc.collect()
        self._before = open_files().items()

    def __call__(self) -> list[str]:
        """:return: the paths."""
        return [path for _, path in open_files().items() - self._before]
