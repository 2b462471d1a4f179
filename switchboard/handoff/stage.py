"""The directory ``.stage``: outputs between being written and being seen, and commit records.

`switchboard.handoff.handoff` says what stands here when, and why.  This module repairs what dead processes left.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple
from zlib import crc32

from switchboard.errors import DurabilityError, LockTimeoutError
from switchboard.events import log_event
from switchboard.message.naming import READY, NameGenerator, slice_digits_of
from switchboard.store.claims import Claim
from switchboard.store.folder import Folder
from switchboard.store.order_lock import OrderLock
from switchboard.store.pool import FilePool
from switchboard.store.renewal import renew

log = logging.getLogger('switchboard.queue')

COMMIT = 'commit'
# Commit records that are dealt with together: each is open and locked.
ROLLED_AT_ONCE = 200
# How often a committed transaction is looked at again before the disk is said to refuse it.
PUBLISHED_TRIES = 5
# Order keys whose last outputs are remembered, at least: about 200 bytes each.
MAX_LAST_OUTPUT_TIMES = 10_000

# The digits that the name of a transaction begins with, if nobody asks for it by its input.
ANY_INPUT_PREFIX = '00000000'

TOO_SLOW = 'another process is publishing it and does not get on: later hand-offs may pass it'

# A queue, and the digits that its messages with the same order key have in common.
OrderKey = tuple[str, str]


def transaction_prefix(queue: str, filebase: str) -> str:
    """:return: the digits that the names of transactions begin with whose inputs are of this queue and have the key of this entry."""
    return f'{crc32(f"{queue} {slice_digits_of(filebase)}".encode()):08x}'


class Output(NamedTuple):
    """A staged output: its name here, the queue it is for, and its name there."""

    name: str
    queue: str
    filebase: str

    @property
    def order_key(self) -> OrderKey:
        """The order key that it has in common with outputs that it must not pass."""
        return self.queue, slice_digits_of(self.filebase) if '+' in self.filebase else self.filebase


class LastOutputTimes:
    """The order keys of the outputs of a process, and the last time of each: an entry that it forwards later goes behind that.

    An output is as old as its hand-off and a forwarded entry keeps its time: without this the second would pass the first.  Only the
    outputs of this process are known, so an entry that was moved away still comes back to its place before those of others.
    """

    def __init__(self) -> None:
        # Two generations: the older one is forgotten when the younger one is full.
        self._last: dict[tuple[str, str, str], str] = {}
        self._before: dict[tuple[str, str, str], str] = {}

    def note(self, source: str, target: str, filebase: str) -> None:
        """Remember an output, or an entry that was forwarded behind one."""
        if len(self._last) >= MAX_LAST_OUTPUT_TIMES:
            self._before, self._last = self._last, {}
        self._last[source, target, slice_digits_of(filebase)] = filebase.partition('+')[0]

    def would_overtake(self, source: str, target: str, filebase: str) -> bool:
        """Would this entry, with the time it has, come before an output of this process in `target` for its key?"""
        if not self._last:
            return False
        key = source, target, slice_digits_of(filebase)
        last = self._last.get(key) or self._before.get(key, '')
        return filebase.partition('+')[0] < last


class Stage:
    """The directory ``.stage``: outputs between being written and being seen, and commit records.

    :param order: the directory of the keys' locks, of queues in strict order.
    """

    def __init__(
        self,
        spool_path: str,
        folder: Folder,
        pool: FilePool,
        name_generator: NameGenerator,
        order: Folder,
    ) -> None:
        self.spool_path = spool_path
        self.folder = folder
        self.disk = folder.disk
        self.pool = pool
        self.name_generator = name_generator
        self._order = order
        self.last_outputs = LastOutputTimes()
        # Transactions that this process has committed, and the disk refused to publish.
        self._stuck: set[str] = set()

    @property
    def is_stuck(self) -> bool:
        """Has the disk refused to publish what this process has committed?"""
        return bool(self._stuck)

    def recreate_if_removed(self) -> bool:
        """Go on where somebody has removed the directory; its content is lost, and only that.

        :return: whether that was so.
        """
        if not self.folder.recreate_if_removed():
            return False
        log_event(log, logging.WARNING, None, 'directory replaced', path=self.folder.path)
        return True

    def recover(self, *, wait: bool = False) -> int:
        """Roll forward what dead processes committed, and throw away what they did not.

        May run at any time, in any number of processes.

        :param wait: wait for the hand-offs that other processes are publishing now, so that later ones come behind them.
        :return: how many transactions and outputs were dealt with.
        """
        names = self._names()
        done = self._recover_names(names)
        if wait and (records := _records(names)) and self._wait_for_owners(records):
            done += self.recover()
        return done

    def _wait_for_owners(self, transactions: Sequence[str]) -> bool:
        """Wait until nobody works on these transactions, but not for ever: the process that does may be stopped.

        :return: are some of them left to be rolled forward?
        """
        left, ends_at_s = False, time.monotonic() + self.disk.lock_timeout_s
        for transaction in transactions:
            try:
                left |= self._wait_for(transaction, max(0.0, ends_at_s - time.monotonic()))
            except LockTimeoutError:
                log_event(
                    log, logging.WARNING, None, 'hand-off stalled', transaction=transaction, error=TOO_SLOW
                )
                break
            except OSError as error:
                log_event(log, logging.ERROR, None, 'not recovered', transaction=transaction, error=error)
        return left

    def is_handoff_unfinished(self, queue: str, filebase: str) -> bool:
        """Is an entry of this queue, with the key of this one, committed, and not all of its outputs there?

        The records of dead processes are rolled forward first.

        Assumes: the key is locked by the caller, so that no other entry of it is committed meanwhile.

        :raises OSError: that cannot be found out.
        """
        digits = transaction_prefix(queue, filebase)
        records = [name for name in _records(self._names()) if name.startswith(digits)]
        if not records:
            return False
        self._roll_forward(records)
        return any(name.startswith(digits) for name in _records(self._names()))

    def wait_until_published(self, outputs: Collection[tuple[str, str]]) -> None:
        """Recover, and let none of these outputs be under way: each committed one is where it belongs, whichever process put it there.

        To recover is not enough for that: another process may be publishing what a dead one has committed, and a process that dies
        drops its locks one after the other, the record's perhaps last.  Both hold the record: it is waited for.

        Assumes: nobody else emits these outputs from here on (the caller has their lock).

        :param outputs: queues, and the filebases there.
        :raises OSError: that cannot be found out.
        :raises LockTimeoutError: another process holds a record for too long.
        :raises DurabilityError: one is committed, and the disk refuses to publish it.
        """
        names = self._names()
        self._recover_names(names)
        for transaction in {
            name.partition(':')[0] for name in names if tuple(name.split(':')[2:]) in outputs
        }:
            # Another process that waits for the record holds it for a moment, and it is not recovered then.
            for _ in range(PUBLISHED_TRIES):
                if not self._wait_for(transaction):
                    break
                self.recover()
            else:
                raise DurabilityError('it is committed, and the disk refuses to publish it', step='rename')

    def _wait_for(self, transaction: str, within_s: float | None = None) -> bool:
        """Wait until nobody works on a commit record.

        :param within_s: how long, as in `Disk.lock_when_free`.
        :return: is it still there?
        """
        opened = self.disk.open_locked(
            f'{transaction}:{COMMIT}',
            self.folder.fd,
            writable=False,
            waits_for='a hand-off',
            within_s=within_s,
        )
        if opened is None:
            return False
        self.disk.unlock_and_close(opened[0])
        return True

    def _names(self) -> list[str]:
        try:
            return self.folder.names()
        except FileNotFoundError:
            if not self.recreate_if_removed():
                raise
            return []

    def _recover_names(self, names: Sequence[str]) -> int:
        if not names:
            renew(self.folder)  # a million that were emitted at once have made it large
            return 0
        records = _records(names)
        # Records first: what they name must not be looked at as if it had none.
        done = self._roll_forward(records) if records else 0
        committed = set(records)
        for name in names:
            transaction = name.partition(':')[0]
            if transaction in committed:
                continue
            try:
                done += self._throw_away(name, transaction)
            except OSError as error:
                # One that cannot be dealt with, or that is none of ours, must not keep the others waiting.
                log_event(log, logging.ERROR, None, 'not recovered', transaction=name, error=error)
        return done

    def _roll_forward(self, transactions: Sequence[str]) -> int:
        """Move the outputs of transactions to where they belong: with one listing and one flush of each directory for many.

        :return: how many transactions.
        """
        done = 0
        for start in range(0, len(transactions), ROLLED_AT_ONCE):
            records: dict[str, Claim] = {}
            try:
                for transaction in transactions[start : start + ROLLED_AT_ONCE]:
                    record = self._lock_record(transaction)
                    if record is not None:
                        records[transaction] = record
                done += self._roll_together(records) if records else 0
            finally:
                for record in records.values():
                    if record.is_own():
                        record.close()
        return done

    def _roll_together(self, records: Mapping[str, Claim]) -> int:
        # Their owners may have died before they synced: a record is to be on the disk before an output is seen, and what
        # the owner has published is to be there before the record goes.  One sync of this directory is both.
        self.folder.sync_renames()
        outputs = self._outputs(records)
        targets: dict[str, Folder] = {}
        published: list[str] = []
        stuck: set[OrderKey] = set()
        for transaction in records:
            mine = outputs.get(transaction, [])
            if stuck and not stuck.isdisjoint(output.order_key for output in mine):
                continue  # one of the same order key is not there yet
            try:
                for output in mine:
                    self._publish(output, targets)
                published.append(transaction)
            except OSError as error:
                log_event(log, logging.ERROR, None, 'not recovered', transaction=transaction, error=error)
                stuck.update(output.order_key for output in mine)
        for target in targets.values():
            target.sync_renames()
        return sum(
            self._end(transaction, records[transaction], len(outputs.get(transaction, ())))
            for transaction in published
        )

    def _lock_record(self, transaction: str) -> Claim | None:
        """:return: None if its owner lives, or somebody else was faster, or it cannot be opened."""
        name = f'{transaction}:{COMMIT}'
        try:
            # For reading only: a record may be a file that another user has dropped.
            opened = self.disk.open_locked(name, self.folder.fd, writable=False)
        except OSError as error:
            log_event(log, logging.ERROR, None, 'not recovered', transaction=name, error=error)
            return None
        if opened is None:
            return None
        fd, status = opened
        size, uid, modified_ns = status.st_size, status.st_uid, status.st_mtime_ns
        claim = Claim(fd, self.folder, name, '', size, uid, False, modified_ns, links=status.st_nlink)
        claim.register()
        return claim

    def _outputs(self, transactions: Container[str]) -> dict[str, list[Output]]:
        """List what waits for these transactions, in the order in which it is to be seen.

        Assumes: their records are locked, so that nobody else moves it.
        """
        found: dict[str, list[Output]] = {}
        for name in self.folder.names():
            parts = name.split(':')
            if len(parts) == 4 and parts[0] in transactions and parts[2] not in ('', '.', '..'):
                found.setdefault(parts[0], []).append(Output(name, parts[2], parts[3]))
        for outputs in found.values():
            outputs.sort(key=lambda output: output.filebase)
        return found

    def _publish(self, output: Output, targets: dict[str, Folder]) -> None:
        target = targets.get(output.queue)
        if target is None:
            target = Folder(f'{self.spool_path}/{output.queue}', self.disk)
            target.make()
            targets[output.queue] = target
        target.rename_from(self.folder, output.name, output.filebase + READY)
        if '+' in output.filebase:
            self._announce_output(output)

    def _announce_output(self, output: Output) -> None:
        """An output that comes late, or has the place of another entry, may come before what others have read."""
        order = OrderLock(self._order, output.queue)
        try:
            if order.is_used:
                order.note_reordered(output.filebase)
        except OSError as error:
            log_event(log, logging.WARNING, None, 'not noted', queue=output.queue, error=error)

    def _end(self, transaction: str, record: Claim, outputs: int) -> bool:
        try:
            record.finish(self.pool)
        except OSError as error:
            log_event(log, logging.ERROR, None, 'records not removed', transaction=transaction, error=error)
            return False
        log_event(log, logging.INFO, None, 'rolled forward', transaction=transaction, outputs=outputs)
        return True

    def retry_publishing(self, transactions: Iterable[str]) -> None:
        """Try again to publish what this process has committed and the disk refused: until that is done, `is_stuck` says so."""
        self._stuck.update(transactions)
        try:
            self.publish_stuck()
        except OSError as error:
            log_event(log, logging.ERROR, None, 'not recovered', error=error)

    def publish_stuck(self) -> set[OrderKey]:
        """Roll forward the transactions that can be.

        :return: the queues and order keys of what this process has committed and still waits, in whosever hands it is.
        :raises OSError: the directory cannot be read.
        """
        self.recover()
        self._stuck &= {name.removesuffix(f':{COMMIT}') for name in self.folder.names()}
        outputs = chain.from_iterable(self._outputs(self._stuck).values())
        return {output.order_key for output in outputs}

    def _throw_away(self, name: str, transaction: str) -> bool:
        opened = self.disk.open_locked(name, self.folder.fd)
        if opened is None:
            return False
        fd, status = opened
        try:
            if self._is_uncommitted(name, transaction, status):
                # After a power cut the file may have another name, too (Btrfs), and is a message there.
                reusable = status.st_nlink == 1
                self.pool.recycle(fd, self.folder, name, status.st_size, reusable=reusable)
                return True
        except BaseException:
            self.disk.unlock_and_close(fd)
            raise
        self.disk.unlock_and_close(fd)
        return False

    def _is_uncommitted(self, name: str, transaction: str, status: os.stat_result) -> bool:
        """Assumes: the output is locked, so that its owner is dead and commits no more.

        If there is no record now, and the output is still here, it never was committed: a record goes only after its last
        output.
        """
        return not self.disk.exists(f'{transaction}:{COMMIT}', self.folder.fd) and self.disk.leads_to(
            name, self.folder.fd, status
        )


def _records(names: Iterable[str]) -> list[str]:
    """:return: the transactions that are committed, of these names, in order."""
    return sorted(name.partition(':')[0] for name in names if name.endswith(f':{COMMIT}'))
