"""The limits of a queue, asked before a message is accepted: a limit that is found out later has lost something.

Counting a directory costs as much as listing it, so it is counted now and then, and messages let in since are added.  The producers of a
spool share that count, one record for each queue, ``.run/room/<queue>``, and read and change it under its lock: otherwise each of them
would give away the same room.  It is a memo and no truth: one that is missing, damaged, or from before a restart of the
machine is made anew by counting.  So a limit is exceeded by no more than

- what others have asked room for and not yet published when somebody counts: one message each, more for those that publish
  many with one flush or one commit;
- what changes its name while it is counted, because it is claimed or given back.

A queue without a spool has a number for each process: there, N producers can exceed a limit by what the others let in between
two counts: a second, or twenty times as long as counting takes.

Where a full queue makes room by letting its oldest entries go, that is owed at first (`Reservation`): it is made when everything that comes in
together is written, and known to fit.  A refusal has pushed nothing out.

Rejected: a counter that consumers change too (each crash would make it wrong for ever, and each message would pay for a lock
twice), counting for each message (as dear as the queue is long).
"""

from __future__ import annotations

from _thread import allocate_lock  # `threading` and `weakref` take `drop` too long to load
from _weakref import ref
from zlib import crc32

from switchboard.clock import Clock
from switchboard.drop_errors import DurabilityError, LockTimeoutError, MessageTooLargeError, QueueFullError
from switchboard.message.naming import CLAIMED, NS_PER_S, READY
from switchboard.store.folder import Folder, add_path_to_error

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    from switchboard.options import QueueOptions
    from switchboard.queue_defaults import QueueDefaults

    class LimitedQueue(Protocol):
        """A queue with limits, which makes room by evicting its oldest entries."""

        def check_can_make_room_for(self, reservations: Sequence[Reservation]) -> None: ...

        def make_room_for(self, reservations: Sequence[Reservation]) -> None: ...

        def cancel_reservation(self) -> None: ...


# How often a queue is counted, and at most which share of the time that takes.
COUNT_EVERY_NS = NS_PER_S
# A full queue is counted again for each message that it would refuse, unless counting takes long: then not all the time.
CHEAP_COUNT_NS = 2 * NS_PER_S // 1000
COUNT_SHARE = 20
# References to messages that may be gone, before they are looked through.
SWEEP_FROM = 256
# Five numbers of this width, and their checksum: of a write that broke off, some are new and some are old.
_WIDTH = 20
_LENGTH = 6 * _WIDTH
# Who only looks takes no lock, and looks again where somebody writes.
LOOKS = 3


class Reservation:
    """Room reserved for one message that was let in and is no entry yet: counted, or still to be made by the oldest entries of a full queue.

    :param size: in bytes.
    """

    __slots__ = ('__weakref__', 'is_granted', 'queue', 'size')

    def __init__(self, queue: LimitedQueue, size: int) -> None:
        self.queue = queue
        self.size = size
        self.is_granted = False

    def end(self, *, is_used: bool) -> None:
        """Note that the message is an entry by now, or never will be."""
        if self.is_granted:
            self.is_granted = False
            if not is_used:
                self.queue.cancel_reservation()


def make_room(reservations: Iterable[Reservation | None]) -> None:
    """Make room in their queues for messages that are stored together.

    :param reservations: of each; None: of a queue without limits.
    :raises QueueFullError: one of the queues cannot make so much; then no message was removed from any.
    """
    owed: dict[LimitedQueue, list[Reservation]] = {}
    for reservation in reservations:
        if reservation is not None and not reservation.is_granted:
            owed.setdefault(reservation.queue, []).append(reservation)
    if len(owed) > 1:
        for queue, group in owed.items():
            queue.check_can_make_room_for(group)
    for queue, group in owed.items():
        queue.make_room_for(group)


class PendingReservations:
    """Granted reservations, of messages which are no entries yet, for as long as somebody has them."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._reservations: list[ref[Reservation]] = []
        self._sweep_at = SWEEP_FROM

    def add(self, reservation: Reservation) -> None:
        """Count a message until its reservation has ended, or the object is gone."""
        with self._lock:
            self._reservations.append(ref(reservation))
            if len(self._reservations) >= self._sweep_at:
                self._sweep()

    def _sweep(self) -> None:
        self._reservations = [known for known in self._reservations if (each := known()) and each.is_granted]
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._reservations))

    def total(self) -> tuple[int, int]:
        """:return: how many messages, and their bytes."""
        with self._lock:
            self._sweep()
            sizes = [each.size for known in self._reservations if (each := known())]
        return len(sizes), sum(sizes)


class QueueCount:
    """A count of messages and bytes, when it was taken (on the monotonic clock), and how long counting took; and how many messages were let go.

    Used in a ``with`` block.  This one is a process's own.
    """

    __slots__ = ('counted_at_ns', 'evicted', 'messages', 'size_bytes', 'took_ns')

    def __init__(self) -> None:
        self.evicted = 0
        self.forget()

    def forget(self) -> None:
        """Have it counted the next time that somebody asks; the messages that were let go are counted nowhere else, and stay."""
        self.messages = self.size_bytes = self.took_ns = 0
        self.counted_at_ns = -1

    def __enter__(self) -> QueueCount:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


class SharedCount(QueueCount):
    """A count that all producers of a queue share.

    :param folder: the directory of these records; made when the first is.
    """

    __slots__ = ('_disk', '_fd', '_folder', '_queue')

    def __init__(self, folder: Folder, queue: str) -> None:
        super().__init__()
        self._folder = folder
        self._queue = queue
        self._disk = folder.disk
        self._fd = -1

    def __enter__(self) -> QueueCount:
        """Take the lock and read.

        :raises OSError: the record cannot be opened.
        :raises LockTimeoutError: another process keeps it locked.
        """
        # Opened each time: a lock on a descriptor that was inherited by a fork would keep nobody out.
        fd = self._folder.open_lock_file(self._queue)
        try:
            self._disk.lock_when_free(fd, f'the count of {self._queue}')
            self._read(fd)
        except BaseException as error:
            self._disk.close_quietly(fd)
            add_path_to_error(error, self._folder.path_of(self._queue))
            raise
        self._fd = fd
        return self

    def _read(self, fd: int) -> None:
        numbers = _unsealed(self._disk.read_all(fd, _LENGTH))
        if numbers is None:  # it is new, or damaged
            self.evicted = 0
            self.forget()
            return
        self.messages, self.size_bytes, self.counted_at_ns, self.took_ns, self.evicted = numbers

    def __exit__(self, *_error: object) -> None:
        """Write, and drop the lock."""
        fd, self._fd = self._fd, -1
        numbers = (self.messages, self.size_bytes, self.counted_at_ns, self.took_ns, self.evicted)
        content = _sealed(b''.join(b'%*d' % (_WIDTH, number) for number in numbers))
        try:
            self._disk.write_all(fd, content)
        except OSError:
            pass  # a full disk: a message not added now is counted in a second
        finally:
            self._disk.unlock_and_close(fd)


def _sealed(numbers: bytes) -> bytes:
    return numbers + b'%*d' % (_WIDTH, crc32(numbers))


def _unsealed(content: bytes) -> list[int] | None:
    if len(content) != _LENGTH or content != _sealed(content[:-_WIDTH]):
        return None
    return [int(content[start : start + _WIDTH]) for start in range(0, len(content) - _WIDTH, _WIDTH)]


def evicted(folder: Folder, queue: str) -> int:
    """Look how many messages a queue has let go to make room for newer ones, since somebody began to count.

    :param folder: the directory of the records that its producers share.
    :return: 0 if there is no record, or none for this user.
    """
    try:
        for _ in range(LOOKS):
            if (numbers := _unsealed(folder.read(queue, _LENGTH) or b'')) is not None:
                return numbers[-1]
    except OSError:
        pass  # none for this user
    return 0


class SpaceShortage:
    """The lack of room in a full queue: how many messages and bytes would have to go, and the reason in words.

    :param counted_at_ns: which count says so.
    """

    __slots__ = ('counted_at_ns', 'messages', 'reason', 'size')

    def __init__(self, reason: str, messages: int, size: int, counted_at_ns: int) -> None:
        self.reason = reason
        self.messages = messages
        self.size = size
        self.counted_at_ns = counted_at_ns


class Limits:
    """The limits of one queue.

    :param shared_count: the contents of the queue, as far as they are known; a process's own by default.
    :param free_space: deletes spares, whose room is as good as free.
    """

    def __init__(
        self,
        queue: str,
        folder: Folder,
        options: QueueOptions | QueueDefaults,
        clock: Clock,
        shared_count: QueueCount | None = None,
        free_space: Callable[[], int] = int,
    ) -> None:
        self.queue = queue
        self.folder = folder
        self.options = options
        self.clock = clock
        self.counted = options.max_messages is not None or options.max_bytes is not None
        self.shared_count = shared_count or QueueCount()
        # Accepted messages that are not yet to be seen: a batch, or the outputs of a hand-off.
        self.pending = PendingReservations()
        self._free_space = free_space
        # Threads share the object, and a record is read, changed and written by one of them at a time.
        self._lock = allocate_lock()

    def reserve(self, messages: int, size: int) -> None:
        """Ask for room, and count the messages in.

        :param size: in bytes.
        :raises MessageTooLargeError: the queue never has that much room.
        :raises QueueFullError: there is none.
        :raises DurabilityError: the disk does not say.
        :raises LockTimeoutError: another process keeps the count locked.
        """
        self.check_size(size)
        shortage = self.reserve_or_shortage(messages, size)
        if shortage is not None:
            raise QueueFullError(shortage.reason, queue=self.queue)

    def check_size(self, size: int) -> None:
        """:raises MessageTooLargeError: the queue never has so much room for one message."""
        most = self.options.max_bytes
        if most is not None and size > most:
            raise MessageTooLargeError(
                f'{size} bytes, and max_bytes of {self.queue} is {most}', queue=self.queue
            )

    def reserve_or_shortage(
        self, messages: int, size: int, *, dry_run: bool = False, recounts: bool = True
    ) -> SpaceShortage | None:
        """Ask for room, and count the messages in if it is there.

        :param dry_run: do not count the messages in, if the room is there.
        :param recounts: before saying that there is none, if that is cheap.
        :return: None if it is there; else the shortage, which entries that go could end.
        :raises QueueFullError: there is none on the disk.
        :raises DurabilityError: the disk does not say.
        :raises LockTimeoutError: another process keeps the count locked.
        """
        try:
            self._check_disk(size)
            return self._reserve_counted(messages, size, dry_run, recounts) if self.counted else None
        except LockTimeoutError as error:
            error.queue = self.queue
            raise
        except OSError as error:
            raise DurabilityError(str(error), step='count', queue=self.queue) from error

    def _check_disk(self, size: int) -> None:
        least = self.options.min_free_space_bytes
        if not least:
            return
        free = self._free()
        if free - size < least and self._free_space():
            free = self._free()
        if free - size < least:
            reason = f'{free} bytes are free on the disk, and min_free_space keeps {least}'
            raise QueueFullError(reason, queue=self.queue, is_disk_full=True)

    def _free(self) -> int:
        status = self.folder.disk.statvfs(self.folder.path)
        return status.f_bavail * status.f_frsize

    def note_evicted(self, messages: int, size: int, shortage: SpaceShortage) -> None:
        """Note that entries were evicted, to end a shortage.

        :param size: in bytes.
        """

        def subtract(count: QueueCount) -> None:
            # A later count may have missed them already: subtracted twice, they would let others in beyond the limit.
            if count.counted_at_ns == shortage.counted_at_ns:
                count.messages -= messages
                count.size_bytes -= size
            count.evicted += messages

        self._change_count(subtract)

    def forget_count(self) -> None:
        """Have the queue counted again: a message that was counted in has not come, or others are at work there."""
        self._change_count(QueueCount.forget)

    def _change_count(self, change: Callable[[QueueCount], None]) -> None:
        if not self.counted:
            return
        try:
            with self._lock, self.shared_count as shared_count:
                change(shared_count)
        except (OSError, LockTimeoutError):
            pass  # it is counted again in a second

    def _reserve_counted(
        self, messages: int, size: int, dry_run: bool, recounts: bool
    ) -> SpaceShortage | None:
        try:
            with self._lock, self.shared_count as shared_count:
                return self._let_in(shared_count, messages, size, dry_run, recounts)
        except PermissionError:  # the record is another user's, and not for us: we count for ourselves
            with self._lock:
                self.shared_count = QueueCount()
                return self._let_in(self.shared_count, messages, size, dry_run, recounts)

    def _let_in(
        self, shared_count: QueueCount, messages: int, size: int, dry_run: bool, recounts: bool
    ) -> SpaceShortage | None:
        age_ns = self.clock.monotonic_ns() - shared_count.counted_at_ns
        is_old = shared_count.counted_at_ns < 0 or not 0 <= age_ns <= max(
            COUNT_EVERY_NS, shared_count.took_ns * COUNT_SHARE
        )
        if is_old:
            self._count(shared_count)
        shortage = self._shortage(shared_count, messages, size)
        is_cheap = shared_count.took_ns < CHEAP_COUNT_NS or age_ns > shared_count.took_ns * COUNT_SHARE
        if shortage is not None and recounts and is_cheap and not is_old:
            self._count(shared_count)
            shortage = self._shortage(shared_count, messages, size)
        if shortage is None and not dry_run:
            shared_count.messages += messages
            shared_count.size_bytes += size
        return shortage

    def _shortage(self, shared_count: QueueCount, messages: int, size: int) -> SpaceShortage | None:
        options, waiting, waiting_bytes = self.options, shared_count.messages, shared_count.size_bytes
        too_many = too_large = 0
        if options.max_messages is not None:
            too_many = max(0, waiting + messages - options.max_messages)
        if options.max_bytes is not None:
            too_large = max(0, waiting_bytes + size - options.max_bytes)
        if too_many:
            reason = f'{waiting} messages wait, and max_messages is {options.max_messages}'
        elif too_large:
            reason = f'{waiting_bytes} bytes wait, and max_bytes is {options.max_bytes}'
        else:
            return None
        return SpaceShortage(reason, too_many, too_large, shared_count.counted_at_ns)

    def _count(self, shared_count: QueueCount) -> None:
        # Noted when all is counted: half a count must not be believed when the other half could not be read.
        started_ns = self.clock.monotonic_ns()
        number, size_bytes = self.pending.total()
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
        shared_count.messages, shared_count.size_bytes = number, size_bytes
        shared_count.counted_at_ns = self.clock.monotonic_ns()
        shared_count.took_ns = shared_count.counted_at_ns - started_ns
