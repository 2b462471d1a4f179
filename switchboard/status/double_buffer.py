"""Two copies of one small record in mapped memory, so that a reader always finds a whole one.

One process writes, any number read, nobody waits and nobody makes a system call.  Each copy carries a rising number and a
checksum; the writer overwrites the older copy, a reader takes the newest whose checksum holds.  So a writer killed
in the middle of a copy leaves the one before it.  A sequence lock (odd while writing) was rejected: a killed writer leaves it
odd for ever, and it needs memory barriers that Python does not offer.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Any

from switchboard.errors import BoardError

# Both copies can be seen torn only while their writer is at work, and that takes microseconds.
READ_TRIES = 100


class DoubleBuffer:
    """One writer's fields, kept in two copies of `size` bytes at `offset`."""

    def __init__(self, fields: str, offset: int, size: int) -> None:
        self.struct = struct.Struct('<Q' + fields)
        self.offset = offset
        self.size = size
        assert self.struct.size + 4 <= size

    def read(self, memory: mmap.mmap, base: int) -> tuple[Any, ...] | None:
        """:return: the newest whole copy, its number first; nothing when none was ever written."""
        span = self.struct.size + 4
        for _ in range(READ_TRIES):
            newest: tuple[Any, ...] | None = None
            blank = 0
            for copy in range(2):
                start = base + self.offset + copy * self.size
                raw = memory[start : start + span]
                if not any(raw):
                    blank += 1
                elif zlib.crc32(raw[4:]) == int.from_bytes(raw[:4], 'little'):
                    values = self.struct.unpack_from(raw, 4)
                    if newest is None or values[0] > newest[0]:
                        newest = values
            if newest is not None or blank == 2:
                return newest
        raise BoardError(f'the board is damaged at offset {base + self.offset}; stop and start the master')

    def write(self, memory: mmap.mmap, base: int, number: int, *values: object) -> None:
        """Write the copy that `number` falls on; the other one stays whole meanwhile."""
        packed = self.struct.pack(number, *values)
        start = base + self.offset + (number & 1) * self.size
        memory[start : start + len(packed) + 4] = zlib.crc32(packed).to_bytes(4, 'little') + packed

    def number(self, memory: mmap.mmap, base: int) -> int:
        """:return: the number of the newest copy, 0 before the first, and where none is whole: the writer begins anew."""
        try:
            values = self.read(memory, base)
        except BoardError:
            return 0
        return values[0] if values else 0
