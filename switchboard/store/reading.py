"""Reading an entry's file, and of a large one no more than its header promises."""

from __future__ import annotations

import os

from switchboard.errors import CorruptEntryError
from switchboard.message.entry import UNKNOWN, Entry, read_entry
from switchboard.message.envelope import MAX_HEADER_BYTES, parse_header
from switchboard.message.journal import MAX_JOURNAL_BYTES, find_records
from switchboard.message.naming import digest_of
from switchboard.store.disk import OPEN_FLAGS, Disk, Folder

# Up to this size a file is read as it is.
WHOLE_BYTES = 16 * 1024 * 1024


def read_file(filebase: str, fd: int, size: int, disk: Disk) -> Entry:
    """Read an entry's file, but of a large one no more than its header promises.

    Anybody who may write into the queue can leave a file there that has any size and takes no place on the disk.

    :raises OSError: it cannot be read.
    """
    if size <= WHOLE_BYTES:
        return read_entry(filebase, disk.read_all(fd, size))
    digest = digest_of(filebase)
    try:
        header = parse_header(disk.read_all(fd, MAX_HEADER_BYTES))
        if header.digest == digest and header.end <= size:
            return read_entry(filebase, disk.read_all(fd, min(size, header.end + MAX_JOURNAL_BYTES)))
        damage = CorruptEntryError(f'stale or cut short: {size} bytes, and the header promises {header.end}')
    except CorruptEntryError as error:
        damage = error
    except MemoryError:
        damage = CorruptEntryError(f'{size} bytes: more than there is memory for')
    tail = disk.read_all(fd, WHOLE_BYTES, size - WHOLE_BYTES)
    return Entry(filebase, UNKNOWN, b'{}', b'', find_records(tail, digest)[0], size, damage)


def peek(folder: Folder, filebase: str, suffix: str) -> Entry | None:
    """Read an entry's file without claiming it.

    :return: None if there is no such file.
    :raises OSError: it cannot be read.
    """
    disk = folder.disk
    try:
        fd = disk.open(filebase + suffix, os.O_RDONLY | OPEN_FLAGS, dir_fd=folder.fd)
    except FileNotFoundError:
        return None
    try:
        entry = read_file(filebase, fd, disk.fstat(fd).st_size, disk)
        entry.queue = folder.place
        return entry
    finally:
        disk.close(fd)
