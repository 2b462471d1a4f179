"""Two copies of one small record in a file, so that a reader always finds a whole one.

One process writes, any number read, and nobody waits.  Each copy carries a rising number and a
checksum; the writer overwrites the older copy, a reader takes the newest whose checksum holds.  So a writer killed
in the middle of a copy leaves the one before it.  A sequence lock (odd while writing) was rejected: a killed writer leaves it
odd for ever.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

# Both copies can be seen torn only while their writer is at work, and that takes microseconds.
READ_TRIES = 100


class TornError(Exception):
    """No copy is whole: their writer is just at work, or somebody has damaged them."""


class DoubleBuffer:
    """One writer's fields, kept in two copies of `size` bytes at `offset` of a page."""

    def __init__(self, fields: str, offset: int, size: int) -> None:
        self.struct = struct.Struct('<Q' + fields)
        self.offset = offset
        self.size = size
        assert self.struct.size + 4 <= size

    def find(self, page: bytes) -> tuple[Any, ...] | None:
        """:return: the newest whole copy, its number first; nothing when none was ever written.
        :raises TornError: neither copy is whole.
        """
        span = self.struct.size + 4
        newest: tuple[Any, ...] | None = None
        blank = 0
        for copy in range(2):
            start = self.offset + copy * self.size
            raw = page[start : start + span]
            if not raw.strip(b'\0'):
                blank += 1
            elif len(raw) == span and zlib.crc32(raw[4:]) == int.from_bytes(raw[:4], 'little'):
                values = self.struct.unpack_from(raw, 4)
                if newest is None or values[0] > newest[0]:
                    newest = values
        if newest is None and blank < 2:
            raise TornError
        return newest

    def write(self, descriptor: int, base: int, number: int, *values: object) -> None:
        """Write the copy that `number` falls on; the other one stays whole meanwhile."""
        packed = self.struct.pack(number, *values)
        start = base + self.offset + (number & 1) * self.size
        try:
            os.pwrite(descriptor, zlib.crc32(packed).to_bytes(4, 'little') + packed, start)
        except OSError:
            # The room was taken before: somebody has cut it and the disk is full, or writing over takes room as well (Btrfs, ZFS), or the disk is
            # broken.  No message suffers by it.
            return
