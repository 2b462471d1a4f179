"""One queue: the life of its entries from enqueue to finish.

The guarantees of each state, the call of each transition, and the repairs after a crash stand in
``docs/explanation/states.md``.  :class:`Switchboard` is a facade: a :class:`Producer` puts messages in, a :class:`Consumer` takes them out,
and an :class:`Admission` stands at the entrance.

Threads may share a `Switchboard`: any of them may enqueue, take, and settle what it has taken.  A batch belongs to the thread that
opened it, and a claim to the one that took it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from zope.interface import implementer

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.errors import CorruptEntryError, EntryTakenError
from switchboard.interfaces import ISwitchboard, Taken
from switchboard.message.entry import Entry, is_body_changed, metadata_changes
from switchboard.message.journal import Record
from switchboard.message.metadata import merge_keys
from switchboard.message.naming import (
    CLAIMED,
    PRESERVED,
    READY,
    SYSTEM_NAME_GENERATOR,
    NameGenerator,
    check_queue_name,
    is_filebase,
    make_slice,
)
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions, check_values
from switchboard.queue.admission import Admission
from switchboard.queue.consumer import Consumer
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.queue.listing import FilePickup, Listing
from switchboard.queue.producer import Batch, Producer
from switchboard.queue.ready_queue import SLOW_LISTING_NS, ReadyQueue
from switchboard.queue.throttle import Throttle
from switchboard.queue.wakeup import Wakeup
from switchboard.store.claims import Claim, claim_of
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD, WAKE
from switchboard.store.limits import Limits, QueueCount, Reservation
from switchboard.store.order_lock import OrderLock
from switchboard.store.pool import FilePool, delete_unfinished
from switchboard.store.publishing import PreparedEntry, raise_queue_error
from switchboard.store.reading import peek
from switchboard.store.renewal import renew


class SpoolServices(NamedTuple):
    """The services of a spool for its queues; a queue that is made alone has none of them.

    :param is_draining: has an operator closed the queue to new messages?
    :param is_paused: has an operator stopped the queue?  With ``refresh=True``, ask the disk.
    :param order: the locks of its keys, if it is one of strict order.
    :param shared_count: the count of the queue's contents that all producers share.
    :param expiry_clock: the time by which messages expire.
    :param enqueue_once: for a queue, what stores a message with a ``dedupe_key``.
    :param dead_letter: for a queue, what sends its dead letters elsewhere than to the bad queue.
    :param pickup: for a queue, what imports the files that other programs drop.
    :param renew: puts a fresh directory in the place of a queue's that is empty and large.
    """

    is_draining: Callable[[], bool] = lambda: False
    is_paused: Callable[..., bool] = lambda **_keys: False
    order: OrderLock | None = None
    shared_count: QueueCount | None = None
    expiry_clock: ExpiryClock | None = None
    enqueue_once: Callable[[Switchboard], Callable[[Any, dict[str, Any], str], str]] | None = None
    dead_letter: Callable[[Switchboard], Callable[[Claim, str, str], bool]] | None = None
    pickup: Callable[[Switchboard], FilePickup] | None = None
    renew: Callable[[Folder], bool] = renew


ALONE = SpoolServices()


@implementer(ISwitchboard)
class Switchboard:
    """One queue directory.  See `ISwitchboard`.

    :param name: the queue's name.
    :param queue_directory: made, with mode 0770, if it is not there.
    :param slice: which of `numslices` ranges of entries this object sees; all of them by default.
    :param recover: make the claims of dead processes, and those that this process gave up, ready again.
    :param options: see `QueueOptions`.
    :param disk: the system calls; a test passes others.
    :param clock: the time; a test passes another.
    :param pool: where entries are written and finished ones go; a spool shares its spares.
    :param bad: the directory of the bad queue; the sibling ``bad`` by default.
    :param message_class: the class that mails come back as, a subclass of ``Message`` or its path; see `QueueOptions`.
    :param services: the services of a spool for the queue.
    :param slow_listing_ns: see `ReadyQueue`.
    :raises OSError: the directory cannot be made or opened.
    """

    is_remote = False

    def __init__(
        self,
        name: str,
        queue_directory: str | os.PathLike[str],
        slice: int | None = None,
        numslices: int = 1,
        recover: bool = False,
        *,
        options: QueueOptions | None = None,
        disk: Disk | None = None,
        clock: Clock = SYSTEM_CLOCK,
        name_generator: NameGenerator | None = None,
        pool: FilePool | None = None,
        bad: str | os.PathLike[str] | Folder | None = None,
        message_class: str | type | None = None,
        services: SpoolServices = ALONE,
        slow_listing_ns: int = SLOW_LISTING_NS,
    ) -> None:
        self.slice = make_slice(slice, numslices)
        self.name = check_queue_name(name)
        self.queue_directory = os.path.abspath(queue_directory)
        given = options is not None or message_class is not None
        options = options or QueueOptions()
        if message_class is not None:
            options = options._replace(message_class=message_class)
        if given and pool is None:  # else a spool has looked at them
            check_values(options)
        self.options = options
        self.disk = disk = disk or Disk.of_system()
        self.clock = clock
        self.folder = folder = Folder(self.queue_directory, disk)
        folder.queue = name
        folder.make()
        folder.open()
        if name_generator is None:
            name_generator = SYSTEM_NAME_GENERATOR if clock is SYSTEM_CLOCK else NameGenerator(clock)
        if bad is None:
            bad = os.path.join(os.path.dirname(self.queue_directory), BAD)
        self.pool = pool = pool or FilePool.without_spares(folder, name_generator)
        self.serializers = serializers = Serializers(
            options.accept, options.pickle_classes, options.serializer, options.message_class
        )
        self.expiry_clock = services.expiry_clock or ExpiryClock(clock)
        self._is_paused = services.is_paused
        self._throttle = Throttle(options.rate and options.rate / numslices, clock)
        self.pickup = services.pickup(self) if services.pickup is not None else None
        self._listing = Listing(
            folder,
            clock,
            self.slice,
            self.pickup,
            notes_claimed=options.strict_order,
            renew=partial(services.renew, folder),
        )
        self._ready = ReadyQueue(
            self._listing,
            priority_step_s=options.priority_step_s,
            strict=options.strict_order,
            slow_listing_ns=slow_listing_ns,
        )
        self.consumer = Consumer(
            folder,
            bad if isinstance(bad, Folder) else Folder(bad, disk),
            options,
            clock,
            self.expiry_clock,
            pool,
            serializers,
            self._listing,
            self._ready,
            services.dead_letter(self) if services.dead_letter is not None else None,
            services.order,
        )
        limits = Limits(name, folder, options, clock, services.shared_count, pool.free_space)
        admission = Admission(
            name,
            options,
            serializers,
            limits,
            services.is_draining,
            self.consumer.evict,
            self.consumer.can_evict,
        )
        self.producer = Producer(
            folder,
            options,
            name_generator,
            pool,
            serializers,
            admission,
            self._listing.reopen_if_replaced,
            services.enqueue_once(self) if services.enqueue_once is not None else None,
        )
        if recover:
            self.recover()

    def __repr__(self) -> str:
        return f'Switchboard({self.name!r}, {self.queue_directory!r}, {self.slice.index}, {self.slice.count})'

    # In.

    def enqueue(self, msg: Any, metadata: Mapping[str, Any] | None = None, **metadata_keys: Any) -> str:
        """See `ISwitchboard`."""
        return self.producer.enqueue(msg, merge_keys(metadata, metadata_keys))

    def enqueue_many(self, messages: Iterable[Any]) -> list[str]:
        """See `ISwitchboard`."""
        return self.producer.enqueue_many(messages)

    def batch(self) -> Batch:
        """Messages that share one flush: ``with queue.batch() as batch: batch.enqueue(...)``.  See `Batch`."""
        return self.producer.batch()

    def prepare(self, msg: Any, metadata: dict[str, Any], **keys: Any) -> PreparedEntry:
        """See `Producer`."""
        return self.producer.prepare(msg, metadata, **keys)

    def prepare_copy(self, entry: Entry, record: Record | None = None, *, now: bool = False) -> PreparedEntry:
        """See `Producer`."""
        return self.producer.prepare_copy(entry, record, now=now)

    def reserve_for(self, entry: Entry) -> Reservation | None:
        """Ask whether another queue's entry may come in.  See `Admission.reserve_for`."""
        return self.producer.admission.reserve_for(entry)

    def check_fits(self, entry: Entry) -> None:
        """See `Admission`."""
        self.producer.admission.check_fits(entry)

    # Out.

    def take(self) -> Taken | None:
        """See `ISwitchboard`."""
        if self.options.paused or self._is_paused() or not self._throttle.allows():
            return None
        taken = self.consumer.take()
        if taken is not None:
            self._throttle.took()
        return taken

    def dequeue(self, filebase: str) -> tuple[Any, dict[str, Any]]:
        """See `ISwitchboard`."""
        return self.consumer.load(self.consumer.claim(filebase))

    def is_paused(self, *, refresh: bool = False) -> bool:
        """Is nothing to be taken for now?

        :param refresh: ask the disk; else the answer may be a moment old.
        """
        return self.options.paused or self._is_paused(refresh=refresh)

    def has_ready(self) -> bool:
        """Look anew: is there anything to :meth:`take`?"""
        # A sleeper that was woken because a pause has ended must not miss it.
        return not self.is_paused(refresh=True) and self._throttle.allows() and self._ready.scan()

    @property
    def needs_listing(self) -> bool:
        """Would the next :meth:`take` have to read the directory?"""
        return self._ready.needs_listing

    def wait_s(self) -> float | None:
        """:return: seconds until an entry that is there may be taken; None if nothing is waited for."""
        waits = [wait for wait in (self._ready.wait_s(), self._throttle.wait_s()) if wait is not None]
        return min(waits) if waits and not self.is_paused() else None

    def defer(self, filebase: str, seconds: float) -> None:
        """Do not :meth:`take` an entry for a while, though it is ready; other processes may."""
        self.consumer.defer(filebase, seconds)

    def wake_consumers(self) -> None:
        """Wake the runners that sleep on this queue: something has changed that is no new entry."""
        try:
            # It may be there: another process that died here has left it.
            self.disk.close(self.disk.open_lock_file(WAKE, self.folder.fd))
        except FileNotFoundError:
            if not self.folder.follow_renewal():
                raise
            return  # it was renewed: sleepers have noticed that
        try:
            self.disk.unlink(WAKE, dir_fd=self.folder.fd)
        except FileNotFoundError:
            pass  # another one was faster

    def make_wakeup(self) -> Wakeup:
        """:return: the object that a runner of this queue sleeps on."""
        maildir_new = self.pickup.maildir_new if self.pickup is not None else None
        wakeup = Wakeup(self.queue_directory, maildir_new, self.slice)
        self._ready.watch(wakeup)
        return wakeup

    # Of an entry at work, by its claim or, as in Mailman, by its name.

    def claim_of(self, entry: str | Claim) -> Claim:
        """:return: this process's claim on an entry.

        :raises EntryTakenError: it has none.
        """
        if not isinstance(entry, str):
            return entry
        claim = claim_of(self.folder, entry)
        if claim is None:
            raise EntryTakenError('not held by this process', queue=self.name, filebase=entry)
        return claim

    def finish(
        self, entry: str | Claim, preserve: bool = False, *, reason: str = '', cause: str = 'rejected'
    ) -> None:
        """See `ISwitchboard`."""
        claim = claim_of(self.folder, entry) if isinstance(entry, str) else entry
        if claim is None and (claim := self._claim_now(str(entry), preserve)) is None:
            return  # it is in the bad queue by now
        if preserve:
            self.consumer.preserve(claim, reason or 'preserved by its runner', cause)
        else:
            self.consumer.finish(claim)

    def _claim_now(self, filebase: str, preserve: bool) -> Claim | None:
        try:
            return self.consumer.claim(filebase)
        except CorruptEntryError:
            return None  # it could not be opened
        except EntryTakenError:
            if not preserve or not self.consumer.is_preserved(filebase):
                raise
        return None

    def release(self, entry: str | Claim, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        """See `ISwitchboard`.  In a queue of strict order, an entry that waits keeps its name, and so its place."""
        return self.consumer.release(self.claim_of(entry), delay_s, record)

    def annotate(self, entry: str | Claim, record: Record) -> None:
        """See `ISwitchboard`."""
        fields = dict(record)
        try:
            self.consumer.note(self.claim_of(entry), fields.pop('event', 'noted'), **fields)
        except OSError as error:
            raise_queue_error(error, 'write', self.name, self.claim_of(entry).path)

    def metadata_changes(
        self, entry: str | Claim, msgdata: Mapping[str, Any], *, strict: bool = True
    ) -> dict[str, Any]:
        """See `ISwitchboard`."""
        known = self.claim_of(entry).read().msgdata(self.serializers)
        return metadata_changes(known, msgdata, strict=strict)

    def is_message_changed(self, entry: str | Claim, msg: Any) -> bool:
        """See `ISwitchboard`."""
        return is_body_changed(self.claim_of(entry).read(), msg, self.serializers)

    def history(self, entry: str | Claim) -> list[Record]:
        """See `ISwitchboard`."""
        claim = claim_of(self.folder, entry) if isinstance(entry, str) else entry
        return list(claim.read().records if claim is not None else self.peek(str(entry)).records)

    def peek(self, filebase: str, suffix: str | None = None) -> Entry:
        """Read an entry's file without claiming it.

        :param suffix: the state in which to look; by default ready, claimed, preserved, in this order.
        :raises EntryTakenError: there is no such entry.
        :raises QueueError: it cannot be read.
        """
        if is_filebase(filebase):
            for extension in (suffix,) if suffix else (READY, CLAIMED, PRESERVED):
                try:
                    entry = peek(self.folder, filebase, extension)
                except OSError as error:
                    raise_queue_error(error, 'read', self.name, self.folder.path_of(filebase + extension))
                if entry is not None:
                    return entry
        raise EntryTakenError('no such entry', queue=self.name, filebase=filebase)

    # All that is there.

    @property
    def files(self) -> list[str]:
        """See `ISwitchboard`."""
        return self._ready.files()

    def first_files(self, number: int) -> list[str]:
        """:return: the first of :attr:`files`, without holding all of them in memory."""
        return self._ready.files(number)

    def sample_files(self, number: int) -> list[str]:
        """:return: some of :attr:`files`, picked by chance."""
        return self._ready.sample(number)

    def get_files(self, extension: str = READY) -> list[str]:
        """See `ISwitchboard`."""
        return self._ready.entries(extension)

    def report_foreign_file(self, name: str, what: str) -> None:
        """Log something in the queue's directory that is no entry: once, and it is not looked at again."""
        self._listing.report_foreign_file(name, what)

    def recover_backup_files(self, *, include_own: bool = True) -> None:
        """See `ISwitchboard`."""
        self.recover(include_own=include_own)

    def recover(self, *, include_own: bool = True, wait: bool = False) -> list[str]:
        """See `ISwitchboard`."""
        delete_unfinished(self.folder)
        return self.consumer.recover(self.get_files(CLAIMED), include_own=include_own, wait=wait)
