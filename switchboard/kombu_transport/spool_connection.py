"""One connection's view of a spool: its queues, and publishing.

A queue is opened up to three times here, because each object has one set of options: one that is as the queue was declared, one that does not wait for
the disk (for messages of ``delivery_mode`` 1), and one to consume with, whose history need not wait for it either.

Everything that touches the spool holds :attr:`SpoolConnection.lock`: kombu's users acknowledge from other threads than the one that consumes.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

from amqp.exceptions import InvalidPath

from switchboard.declared.presence import Ticket
from switchboard.errors import (
    ConfigError,
    NoRouteError,
    QueueError,
    QueueLockedError,
    SwitchboardError,
    UnknownExchangeError,
    UnknownQueueError,
    UnserializableError,
)
from switchboard.events import log_event
from switchboard.handoff.transaction import Transaction
from switchboard.kombu_transport.address import Address
from switchboard.kombu_transport.errors import SpoolMissing
from switchboard.kombu_transport.payload import TRANSIENT, TYPED, encoded, encoded_by_kombu, pack
from switchboard.kombu_transport.queue_names import directory_name
from switchboard.message.naming import CLAIMED, NS_PER_S, READY
from switchboard.message.serializers import EncodedBody
from switchboard.operating.janitor import LOOKED_AT, expire_leading
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from switchboard.store.claims import claim_of
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder, close_folders
from switchboard.store.forks import after_fork
from switchboard.store.publishing import PreparedEntry, publish

log = logging.getLogger('switchboard.queue')

Role = Literal['publish', 'publish lazily', 'consume']

# These are always there, AMQP says; a spool makes them when they are first bound to.
PREDECLARED = {
    'amq.direct': 'direct',
    'amq.fanout': 'fanout',
    'amq.topic': 'topic',
    'amq.headers': 'headers',
    'amq.match': 'headers',
}

# After a look that has found no message whose time is over, a connection does not look for so many times as long as it took: a long list costs
# its consumers a hundredth of their time.  After one that has found some, for as long as it took.
EXPIRY_RESTS = 100

# Open queues that a connection keeps before it looks which of them are gone: a worker answers each client in a queue of its own, and each
# has a directory open.
KEPT_QUEUES = 64

# The owners among this process's connections.  AMQP gives an exclusive queue to one connection; here it is one process's, because the
# connections of a process cannot keep anything from each other, and a pool hands out any of them.
_OWNERS: WeakValueDictionary[str, Ticket] = WeakValueDictionary()


class RoutedMessage(NamedTuple):
    """A message, packed, and the queues that it is for."""

    payload: dict[str, Any]
    metadata: dict[str, Any]
    queues: list[Switchboard]


class SpoolConnection:
    """A spool as kombu sees it.

    :raises SpoolMissing: there is no such spool.
    :raises InvalidPath: its configuration cannot be read.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._renew_lock()
        self.spool = self._open(address)
        self._queues: dict[tuple[str, Role], Switchboard] = {}
        self._kept_queues = KEPT_QUEUES
        self._owner: Ticket | None = None
        self._owned: dict[str, Ticket] = {}
        # When messages whose time is over are looked for again, and whether some were left.
        self._expiry_ns = 0
        self._has_expired = False
        # What this connection has declared, by directory.
        self.declared_here: set[str] = set()
        _SPOOL_CONNECTIONS.add(self)

    def _renew_lock(self) -> None:
        # Also in a forked child: another thread of the parent's may have held it, and is not in the child.
        self.lock = threading.RLock()

    def _open(self, address: Address) -> Spool:
        disk = Disk()
        try:
            return self._make_spool(address, disk)
        except BaseException:
            close_folders(disk)  # of a spool that was opened in part
            raise

    def _make_spool(self, address: Address, disk: Disk) -> Spool:
        if address.config:
            try:
                return Spool.from_config(address.config, disk=disk)
            except ConfigError as error:
                raise InvalidPath(str(error)) from error
        if not address.create and not os.path.exists(address.directory):
            raise SpoolMissing(
                f'{address.directory}: no such directory; make it, or add ?create=yes to have it made'
            )
        return Spool(address.directory, durability=address.durability, disk=disk)

    def check_disk(self) -> None:
        """Write something.

        :raises OSError: the disk takes nothing.
        """
        disk, folder = self.spool.disk, self.spool.pool.folder
        name = self.spool.declared.records.new_name()
        fd = disk.create_locked(name, folder.fd)
        try:
            disk.write_all(fd, b'?')
        finally:  # and if we die before, it is one spare more
            try:
                disk.unlink(name, dir_fd=folder.fd)
            finally:
                disk.unlock_and_close(fd)

    # Open queues.

    def queue(self, name: str, role: Role) -> Switchboard:
        """:return: a queue that is there, as one role uses it.

        :param name: the name of its directory.
        :raises UnknownQueueError: it is not.
        """
        queue = self._queues.get((name, role))
        # Taking an entry that was listed before needs no look whether the queue is still there: the next listing finds out.
        is_listed = role == 'consume' and queue is not None and not queue.needs_listing
        if queue is None or (not is_listed and queue.folder.is_deleted()):
            self._queues.pop((name, role), None)
            self._close_some()
            queue = self._queues[name, role] = self._made(name, role)
        return queue

    def _close_some(self) -> None:
        """Keep the number of open directories small: those of queues that are gone, then of those that were used first to publish."""
        if len(self._queues) < self._kept_queues:
            return
        gone = [key for key, queue in self._queues.items() if queue.folder.is_deleted()]
        kept = len(self._queues) - len(gone)
        spare = [key for key in self._queues if key[1] != 'consume' and key not in gone]
        for key in gone + spare[: max(0, kept - KEPT_QUEUES // 2)]:
            self._queues.pop(key).folder.close()  # the object is in circles, which Python may keep for long
        self._kept_queues = max(KEPT_QUEUES, 2 * len(self._queues))

    def check_known(self, queue: str) -> None:
        """:raises UnknownQueueError: there is no such queue."""
        if not self.spool.declared.is_known(queue):
            raise UnknownQueueError('no such queue', queue=queue)

    def check_access(self, queue: str) -> None:
        """Make sure that this process may use a queue, if there is one.

        :raises QueueLockedError: it is another process's alone.
        """
        declared = self.spool.declared
        declaration = declared.records.get(queue)
        if declaration is None or declaration.owner is None:
            return
        owner = _OWNERS.get(declaration.owner)
        # The other one may have died: then it goes.
        if (owner is None or not owner.is_active) and not declared.removal.delete_if_due(queue):
            raise QueueLockedError('it belongs to another process alone', queue=queue)

    def size(self, queue: str) -> int:
        """:return: how many messages wait in a queue.  Its directory is not kept open: a program may declare very many."""
        try:
            names = Folder(self.spool.path(queue), self.spool.disk).names()
        except FileNotFoundError:
            return 0
        return sum(name.endswith(READY) for name in names)

    def needs_listing(self, name: str) -> bool:
        """Must the queue's directory be read to find the next message?"""
        queue = self._queues.get((name, 'consume'))
        return queue is None or queue.needs_listing

    def _made(self, name: str, role: Role) -> Switchboard:
        declared = self.spool.declared
        with declared.opening(name):
            if not declared.is_known(name):
                raise UnknownQueueError('no such queue', queue=name)
            changed: dict[str, Any] = {}
            if role != 'publish' or self.address.durability == 'lazy':
                changed['durability'] = 'lazy'
            if role == 'consume' and not declared.is_configured(name):
                declaration = declared.records.get(name)
                if declaration is None or 'max_recoveries' not in declaration.options:
                    changed['max_recoveries'] = self.address.delivery_limit or 10**9
            return self.spool.queue(name, **changed)

    def recover(self, queue: Switchboard, filebases: Iterable[str] | None = None) -> int:
        """Make ready again the messages that dead consumers held.

        Their locks are tried by a descriptor that cannot write: closing a writable one raises an event (IN_CLOSE_WRITE) that
        watchers of the directory take for another consumer's death.

        :param filebases: which to look at; all, if it is None.
        :return: how many were recovered.
        """
        recovered = 0
        for filebase in queue.get_files(CLAIMED) if filebases is None else filebases:
            if claim_of(queue.folder, filebase) is None and self._is_orphan(queue, filebase):
                recovered += len(queue.consumer.recover([filebase], include_own=False))
        return recovered

    def expire(self) -> float | None:
        """Send messages whose time is over to the dead letters, in queues that nobody consumes from; nothing while it rests.

        Programs of RabbitMQ delay messages so: in a queue without consumers, with a time to live and an exchange for its dead letters.

        :return: after how many seconds to go on, if there is more to do.
        """
        clock = self.spool.clock
        now_ns = clock.monotonic_ns()
        if now_ns >= self._expiry_ns:
            began_ns = now_ns
            most = max(map(self._expire_first, self.spool.declared.records.names()), default=0)
            now_ns = clock.monotonic_ns()
            self._expiry_ns = now_ns + (now_ns - began_ns) * (1 if most else EXPIRY_RESTS)
            self._has_expired = most == LOOKED_AT
        return (self._expiry_ns - now_ns) / NS_PER_S if self._has_expired else None

    def _expire_first(self, name: str) -> int:
        try:
            if self._is_empty(name) or self.spool.consumer_count(name):  # who consumes finds them himself
                return 0
            return expire_leading(self.queue(name, 'publish lazily'))
        except (QueueError, OSError) as error:  # gone meanwhile, or another user's
            log_event(log, logging.DEBUG, None, 'not read', queue=name, error=error)
            return 0

    def _is_empty(self, queue: str) -> bool:
        # Up to the first message only: who consumes asks this of all queues, in his own loop.
        try:
            with Folder(self.spool.path(queue), self.spool.disk).scan() as entries:
                return not any(entry.name.endswith(READY) for entry in entries)
        except FileNotFoundError:
            return True

    def _is_orphan(self, queue: Switchboard, filebase: str) -> bool:
        disk = self.spool.disk
        try:
            opened = disk.open_locked(filebase + CLAIMED, queue.folder.fd, writable=False)
        except OSError:
            return True  # recovery says why it is damaged
        if opened is None:
            return False
        disk.unlock_and_close(opened[0])
        return True

    def claim_exclusive(self, queue: str) -> Ticket:
        """Say whose an exclusive queue is to be: this connection's, or that of another one of this process which has it."""
        declaration = self.spool.declared.records.get(queue)
        owner = _OWNERS.get(declaration.owner or '') if declaration is not None else None
        if owner is None or not owner.is_active:
            if self._owner is None or not self._owner.is_active:
                self._owner = self.spool.declared.new_owner()
                _OWNERS[self._owner.name] = self._owner
            owner = self._owner
        self._owned[queue] = owner
        return owner

    def owner_of(self, queue: str) -> Ticket | None:
        """:return: the ticket by which this connection may consume from an exclusive queue."""
        return self._owned.get(queue)

    def close(self) -> None:
        """Take the exclusive queues away, and let go of everything, also where the disk refuses the first."""
        with self.lock, ExitStack() as closing:
            closing.callback(self.spool.close)
            closing.callback(self._queues.clear)
            mine = [queue for queue, owner in self._owned.items() if owner is self._owner]
            owner, self._owner = self._owner, None
            self._owned.clear()
            if owner is not None and owner.is_active:  # not in a forked child
                for queue in mine:
                    closing.callback(self.spool.declared.removal.delete_if_due, queue)
                owner.close()

    # Routing.

    def queues(self, exchange: str, routing_key: str, headers: Mapping[str, Any]) -> Sequence[str]:
        """:return: the directories of the queues that a message is for.

        :raises UnknownExchangeError: there is no such exchange.
        """
        if not exchange:
            return (directory_name(routing_key),) if routing_key else ()
        try:
            return self.spool.exchanges.route(exchange, routing_key, headers)
        except NoRouteError:
            return ()
        except UnknownExchangeError:
            if exchange in PREDECLARED:
                return ()
            raise

    def route(self, message: Mapping[str, Any], exchange: str, routing_key: str) -> RoutedMessage:
        """Find out where a message goes, and pack it for the way."""
        payload, metadata = pack(message, exchange, routing_key, delayed=self.address.eta == 'broker')
        mode = message['properties'].get('delivery_mode')
        role: Role = 'publish lazily' if mode == TRANSIENT else 'publish'
        queues = []
        for name in self.queues(exchange, routing_key, message.get('headers') or {}):
            try:
                queues.append(self.queue(name, role))
            except UnknownQueueError:
                continue  # deleted, and its bindings with it, since we looked
        return RoutedMessage(payload, metadata, queues)

    # Publishing.

    def publish(self, routed: RoutedMessage) -> bool:
        """Store a message in each of its queues: in all or in none, if it is to last.

        :return: False if there is no queue for it.
        """
        queues = routed.queues
        if not queues:
            return False
        raw, metadata = self._encoded(routed)
        if len(queues) > 1 and any(queue.options.durability == 'full' for queue in queues):
            self._transaction(queues, raw, metadata).commit()
            return True
        stored = 0
        for queue in queues:
            try:
                queue.enqueue(raw, metadata)
                stored += 1
            except UnknownQueueError:
                continue  # deleted in this moment: as if it had been before
        return stored > 0

    def _encoded(self, routed: RoutedMessage) -> tuple[EncodedBody, dict[str, Any]]:
        """:raises UnserializableError: no consumer could read it."""
        try:
            return encoded(routed.payload), routed.metadata
        except UnserializableError:
            return encoded_by_kombu(routed.payload), {**routed.metadata, TYPED: True}

    def _transaction(
        self, queues: Sequence[Switchboard], raw: EncodedBody, metadata: Mapping[str, Any]
    ) -> Transaction:
        transaction = Transaction(self.spool.stage)
        try:
            for queue in queues:
                transaction.emit(queue, raw, dict(metadata))
        except BaseException:
            transaction.discard()
            raise
        return transaction

    def prepare(self, routed: RoutedMessage) -> PreparedEntry | Transaction | None:
        """Write a message for a batch, without making it visible.

        :return: None if there is no queue for it.
        """
        if not routed.queues:
            return None
        raw, metadata = self._encoded(routed)
        if len(routed.queues) > 1:
            return self._transaction(routed.queues, raw, metadata)
        return routed.queues[0].prepare(raw, dict(metadata))

    def flush(
        self, items: Sequence[tuple[Switchboard, PreparedEntry]], transactions: Sequence[Transaction]
    ) -> None:
        """Make the messages of a batch visible, with one flush."""
        if items:
            options = [queue.options for queue, _ in items]
            publish(
                [item for _, item in items],
                self.spool.pool,
                sync=any(each.durability == 'full' for each in options),
                directory_sync='always'
                if any(each.directory_sync == 'always' for each in options)
                else 'auto',
            )
        for error in self.spool.commit_all(transactions).values():
            raise error


_SPOOL_CONNECTIONS = after_fork(SpoolConnection._renew_lock)


def _close_all() -> None:
    # A program may end without closing, as Celery's commands do: its exclusive queues go with it all the same.
    for spool_connection in list(_SPOOL_CONNECTIONS):
        with suppress(SwitchboardError, OSError):  # at the end of a program: a janitor tidies up after it
            spool_connection.close()


atexit.register(_close_all)
