"""What a queue may hold, asked before a message is accepted: a limit that is found out later has lost something.

Counting a directory costs as much as listing it, so each process counts now and then and adds what it has accepted since.
N producers can so exceed a limit by what the others accept between two counts: at most ``COUNT_EVERY_NS`` apart.
"""

from __future__ import annotations

from switchboard.clock import Clock
from switchboard.disk import Disk, Folder
from switchboard.entry import CLAIMED, NS, READY
from switchboard.errors import DurabilityError, QueueFullError

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Protocol

    class Bounds(Protocol):
        """The options that set limits: those of `QueueOptions`, or what the mail servers' door knows of them."""

        @property
        def max_messages(self) -> int | None: ...

        @property
        def max_bytes(self) -> int | None: ...

        @property
        def min_free_bytes(self) -> int: ...

    class Accepted(Protocol):
        """A message that was written and is no entry yet."""

        @property
        def size(self) -> int: ...


COUNT_EVERY_NS = NS
# A full queue is counted again for each message that it would refuse, unless counting costs too much.
COUNT_SHARE = 20


class Limits:
    """The limits of one queue."""

    def __init__(self, queue: str, folder: Folder, options: Bounds, disk: Disk, clock: Clock) -> None:
        self.queue = queue
        self.folder = folder
        self.options = options
        self.disk = disk
        self.clock = clock
        self.counted = options.max_messages is not None or options.max_bytes is not None
        self.any = self.counted or options.min_free_bytes > 0
        self._messages = 0
        self._bytes = 0
        self._counted_at_ns = -10 * COUNT_EVERY_NS
        self._count_took_ns = 0
        # What was accepted and is not yet to be seen: a batch, or the outputs of a hand-off.
        self.pending: Collection[Accepted] = ()
        # Deletes spares, whose room is as good as free.
        self.reclaim: Callable[[], int] = int

    def check(self, messages: int, size: int) -> None:
        """Ask for room.

        :param size: in bytes.
        :raises QueueFullError: there is none.
        :raises DurabilityError: the disk does not say.
        """
        try:
            self._check(messages, size)
        except OSError as error:
            raise DurabilityError(str(error), step='count', queue=self.queue) from error

    def _check(self, messages: int, size: int) -> None:
        options = self.options
        if options.min_free_bytes:
            free = self._free()
            if free - size < options.min_free_bytes and self.reclaim():
                free = self._free()
            if free - size < options.min_free_bytes:
                raise QueueFullError(
                    f'{free} bytes are free on the disk, and min_free keeps {options.min_free_bytes}',
                    queue=self.queue,
                )
        if self.counted:
            self._check_counts(messages, size)

    def _free(self) -> int:
        status = self.disk.statvfs(self.folder.path)
        return status.f_bavail * status.f_frsize

    def left(self, messages: int) -> None:
        """Say that messages have left the queue, so that it is counted again."""
        self._messages -= messages
        self._count_took_ns = 0
        self._counted_at_ns = -10 * COUNT_EVERY_NS

    def _check_counts(self, messages: int, size: int) -> None:
        age_ns = self.clock.monotonic_ns() - self._counted_at_ns
        if age_ns > COUNT_EVERY_NS:
            self._count()
        if (reason := self._exceeded(messages, size)) and age_ns > self._count_took_ns * COUNT_SHARE:
            self._count()
            reason = self._exceeded(messages, size)
        if reason:
            raise QueueFullError(reason, queue=self.queue)
        self._messages += messages
        self._bytes += size

    def _exceeded(self, messages: int, size: int) -> str:
        options = self.options
        if options.max_messages is not None and self._messages + messages > options.max_messages:
            return f'{self._messages} messages wait, and max_messages is {options.max_messages}'
        if options.max_bytes is not None and self._bytes + size > options.max_bytes:
            return f'{self._bytes} bytes wait, and max_bytes is {options.max_bytes}'
        return ''

    def _count(self) -> None:
        started_ns = self.clock.monotonic_ns()
        self._messages, self._bytes = len(self.pending), sum(item.size for item in self.pending)
        with self.folder.scan() as entries:
            for entry in entries:
                if not entry.name.endswith((READY, CLAIMED)):
                    continue
                self._messages += 1
                if self.options.max_bytes is not None:
                    try:
                        self._bytes += entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        self._messages -= 1
        self._counted_at_ns = self.clock.monotonic_ns()
        self._count_took_ns = self._counted_at_ns - started_ns
