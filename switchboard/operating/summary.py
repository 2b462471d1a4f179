"""The summary of an entry: its kind, size and history, and not its body.

Lists look at many entries, and a body may be large: so the header, the metadata and the journal are read, and what stands
between them is not.  The price is that the checksum, which covers the body, is not tested; ``peek`` in ``reading`` does that.

Nothing is claimed, so an entry may have gone on a moment later.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Any, Literal, NamedTuple, get_args

from switchboard.errors import CorruptEntryError
from switchboard.message.entry import UNKNOWN, Entry, Header, parse_header, read_entry
from switchboard.message.entry_header import MAX_HEADER_BYTES, MAX_METADATA_BYTES
from switchboard.message.journal import (
    MAX_JOURNAL_BYTES,
    Record,
    count_since_retry,
    drop_undone_moves,
    find_records,
    origin_queue,
    parse_records,
    trusted_records,
)
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import (
    CLAIMED,
    NS_PER_S,
    PRESERVED,
    READY,
    digest_of,
    due_ns,
    is_on_hold,
    parse_filebase,
    when_ns_of,
)
from switchboard.store.disk import OPEN_FLAGS, Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD

EntryState = Literal['waiting', 'delayed', 'held', 'claimed', 'preserved']
STATES: tuple[EntryState, ...] = get_args(EntryState)
SUFFIXES = (READY, CLAIMED, PRESERVED)

# One read gets all of most entries: header, metadata, a mail of some lines, and its history.
FIRST_READ_BYTES = 8192
# Of a file without a readable header, the history is looked for in its last part.
TAIL_BYTES = 1 << 20


# Trouble that any other file would have met as well.
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# The events that bring an entry to where nobody takes it.
_PUT_ASIDE = ('preserved', 'moved', 'dead-lettered', 'removed', 'restored')
# Those of them that are a verdict on the message.
_REFUSED = ('preserved', 'dead-lettered', 'removed')
# Times of a history that are no times of ours: before the epoch, or behind the ten digits of seconds that a name has.
_LAST_TIME_S = 9_999_999_999


def time_ns(value: object) -> int | None:
    """:return: a time out of a history, which anybody may have written, in nanoseconds; None if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LAST_TIME_S:
        return int(value * NS_PER_S)
    return None


def state_of(filebase: str, suffix: str, *, is_due: bool) -> EntryState:
    """:return: the state that an entry's name says; `is_due` tells whether the time of a ready one has come."""
    if suffix != READY:
        return 'claimed' if suffix == CLAIMED else 'preserved'
    return 'held' if is_on_hold(filebase) else 'waiting' if is_due else 'delayed'


def priority_of(filebase: str) -> int:
    """:return: the priority that an entry's name says."""
    name = parse_filebase(filebase)
    return name.priority if name else 0


class EntrySummary(NamedTuple):
    """One entry as a list shows it.  ``damage`` says which damage can be seen.

    ``inode`` is the device and number of its file, by which the kernel's list of locks knows it.
    """

    queue: str
    filebase: str
    suffix: str
    size_bytes: int
    modified_ns: int
    inode: tuple[int, int]
    entry: Entry
    body_bytes: int
    damage: str = ''
    # Whether its history may decide where it goes: the file is not of a user whom the spool does not trust.
    is_trusted: bool = True
    # The disk gave it; it may give one that it refused another time.
    is_read: bool = True

    @property
    def kind(self) -> str:
        """The kind that its header names."""
        return self.entry.kind

    @property
    def when_ns(self) -> int:
        """From when on it is ready, or was, by its name."""
        return when_ns_of(self.filebase)

    def due_ns(self, now_ns: int) -> int:
        """:return: from when on it is given out, or was; a turned clock does not count."""
        if self.suffix != READY or is_on_hold(self.filebase):
            return self.when_ns
        return due_ns(self.when_ns, self.modified_ns, now_ns)

    @property
    def priority(self) -> int:
        """0 to 9; 9 goes first."""
        return priority_of(self.filebase)

    def state(self, now_ns: int) -> EntryState:
        """:return: the state that follows from its name and its file's date at this moment."""
        return state_of(self.filebase, self.suffix, is_due=self.due_ns(now_ns) <= now_ns)

    @property
    def since_ns(self) -> int:
        """Since when it is as it is: preserved, held, or ready (in the future, if it is delayed)."""
        if self.suffix == READY and is_on_hold(self.filebase):
            return self.held_ns or self.modified_ns
        if self.suffix == PRESERVED:
            for record in reversed(self.entry.records):
                when_ns = time_ns(record.get('time'))
                if record.get('event') in _PUT_ASIDE and when_ns is not None:
                    return when_ns
        return self.when_ns

    @property
    def held_ns(self) -> int | None:
        """Since when an operator holds it, if its history says so."""
        held = (one for one in reversed(self.entry.records) if one.get('event') == 'held')
        return next((time_ns(record.get('time')) for record in held), None)

    def age_s(self, now_ns: int) -> float:
        """:return: seconds since it is as it is; below zero if it is not due yet."""
        is_ready = self.suffix == READY and not is_on_hold(self.filebase)
        return (now_ns - (self.due_ns(now_ns) if is_ready else self.since_ns)) / NS_PER_S

    @property
    def attempts(self) -> int:
        """The number of its failures since it was last sent back."""
        return count_since_retry(self.entry.records, 'failed', 'deferred')

    @property
    def recoveries(self) -> int:
        """The number of processes that have died with it since it was last sent back."""
        return count_since_retry(self.entry.records, 'recovered')

    @property
    def sent_back(self) -> int:
        """The number of times that an operator has sent it back."""
        return sum(record.get('event') == 'retried' for record in self.entry.records)

    @property
    def origin(self) -> str | None:
        """The queue it came from to this one, if its history knows one."""
        return origin_queue(self.entry.records, self.queue)

    @property
    def retry_queue(self) -> str | None:
        """The target of a retry: the queue in which it failed last, however it was moved since; None if its history names none.

        An entry that has not failed since it was sent back is at home where it is.
        """
        if not self.is_trusted:
            return None if self.queue == BAD else self.queue
        for record in reversed(drop_undone_moves(trusted_records(self.entry.records), self.queue)):
            if record.get('event') == 'retried':
                break
            if record.get('event') in ('preserved', 'dead-lettered') and isinstance(record.get('queue'), str):
                return str(record['queue'])
        return self.origin if self.queue == BAD else self.queue

    @property
    def removed_from(self) -> str | None:
        """The queue out of which an operator put it into the trash."""
        if not self.is_trusted:
            return None
        removed = (
            one for one in reversed(trusted_records(self.entry.records)) if one.get('event') == 'removed'
        )
        return next((one['queue'] for one in removed if isinstance(one.get('queue'), str)), None)

    @property
    def cause(self) -> str:
        """The cause for which it was put aside last, in one word: ``rejected``, ``attempts``, ``recoveries``, ``expired`` and so on."""
        causes = (record.get('cause') for record in reversed(self.entry.records))
        return next((cause for cause in causes if isinstance(cause, str)), '')

    @property
    def last_error(self) -> tuple[str, str]:
        """The class and the text of what went wrong last; two empty strings for an entry that nothing ever happened to.

        Where there was no error (its processes died, its time was over), the cause takes the place of the class.  The reason of an edit,
        a hold or a move to a working queue is no error.
        """
        for record in reversed(self.entry.records):
            cause, event = record.get('cause'), record.get('event')
            if isinstance(record.get('error'), str):
                return str(record['error']), str(record.get('message', record.get('reason', '')))
            if isinstance(cause, str) and cause not in ('rejected', 'attempts'):
                return cause, str(record.get('reason', ''))
            if event == 'recovered':
                return 'recoveries', f'a process died with it in its hands, {record.get("count", "?")} in all'
        for record in reversed(self.entry.records):
            put_aside = record.get('event') in _REFUSED or record.get('to') == BAD
            if put_aside and record.get('reason'):
                return str(record.get('cause', 'rejected')), str(record['reason'])
        return '', ''

    @property
    def frame(self) -> str:
        """The place where its last error was raised: file and function of the innermost frame that is no library's; empty if unknown."""
        tracebacks = (record.get('traceback') for record in reversed(self.entry.records))
        return next((frame_of(one) for one in tracebacks if isinstance(one, str)), '')

    def metadata(self) -> dict[str, Any]:
        """:return: its metadata as a runner would get them; empty if they cannot be read."""
        try:
            return self.entry.apply_history(load_metadata(self.entry.metadata))
        except (CorruptEntryError, ValueError, OverflowError, RecursionError, TypeError):
            return {}


# A traceback is what a runner wrote, or anybody: so much of its end is looked at.
_MAX_TRACEBACK = 20_000
_FRAME = re.compile(r'^  File "([^"\n]*)", line \d+, in ([^\n]*)$', re.MULTILINE)
_LIBRARY = re.compile(r'/(?:site|dist)-packages/|/lib/python3|^<frozen')


def frame_of(traceback: str) -> str:
    """:return: the innermost frame that is no library's, as ``jobs.py:dispose``: without line numbers, which every release moves."""
    frames = _FRAME.findall(traceback[-_MAX_TRACEBACK:])
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])] or frames
    if not own:
        return ''
    path, function = own[-1]
    return f'{path.rpartition("/")[2]}:{function}'


def summarize(folder: Folder, queue: str, filebase: str, suffix: str | None = None) -> EntrySummary | None:
    """Look at one entry without claiming it.

    :param suffix: the state it was in a moment ago; the others are tried as well.
    :return: None if there is no such entry (any more).  An unreadable one is no error, but has ``damage``.
    :raises OSError: the directory cannot be read, whether there is such an entry cannot be seen, or this process may open no more files.
    """
    for extension in (suffix, *SUFFIXES) if suffix else SUFFIXES:
        found = _summarize(folder, queue, filebase, extension, is_listed=extension == suffix)
        if found is not None:
            return found
    return None


def _summarize(
    folder: Folder, queue: str, filebase: str, suffix: str, *, is_listed: bool
) -> EntrySummary | None:
    disk = folder.disk
    name = filebase + suffix
    try:
        folder.open()  # where it cannot be, that is no damage of an entry's
    except FileNotFoundError:
        return None
    try:
        fd = disk.open(name, os.O_RDONLY | OPEN_FLAGS, dir_fd=folder.fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _OF_THE_PROCESS:
            raise
        why = f'cannot be opened: {error.strerror}'
        return _unreadable(folder, queue, filebase, suffix, why, is_listed=is_listed)
    try:
        status = disk.fstat(fd)
        entry, body_bytes, damage = _read(disk, fd, status.st_size, filebase)
        # As in `peek`; of a large file, parts were read one after the other.
        is_checked = damage or status.st_size > FIRST_READ_BYTES
        if is_checked and not disk.leads_to(name, folder.fd, status):
            return None
    except OSError as error:
        why = f'cannot be read: {error.strerror}'
        return _unreadable(folder, queue, filebase, suffix, why, is_listed=is_listed)
    finally:
        disk.close(fd)
    inode = (status.st_dev, status.st_ino)
    return EntrySummary(
        queue,
        filebase,
        suffix,
        status.st_size,
        status.st_mtime_ns,
        inode,
        entry,
        body_bytes,
        damage,
        folder.trusts(status.st_uid),
    )


def _unreadable(
    folder: Folder, queue: str, filebase: str, suffix: str, why: str, *, is_listed: bool
) -> EntrySummary | None:
    size, modified_ns, inode = 0, 0, (0, 0)
    try:
        status = folder.disk.stat(filebase + suffix, dir_fd=folder.fd, follow_symlinks=False)
        size, modified_ns, inode = status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino)
    except FileNotFoundError:
        return None
    except OSError:
        if not is_listed:
            raise  # nobody can say whether it is there
    entry = Entry(filebase, UNKNOWN, b'{}', b'')
    return EntrySummary(queue, filebase, suffix, size, modified_ns, inode, entry, 0, why, is_read=False)


def _read(disk: Disk, fd: int, size: int, filebase: str) -> tuple[Entry, int, str]:
    """:return: the readable part, without the body; the length of the body; the damage."""
    first = disk.read_all(fd, min(size, FIRST_READ_BYTES))
    digest = digest_of(filebase)
    try:
        header = parse_header(first[:MAX_HEADER_BYTES])
        header.check_file(digest, size)
    except CorruptEntryError as error:
        tail = disk.read_all(fd, min(size, TAIL_BYTES), max(0, size - TAIL_BYTES))
        # Without a header only the journal can be found, from the end of the file.
        entry = read_entry(filebase, first[:MAX_HEADER_BYTES] + tail if size > TAIL_BYTES else tail)
        entry.body = b''
        return entry, size, '' if entry.damage is None else error.reason
    metadata = _part(disk, fd, first, header.length, min(header.metadata_length, MAX_METADATA_BYTES))
    records = _history(disk, fd, first, header, size)
    return Entry(filebase, header.kind, metadata, b'', records, header.end), header.body_length, ''


def _history(disk: Disk, fd: int, first: bytes, header: Header, size: int) -> list[Record]:
    length = size - header.end
    if length <= MAX_JOURNAL_BYTES:
        return parse_records(_part(disk, fd, first, header.end, length), header.digest)[0]
    # The newest ones say where it is from; what stands before them may be anybody's.
    return find_records(disk.read_all(fd, MAX_JOURNAL_BYTES, size - MAX_JOURNAL_BYTES), header.digest)[0]


def _part(disk: Disk, fd: int, first: bytes, start: int, length: int) -> bytes:
    """:return: a part of the file: out of the first read, if it is there."""
    if start + length <= len(first):
        return first[start : start + length]
    return disk.read_all(fd, length, start)
