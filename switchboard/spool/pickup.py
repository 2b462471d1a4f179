"""The doors for programs that know nothing of entries: a maildir, and mails as plain files.

A queue with ``maildir = yes`` has the directories ``tmp``, ``new`` and ``cur`` of a `FileStore` in its own; whatever stands in
``new`` is a finished mail, by the rules of maildirs.  In any queue of a spool, a file whose name ends in ``.eml`` is a mail
too, as soon as no process has it open for writing.  A producer that renames its finished file into the queue is
safest, because a writer that dies looks like one that has finished.

Each process that takes from the queue also takes in, before it lists what is ready.  A file is locked, read, and becomes an
entry in one step (``adoption``).  What cannot become one goes to the bad queue with the reason; what is no
regular file, or may not be read, is reported once and left alone.
"""

from __future__ import annotations

import errno
import logging
import os
import stat as stat_module
from collections import deque

from switchboard.errors import ContentDisallowedError, MessageTooLargeError, QueueError
from switchboard.filestore import DIRECTORIES, FileStore
from switchboard.handoff.stage import Stage
from switchboard.handoff.transaction import commit_all
from switchboard.message.delivery_headers import postmark
from switchboard.message.entry import UNKNOWN, Entry
from switchboard.message.mail import lazy_mail
from switchboard.message.mail_envelope import MAX_DROPPED_BYTES
from switchboard.message.naming import CLAIMED, NS, SLICE_DIGITS, Name
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.adoption import Adoption, Dropped
from switchboard.store.claims import Claim
from switchboard.store.disk import OPEN_FLAGS, Folder

log = logging.getLogger('switchboard.queue')

PLAIN_SUFFIX = '.eml'

# Files that share the flushes of one commit; each keeps two descriptors open.
GROUP = 64
# A runner must beat its heart between: what is not taken in by then waits for the next round.
ROUND_NS = NS
# Where the kernel does not tell whether a file is being written, it is finished when it was the same for so long.  So is an
# empty one anywhere: its producer may have made it and not yet begun.
SETTLED_NS = 5 * NS
# Of a name that was linked nowhere and a writer that never came back: by the rules of maildirs, a writer has given up after a day.
ABANDONED_NS = 36 * 3600 * NS
SWEEP_EVERY_NS = 3600 * NS
# The same trouble is told again after this.
COMPLAIN_EVERY_NS = 60 * NS


class Pickup:
    """Takes in what is dropped into one queue.  See `Letterbox`.

    :param stage: over which a file becomes an entry.
    """

    def __init__(self, stage: Stage, board: Switchboard) -> None:
        self._stage = stage
        self._board = board
        self._disk = board.disk
        self._clock = board.clock
        self.suffix = PLAIN_SUFFIX if board.options.plain_files else ''
        self.directories: frozenset[str] = frozenset()
        self.maildir_new: str | None = None
        self._store = FileStore(board.queue_directory, disk=board.disk)
        if board.options.maildir:
            self._store.prepare()
            self.directories = frozenset(DIRECTORIES)
            self.maildir_new = os.path.join(board.queue_directory, 'new')
        self._waiting: deque[tuple[Folder, str]] = deque()
        # Files that may still be written: what they looked like, and since when.
        self._unsettled: dict[str, tuple[tuple[int, int, int], int]] = {}
        self._sweep_at_ns = 0
        self._complaint = ('', 0)

    def collect(self, names: list[str]) -> int:
        """See `Letterbox`."""
        now_ns = self._clock.monotonic_ns()
        if not self._waiting:
            try:
                self._waiting.extend(self._candidates(names))
                if self.maildir_new is not None and now_ns >= self._sweep_at_ns:
                    self._sweep_at_ns = now_ns + SWEEP_EVERY_NS
                    self._sweep()
            except OSError as error:
                self._complain(f'nothing is taken in: {error}')
        taken = 0
        while self._waiting and self._clock.monotonic_ns() - now_ns < ROUND_NS:
            taken += self._commit(self._prepare_group())
        return taken

    def has_more(self) -> bool:
        """See `Letterbox`."""
        return bool(self._waiting)

    def wait_s(self) -> float | None:
        """See `Letterbox`."""
        if not self._unsettled:
            return None
        first_ns = min(since_ns for _, since_ns in self._unsettled.values())
        return max(0, first_ns + SETTLED_NS - self._clock.monotonic_ns()) / NS

    def _candidates(self, names: list[str]) -> list[tuple[Folder, str]]:
        """:return: what may be taken, the oldest first."""
        places = [(self._board.folder, name) for name in names]
        if self.maildir_new is not None:
            self._store.prepare()  # somebody may have removed it
            new = Folder(self.maildir_new, self._disk)
            places += [(new, os.path.basename(path)) for path in self._store.list('new')]
        found = []
        for folder, name in places:
            try:
                status = self._disk.stat(name, dir_fd=folder.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process was faster
            if stat_module.S_ISREG(status.st_mode):
                found.append((status.st_mtime_ns, name, folder))
            else:
                self._board.report(name, 'not a regular file')
        seen = {name for _, name, _ in found}
        self._unsettled = {name: state for name, state in self._unsettled.items() if name in seen}
        found.sort(key=lambda each: each[:2])
        return [(folder, name) for _, name, folder in found]

    def _prepare_group(self) -> list[Adoption]:
        """Open and read up to `GROUP` files, and write their entries; at the first trouble, end the round."""
        adoptions: list[Adoption] = []
        try:
            for _ in range(min(GROUP, len(self._waiting))):
                dropped = self._open(*self._waiting.popleft())
                if dropped is None:
                    continue
                try:
                    adoption = self._prepare(dropped)
                except BaseException:
                    dropped.close(self._disk)
                    raise
                if adoption is not None:
                    adoptions.append(adoption)
        except (QueueError, OSError) as error:
            self._waiting.clear()
            self._complain(f'nothing is taken in: {error}')
        return adoptions

    def _open(self, folder: Folder, name: str) -> Dropped | None:
        """Lock a file, if it is finished."""
        try:
            opened = self._disk.open_locked(name, folder.fd, writable=False)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            self._board.report(name, f'cannot be read: {error.strerror}')
            return None
        if opened is None:
            return None
        dropped = Dropped(opened[0], folder, name, opened[1])
        if self._is_finished(dropped):
            return dropped
        dropped.close(self._disk)
        return None

    def _is_finished(self, dropped: Dropped) -> bool:
        status = dropped.status
        # What stands in `new` is finished: that is what a maildir is.
        written = self._disk.is_being_written(dropped.fd) if dropped.folder is self._board.folder else False
        if written is False and status.st_size:
            return True
        looks = (status.st_ino, status.st_size, status.st_mtime_ns)
        now_ns = self._clock.monotonic_ns()
        known, since_ns = self._unsettled.get(dropped.name, (looks, now_ns))
        if written or known != looks:
            since_ns = now_ns
        self._unsettled[dropped.name] = (looks, since_ns)
        return now_ns - since_ns >= SETTLED_NS

    def _prepare(self, dropped: Dropped) -> Adoption | None:
        """Write a file's entry.

        :return: None if it went to the bad queue, or was written to meanwhile.
        :raises QueueError: there is no room: it is where it was.
        """
        size, limit = dropped.status.st_size, self._board.options.max_body_bytes
        if limit is None:
            limit = MAX_DROPPED_BYTES
        if not size or size > limit:
            self._refuse(dropped, f'{size} bytes, and the queue takes {limit}' if size else 'empty')
            return None
        try:
            content = self._disk.read_all(dropped.fd, size)
        except MemoryError:
            self._refuse(dropped, f'{size} bytes: more than there is memory for')
            return None
        in_maildir = dropped.folder is not self._board.folder
        metadata = {
            'door': 'maildir' if in_maildir else 'file',
            'file': dropped.name,
            **(postmark(content) if in_maildir else {}),
        }
        if len(content) != size or dropped.has_changed(self._disk):
            dropped.close(self._disk)
            return None
        adoption = Adoption(self._stage, dropped)
        try:
            adoption.add(
                self._board, self._board.prepare(lazy_mail(content), metadata, unique=dropped.unique)
            )
        except (ContentDisallowedError, MessageTooLargeError) as error:
            self._refuse(dropped, error.reason)
            return None
        return adoption

    def _commit(self, adoptions: list[Adoption]) -> int:
        failed = commit_all(adoptions)
        for adoption in adoptions:
            name = adoption.dropped.name
            error = failed.get(adoption)
            self._unsettled.pop(name, None)
            if error is None:
                log.info('%s: taken in queue=%s', name, self._board.name)
            else:
                adoption.dropped.close(self._disk)
                self._complain(f'{name}: not taken in: {error}')
        return len(adoptions) - len(failed)

    def _refuse(self, dropped: Dropped, reason: str) -> None:
        """Put a file that cannot be an entry into the bad queue, as it is.

        First it becomes a claimed entry, by one rename; a crash after that leaves it to recovery, which finds no header and
        puts it into the bad queue too.
        """
        board, disk = self._board, self._disk
        filebase = str(Name(self._clock.time_ns(), '0' * SLICE_DIGITS + dropped.unique))
        disk.rename(
            dropped.name, filebase + CLAIMED, src_dir_fd=dropped.folder.fd, dst_dir_fd=board.folder.fd
        )
        self._unsettled.pop(dropped.name, None)
        status = dropped.status
        # Not read: it may be of any size.
        entry = Entry(filebase, UNKNOWN, b'{}', b'', end=status.st_size)
        fd, writable = self._open_for_history(dropped, filebase + CLAIMED)
        claim = Claim(
            fd,
            board.folder,
            filebase,
            CLAIMED,
            status.st_size,
            status.st_uid,
            writable,
            modified_ns=status.st_mtime_ns,
            entry=entry,
        )
        try:
            board.recovery.preserve(claim, reason, cause='corrupt', file=dropped.name)
        except OSError as error:
            claim.close()
            self._complain(f'{dropped.name}: left claimed: {error}')
        if fd != dropped.fd:
            dropped.close(disk)

    def _open_for_history(self, dropped: Dropped, name: str) -> tuple[int, bool]:
        """:return: a descriptor and whether it may be written to; the lock stays with the one that there is."""
        if dropped.status.st_nlink == 1:  # its history would be written into the other links as well
            try:
                fd = self._disk.open_file(name, os.O_RDWR | OPEN_FLAGS, self._board.folder.fd)
            except OSError:
                pass
            else:
                return fd, True
        return dropped.fd, False

    def _sweep(self) -> None:
        """Remove what writers have begun and abandoned."""
        folder = Folder(os.path.join(self._board.queue_directory, 'tmp'), self._disk)
        for path in self._store.list('tmp'):
            name = os.path.basename(path)
            try:
                status = self._disk.stat(name, dir_fd=folder.fd, follow_symlinks=False)
                if self._clock.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > ABANDONED_NS:
                    self._disk.unlink(name, dir_fd=folder.fd)
                    log.warning('%s: abandoned in tmp, removed queue=%s', name, self._board.name)
            except OSError as error:
                log.debug('%s: not removed error=%s', name, error)

    def _complain(self, text: str) -> None:
        now_ns = self._clock.monotonic_ns()
        last, when_ns = self._complaint
        if text != last or now_ns - when_ns > COMPLAIN_EVERY_NS:
            self._complaint = (text, now_ns)
            log.error('%s queue=%s', text, self._board.name)
