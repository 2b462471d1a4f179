"""Declared queues and exchanges of a spool: the parts of this room, put together.

``declarations`` keeps the records, ``presence`` knows who is there, `removal` takes queues away, ``exchangestore`` keeps
the bindings.  This module joins them for `Spool`, whose methods say what each is for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from switchboard.clock import Clock
from switchboard.declared.declarations import Declaration, Declarations, checked_options, first_difference
from switchboard.declared.exchangestore import DeclaredBinding, ExchangeStore
from switchboard.declared.presence import Presence, Ticket
from switchboard.declared.removal import QueueRemoval
from switchboard.errors import ConfigError, QueueLockedError, QueueMismatchError, UnknownQueueError
from switchboard.message.naming import NameGenerator, check_queue_name
from switchboard.options import QueueOptions, check_values
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.routing.exchange import ExchangeTable
from switchboard.store.disk import Disk
from switchboard.store.forks import after_fork
from switchboard.store.layout import BAD, CONSUMERS, OWNERS, RUN
from switchboard.store.pool import FilePool

if TYPE_CHECKING:
    from switchboard.config.config import Config


class DeclaredQueues:
    """The queues and exchanges of a spool that no configuration names.

    :param root: the spool's directory.
    :param config: gives the configuration as it is now, if there is one.
    :param base: gives the exchanges of the configuration.
    """

    def __init__(
        self,
        root: str,
        disk: Disk,
        clock: Clock,
        name_generator: NameGenerator,
        pool: FilePool,
        expiry_clock: ExpiryClock,
        *,
        config: Callable[[], Config | None],
        base: Callable[[], ExchangeTable],
    ) -> None:
        run = f'{root}/{RUN}'
        self.records = Declarations(run, disk, clock, name_generator, expiry_clock)
        self.presence = Presence(run, disk, name_generator)
        self.exchanges = ExchangeStore(self.records, base)
        self.removal = QueueRemoval(root, self.records, self.presence, self.exchanges, pool)
        self._config = config
        self._owner: Ticket | None = None
        self._renew_lock()
        _DECLARED.add(self)

    def _renew_lock(self) -> None:
        # Of threads that come at once, one makes the owner: a ticket that nobody has any more is closed, and its queues go.
        self._lock = threading.Lock()

    def is_configured(self, name: str) -> bool:
        """Does the configuration name this queue?"""
        config = self._config()
        return name == BAD or (config is not None and config.declares(name))

    def is_known(self, name: str) -> bool:
        """Is there such a queue: in the configuration, declared, or, without a configuration, as a directory?"""
        if self.is_configured(name):
            return True
        declaration = self.records.read(name)
        if declaration is not None:
            return not declaration.deleted
        return self._config() is None and self.removal.folder(name).exists()

    @property
    def owner(self) -> Ticket:
        """The ticket that says that this process lives, for queues that belong to it alone."""
        with self._lock:
            if self._owner is None or not self._owner.is_active:  # the second in a forked child
                self._owner = self.new_owner()
            return self._owner

    def new_owner(self) -> Ticket:
        """:return: a new owner's ticket; his queues go when he leaves."""
        return self.presence.register(OWNERS)

    def declare(
        self, name: str, *, owner: Ticket | None = None, options: Mapping[str, Any] | None = None, **keys: Any
    ) -> Declaration | None:
        """See `Spool.declare`.

        :return: None if the configuration names the queue.
        """
        check_queue_name(name)
        checked = checked_options(options or {}, name)
        wanted = Declaration(name, owner=owner.name if owner else None, options=checked, **keys)
        try:
            check_values(wanted.applied_to(QueueOptions()))
        except ConfigError as error:
            error.section = f'queue.{name}'
            raise
        if self.is_configured(name):
            self._check_fixed(wanted)
            return None
        self.removal.delete_if_due(name)  # its owner may have died, or its time be over
        known = self.records.get(name)
        if known is None:
            with self.records.lock():
                known = self.records.read(name)
                if known is None or known.deleted:
                    self._make(wanted, anew=known is not None)
                    return wanted
        self._check_owner(known, owner)
        if reason := first_difference(known, wanted):
            raise QueueMismatchError(f'it {reason}', queue=name)
        self.records.note_use(name)
        return known

    def _make(self, wanted: Declaration, *, anew: bool) -> None:
        name = wanted.name
        folder = self.removal.folder(name)
        if not anew and not wanted.is_durable and folder.exists() and folder.names(1):
            raise QueueMismatchError(
                'it is there already, holds messages, and was not to go away', queue=name
            )
        if anew:
            self.presence.remove(f'{CONSUMERS}/{name}')
        self.records.disk.unlock_and_close(self.records.write(wanted))
        folder.make(sync=wanted.is_durable)
        if folder.is_deleted():  # it waits for entries at work in the old queue of this name
            folder.mark_deleted(False)

    def _check_fixed(self, wanted: Declaration) -> None:
        config = self._config()
        options = config.queue_options(wanted.name) if config else QueueOptions()
        if wanted.name == BAD or not wanted.is_durable or wanted.applied_to(options) != options:
            raise QueueMismatchError('the configuration declares it otherwise', queue=wanted.name)

    def _check_owner(self, known: Declaration, owner: Ticket | None) -> None:
        if known.owner is not None and (owner is None or known.owner != owner.name):
            raise QueueLockedError('it belongs to another connection or process alone', queue=known.name)

    def prepare(self, name: str) -> None:
        """Make ready for consumers of a queue that the configuration names."""
        if self.is_configured(name):
            self.presence.prepare(f'{CONSUMERS}/{name}')

    def register_consumer(self, name: str, owner: Ticket | None = None) -> Ticket:
        """See `Spool.register_consumer`."""
        place = f'{CONSUMERS}/{name}'
        if self.is_configured(name):
            return self.presence.register(place)
        with self.records.lock():
            if not self.is_known(name):
                raise UnknownQueueError('no such queue', queue=name)
            declaration = self.records.get(name)
            if declaration is None:
                return self.presence.register(place)
            self._check_owner(declaration, owner)
            return self.presence.register(place, partial(self._consumer_gone, name))

    def _consumer_gone(self, name: str) -> None:
        self.records.note_use(name)
        self.removal.delete_if_due(name)

    def bind(self, binding: DeclaredBinding) -> None:
        """Bind a queue or an exchange to an exchange.

        :raises UnknownQueueError: there is no such queue.
        :raises RouteError: see `ExchangeStore.bind`.
        """
        target = binding.target
        self.exchanges.bind(binding, lambda: target.is_exchange or self.is_known(target.name))

    @contextmanager
    def opening(self, name: str) -> Iterator[Declaration | None]:
        """Keep a queue from being deleted while it is opened, which makes its directory.

        :return: how it is declared; None if it is not.
        :raises UnknownQueueError: it is being deleted.
        """
        if self.is_configured(name) or not self.records.is_made():
            yield None
            return
        with self.records.lock(shared=True):
            declaration = self.records.read(name)
            if declaration is not None and declaration.deleted:
                raise UnknownQueueError('it is being deleted', queue=name)
            yield declaration


_DECLARED = after_fork(DeclaredQueues._renew_lock)
