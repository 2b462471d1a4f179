"""The messages of a broker's queue that this machine's processes hold, so that their deaths can be counted.

A message that kills its runner must not do so for ever.  A directory counts in the message's own file; RabbitMQ says no more than
that a message was given out before, which is also so when a runner gave it back in good order.  So each process writes the digests of what it
holds into a file of its own, ``<spool>/.held@<queue>/<random>.held``, which it keeps locked for life: one short write as it takes a
message, one as it ends.  A file without a lock has a dead owner; each digest in it is one more death of that message, kept in
``<digest>.deaths``.

A process that an operator wanted to end, and that has to be killed, is not counted: the master empties its file before (``orphans``).  Redis counts by
itself, when a lease is over; there the file tells the master what to give back instead.

Each machine counts the deaths of its own processes.  A power cut may lose a count.
"""

from __future__ import annotations

import logging
import os
import threading

from switchboard.clock import Clock
from switchboard.events import log_event
from switchboard.message.naming import DIGEST_DIGITS, NS_PER_S, is_filebase
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.forks import after_fork
from switchboard.store.layout import DELIVERIES_SUFFIX

log = logging.getLogger('switchboard.queue')

DEATHS = '.deaths'
_BLANK = b' ' * DIGEST_DIGITS + b'\n'
_SLOT = len(_BLANK)
_MAX_SLOTS = 100_000
# A message that died here and was finished elsewhere leaves its count; then it is forgotten.
FORGET_S = 30 * 86400


class DeliveryCounts:
    """The messages of one queue that processes of this machine hold.

    :param folder: where the files are; made when first needed.  None: deaths are counted in this object alone.
    :param expiry_clock: the time by which counts are forgotten.
    """

    def __init__(
        self, folder: Folder | None, disk: Disk, clock: Clock, expiry_clock: ExpiryClock | None = None
    ) -> None:
        self._expiry_clock = expiry_clock or ExpiryClock(clock)
        self._folder = folder
        self._disk = disk
        self._clock = clock
        self._deaths: dict[str, int] = {}
        # Of these a file was seen: if it is there no more, the message has come to its end, perhaps in another process.
        self._noted: set[str] = set()
        self._reset()
        _COUNTS.add(self)

    def _reset(self) -> None:
        # Threads that each made the file at first use would leave one locked, with a message in it that nobody ends.
        self._lock = threading.Lock()
        self._fd, self._name = -1, ''
        self._slots: dict[str, int] = {}
        self._free: list[int] = []

    def is_claimed(self, digest: str) -> bool:
        """Is a message noted as claimed by this process?"""
        return digest in self._slots

    def note_claimed(self, digest: str) -> None:
        """Note that this process has claimed a message.  A disk that refuses does not keep it from working."""
        if self._folder is None or digest in self._slots:
            return
        try:
            with self._lock:
                self._note(digest, self._folder)
        except OSError as error:
            log_event(log, logging.WARNING, None, 'not noted', digest=digest, error=error)

    def _note(self, digest: str, folder: Folder) -> None:
        if self._fd < 0:
            folder.make()
            self._name = f'{os.urandom(8).hex()}{DELIVERIES_SUFFIX}'
            self._fd = self._disk.create_locked(self._name, folder.fd)
        slot = self._free.pop() if self._free else len(self._slots)
        self._disk.write_all(self._fd, digest.encode('ascii') + b'\n', slot * _SLOT)
        self._slots[digest] = slot

    def note_ended(self, digest: str) -> None:
        """Note that this process holds it no longer."""
        try:
            with self._lock:
                slot = self._slots.pop(digest, None)
                if slot is None:
                    return
                self._free.append(slot)
                self._disk.write_all(self._fd, _BLANK, slot * _SLOT)
        except OSError as error:
            log_event(log, logging.WARNING, None, 'not noted', digest=digest, error=error)

    def deaths(self, digest: str) -> int:
        """:return: how often a holder of the message died here."""
        noted = self._read(digest)
        return max(self._deaths.get(digest, 0), noted)

    def add_death(self, digest: str) -> int:
        """Count one more.

        :return: how many there are now.
        """
        count = self._deaths[digest] = self.deaths(digest) + 1
        if self._folder is not None:
            try:
                self._write(digest, count)
            except OSError as error:
                log_event(log, logging.WARNING, None, 'not counted', digest=digest, error=error)
        return count

    def clear_deaths(self, digest: str) -> None:
        """Forget the deaths of a message that has come to its end."""
        self._noted.discard(digest)
        if self._deaths.pop(digest, 0) and self._folder is not None:
            try:
                self._disk.unlink(digest + DEATHS, dir_fd=self._folder.fd)
            except OSError:
                pass  # a count that stays is forgotten when it is old

    def collect_dead_holders(self, *, counts: bool = True) -> list[str]:
        """Count what dead processes held, and take their files away.

        :param counts: False where the broker counts.
        :return: the digests.
        """
        if self._folder is None:
            return []
        found: list[str] = []
        try:
            names = self._folder.names()
        except FileNotFoundError:
            return []
        for name in names:
            try:
                if name.endswith(DELIVERIES_SUFFIX):
                    found += self._collect_dead_owner(name, counts)
                elif name.endswith(DEATHS):
                    self._forget_old(name)
            except OSError as error:
                log_event(log, logging.WARNING, None, 'not read', note=name, error=error)
        return found

    def _collect_dead_owner(self, name: str, counts: bool) -> list[str]:
        assert self._folder is not None
        opened = self._disk.open_locked(name, self._folder.fd)
        if opened is None:
            return []  # its owner lives
        fd, status = opened
        try:
            content = self._disk.read_all(fd, min(status.st_size, _SLOT * _MAX_SLOTS))
            digests = [
                line
                for line in content.decode('ascii', 'replace').split()
                if is_filebase(f'0000000000.0+{line}')
            ]
            for digest in digests if counts else ():
                self.add_death(digest)
            self._disk.unlink(name, dir_fd=self._folder.fd)
            return digests
        finally:
            self._disk.unlock_and_close(fd)

    def _read(self, digest: str) -> int:
        try:
            content = self._folder.read(digest + DEATHS, 40) if self._folder is not None else None
        except OSError:
            return 0
        if content is None:
            if digest in self._noted:
                self._noted.discard(digest)
                self._deaths.pop(digest, None)
            return 0
        self._noted.add(digest)
        count, _, _ = content.partition(b' ')
        self._deaths[digest] = number = int(count) if count.isdigit() else 1
        return number

    def _write(self, digest: str, count: int) -> None:
        assert self._folder is not None
        self._folder.make()
        fd = self._disk.open_lock_file(digest + DEATHS, self._folder.fd)
        try:
            self._disk.write_all(fd, b'%d %011d\n' % (count, self._clock.time_ns() // NS_PER_S))
            self._noted.add(digest)
        finally:
            self._disk.close_quietly(fd)

    def _forget_old(self, name: str) -> None:
        assert self._folder is not None
        _, _, when = (self._folder.read(name, 40) or b'').partition(b' ')
        if not when.strip().isdigit() or self._expiry_clock.time_ns() // NS_PER_S - int(when) > FORGET_S:
            self._disk.unlink(name, dir_fd=self._folder.fd)

    def close(self) -> None:
        """Let go of the file: nothing is held any more, or the rest is to count as a death."""
        if self._fd >= 0:
            if not self._slots and self._folder is not None:
                try:
                    self._disk.unlink(self._name, dir_fd=self._folder.fd)
                except OSError as error:
                    log_event(log, logging.DEBUG, None, 'not removed', note=self._name, error=error)
            self._disk.unlock_and_close(self._fd)
        self._reset()

    def _after_fork(self) -> None:
        if self._fd >= 0:
            self._disk.close_quietly(self._fd)  # not unlocked: the lock is the parent's too
        self._reset()


_COUNTS = after_fork(DeliveryCounts._after_fork)
