"""One queue: the life of its entries from enqueue to finish.

What is guaranteed in each state, which call makes each transition, and who repairs what a crash left, is told in
``docs/explanation/states.md``.  The steps themselves have modules of their own: ``publishing`` (in), ``claims`` (at
work), ``spares`` (out) and ``recovery``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from zope.interface import implementer

from switchboard.backlog import Backlog, Listing, order
from switchboard.claims import HELD, Claim, claim_ready, held
from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.disk import Disk, Folder
from switchboard.entry import (
    CLAIMED,
    NS,
    PRESERVED,
    READY,
    SYSTEM_NAMER,
    Namer,
    check_queue_name,
    is_filebase,
    make_slice,
    with_when,
)
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    EntryTakenError,
    ForeignFileError,
    QueueError,
)
from switchboard.interfaces import ISwitchboard
from switchboard.journal import Record
from switchboard.limits import Limits
from switchboard.options import QueueOptions
from switchboard.packing import Packer
from switchboard.publishing import Batch, Unpublished, publish, refuse, write
from switchboard.reading import Entry, peek
from switchboard.recovery import Recovery
from switchboard.serializers import Serializers
from switchboard.spares import Scratch, Workshop
from switchboard.wakeup import Wakeup

log = logging.getLogger('switchboard.queue')

# How long an entry is left alone after another process was faster: it is mostly gone a moment later.
CONTENDED_S = 0.05


class Taken(NamedTuple):
    """An entry that was claimed by :meth:`Switchboard.take`."""

    filebase: str
    msg: Any
    msgdata: dict[str, Any]


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
    :param workshop: where entries are written and finished ones go; a spool shares its spares.
    :param bad: the directory of the bad queue; the sibling ``bad`` by default.
    :raises OSError: the directory cannot be made or opened.
    """

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
        namer: Namer | None = None,
        workshop: Workshop | None = None,
        bad: str | os.PathLike[str] | None = None,
    ) -> None:
        self.name = check_queue_name(name)
        self.queue_directory = os.path.abspath(queue_directory)
        self.slice = make_slice(slice, numslices)
        self.options = options = options or QueueOptions()
        self.disk = disk = disk or Disk()
        self.clock = clock
        self.folder = Folder(self.queue_directory, disk)
        self.folder.make()
        if namer is None:
            namer = SYSTEM_NAMER if clock is SYSTEM_CLOCK else Namer(clock)
        self.serializers = Serializers(options.accept, options.pickle_classes, options.serializer)
        self.workshop = workshop or Scratch(self.folder, disk, namer)
        self._packer = Packer(name, options, self.serializers, namer)
        self._limits = Limits(name, self.folder, options, disk, clock)
        self._listing = Listing(self.folder, disk, clock, name, self.slice)
        self._backlog = Backlog(self._listing)
        self._batch: Batch | None = None
        bad_path = bad if bad is not None else os.path.join(os.path.dirname(self.queue_directory), 'bad')
        self.recovery = Recovery(name, self.folder, Folder(bad_path, disk), options, disk, clock)
        if recover:
            self.recover_backup_files()

    def __repr__(self) -> str:
        return f'Switchboard({self.name!r}, {self.queue_directory!r}, {self.slice.index}, {self.slice.count})'

    def enqueue(self, msg: Any, metadata: Mapping[str, Any] | None = None, **metadata_keys: Any) -> str:
        """See `ISwitchboard`."""
        item = self.prepare(msg, {**metadata, **metadata_keys} if metadata else metadata_keys)
        self.publish(item)
        return item.filebase

    def prepare(self, msg: Any, metadata: dict[str, Any], *, instead_of: Entry | None = None) -> Unpublished:
        """Write a message without making it an entry yet.

        :param metadata: may be changed.
        :param instead_of: the entry whose place in the queue and whose history it takes over.
        :raises QueueError: as :meth:`enqueue`.
        """
        if instead_of is None:
            packed = self._packer.pack(msg, metadata)
        else:
            packed = self._packer.pack_anew(msg, metadata, instead_of)
        if self._limits.any:
            self._limits.check(1, len(packed.content))
        draft = write(self.workshop, self.disk, packed.content, self.name, modified_ns=packed.modified_ns)
        return Unpublished(draft, self.folder, self.name, packed.filebase)

    def prepare_copy(self, entry: Entry) -> Unpublished:
        """Write a copy of another queue's entry without making it an entry yet: same content, new name, no history.

        :raises QueueError: as :meth:`enqueue`.
        """
        self.check_room(entry)
        filebase, content = self._packer.pack_copy(entry)
        draft = write(self.workshop, self.disk, content, self.name)
        return Unpublished(draft, self.folder, self.name, filebase)

    def check_room(self, entry: Entry) -> None:
        """Ask whether another queue's entry may come here.

        :raises ContentDisallowedError: its kind is not accepted.
        :raises QueueFullError: there is no room.
        """
        if self.serializers.for_kind(entry.kind) is None:
            raise ContentDisallowedError(entry.kind, queue=self.name)
        if self._limits.any:
            self._limits.check(1, len(entry.body) + len(entry.metadata))

    def publish(self, item: Unpublished) -> None:
        """Make a prepared message an entry: now, or at the end of the batch.

        :raises QueueError: as :meth:`enqueue`.
        """
        if self._batch is None:
            publish((item,), self.workshop, self.disk, sync=self.options.durability == 'full')
        else:
            self._batch.add(item)

    def discard(self, item: Unpublished) -> None:
        """Throw a prepared message away."""
        self.workshop.discard(item.draft)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Everything that is enqueued inside shares one flush, and is visible when the block ends.

        A block that raises stores nothing, but for what exceeded 256 messages and was flushed on the way.

        :raises QueueError: at the end, as :meth:`enqueue`; what was not yet visible was not stored.
        """
        if self._batch is not None:
            yield  # the outer batch flushes
            return
        self._batch = Batch(self.workshop, self.disk, sync=self.options.durability == 'full')
        try:
            yield
            self._batch.flush()
        finally:
            self._batch.discard()
            self._batch = None

    def enqueue_many(self, messages: Iterable[Any]) -> list[str]:
        """See `ISwitchboard`."""
        filebases = []
        with self.batch():
            for message in messages:
                msg, metadata = message if isinstance(message, tuple) else (message, {})
                filebases.append(self.enqueue(msg, metadata))
        return filebases

    # At work.

    def dequeue(self, filebase: str) -> tuple[Any, dict[str, Any]]:
        """See `ISwitchboard`."""
        claim = self._claim(filebase)
        try:
            return claim.read().load(self.serializers)
        except (CorruptEntryError, ContentDisallowedError) as error:
            error.queue, error.filebase = self.name, filebase
            self._preserve(claim, error.reason, error=type(error).__name__)
            raise
        except OSError as error:
            # The disk did not give it: that says nothing about the entry.
            self.recovery.release(claim, filebase, None, None)
            refuse(error, 'read', self.name)

    def _claim(self, filebase: str) -> Claim:
        if not is_filebase(filebase):
            raise ForeignFileError('not the name of an entry', queue=self.name, filebase=filebase)
        try:
            return claim_ready(self.folder, filebase, self.disk)
        except PermissionError as error:
            self.recovery.preserve_unread(filebase, READY, f'unreadable: {error.strerror}')
            raise CorruptEntryError('unreadable', queue=self.name, filebase=filebase) from error
        except ForeignFileError:
            self._listing.report(filebase + READY, 'not a regular file')
            raise
        except QueueError as error:
            error.queue = self.name
            raise
        except OSError as error:
            refuse(error, 'claim', self.name)

    def take(self) -> Taken | None:
        """See `ISwitchboard`."""
        while (filebase := self._backlog.next()) is not None:
            try:
                return Taken(filebase, *self.dequeue(filebase))
            except EntryTakenError:
                self._backlog.hold(filebase, CONTENDED_S)
            except (CorruptEntryError, ContentDisallowedError, ForeignFileError) as error:
                log.debug('%s: skipped error=%s', filebase, error)
        return None

    def ready(self) -> bool:
        """Look anew: is there anything to :meth:`take`?"""
        return self._backlog.ready()

    def wakeup(self) -> Wakeup:
        """:return: what a runner of this queue sleeps on."""
        return Wakeup(self.queue_directory)

    def wait_s(self) -> float | None:
        """:return: seconds until an entry that is there may be taken; None if nothing is waited for."""
        return self._backlog.wait_s()

    def hold(self, filebase: str, seconds: float) -> None:
        """Do not :meth:`take` an entry for a while, though it is ready; other processes may."""
        self._backlog.hold(filebase, seconds)

    def held(self, filebase: str) -> Claim:
        """:return: this process's claim on an entry.

        :raises EntryTakenError: it has none.
        """
        claim = held(self.folder, filebase)
        if claim is None:
            raise EntryTakenError('not held by this process', queue=self.name, filebase=filebase)
        return claim

    def annotate(self, filebase: str, record: Record) -> None:
        """See `ISwitchboard`."""
        fields = dict(record)
        self.recovery.append(self.held(filebase), fields.pop('event', 'noted'), **fields)

    def history(self, filebase: str) -> list[Record]:
        """See `ISwitchboard`."""
        claim = held(self.folder, filebase)
        return list(claim.read().records if claim else self.peek(filebase).records)

    def peek(self, filebase: str, suffix: str | None = None) -> Entry:
        """Read an entry's file without claiming it.

        :param suffix: the state in which to look; by default ready, claimed, preserved, in this order.
        :raises EntryTakenError: there is no such entry.
        """
        if is_filebase(filebase):
            for extension in (suffix,) if suffix else (READY, CLAIMED, PRESERVED):
                entry = peek(self.folder, filebase, extension)
                if entry is not None:
                    return entry
        raise EntryTakenError('no such entry', queue=self.name, filebase=filebase)

    # Out.

    def finish(self, filebase: str, preserve: bool = False, *, reason: str = '') -> None:
        """See `ISwitchboard`."""
        claim = held(self.folder, filebase)
        if claim is None:
            try:
                claim = self._claim(filebase)
            except CorruptEntryError:
                return  # unreadable: it is in the bad queue now
            except EntryTakenError:
                if preserve and self.recovery.is_preserved(filebase):
                    return
                raise
        if preserve:
            self._preserve(claim, reason or 'preserved by its runner')
            return
        HELD.pop((self.folder.key, filebase), None)
        ours = claim.writable and claim.uid == self.disk.geteuid()
        try:
            self.workshop.give(claim.fd, self.folder, claim.name, claim.size, reusable=ours)
        except FileNotFoundError as error:
            raise EntryTakenError('its file is gone', queue=self.name, filebase=filebase) from error
        except OSError as error:
            refuse(error, 'finish', self.name)

    def _preserve(self, claim: Claim, reason: str, **fields: Any) -> None:
        try:
            self.recovery.preserve(claim, reason, **fields)
        except OSError as error:
            refuse(error, 'preserve', self.name)

    def release(self, filebase: str, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        """See `ISwitchboard`."""
        claim = self.held(filebase)
        when_ns = self.clock.time_ns() + int(delay_s * NS) if delay_s > 0 else None
        renamed = filebase if when_ns is None else with_when(filebase, when_ns)
        try:
            self.recovery.release(claim, renamed, when_ns, record)
        except OSError as error:
            refuse(error, 'release', self.name)
        return renamed

    # All that is there.

    @property
    def files(self) -> list[str]:
        """See `ISwitchboard`."""
        return self._listing.due(None)[0]

    def get_files(self, extension: str = READY) -> list[str]:
        """See `ISwitchboard`."""
        return sorted(self._listing.filebases(extension), key=order)

    def recover_backup_files(self, *, own: bool = True) -> list[str]:
        """See `ISwitchboard`.

        :param own: also what this process holds; a runner's periodic recovery leaves that alone.
        """
        self.workshop.recover()
        return [filebase for filebase in self.get_files(CLAIMED) if self.recovery.recover(filebase, own=own)]
