"""Reading an entry's file, and of a large one no more than its header promises."""

from __future__ import annotations

import os
from codecs import getincrementaldecoder
from collections.abc import Iterator
from zlib import crc32

from switchboard.errors import CorruptEntryError
from switchboard.message.entry import TEXT, UNKNOWN, Entry, Header, TextEntry, parse_header, read_entry
from switchboard.message.entry_header import MAX_HEADER_BYTES
from switchboard.message.journal import MAX_JOURNAL_BYTES, Record, begins_record, find_records, parse_records
from switchboard.message.naming import digest_of
from switchboard.store.disk import OPEN_FLAGS, Disk
from switchboard.store.folder import Folder

# Up to this size a file is read as it is.
WHOLE_BYTES = 16 * 1024 * 1024
# Of a body that is checked and not kept.
READ_AT_ONCE = 1024 * 1024


class History:
    """The records of an entry, and where the next one goes."""

    __slots__ = ('end', 'is_whole', 'records')

    def __init__(self, records: list[Record], end: int, *, is_whole: bool = True) -> None:
        self.records = records
        self.end = end
        # Is it known where the last record ends?  If not, nothing can be appended without destroying a record.
        self.is_whole = is_whole


def read_header(fd: int, disk: Disk) -> Header | None:
    """:return: the header that a file begins with; None if that is none.

    :raises OSError: it cannot be read.
    """
    try:
        return parse_header(disk.read_all(fd, MAX_HEADER_BYTES))
    except CorruptEntryError:
        return None


def read_history(filebase: str, fd: int, size: int, disk: Disk) -> History:
    """Read an entry's history and nothing of its body, which may be larger than there is memory for.

    Of a history that is longer than anybody needs, only the newest records are read.

    :raises OSError: it cannot be read.
    """
    digest, header = digest_of(filebase), read_header(fd, disk)
    if header is not None and header.digest == digest and header.end <= size:
        start = header.end
        if size - start <= MAX_JOURNAL_BYTES:
            records, length = parse_records(disk.read_all(fd, size - start, start), digest)
            return History(records, start + length)
    else:
        start = size  # no history, if none is found from the end
    tail = disk.read_all(fd, min(size, MAX_JOURNAL_BYTES), max(0, size - MAX_JOURNAL_BYTES))
    records, _ = find_records(tail, digest)
    # What does not begin with a record never was a history: nothing is lost by one that begins behind it.
    return History(records, size, is_whole=bool(records) or not begins_record(disk.read_all(fd, 2, start)))


def read_file(
    filebase: str,
    fd: int,
    size: int,
    disk: Disk,
    history: History | None = None,
    kept_bytes: int | None = None,
) -> Entry:
    """Read an entry's file, but of a large one no more than its header promises and its blocks can hold.

    Anybody who may write into the queue can leave a file there that has any size and takes no place on the disk.

    :param history: the result of :func:`read_history`, if it was called already.
    :param kept_bytes: how much of a large body is wanted; None is all of it.
    :raises OSError: it cannot be read.
    """
    if size <= WHOLE_BYTES:
        entry = read_entry(filebase, disk.read_all(fd, size))
    else:
        entry = _read_large(filebase, fd, size, disk, kept_bytes)
        history = history or read_history(filebase, fd, size, disk)
    if history is not None:
        entry.records, entry.end = history.records, history.end
    return entry


def _read_large(filebase: str, fd: int, size: int, disk: Disk, kept_bytes: int | None) -> Entry:
    """Read metadata and body each by itself: there is no time at which the body is in memory twice."""
    try:
        header = parse_header(disk.read_all(fd, MAX_HEADER_BYTES))
        header.check_file(digest_of(filebase), size)
        if _is_hollow(fd, header.end, disk):
            raise CorruptEntryError(f'a body of {header.body_length} bytes, most of which were never written')
        line = disk.read_all(fd, header.length)
        metadata = disk.read_all(fd, header.metadata_length, header.length)
        entry, checksum = (
            _read_text(filebase, fd, header, metadata, disk) if kept_bytes is None else (None, 0)
        )
        if entry is None:
            body, checksum = _read_body(fd, header, disk, kept_bytes, crc32(metadata))
            entry = Entry(filebase, header.kind, metadata, body, end=header.end)
            entry.left_out_bytes = header.body_length - len(body)
        try:
            header.check_content(line, checksum)
        except CorruptEntryError as error:
            entry.metadata, entry.damage = b'{}', error
        return entry
    except CorruptEntryError as error:
        damage = error
    except MemoryError:
        damage = CorruptEntryError(f'{size} bytes: more than there is memory for')
    return Entry(filebase, UNKNOWN, b'{}', b'', damage=damage)


def _read_text(
    filebase: str, fd: int, header: Header, metadata: bytes, disk: Disk
) -> tuple[Entry | None, int]:
    """Read a large text, of which there would be two otherwise: as bytes, and as text.

    :return: the entry, and the checksum of metadata and body; None if its kind is another, or it is none after all.
    """
    if header.kind != TEXT:
        return None, 0
    text, checksum = '', crc32(metadata)
    decoder = getincrementaldecoder('utf-8')('surrogatepass')
    try:
        # Python makes a string longer where it is, if this is a `for`; a list of parts, or a `StringIO`, would be joined to a second one.
        for part in _parts(fd, header.body_start, header.end, disk):
            checksum = crc32(part, checksum)
            text += decoder.decode(part)
        decoder.decode(b'', True)
    except UnicodeDecodeError:
        return None, 0
    # The parameter is a body, which this class takes as text, too.
    return TextEntry(filebase, TEXT, metadata, text, end=header.end), checksum  # type: ignore[arg-type]  # see above


def _read_body(
    fd: int, header: Header, disk: Disk, kept_bytes: int | None, checksum: int
) -> tuple[bytes, int]:
    """:return: the body, or its beginning, and the checksum of all of it behind what `checksum` is of."""
    start, end = header.body_start, header.end
    body = disk.read_all(fd, end - start if kept_bytes is None else min(kept_bytes, end - start), start)
    checksum = crc32(body, checksum)
    for part in _parts(fd, start + len(body), end, disk):
        checksum = crc32(part, checksum)
    return body, checksum


def _parts(fd: int, at: int, end: int, disk: Disk) -> Iterator[bytes]:
    """Read a part of a file in parts; fewer bytes come if it ends before."""
    while at < end and (part := disk.read_all(fd, min(READ_AT_ONCE, end - at), at)):
        yield part
        at += len(part)


def _is_hollow(fd: int, end: int, disk: Disk) -> bool:
    """Has a file holes where it should have content, and blocks for less than half of that?

    Neither alone says so: a file system that compresses needs fewer blocks, and may keep long runs of zeros as holes.
    """
    return disk.fstat(fd).st_blocks * 512 < end // 2 and disk.seek(fd, 0, os.SEEK_HOLE) < end


def peek(folder: Folder, filebase: str, suffix: str, kept_bytes: int | None = None) -> Entry | None:
    """Read an entry's file without claiming it.

    :param kept_bytes: how much of a large body is wanted; None is all of it.
    :return: None if there is no such file, or was none any more when it had been read.
    :raises OSError: it cannot be read.
    """
    disk = folder.disk
    try:
        fd = disk.open(filebase + suffix, os.O_RDONLY | OPEN_FLAGS, dir_fd=folder.fd)
    except FileNotFoundError:
        return peek(folder, filebase, suffix, kept_bytes) if folder.follow_renewal() else None
    try:
        status = disk.fstat(fd)
        entry = read_file(filebase, fd, status.st_size, disk, kept_bytes=kept_bytes)
        if entry.damage is not None and not disk.leads_to(filebase + suffix, folder.fd, status):
            return None  # it was finished meanwhile, and its file may be another message by now
        entry.queue = folder.queue
        return entry
    finally:
        disk.close(fd)
