"""One queue on a broker: `ISwitchboard` over RabbitMQ or Redis, and the sleep of its idle runner.

`BrokerQueue` has a `BrokerProducer`, which puts messages in, and a `BrokerConsumer`, which finds them; and it settles the taken ones.

A claim is an unacknowledged message, and the broker's redelivery is the recovery.  What that changes, against a directory:

- nothing can be listed, because looking is taking: ``files`` says so (`NotListableError`);
- a message cannot be changed where it is.  Given back as it was, it goes to its old place; with a new history, or later, it is published anew
  and then acknowledged, never the reverse: a crash in between leaves two, with the same message id;
- the history of a message that is claimed is in this process's memory until then.

A message that its queue cannot keep goes to the dead letters, by default the bad queue of the spool on this machine, where operators' tools find it: it is
on the disk there before it is acknowledged to the broker.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from zope.interface import implementer

from switchboard.brokers.connection import Connection
from switchboard.brokers.consumer import BrokerClaim, BrokerConsumer, ConnectionLostError
from switchboard.brokers.delivery_counts import DeliveryCounts
from switchboard.brokers.producer import BrokerProducer, PreparedMessage, publish
from switchboard.brokers.url import BrokerUrl
from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.errors import (
    BrokerDownError,
    EntryExpiredError,
    EntryTakenError,
    ForeignFileError,
    MessageTooLargeError,
    NotListableError,
    QueueError,
)
from switchboard.events import log_event
from switchboard.handoff.deduplication import Dedupe
from switchboard.interfaces import ISwitchboard, Taken
from switchboard.message.entry import Entry, is_body_changed, metadata_changes
from switchboard.message.entry_header import content_checksum, pack_header
from switchboard.message.expiry import EXPIRES, is_expired
from switchboard.message.journal import Record, count_since_retry, pack_record
from switchboard.message.metadata import dump_metadata, load_metadata, merge_keys
from switchboard.message.naming import (
    CLAIMED,
    LONGEST_DELAY_S,
    NS_PER_S,
    PRESERVED,
    READY,
    digest_of,
    is_filebase,
    make_slice,
    with_when,
)
from switchboard.options import QueueOptions
from switchboard.queue.consumer import CAUSES, CLOCK_DOUBTED, LOOK_AGAIN_S, UNREADABLE
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.queue.recovery import record_time
from switchboard.queue.switchboard import ALONE, SpoolServices, Switchboard
from switchboard.queue.throttle import Throttle
from switchboard.queue.wakeup import Wakeup
from switchboard.queue.watch import LONGEST_S, wait_readable
from switchboard.store.disk import Disk
from switchboard.store.layout import BAD
from switchboard.store.limits import make_room
from switchboard.store.publishing import raise_queue_error, write_draft

log = logging.getLogger('switchboard.queue')


class BrokerWakeup(Wakeup):
    """Has the broker tell of new messages while somebody sleeps.  See `Wakeup`.

    Where the broker is away, the timer is all there is.
    """

    def __init__(self, producer: BrokerProducer, may_take: Callable[[], bool]) -> None:
        super().__init__()
        self._producer = producer
        self._may_take = may_take
        # One descriptor for good, for event loops, though connections come and go.
        self._subscription = select.epoll()
        self._watched: list[int] = []

    @property
    def is_watching(self) -> bool:
        """See `Wakeup`."""
        return bool(self._watched)

    def arm(self) -> None:
        """See `Wakeup`."""
        connection = self._producer.connection
        self._quiet()
        if not self._may_take():
            return  # the broker would push what nobody takes, at once and again
        try:
            self._producer.declare(self._producer.broker_queues)
            connection.consume(self._producer.broker_queues)
            for descriptor in connection.descriptors():
                self._subscription.register(descriptor, select.EPOLLIN)
                self._watched.append(descriptor)
        except (QueueError, OSError) as error:
            log_event(log, logging.DEBUG, None, 'not watched', queue=self._producer.name, error=error)
            self._quiet()

    def disarm(self) -> None:
        """See `Wakeup`."""
        if self._watched:
            self._quiet()
            try:
                self._producer.connection.cancel()
            except QueueError as error:
                log_event(log, logging.DEBUG, None, 'not unwatched', queue=self._producer.name, error=error)

    def _quiet(self) -> None:
        for descriptor in self._watched:
            try:
                self._subscription.unregister(descriptor)
            except OSError:
                pass  # the connection is gone, and its descriptor with it
        self._watched.clear()

    def wait(self, timeout_s: float | None) -> bool:
        """See `Wakeup`.  A sign of life of the broker's wakes nobody."""
        ends_s = time.monotonic() + min(LONGEST_S if timeout_s is None else timeout_s, LONGEST_S)
        while True:
            left_s = max(0.0, ends_s - time.monotonic())
            ready = wait_readable(self.descriptors(), left_s)
            if self._watch.pipe.fileno() in ready:
                self._watch.pipe.empty()
                return True
            if any(fd != self._subscription.fileno() for fd in ready):
                return True
            if ready and self._has_message():
                return True
            if time.monotonic() >= ends_s:
                return False

    def _has_message(self) -> bool:
        connection = self._producer.connection
        try:
            noticed = connection.has_message()
        except QueueError:
            noticed = True
        if noticed and not connection.descriptors():
            self._quiet()  # the connection is gone: its descriptor would leave no sleep
        return noticed

    def descriptors(self) -> list[int]:
        """See `Wakeup`."""
        return [*super().descriptors(), self._subscription.fileno()]

    def close(self) -> None:
        """See `Wakeup`."""
        if not self._subscription.closed:
            self._subscription.close()
        super().close()


@implementer(ISwitchboard)
class BrokerQueue:
    """One queue on a broker.  See `ISwitchboard`.

    :param url: ``amqp://...`` or ``redis://...``; see `BrokerUrl`.
    :param slice: which of `numslices` runners this object is for; see ``slices`` in the URL.
    :param bad: where entries go that cannot be processed: a queue in a directory, or another one on a broker; by default the
        queue ``bad`` of the same broker.
    :param delivery_counts: where the deaths of holders are counted; by default in this object alone.
    :param finished_markers: for a queue, the markers of finished messages.
    :param dead_letter: for a queue, what sends its dead letters elsewhere than to the bad queue.
    :param services: the services of a spool for the queue: of them, operators' flags and the time by which messages expire.
    :ivar all_queues: the broker's queues for all slices.
    :ivar broker_queues: the broker's queues for this slice.
    :raises ConfigError: the URL cannot be read, a library is missing, or the broker cannot keep an option.
    """

    is_remote = True

    def __init__(
        self,
        name: str,
        url: str | BrokerUrl,
        slice: int | None = None,
        numslices: int = 1,
        *,
        options: QueueOptions | None = None,
        clock: Clock = SYSTEM_CLOCK,
        connection: Connection | None = None,
        bad: Switchboard | BrokerQueue | None = None,
        delivery_counts: DeliveryCounts | None = None,
        finished_markers: Callable[[Any], Dedupe] | None = None,
        dead_letter: Callable[[BrokerQueue], Callable[[BrokerClaim, str, str], bool]] | None = None,
        services: SpoolServices = ALONE,
    ) -> None:
        self.producer = producer = BrokerProducer(
            name,
            url,
            make_slice(slice, numslices),
            options or QueueOptions(),
            clock,
            connection,
            services.is_draining,
        )
        self.name, self.slice, self.options, self.clock = name, producer.slice, producer.options, clock
        self.url, self.connection, self.serializers = producer.url, producer.connection, producer.serializers
        self.all_queues, self.broker_queues = producer.all_queues, producer.broker_queues
        self.expiry_clock = services.expiry_clock or ExpiryClock(clock)
        self.delivery_counts = delivery_counts or DeliveryCounts(None, Disk(), clock)
        self._dead_letter = dead_letter(self) if dead_letter is not None else None
        self._is_paused = services.is_paused
        markers = finished_markers(self) if finished_markers is not None else None
        self.consumer = BrokerConsumer(producer, self.delivery_counts, markers)
        self._bad = bad
        self._throttle = Throttle(self.options.rate and self.options.rate / numslices, clock)

    def __repr__(self) -> str:
        return f'BrokerQueue({self.name!r}, {self.url.shown!r}, {self.slice.index}, {self.slice.count})'

    @property
    def bad(self) -> Switchboard | BrokerQueue:
        """The queue of the entries that cannot be processed."""
        if self._bad is None:
            url = replace(self.url, queue='', slices=1)
            self._bad = BrokerQueue(BAD, url, connection=self.connection, clock=self.clock)
        return self._bad

    def is_paused(self, *, refresh: bool = False) -> bool:
        """Is nothing to be taken for now?"""
        return self.options.paused or self._is_paused(refresh=refresh)

    def may_take(self) -> bool:
        """Is anything to be taken at this moment, if it is there?"""
        return not self.is_paused(refresh=True) and self._throttle.allows()

    # In.

    def enqueue(self, msg: Any, metadata: Mapping[str, Any] | None = None, **metadata_keys: Any) -> str:
        """See `ISwitchboard`."""
        return self.producer.enqueue(msg, merge_keys(metadata, metadata_keys))

    def enqueue_many(self, messages: Iterable[Any]) -> list[str]:
        """See `ISwitchboard`."""
        return self.producer.enqueue_many(messages)

    def batch(self) -> AbstractContextManager[BrokerQueue]:
        """As a directory's queue has it, for one flush; here each message is confirmed by itself."""
        return nullcontext(self)

    def take_over(self, entry: Entry, record: Record, *, now: bool) -> str:
        """See `BrokerProducer`."""
        return self.producer.take_over(entry, record, now=now)

    def reserve_for(self, entry: Entry) -> None:
        """See `BrokerProducer`."""
        self.producer.check_room(entry)

    def count(self) -> int:
        """See `BrokerProducer`."""
        return self.producer.count()

    # At work.

    def dequeue(self, filebase: str) -> tuple[Any, dict[str, Any]]:
        """See `ISwitchboard`.  A broker gives out the next one only: the entries before this one are taken and given back."""
        if not is_filebase(filebase):
            raise ForeignFileError('not the name of an entry', queue=self.name, filebase=filebase)
        claim = self.consumer.find(filebase)
        if claim is None:
            raise EntryTakenError('taken, or gone', queue=self.name, filebase=filebase)
        return self._open(claim)

    def take(self) -> Taken | None:
        """See `ISwitchboard`."""
        if self.is_paused() or not self._throttle.allows():
            return None
        while (claim := self.consumer.take()) is not None:
            try:
                taken = Taken(claim.filebase, *self._open(claim))
            except (*UNREADABLE, EntryTakenError) as error:
                log_event(log, logging.DEBUG, claim.filebase, 'skipped', error=error)
                continue
            self._throttle.took()
            return taken
        return None

    def _open(self, claim: BrokerClaim) -> tuple[Any, dict[str, Any]]:
        """Read a taken message."""
        self.record_deaths(claim)
        try:
            limit = self.options.max_body_bytes
            if limit is not None and len(claim.entry.body) > limit:
                raise MessageTooLargeError(
                    f'a body of {len(claim.entry.body)} bytes, and the queue takes {limit}'
                )
            msg, msgdata = claim.entry.load(self.serializers)
            if is_expired(msgdata, self.clock):
                if not is_expired(msgdata, self.expiry_clock):
                    self.release(claim.filebase)
                    self.defer(claim.filebase, LOOK_AGAIN_S)
                    raise EntryTakenError(CLOCK_DOUBTED, queue=self.name, filebase=claim.filebase)
                raise EntryExpiredError('its time to live is over')
        except UNREADABLE as error:
            error.queue, error.filebase = self.name, claim.filebase
            self._to_dead_letters(claim, CAUSES[type(error)], error.reason, error=type(error).__name__)
            raise
        return msg, msgdata

    def record_deaths(self, claim: BrokerClaim) -> None:
        """Put the deaths of processes that had the message before into its history.

        :raises EntryTakenError: they were too many, and it is in the bad queue now.
        """
        before = count_since_retry(claim.entry.records, 'recovered')
        for number in range(before + 1, before + claim.deaths + 1):
            claim.entry.records.append(self._record({'count': number}, 'recovered'))
        if claim.deaths and self._is_fatal(claim, before + claim.deaths):
            raise EntryTakenError('its owners died', queue=self.name, filebase=claim.filebase)

    def _is_fatal(self, claim: BrokerClaim, recoveries: int) -> bool:
        """Have too many processes died that had the message?  Then it goes to the dead letters."""
        if recoveries < self.options.max_recoveries:
            return False
        self._to_dead_letters(claim, 'recoveries', f'recovered {recoveries} times: its owner died each time')
        return True

    def has_ready(self) -> bool:
        """See `ISwitchboard`."""
        if not self.may_take():
            return False
        try:
            return self.consumer.has_next()
        except QueueError as error:
            log_event(log, logging.DEBUG, None, 'not read', queue=self.name, error=error)
            return False

    def defer(self, filebase: str, seconds: float) -> None:
        """See `ISwitchboard`.  It is kept from the other processes, too, if it is met with before the time is over."""
        self.consumer.defer(filebase, seconds)

    def wait_s(self) -> float | None:
        """See `ISwitchboard`."""
        waits = [wait for wait in (self.consumer.wait_s(), self._throttle.wait_s()) if wait is not None]
        return min(waits) if waits and not self.is_paused() else None

    def make_wakeup(self) -> BrokerWakeup:
        """See `ISwitchboard`."""
        return BrokerWakeup(self.producer, self.may_take)

    def wake_consumers(self) -> None:
        """Runners of a broker's queue see the end of a pause when they look again."""

    def recover_backup_files(self, *, include_own: bool = True) -> None:
        """See `ISwitchboard`."""
        self.recover(include_own=include_own)

    def recover(self, *, include_own: bool = True, wait: bool = False) -> list[str]:
        """See `ISwitchboard`.  What dead processes had, the broker gives out again by itself; on Redis, this sees to it."""
        self.delivery_counts.collect_dead_holders(counts=not self.connection.counts_deaths)
        for queue in self.broker_queues:
            for message_id, deaths in self.connection.recover(queue):
                log_event(log, logging.INFO, None, 'recovered', id=message_id, queue=self.name, count=deaths)
        claimed = self.get_files(CLAIMED) if include_own else []
        return sorted(filebase for filebase in reversed(claimed) if self._give_up(filebase))

    def _give_up(self, filebase: str) -> bool:
        try:
            claim = self.claim_of(filebase)
        except ConnectionLostError:
            return True
        recoveries = count_since_retry(claim.entry.records, 'recovered') + 1
        claim.note(self._record({'count': recoveries}, 'recovered'))
        if self._is_fatal(claim, recoveries):
            return False
        self.consumer.unregister(claim)
        if not claim.connection.counts_deaths:
            self.delivery_counts.add_death(claim.identity)
        with suppress(EntryTakenError):  # then the broker has it back already
            claim.connection.requeue(claim.delivery, died=True)
        return True

    def requeue_uncounted(self, keys: Collection[str]) -> None:
        """Have messages delivered again whose process was killed on request, without counting its death.

        :param keys: of the messages, as that process has noted them.
        :raises QueueError: the broker is away; then the death is counted.
        """
        for queue in self.broker_queues:
            self.connection.requeue_uncounted(queue, keys)

    def close(self) -> None:
        """Give back the messages that were looked at and not taken, and the claimed ones, and disconnect."""
        self.consumer.close()
        self.connection.close()
        self.delivery_counts.close()

    # All that is there.

    @property
    def files(self) -> list[str]:
        """See `ISwitchboard`.

        :raises NotListableError: always.
        """
        return self.get_files()

    def get_files(self, extension: str = '.pck') -> list[str]:
        """See `ISwitchboard`, of what this process holds (``.bak``).

        :raises NotListableError: of ready entries.
        """
        if extension == CLAIMED:
            return self.consumer.claimed()
        raise NotListableError(
            f'the queue is on a broker ({self.url.shown}), where looking is taking: it can be counted, not listed',
            queue=self.name,
        )

    def claim_of(self, filebase: str) -> BrokerClaim:
        """:return: this process's claim on an entry.

        :raises EntryTakenError: it has none, or has lost it with its connection.
        """
        return self.consumer.claim_of(filebase)

    def annotate(self, filebase: str, record: Record) -> None:
        """See `ISwitchboard`."""
        self.claim_of(filebase).note(self._record(record, 'noted'))

    def _record(self, record: Record, event: str) -> dict[str, Any]:
        return {**record, 'event': record.get('event', event), 'time': record_time(self.clock)}

    def history(self, filebase: str) -> list[Record]:
        """See `ISwitchboard`, of what this process holds."""
        return list(self.claim_of(filebase).entry.records)

    def metadata_changes(
        self, filebase: str, msgdata: Mapping[str, Any], *, strict: bool = True
    ) -> dict[str, Any]:
        """See `ISwitchboard`."""
        return metadata_changes(
            self.claim_of(filebase).entry.msgdata(self.serializers), msgdata, strict=strict
        )

    def is_message_changed(self, filebase: str, msg: Any) -> bool:
        """See `ISwitchboard`."""
        return is_body_changed(self.claim_of(filebase).entry, msg, self.serializers)

    # Out.

    def finish(
        self, filebase: str, preserve: bool = False, *, reason: str = '', cause: str = 'rejected'
    ) -> None:
        """See `ISwitchboard`."""
        try:
            claim = self.claim_of(filebase)
        except ConnectionLostError:
            raise
        except EntryTakenError:
            found = self.consumer.find(filebase) if is_filebase(filebase) else None
            if found is None:
                if preserve and self._is_preserved(filebase):
                    return
                raise EntryTakenError(
                    'gone, or another one has it', queue=self.name, filebase=filebase
                ) from None
            claim = found
        if preserve:
            self._to_dead_letters(claim, cause, reason or 'preserved by its runner')
        else:
            self.ack(claim)

    def ack(self, claim: BrokerClaim) -> None:
        """Tell the broker that a message is done.

        :raises EntryTakenError: it has taken the message back meanwhile, and gives it out again.
        :raises BrokerDownError: it is away; the message stays claimed.
        """
        try:
            claim.connection.ack(claim.delivery)
        except EntryTakenError:
            self.consumer.unregister(claim)
            raise
        self.consumer.unregister(claim)
        self.delivery_counts.clear_deaths(claim.identity)

    def ack_when_possible(self, claim: BrokerClaim) -> bool:
        """Tell the broker that a message is done whose result is safe; if it is away, when it is back.

        :return: False if the broker gives it out again, or may do so.
        """
        try:
            self.ack(claim)
        except (EntryTakenError, BrokerDownError) as error:
            log_event(log, logging.WARNING, claim.filebase, 'not acknowledged', queue=self.name, error=error)
            if isinstance(error, BrokerDownError):
                self.consumer.ack_later(claim)
            return False
        return True

    def _is_preserved(self, filebase: str) -> bool:
        bad = self.bad
        return isinstance(bad, Switchboard) and bad.folder.has(filebase + PRESERVED)

    def _to_dead_letters(self, claim: BrokerClaim, cause: str, reason: str, **fields: Any) -> None:
        """End the claim on an entry that its queue cannot keep.

        :raises QueueError: it could not be stored elsewhere; it stays claimed.
        """
        readable = cause not in ('corrupt', 'disallowed')
        if not (self._dead_letter is not None and readable and self._dead_letter(claim, cause, reason)):
            record = {'queue': self.name, 'reason': reason, 'cause': cause, **fields}
            store_copy(self.bad, claim.entry, [self._record(record, 'preserved')], suffix=PRESERVED)
            log_event(log, logging.WARNING, claim.filebase, 'preserved', queue=self.name, reason=reason)
        self.ack_when_possible(claim)  # if it comes again, it is preserved again, under the same name

    def store_dead_letter(self, claim: BrokerClaim, targets: Sequence[Any], fields: Record) -> None:
        """Store a dead letter where it goes; it is acknowledged then: a crash in between has it stored once more."""
        entry = claim.entry
        make_room([target.reserve_for(entry) for target in targets])
        metadata = entry.apply_history(load_metadata(entry.metadata))
        metadata.pop(EXPIRES, None)  # a dead letter must not die again on arrival
        outgoing = replace(entry, metadata=dump_metadata(metadata))
        for target in targets:
            record = {'queue': self.name, 'to': target.name, **fields}
            suffix = PRESERVED if target.name == BAD else READY
            store_copy(target, outgoing, [self._record(record, 'dead-lettered')], suffix=suffix)

    def release(self, filebase: str, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        """See `ISwitchboard`."""
        claim = self.claim_of(filebase)
        if delay_s <= 0 and record is None and not claim.is_changed:
            self.consumer.unregister(claim)
            claim.connection.requeue(claim.delivery)
            return filebase
        more = [] if record is None else [self._record(record, 'released')]
        if delay_s > 0:
            delay_s = min(delay_s, LONGEST_DELAY_S)
            filebase = with_when(filebase, self.clock.time_ns() + int(delay_s * NS_PER_S))
        again = replace(claim.entry, filebase=filebase)
        self.replace(claim, [self.producer.prepare_entry(again, more, delay_s=delay_s)])
        return filebase

    def replace(self, claim: BrokerClaim, prepared: Sequence[PreparedMessage]) -> None:
        """Publish, and then end the claim: never the reverse.

        :raises QueueError: it was not published; the message stays claimed.
        """
        publish(prepared)
        self.ack_when_possible(claim)


def store_copy(
    target: Switchboard | BrokerQueue, entry: Entry, more: Sequence[Record], *, suffix: str = READY
) -> None:
    """Store an entry in another queue.

    :param more: records to be added to its history there.
    :param suffix: the state in which it is there, in a directory.
    :raises QueueError: it could not be stored.
    """
    if isinstance(target, BrokerQueue):
        publish([target.producer.prepare_entry(entry, more)])
        return
    disk = target.disk
    digest, checksum = digest_of(entry.filebase), content_checksum(entry.metadata, entry.body)
    header = pack_header(entry.kind, len(entry.metadata), len(entry.body), digest, checksum)
    journal = [pack_record(record, digest) for record in (*entry.records, *more)]
    content = b''.join((header, entry.metadata, entry.body, *journal))
    draft = write_draft(target.pool, (content,), target.name)
    try:
        if target.options.durability == 'full':
            disk.sync_files([draft.fd])
        # It may be there: put there before a crash, and given out again by the broker.
        target.folder.rename_from(draft.folder, draft.name, entry.filebase + suffix)
        if target.options.durability == 'full':
            target.folder.sync()
    except OSError as error:
        target.pool.discard(draft, reusable=False)
        raise_queue_error(error, 'preserve', target.name, target.folder.path_of(entry.filebase + suffix))
    disk.unlock_and_close(draft.fd)
