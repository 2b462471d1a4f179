"""What the benchmark asks of each queue that it measures, and who takes part.

This module is imported everywhere and imports none of the libraries that are measured: each contender runs in a
process of its own, with nothing loaded that is not its own.
"""

from __future__ import annotations

import email
import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, Literal

# How far behind the producer the disk may be when a message counts as sent.
Durability = Literal['lazy', 'full']


class Contender:
    """One queue library, or one way to use it.

    :param directory: empty, and on the disk that is measured.
    :param slice: which of `numslices` consumers of the same directory this one is.
    """

    def __init__(self, directory: Path, *, slice: int = 0, numslices: int = 1, **_options: Any) -> None:
        self.directory = directory
        self.slice = slice
        self.numslices = numslices

    def put(self, queue: str, msg: Any) -> None:
        """Store one message."""
        raise NotImplementedError

    def put_many(self, queue: str, messages: Iterable[Any]) -> None:
        """Store many, as the library is best told to."""
        for msg in messages:
            self.put(queue, msg)

    def take(self, queue: str) -> Any:
        """Take the next message, so that nobody else gets it.

        :return: the message as the application wants it; None if there is none.
        """
        raise NotImplementedError

    def done(self, queue: str) -> None:
        """Say that what was taken last is done with."""

    def move(self, source: str, target: str) -> int:
        """Hand all that is in `source` on to `target`, as safely as the library can.

        :return: how many messages.
        """
        moved = 0
        while (msg := self.take(source)) is not None:
            self.put(target, msg)
            self.done(source)
            moved += 1
        return moved

    def fan_out(self, queues: list[str], msg: Any) -> None:
        """Store one message in each of several queues."""
        for queue in queues:
            self.put(queue, msg)

    def idle(self) -> float:
        """Send one message to somebody who waits.

        :return: the seconds that it took to reach him.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of servers and files."""


class BytesContender(Contender):
    """For libraries that carry bytes and nothing else: the application packs and unpacks, as it would have to."""

    kind = 'bytes'

    def pack(self, msg: Any) -> bytes:
        """:return: the message as bytes."""
        if isinstance(msg, bytes):
            return msg
        self.kind = 'mail' if isinstance(msg, Message) else 'json'
        return msg.as_bytes() if isinstance(msg, Message) else json.dumps(msg).encode()

    def unpack(self, body: bytes) -> Any:
        """:return: what :meth:`pack` was given."""
        if self.kind == 'bytes':
            return body
        return email.message_from_bytes(body) if self.kind == 'mail' else json.loads(body)


@dataclass(frozen=True)
class Entrant:
    """A contender's name in the page, where its class is, and what must be said about it."""

    name: str
    title: str
    home: str
    durability: Durability = 'lazy'
    options: dict[str, Any] = field(default_factory=dict)
    # What must be installed: a Python module, a server, a compiler.
    needs: str = ''
    # May several processes work on one queue?
    shared: bool = True
    caveat: str = ''

    @property
    def is_native(self) -> bool:
        """Is it a program of its own and not a Python class?"""
        return self.home == 'floor'

    def make(self, directory: Path, **options: Any) -> Contender:
        """:raises ImportError: the library is not installed."""
        module, _, class_name = self.home.partition(':')
        cls: Callable[..., Contender] = getattr(
            importlib.import_module(f'{__package__}.{module}'), class_name
        )
        return cls(directory, **self.options, **options)


_NO_ACK = 'deletes a message when it is taken: a crash while it is worked on loses it'

_ENTRANTS = (
    Entrant('ours', 'switchboard', 'ours:Ours', options={'durability': 'lazy'}),
    Entrant(
        'ours-accelerated',
        'switchboard with the accelerator',
        'ours:Ours',
        options={'durability': 'lazy', 'accelerated': True},
        needs='accelerator',
    ),
    Entrant('ours-full', 'switchboard, full', 'ours:Ours', 'full', {'durability': 'full'}),
    Entrant(
        'ours-batch',
        'switchboard, full, batches of 100',
        'ours:Ours',
        'full',
        {'durability': 'full', 'batch': 100},
    ),
    Entrant('ours-kombu', 'switchboard through kombu', 'brokers:Spooled', needs='kombu'),
    Entrant(
        'ours-kombu-full',
        'switchboard through kombu, full',
        'brokers:Spooled',
        'full',
        {'durability': 'full'},
        needs='kombu',
    ),
    Entrant('floor', 'C floor', 'floor', options={'flags': 'lazy'}, needs='cc'),
    Entrant('floor-full', 'C floor, full', 'floor', 'full', {'flags': 'full'}, needs='cc'),
    Entrant('floor-batch', 'C floor, full, batches of 100', 'floor', 'full', {'flags': 'batch'}, needs='cc'),
    Entrant(
        'mailman',
        'Mailman Switchboard',
        'files:Mailman',
        'full',
        needs='mailman',
        caveat='syncs each file and never the directory: a new name can be lost; unpickles what it reads',
    ),
    Entrant(
        'mailman-nosync',
        'Mailman Switchboard without fsync',
        'files:Mailman',
        options={'sync': False},
        needs='mailman',
        caveat='`os.fsync` is replaced by a function that does nothing, in its process only; otherwise its own code',
    ),
    Entrant(
        'kombu-fs',
        'kombu filesystem',
        'brokers:Filesystem',
        needs='kombu',
        shared=False,
        caveat=_NO_ACK + '; lists the directory for each message',
    ),
    Entrant(
        'dirq',
        'dirq',
        'files:Dirq',
        needs='dirq',
        caveat='its locks have no owner: those of dead processes are told by their age',
    ),
    Entrant(
        'filestore',
        'gocept.filestore',
        'files:Filestore',
        needs='gocept.filestore',
        caveat="a maildir, not a queue: no names, order, recovery; those are the benchmark's own, the least there can be",
    ),
    Entrant(
        'pq-file',
        'persist-queue, file',
        'databases:PersistFile',
        needs='persistqueue',
        shared=False,
        caveat='for one process only; syncs every hundredth message',
    ),
    Entrant(
        'pq-sqlite',
        'persist-queue, SQLite',
        'databases:PersistSqlite',
        'full',
        needs='persistqueue',
        shared=False,
        caveat='its acknowledging queue; finished messages are cleared away every 1,000, as its documentation says',
    ),
    Entrant(
        'litequeue',
        'litequeue',
        'databases:Litequeue',
        needs='litequeue',
        caveat='SQLite with `synchronous = NORMAL`; carries text; finished messages are pruned every 1,000',
    ),
    Entrant(
        'sqlite',
        'SQLite, plain, synchronous = NORMAL',
        'databases:PlainSqlite',
        options={'synchronous': 'normal'},
        caveat='a table and three statements in WAL mode, as a careful user would write them; a power cut loses the last commits',
    ),
    Entrant(
        'sqlite-full',
        'SQLite, plain, synchronous = FULL',
        'databases:PlainSqlite',
        'full',
        {'synchronous': 'full'},
        caveat='the same, with a flush of the log for each of the three commits of a message',
    ),
    Entrant(
        'huey-file', 'huey, file', 'databases:HueyFile', needs='huey', caveat='its storage alone; ' + _NO_ACK
    ),
    Entrant(
        'huey-sqlite',
        'huey, SQLite',
        'databases:HueySqlite',
        'full',
        needs='huey',
        caveat='its storage alone; ' + _NO_ACK,
    ),
    Entrant(
        'rabbitmq',
        'RabbitMQ, persistent, without confirms',
        'brokers:Rabbitmq',
        needs='rabbitmq',
        caveat='through kombu; nobody knows when a message is safe; the server uses the other core',
    ),
    Entrant(
        'rabbitmq-confirms',
        'RabbitMQ, persistent, with confirms',
        'brokers:Rabbitmq',
        'full',
        {'confirms': True},
        needs='rabbitmq',
        caveat='through kombu, which waits for each confirm; the server uses the other core',
    ),
    Entrant(
        'redis',
        'Redis, append-only, every second',
        'brokers:Redis',
        needs='redis',
        caveat='through kombu; a power cut loses a second; the server uses the other core',
    ),
    Entrant(
        'redis-always',
        'Redis, append-only, always',
        'brokers:Redis',
        'full',
        needs='redis-always',
        caveat='through kombu; the server uses the other core',
    ),
)

ENTRANTS = {entrant.name: entrant for entrant in _ENTRANTS}
