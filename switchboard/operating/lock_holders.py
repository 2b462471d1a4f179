"""The processes that hold locks on files, as the kernel lists them.

Asking by trying to take a lock would take it, if only for a moment, from who just wants it; reading the list disturbs nobody.
It is for people to read: nothing is decided by it, and on a system without the list, nobody is named.
"""

from __future__ import annotations

import os
from pathlib import Path

LOCKS = Path('/proc/locks')


def holders(path: Path = LOCKS) -> dict[tuple[int, int], int]:
    """:return: the process by device and inode number, for each ``flock``; a process of another container has the number 0."""
    found: dict[tuple[int, int], int] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        fields = line.split()
        # 1: FLOCK  ADVISORY  WRITE 18789 fe:00:2148713 0 EOF
        if len(fields) == 8 and fields[1] == 'FLOCK' and fields[3] == 'WRITE':
            major, minor, inode = fields[5].split(':')
            found[os.makedev(int(major, 16), int(minor, 16)), int(inode)] = max(0, int(fields[4]))
    return found
