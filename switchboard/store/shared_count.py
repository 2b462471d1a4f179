"""The shared count of a queue with limits: how much is in it, as its producers know it, with the messages let in since.

Counting walks over the directory, so it is done now and then.  In between, each message that is let in is added.  The producers of
a spool share one such record for each queue, ``.run/room/<queue>``, and read and change it under its lock: otherwise each of them
would give away the same room.  It is a memo and no truth: one that is missing, damaged, or from before a restart of the
machine is made anew by counting.

Rejected: a counter that consumers change too (each crash would make it wrong for ever, and each message would pay for a lock
twice), counting for each message (as dear as the queue is long).
"""

from __future__ import annotations

from switchboard.store.disk import Disk
from switchboard.store.folder import Folder

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from types import TracebackType

# Four numbers of this width.
_WIDTH = 20
_LENGTH = 4 * _WIDTH


class QueueCount:
    """A count of messages and bytes, when it was taken (on the monotonic clock), and how long counting took.

    Used in a ``with`` block.  This one is a process's own.
    """

    __slots__ = ('counted_at_ns', 'messages', 'size_bytes', 'took_ns')

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Have it counted the next time that somebody asks."""
        self.messages = self.size_bytes = self.took_ns = 0
        self.counted_at_ns = -1

    def __enter__(self) -> QueueCount:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class SharedCount(QueueCount):
    """A count that all producers of a queue share.

    :param folder: the directory of these records; made when the first is.
    """

    __slots__ = ('_disk', '_fd', '_folder', '_queue')

    def __init__(self, folder: Folder, queue: str, disk: Disk) -> None:
        super().__init__()
        self._folder = folder
        self._queue = queue
        self._disk = disk
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
        except BaseException:
            self._disk.let_go(fd)
            raise
        self._fd = fd
        return self

    def _read(self, fd: int) -> None:
        content = self._disk.read_all(fd, _LENGTH)
        try:
            self.messages, self.size_bytes, self.counted_at_ns, self.took_ns = [
                int(content[start : start + _WIDTH]) for start in range(0, _LENGTH, _WIDTH)
            ]
        except ValueError:  # it is new, or damaged
            self.forget()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write, and drop the lock."""
        fd, self._fd = self._fd, -1
        numbers = (self.messages, self.size_bytes, self.counted_at_ns, self.took_ns)
        content = b''.join(b'%*d' % (_WIDTH, number) for number in numbers)
        try:
            self._disk.write_all(fd, content)
        except OSError:
            pass  # a full disk: a message not added now is counted in a second
        finally:
            self._disk.unlock_and_close(fd)
