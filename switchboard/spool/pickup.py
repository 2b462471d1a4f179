"""The doors for programs that know nothing of entries: a maildir, and mails as plain files.

A queue with ``maildir = yes`` has the directories ``tmp``, ``new`` and ``cur`` of a `FileStore` in its own; whatever stands in
``new`` is a finished mail, by the rules of maildirs.  In any queue of a spool, a file whose name ends in ``.eml`` is a mail
too, as soon as no process has it open for writing.  A producer that renames its finished file into the queue is
safest, because a writer that dies looks like one that has finished.

Each process that takes from the queue also takes in, before it lists the ready entries.  A file is locked, read, and becomes an
entry in one step: the hand-off does it, with the file in the input's place and the entry made from it as the output.  So
the entry appears if and only if the file is gone from where it was dropped, whatever dies when (see
``docs/explanation/states.md``).  A file that cannot become one goes to the bad queue with the reason; one that is no
regular file, or may not be read, is reported once and left alone.  One that the disk refuses is tried again behind all others.

Rejected: renaming the file itself to an entry's name (it has no header, so nothing would tell a whole mail from half of
one, and it may be linked, readable only or another user's), and publishing first and removing after (a process that dies in
between has doubled the message if somebody has finished the first one by then).
"""

from __future__ import annotations

import errno
import logging
import os
import stat as stat_module
from collections import deque
from dataclasses import dataclass

from switchboard.errors import ContentDisallowedError, MessageTooLargeError, QueueError
from switchboard.events import log_event, refusal_log_level
from switchboard.filestore import FileStore
from switchboard.handoff.commit import commit_all
from switchboard.handoff.handoff import Handoff
from switchboard.handoff.stage import Stage
from switchboard.message.delivery_headers import read_delivery_headers
from switchboard.message.entry import UNKNOWN, Entry
from switchboard.message.mail import mail_from_bytes
from switchboard.message.mail_envelope import MAX_DROPPED_BYTES
from switchboard.message.naming import (
    CLAIMED,
    NS_PER_S,
    PLAIN_SUFFIX,
    SLICE_DIGITS,
    UNIQUE_DIGITS,
    make_filebase,
)
from switchboard.queue.switchboard import Switchboard
from switchboard.store.claims import Claim
from switchboard.store.disk import OPEN_FLAGS, Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import MAILDIR_DIRECTORIES, MAILDIR_NEW
from switchboard.store.renewal import renew

log = logging.getLogger('switchboard.queue')

# Files that share the flushes of one commit; each keeps two descriptors open.
GROUP = 64
# A runner must beat its heart between: files not taken in by then wait for the next round.
ROUND_NS = NS_PER_S
# Where the kernel does not tell whether a file is being written, it is finished when it was the same for so long.  So is an
# empty one anywhere: its producer may have made it and not yet begun.
SETTLED_NS = 5 * NS_PER_S
# Of a name that was linked nowhere and a writer that never came back: by the rules of maildirs, a writer has given up after a day.
ABANDONED_NS = 36 * 3600 * NS_PER_S
SWEEP_EVERY_NS = 3600 * NS_PER_S
# The same trouble is logged again after this.
REPORT_EVERY_NS = 60 * NS_PER_S


@dataclass(slots=True, eq=False)
class DroppedFile:
    """A file that another program has dropped: open for reading, and locked.

    The lock keeps the other processes of this queue away.  Programs that drop files need not know of it.
    """

    claim: Claim
    name: str
    status: os.stat_result

    @property
    def digest_tail(self) -> str:
        """Digits that stay the same each time this file is looked at, and that no other file has."""
        import hashlib  # here, because it brings a megabyte of OpenSSL with it

        status = self.status
        identity = f'{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}:'.encode() + os.fsencode(self.name)
        return hashlib.sha256(identity).hexdigest()[:UNIQUE_DIGITS]

    def has_changed(self, disk: Disk) -> bool:
        """Was the file written to since it was opened?"""
        now, then = disk.fstat(self.claim.fd), self.status
        return (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns)


class Pickup:
    """Takes in the files that are dropped into one queue.  See `FilePickup`.

    :param stage: over which a file becomes an entry.
    """

    def __init__(self, stage: Stage, queue: Switchboard) -> None:
        self._stage = stage
        self._queue = queue
        self._disk = queue.disk
        self._clock = queue.clock
        self.suffix = PLAIN_SUFFIX if queue.options.accept_eml_files else ''
        self.directories: frozenset[str] = frozenset()
        self.maildir_new: str | None = None
        self._store = FileStore(queue.queue_directory, shared=True, disk=queue.disk)
        if queue.options.maildir:
            self._store.prepare()
            self.directories = frozenset(MAILDIR_DIRECTORIES)
            self.maildir_new = os.path.join(queue.queue_directory, MAILDIR_NEW)
        self._waiting: deque[tuple[Folder, str]] = deque()
        # Files that may still be written: what they looked like, and since when.
        self._unsettled: dict[str, tuple[tuple[int, int, int], int]] = {}
        # Files that the disk does not give: they come last.
        self._refused: set[str] = set()
        self._sweep_at_ns = 0
        self._last_report = ('', 0)

    def collect(self, names: list[str]) -> int:
        """See `FilePickup`."""
        if not names and not self._waiting and not self._unsettled and self.maildir_new is None:
            return 0
        now_ns = self._clock.monotonic_ns()
        if not self._waiting:
            try:
                self._waiting.extend(self._candidates(names))
                if self.maildir_new is not None and now_ns >= self._sweep_at_ns:
                    self._sweep_at_ns = now_ns + SWEEP_EVERY_NS
                    self._sweep()
            except OSError as error:
                self._report(f'nothing is taken in: {error}')
        taken = 0
        while self._waiting and self._clock.monotonic_ns() - now_ns < ROUND_NS:
            taken += self._commit(self._prepare_group())
        return taken

    def has_more(self) -> bool:
        """See `FilePickup`."""
        return bool(self._waiting)

    def wait_s(self) -> float | None:
        """See `FilePickup`."""
        if not self._unsettled:
            return None
        first_ns = min(since_ns for _, since_ns in self._unsettled.values())
        return max(0, first_ns + SETTLED_NS - self._clock.monotonic_ns()) / NS_PER_S

    def _candidates(self, names: list[str]) -> list[tuple[Folder, str]]:
        """:return: the files that may be taken, the oldest first."""
        places = [(self._queue.folder, name) for name in names]
        if self.maildir_new is not None:
            self._store.prepare()  # somebody may have removed it
            new = Folder(self.maildir_new, self._disk)
            mails = [(new, os.path.basename(path)) for path in self._store.list('new')]
            if not mails:
                renew(new)
            places += mails
        found = []
        for folder, name in places:
            try:
                status = self._disk.stat(name, dir_fd=folder.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process was faster
            if stat_module.S_ISREG(status.st_mode):
                found.append((status.st_mtime_ns, name, folder))
            else:
                self._queue.report_foreign_file(name, 'not a regular file')
        seen = {name for _, name, _ in found}
        self._unsettled = {name: state for name, state in self._unsettled.items() if name in seen}
        self._refused &= seen
        found.sort(key=lambda each: (each[1] in self._refused, *each[:2]))
        return [(folder, name) for _, name, folder in found]

    def _prepare_group(self) -> list[tuple[DroppedFile, Handoff]]:
        """Open and read up to `GROUP` files, for `ROUND_NS` at most, and write their entries; at the first trouble, end the round."""
        group: list[tuple[DroppedFile, Handoff]] = []
        start_ns = self._clock.monotonic_ns()
        try:
            for _ in range(min(GROUP, len(self._waiting))):
                if group and self._clock.monotonic_ns() - start_ns >= ROUND_NS:
                    break  # prepared files are committed: a slow file must not have them prepared again and again
                dropped = self._open(*self._waiting.popleft())
                if dropped is None:
                    continue
                try:
                    handoff = self._prepare(dropped)
                except OSError as error:
                    dropped.claim.close()
                    if dropped.name in self._refused:
                        raise  # all others have had their turn
                    self._refused.add(dropped.name)
                    self._report(f'{dropped.name}: not taken in: {error}')
                    continue
                except BaseException:
                    dropped.claim.close()
                    raise
                if handoff is not None:
                    group.append((dropped, handoff))
        except (QueueError, OSError) as error:
            self._waiting.clear()
            self._report(f'nothing is taken in: {error}', refusal_log_level(error))
        return group

    def _open(self, folder: Folder, name: str) -> DroppedFile | None:
        """Lock a file, if it is finished."""
        try:
            opened = self._disk.open_locked(name, folder.fd, writable=False)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            self._queue.report_foreign_file(name, f'cannot be read: {error.strerror}')
            return None
        if opened is None:
            return None
        fd, status = opened
        claim = Claim(fd, folder, name, '', status.st_size, status.st_uid, False, status.st_mtime_ns)
        claim.register()
        dropped = DroppedFile(claim, name, status)
        if self._is_finished(dropped):
            return dropped
        claim.close()
        return None

    def _is_finished(self, dropped: DroppedFile) -> bool:
        status = dropped.status
        # What stands in `new` is finished: that is what a maildir is.
        in_queue = dropped.claim.folder is self._queue.folder
        written = in_queue and self._disk.is_being_written(dropped.claim.fd)
        if written is False and status.st_size:
            return True
        looks = (status.st_ino, status.st_size, status.st_mtime_ns)
        now_ns = self._clock.monotonic_ns()
        known, since_ns = self._unsettled.get(dropped.name, (looks, now_ns))
        if written or known != looks:
            since_ns = now_ns
        self._unsettled[dropped.name] = (looks, since_ns)
        return now_ns - since_ns >= SETTLED_NS

    def _prepare(self, dropped: DroppedFile) -> Handoff | None:
        """Write a file's entry.

        :return: None if it went to the bad queue, or was written to meanwhile.
        :raises QueueError: there is no room: it is where it was.
        """
        size, limit = dropped.status.st_size, self._queue.options.max_body_bytes
        if limit is None:
            limit = MAX_DROPPED_BYTES
        if not size or size > limit:
            self._refuse(dropped, f'{size} bytes, and the queue takes {limit}' if size else 'empty')
            return None
        try:
            content = self._disk.read_all(dropped.claim.fd, size)
        except MemoryError:
            self._refuse(dropped, f'{size} bytes: more than there is memory for')
            return None
        in_maildir = dropped.claim.folder is not self._queue.folder
        metadata = {
            'door': 'maildir' if in_maildir else 'file',
            'file': dropped.name,
            **(read_delivery_headers(content) if in_maildir else {}),
        }
        if len(content) != size or dropped.has_changed(self._disk):
            dropped.claim.close()
            return None
        handoff = Handoff(self._stage, claim=dropped.claim)
        try:
            handoff.add(
                self._queue,
                self._queue.prepare(mail_from_bytes(content), metadata, digest_tail=dropped.digest_tail),
            )
        except (ContentDisallowedError, MessageTooLargeError) as error:
            self._refuse(dropped, error.reason)
            return None
        return handoff

    def _commit(self, group: list[tuple[DroppedFile, Handoff]]) -> int:
        failed = commit_all([handoff for _, handoff in group])
        for dropped, handoff in group:
            error = failed.get(handoff)
            self._unsettled.pop(dropped.name, None)
            if error is None:
                log_event(log, logging.INFO, None, 'picked up', name=dropped.name, queue=self._queue.name)
            else:
                dropped.claim.close()
                self._report(f'{dropped.name}: not taken in: {error}', refusal_log_level(error))
        return len(group) - len(failed)

    def _refuse(self, dropped: DroppedFile, reason: str) -> None:
        """Put a file that cannot be an entry into the bad queue, as it is.

        First it becomes a claimed entry, by one rename; a crash after that leaves it to recovery, which finds no header and
        puts it into the bad queue too.
        """
        queue, claim, status = self._queue, dropped.claim, dropped.status
        filebase = make_filebase(self._clock.time_ns(), '0' * SLICE_DIGITS + dropped.digest_tail)
        claim.rename_unchecked(queue.folder, filebase, CLAIMED)
        self._unsettled.pop(dropped.name, None)
        # Not read: it may be of any size.
        claim.entry = Entry(filebase, UNKNOWN, b'{}', b'', end=status.st_size)
        # The lock stays with the descriptor that there is: another one is for the history.
        read_only, writable = claim.fd, self._open_for_history(claim, status)
        if writable is not None:
            claim.fd, claim.writable = writable, True
        try:
            queue.consumer.move_to_bad(claim, reason, cause='corrupt', file=dropped.name)
        except OSError as error:
            claim.close()
            self._report(f'{dropped.name}: left claimed: {error}')
        if writable is not None:
            self._disk.unlock_and_close(read_only)

    def _open_for_history(self, claim: Claim, status: os.stat_result) -> int | None:
        """:return: a descriptor that may be written to; None if the file must not be."""
        if status.st_nlink > 1:  # its history would be written into the other links as well
            return None
        try:
            return self._disk.open_file(claim.name, os.O_RDWR | OPEN_FLAGS, self._queue.folder.fd)
        except OSError:
            return None

    def _sweep(self) -> None:
        """Remove what writers have begun and abandoned: also under a name that begins with a point, which nobody lists."""
        folder = Folder(os.path.join(self._queue.queue_directory, 'tmp'), self._disk)
        with folder.scan() as entries:
            names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        for name in names:
            try:
                status = self._disk.stat(name, dir_fd=folder.fd, follow_symlinks=False)
                if (
                    self._queue.expiry_clock.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
                    > ABANDONED_NS
                ):
                    self._disk.unlink(name, dir_fd=folder.fd)
                    log_event(
                        log,
                        logging.WARNING,
                        None,
                        'unfinished mail removed',
                        name=name,
                        queue=self._queue.name,
                    )
            except OSError as error:
                log_event(log, logging.DEBUG, None, 'not removed', name=name, error=error)

    def _report(self, text: str, level: int = logging.ERROR) -> None:
        now_ns = self._clock.monotonic_ns()
        last, when_ns = self._last_report
        if text != last or now_ns - when_ns > REPORT_EVERY_NS:
            self._last_report = (text, now_ns)
            log_event(log, level, None, 'not picked up', error=text, queue=self._queue.name)
