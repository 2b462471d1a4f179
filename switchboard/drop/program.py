"""The program that mail servers pipe messages into: standard input becomes an entry, or the exit status asks the mail server to try again later.

A mail server starts one process for each mail, so this module loads almost nothing: no ``re``, ``json``, ``typing``, ``email``
or ``logging``, no configuration and no site-packages.  It is started by ``bin/drop``, which also covers errors that cannot be
handled here: an interpreter that is missing, broken, or killed.

The contract: either the message is on the disk, once and whole, and the answer is success; or it is not stored, and the
answer is one line for the mail server's log and exit status 75.  That is the only status that Postfix, Exim, qmail and
sendmail all take for "try again later"; on others, a Python traceback's among them, one or another of them sends the mail
back to its author.

A signal that asks the process to end is obeyed until the commit begins, and comes too late after that.  If the shell that
waits for the answer is gone, nothing is stored, for its mail server takes the message for not delivered.
"""

from __future__ import annotations

import os

from switchboard.clock import SYSTEM_CLOCK
from switchboard.drop.request import DropRequest, find_spool
from switchboard.drop_errors import (
    ContentDisallowedError,
    MessageTooLargeError,
    QueueDrainingError,
    QueueFullError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.message.entry_header import JOINED_BYTES, MAX_METADATA_BYTES, make_digest_and_header
from switchboard.message.mail_envelope import (
    MAX_DROPPED_BYTES,
    MAX_FROM_LINE_BYTES,
    dump_ascii_json,
    read_envelope,
    split_from_line,
)
from switchboard.message.naming import (
    NS_PER_S,
    ON_HOLD_NS,
    SYSTEM_NAME_GENERATOR,
    make_filebase,
    order_key_of,
)
from switchboard.queue_defaults import QueueDefaults, has_limits
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder, PathInErrors
from switchboard.store.layout import BAD, COUNTS, DECLARED, DRAINING, RUN, SPARE
from switchboard.store.pool import FilePool
from switchboard.store.published_options import read_published_options
from switchboard.store.publishing import PreparedEntry, publish, write_draft

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping, Sequence
else:
    import _signal  # `signal` makes enums of the numbers, which takes longer than loading this module

READ_BYTES = 256 * 1024
# Spares that are tried before a new file is made: more would take longer than they save.
MAX_SPARES_TRIED = 8
# Of a reason; mail servers log it and send it back.
MAX_LINE_CHARACTERS = 300

# A signal that comes in the instant before a read, when Python has last looked for one and the kernel has not begun to wait, does not end that
# read: it is dealt with so much later.  Python reads on after a timer's signal that nobody has asked for.
SIGNAL_CHECK_S = 1.0

STOP_SIGNALS = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)


class StoppedBySignal(BaseException):
    """A signal asked the process to end."""


def main(
    arguments: Sequence[str],
    *,
    root: str = '',
    shell: int = 0,
    stdin: int = 0,
    environment: Mapping[bytes, bytes] | None = None,
    disk: Disk | None = None,
) -> str:
    """Store the message that comes in on `stdin`.  Never raises.

    :param root: the checkout, whose configuration is used if no other is named; empty where the package is installed.
    :param shell: the process that waits for the answer; 0 if nobody knows.
    :return: the empty string if the message is stored; else why it is not.
    """
    try:
        _stop_on_signals()
        environment = os.environb if environment is None else environment
        disk = disk or Disk()
        request = DropRequest(arguments)
        drop = Drop(request, find_spool(request, environment, root, disk), disk)
        drop.check()
        _wake_each(SIGNAL_CHECK_S)
        drop.read(stdin)
        _wake_each(0.0)
        drop.write_metadata(environment)
        drop.store(lambda: _block_signals(shell))
    except StoppedBySignal:
        reason = 'stopped before the message was stored'
    except MemoryError:
        reason = 'out of memory; nothing was stored'
    except SwitchboardError as error:
        reason = str(error)
    except OSError as error:
        reason = f'{error.filename}: {error.strerror}' if error.filename else str(error.strerror or error)
    except BaseException as error:
        reason = f'{type(error).__name__}: {error}'
    else:
        return ''
    return ''.join(char if char.isprintable() else ' ' for char in reason)[:MAX_LINE_CHARACTERS]


def _stop_on_signals() -> None:
    def stop(signum: int, _frame: object) -> None:
        # Once is enough, and a second one must not meet the clearing away.
        for each in STOP_SIGNALS:
            _signal.signal(each, _signal.SIG_IGN)
        raise StoppedBySignal(signum)

    for signum in STOP_SIGNALS:
        # Who starts a program with `nohup` means it.
        if signum == _signal.SIGTERM or _signal.getsignal(signum) != _signal.SIG_IGN:
            _signal.signal(signum, stop)


def _wake_each(seconds: float) -> None:
    """Have a read that waits look for signals so often; 0 is never."""
    _signal.signal(_signal.SIGALRM, lambda _signum, _frame: None)
    _signal.setitimer(_signal.ITIMER_REAL, seconds, seconds)


def _block_signals(shell: int) -> None:
    """From here on the process is not to be stopped any more; it ends soon."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, STOP_SIGNALS)
    if shell and os.getppid() != shell:
        raise StoppedBySignal


class Drop:
    """One message on its way into one queue."""

    def __init__(self, request: DropRequest, spool: str, disk: Disk) -> None:
        self.request = request
        # An error names the whole path of a file, and in a mail server's log nobody knows where a relative one begins.
        with PathInErrors(spool):
            self.spool = spool = os.path.abspath(spool)
        self.queue = request.queue
        self.disk = disk
        self.folder = Folder(f'{spool}/{self.queue}', disk)
        self.options = QueueDefaults()
        self.is_declared = False
        self.body = memoryview(b'')
        self.from_line = b''
        self.metadata: dict[str, object] = {}
        self.filebase = ''
        self.head = b''

    def check(self) -> None:
        """Find out what may go in, before the message is read.

        :raises SwitchboardError: this message may not.
        :raises OSError: the spool cannot be used.
        """
        if self.queue == BAD:
            raise UnknownQueueError('nothing can be dropped into the bad queue', queue=BAD)
        try:
            options = read_published_options(self.spool, self.queue, self.disk)
        except UnknownQueueError:
            if not self._is_declared():
                raise
            options = None
        # What a program has said of it is in a file of JSON, which is not for this module to read.
        self.is_declared = options is None and self._is_declared()
        if options is not None:
            self.options = options
            self.folder.make()
        else:
            try:
                self.folder.open()
            except FileNotFoundError as error:
                raise UnknownQueueError(
                    f'there is no such queue in {self.spool}', queue=self.queue
                ) from error
        if 'mail' not in self.options.accept:
            raise ContentDisallowedError('mail', queue=self.queue)
        if self._exists(f'{RUN}/{DRAINING}/{self.queue}'):
            raise QueueDrainingError('it is being drained: nothing is let in', queue=self.queue)

    def _is_declared(self) -> bool:
        return self._exists(f'{RUN}/{DECLARED}/{self.queue}')

    def _exists(self, path: str) -> bool:
        try:
            self.disk.stat(f'{self.spool}/{path}')
        except FileNotFoundError:
            return False
        return True

    def read(self, stdin: int) -> None:
        """Read the message to its end, or a little beyond what the queue takes.

        :raises MessageTooLargeError: it is longer.
        """
        limit = self.options.max_body_bytes
        if limit is None:
            limit = MAX_DROPPED_BYTES
        buffer = bytearray()
        while len(buffer) <= limit + MAX_FROM_LINE_BYTES and (part := _read_some(stdin)):
            buffer += part
        self.from_line, start = split_from_line(bytes(buffer[:MAX_FROM_LINE_BYTES]))
        self.body = memoryview(buffer)[start:]
        if len(self.body) > limit:
            raise MessageTooLargeError(
                f'the message is longer than the {limit} bytes that the queue takes', queue=self.queue
            )

    def write_metadata(self, environment: Mapping[bytes, bytes]) -> None:
        """Write the metadata: what the arguments, the environment and the ``From `` line tell."""
        request = self.request
        self.metadata = read_envelope(
            environment, self.from_line, request.sender, request.recipients, request.fields
        )
        if request.dedupe and 'dedupe_key' not in self.metadata:
            from switchboard.drop.dedupe import make_dedupe_key

            self.metadata['dedupe_key'] = make_dedupe_key(request.dedupe, self.body, self.metadata)

    def _pack(self) -> None:
        """Give the message its name and its header."""
        request, options, metadata = self.request, self.options, self.metadata
        when_ns = self._ready_at()
        if (ttl_s := request.times_s.get('ttl')) is not None:
            metadata['expires'] = when_ns / NS_PER_S + ttl_s
        if options.ttl_s is not None:
            metadata['queue_expires'] = when_ns / NS_PER_S + options.ttl_s
        packed = dump_ascii_json(metadata).encode('ascii')
        if len(packed) > MAX_METADATA_BYTES:
            raise MessageTooLargeError(f'metadata of {len(packed)} bytes', queue=self.queue)
        key = order_key_of(metadata, options.order_key)
        digest, header = make_digest_and_header(
            'mail', packed, self.body, SYSTEM_NAME_GENERATOR.unique_digits(), key
        )
        priority = options.priority if request.priority is None else request.priority
        self.filebase = make_filebase(when_ns, digest, priority)
        self.head = header + packed

    def _ready_at(self) -> int:
        times_s = self.request.times_s
        delayed_ns = SYSTEM_NAME_GENERATOR.next_when_ns() + int(times_s.get('delay', 0) * NS_PER_S)
        return min(max(delayed_ns, int(times_s.get('not_before', 0) * NS_PER_S)), ON_HOLD_NS - 1)

    def store(self, at_commit: Callable[[], object]) -> None:
        """Make it an entry.

        :param at_commit: called when all is ready; if it raises, nothing is stored.
        :raises SwitchboardError: it could not be stored.
        """
        if self.is_declared or 'dedupe_key' in self.metadata:
            self._store_through_spool(at_commit)
            return
        self._pack()
        options, disk = self.options, self.disk
        if has_limits(options) and not self._has_room():
            self._store_through_spool(at_commit)  # there it is known how to make room
            return
        spare = Folder(f'{self.spool}/{SPARE}', disk)
        spare.make()
        pool = FilePool(spare, names_at_once=MAX_SPARES_TRIED)
        is_small = len(self.body) <= JOINED_BYTES
        parts = (self.head + bytes(self.body),) if is_small else (self.head, self.body)
        draft = write_draft(pool, parts, self.queue)
        try:
            at_commit()
        except BaseException:
            pool.discard(draft)
            raise
        item = PreparedEntry(draft, self.folder, self.queue, self.filebase)
        publish((item,), pool, sync=options.durability == 'full', directory_sync=options.directory_sync)

    def _has_room(self) -> bool:
        """:return: False if the queue is full, and makes room.

        :raises QueueFullError: it is full, and makes none.
        """
        from switchboard.store.limits import Limits, SharedCount

        count = SharedCount(Folder(f'{self.spool}/{RUN}/{COUNTS}', self.disk), self.queue)
        limits = Limits(self.queue, self.folder, self.options, SYSTEM_CLOCK, count)
        try:
            limits.reserve(1, len(self.head) + len(self.body))
        except QueueFullError:
            if self.options.overflow == 'reject' or not limits.counted:
                raise
            return False
        return True

    def _store_through_spool(self, at_commit: Callable[[], object]) -> None:
        from switchboard.drop.dedupe import store_through_spool

        options = None if self.is_declared else self.options
        metadata = self.metadata | self.request.times_s
        self.filebase = store_through_spool(
            self.spool, self.request.config, self.queue, options, bytes(self.body), metadata, at_commit
        )


def _read_some(stdin: int) -> bytes:
    while True:
        try:
            return os.read(stdin, READ_BYTES)
        except BlockingIOError:  # somebody made the pipe one that does not wait
            import select

            select.select([stdin], [], [])
