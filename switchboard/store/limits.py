"""The limits of a queue, asked before a message is accepted: a limit that is found out later has lost something.

Counting a directory costs as much as listing it, so it is counted now and then, and messages let in since are added (see ``shared_count``).
The producers of a spool share that number.  So a limit is exceeded by no more than

- what others have asked room for and not yet published when somebody counts: one message each, more for those that publish
  many with one flush or one commit;
- what changes its name while it is counted, because it is claimed or given back.

A queue without a spool has a number for each process: there, N producers can exceed a limit by what the others let in between
two counts: a second, or twenty times as long as counting takes.
"""

from __future__ import annotations

from _thread import allocate_lock  # `threading` and `weakref` take the mail servers' door too long to load
from _weakref import ref

from switchboard.clock import Clock
from switchboard.errors import (
    DurabilityError,
    LockTimeoutError,
    MessageTooLargeError,
    QueueFullError,
)
from switchboard.message.naming import CLAIMED, NS, READY
from switchboard.store.disk import Disk, Folder
from switchboard.store.shared_count import QueueCount

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Bounds(Protocol):
        """The options that set limits: those of `QueueOptions`, or what the mail servers' door knows of them."""

        @property
        def max_messages(self) -> int | None: ...

        @property
        def max_bytes(self) -> int | None: ...

        @property
        def min_free_space_bytes(self) -> int: ...

    class Accepted(Protocol):
        """A message that was written and is no entry yet."""

        @property
        def size(self) -> int: ...


# How often a queue is counted, and at most which share of the time that takes.
COUNT_EVERY_NS = NS
# A full queue is counted again for each message that it would refuse, unless counting takes long: then not all the time.
CHEAP_COUNT_NS = 2 * NS // 1000
COUNT_SHARE = 20
# References to messages that may be gone, before they are looked through.
SWEEP_FROM = 256


class Pending:
    """Messages that were written and are no entries yet, for as long as somebody has them."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._items: list[ref[Accepted]] = []
        self._sweep_at = SWEEP_FROM

    def add(self, item: Accepted) -> None:
        """Count a message until its object is gone."""
        with self._lock:
            self._items.append(ref(item))
            if len(self._items) >= self._sweep_at:
                self._sweep()

    def _sweep(self) -> None:
        self._items = [known for known in self._items if known() is not None]
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._items))

    def total(self) -> tuple[int, int]:
        """:return: how many messages, and their bytes."""
        with self._lock:
            self._sweep()
            sizes = [item.size for known in self._items if (item := known()) is not None]
        return len(sizes), sum(sizes)


class Limits:
    """The limits of one queue.

    :param shared_count: the contents of the queue, as far as they are known; a process's own by default.
    :param free_space: deletes spares, whose room is as good as free.
    """

    def __init__(
        self,
        queue: str,
        folder: Folder,
        options: Bounds,
        disk: Disk,
        clock: Clock,
        shared_count: QueueCount | None = None,
        free_space: Callable[[], int] = int,
    ) -> None:
        self.queue = queue
        self.folder = folder
        self.options = options
        self.disk = disk
        self.clock = clock
        self.counted = options.max_messages is not None or options.max_bytes is not None
        self.any = self.counted or options.min_free_space_bytes > 0
        self.shared_count = shared_count or QueueCount()
        # Accepted messages that are not yet to be seen: a batch, or the outputs of a hand-off.
        self.pending = Pending()
        self._free_space = free_space
        # Claimed entries when this object counted last, in messages and bytes.
        self._at_work = (0, 0)
        # Threads share the object, and a record is read, changed and written by one of them at a time.
        self._lock = allocate_lock()

    def check(self, messages: int, size: int) -> None:
        """Ask for room.

        :param size: in bytes.
        :raises MessageTooLargeError: the queue never has that much room.
        :raises QueueFullError: there is none.
        :raises DurabilityError: the disk does not say.
        :raises LockTimeoutError: another process keeps the count locked.
        """
        options = self.options
        if options.max_bytes is not None and size > options.max_bytes:
            raise MessageTooLargeError(
                f'{size} bytes, and max_bytes of {self.queue} is {options.max_bytes}', queue=self.queue
            )
        try:
            self._check(messages, size)
        except LockTimeoutError as error:
            error.queue = self.queue
            raise
        except OSError as error:
            raise DurabilityError(str(error), step='count', queue=self.queue) from error

    def _check(self, messages: int, size: int) -> None:
        options = self.options
        if options.min_free_space_bytes:
            free = self._free()
            if free - size < options.min_free_space_bytes and self._free_space():
                free = self._free()
            if free - size < options.min_free_space_bytes:
                raise QueueFullError(
                    f'{free} bytes are free on the disk, and min_free_space keeps {options.min_free_space_bytes}',
                    queue=self.queue,
                )
        if self.counted:
            self._check_counts(messages, size)

    def is_hopeless(self, size: int) -> bool:
        """Would a message find no room even if all that waits were taken out?  Entries at work stay."""
        options, (messages, size_bytes) = self.options, self._at_work
        return (options.max_messages is not None and messages + 1 > options.max_messages) or (
            options.max_bytes is not None and size_bytes + size > options.max_bytes
        )

    def _free(self) -> int:
        status = self.disk.statvfs(self.folder.path)
        return status.f_bavail * status.f_frsize

    def left(self, messages: int, size: int | None = None) -> None:
        """Say that messages have left the queue, or have not come though there was room for them.

        :param size: how many bytes they had; None has it counted again.
        """
        if not self.counted:
            return
        try:
            with self._lock, self.shared_count as shared_count:
                if size is None:
                    shared_count.forget()
                else:
                    shared_count.messages -= messages
                    shared_count.size_bytes -= size
        except (OSError, LockTimeoutError):
            pass  # it is counted again in a second

    def _check_counts(self, messages: int, size: int) -> None:
        try:
            with self._lock, self.shared_count as shared_count:
                self._let_in(shared_count, messages, size)
        except PermissionError:  # the record is another user's, and not for us: we count for ourselves
            with self._lock:
                self.shared_count = QueueCount()
                self._let_in(self.shared_count, messages, size)

    def _let_in(self, shared_count: QueueCount, messages: int, size: int) -> None:
        age_ns = self.clock.monotonic_ns() - shared_count.counted_at_ns
        is_old = shared_count.counted_at_ns < 0 or not 0 <= age_ns <= max(
            COUNT_EVERY_NS, shared_count.took_ns * COUNT_SHARE
        )
        if is_old:
            self._count(shared_count)
        reason = self._exceeded(shared_count, messages, size)
        is_cheap = shared_count.took_ns < CHEAP_COUNT_NS or age_ns > shared_count.took_ns * COUNT_SHARE
        if reason and is_cheap and not is_old:
            self._count(shared_count)
            reason = self._exceeded(shared_count, messages, size)
        if reason:
            raise QueueFullError(reason, queue=self.queue)
        shared_count.messages += messages
        shared_count.size_bytes += size

    def _exceeded(self, shared_count: QueueCount, messages: int, size: int) -> str:
        options = self.options
        if options.max_messages is not None and shared_count.messages + messages > options.max_messages:
            return f'{shared_count.messages} messages wait, and max_messages is {options.max_messages}'
        if options.max_bytes is not None and shared_count.size_bytes + size > options.max_bytes:
            return f'{shared_count.size_bytes} bytes wait, and max_bytes is {options.max_bytes}'
        return ''

    def _count(self, shared_count: QueueCount) -> None:
        # Noted when all is counted: half a count must not be believed when the other half could not be read.
        started_ns = self.clock.monotonic_ns()
        number, size_bytes = self.pending.total()
        at_work = at_work_bytes = 0
        with self.folder.scan() as entries:
            for entry in entries:
                if not entry.name.endswith((READY, CLAIMED)):
                    continue
                size = 0
                if self.options.max_bytes is not None:
                    try:
                        size = entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        continue
                number += 1
                size_bytes += size
                if entry.name.endswith(CLAIMED):
                    at_work += 1
                    at_work_bytes += size
        self._at_work = at_work, at_work_bytes
        shared_count.messages, shared_count.size_bytes = number, size_bytes
        shared_count.counted_at_ns = self.clock.monotonic_ns()
        shared_count.took_ns = shared_count.counted_at_ns - started_ns
