"""A spool in memory: queues, exchanges and hand-off, so that a `Runner` works in a test without a file.

::

    spool = MemorySpool()
    spool['in'].enqueue('hello')
    run_until_empty(Archive(spool, RunnerOptions(name='archive', class_path='', queue='in')))
    assert spool['out'].files
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.errors import QueueError, SwitchboardError, UnknownQueueError
from switchboard.interfaces import ISpool, ITransaction
from switchboard.message.journal import note_first
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import (
    PRESERVED,
    READY,
    SYSTEM_NAMER,
    Namer,
    check_queue_name,
    digest_of,
    with_when,
)
from switchboard.options import QueueOptions
from switchboard.routing.bindings import EXCHANGE_PREFIX
from switchboard.routing.exchange import ExchangeTable
from switchboard.store.layout import BAD
from switchboard.testing.memory import MemorySwitchboard
from switchboard.testing.store import Store, Stored

if TYPE_CHECKING:
    from switchboard.config.config import Config


@implementer(ITransaction)
class MemoryTransaction:
    """One input, and its outputs.  See `ITransaction`."""

    def __init__(self, queue: MemorySwitchboard | None = None, filebase: str = '') -> None:
        self.queue = queue
        self.filebase = filebase
        self._outputs: list[tuple[MemorySwitchboard, Stored]] = []
        # By filebase, the keys of outputs that are to be stored once.
        self._keys: dict[str, object] = {}
        self._forwarded_to: MemorySwitchboard | None = None

    def _input(self) -> Stored:
        assert self.queue is not None
        return self.queue.claim_of(self.filebase)

    @property
    def has_outputs(self) -> bool:
        """See `ITransaction`."""
        return bool(self._outputs) or self._forwarded_to is not None

    def emit(self, queue: MemorySwitchboard, msg: Any, metadata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        if self._forwarded_to is not None:
            self.forward()
        key = metadata.get('dedupe_key')
        stored = queue.prepare(msg, metadata)
        self._outputs.append((queue, stored))
        if key is not None:
            self._keys[stored.filebase] = key
        return stored.filebase

    def emit_all(
        self, queues: Sequence[MemorySwitchboard], msg: Any, metadata: Mapping[str, Any]
    ) -> list[str]:
        """See `ITransaction`."""
        if self._forwarded_to is not None:
            self.forward()
        kept = len(self._outputs)
        try:
            return [self.emit(queue, msg, dict(metadata)) for queue in queues]
        except BaseException:
            del self._outputs[kept:]
            raise

    def forward(self, *queues: MemorySwitchboard) -> None:
        """See `ITransaction`."""
        entry = self._input().read()
        if len(queues) == 1 and not self._outputs and self._forwarded_to is None:
            queues[0].check_room(entry)
            self._forwarded_to = queues[0]
            return
        if self._forwarded_to is not None:
            queues = (self._forwarded_to, *queues)
        copies = [(queue, queue.prepare_copy(entry)) for queue in queues]
        self._outputs += copies
        self._forwarded_to = None

    def keep(self, msg: Any, msgdata: dict[str, Any]) -> str:
        """See `ITransaction`."""
        assert self.queue is not None
        self.discard()
        if self.queue.is_changed(self.filebase, msg):
            entry = self._input().read()
            records = note_first(entry.records, digest_of(self.filebase))
            item = self.queue.prepare(msg, dict(msgdata), replaces=entry, records=records)
            self._outputs.append((self.queue, item))
            self.commit()
            return self._outputs[0][1].filebase
        changed = self.queue.changes(self.filebase, msgdata)
        return self.queue.release(self.filebase, record={'event': 'kept', **changed} if changed else None)

    def commit(self) -> None:
        """See `ITransaction`."""
        if self.queue is not None and not self._outputs and self._forwarded_to is None:
            self.queue.finish(self.filebase)
        elif self.queue is not None:
            stored = self._input()
            self.queue.store.remove(stored)
            if self._forwarded_to is not None:
                move(stored, self.queue, self._forwarded_to)
        for queue, output in self._outputs:
            key = self._keys.get(output.filebase)
            if key is None or queue.first_with(key, output) == output.filebase:
                queue.store.add(output)

    def discard(self) -> None:
        """See `ITransaction`."""
        self._outputs.clear()
        self._forwarded_to = None


def move(
    stored: Stored, source: MemorySwitchboard, target: MemorySwitchboard, event: str = 'moved', **fields: Any
) -> None:
    """Put an entry that was taken out of one queue into another."""
    stored.append(event, target.clock, queue=source.name, to=target.name, **fields)
    target.store.add(stored, PRESERVED if target.name == BAD else READY)


@implementer(ISpool)
class MemorySpool:
    """All queues of one installation, in memory.  See `ISpool`.

    :param config: names the queues and exchanges; without one, queues are made as they are named.
    :param options: of the queues that no configuration describes.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        options: QueueOptions | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config
        self.clock = clock
        self._defaults = options or QueueOptions()
        self._namer = SYSTEM_NAMER if clock is SYSTEM_CLOCK else Namer(clock)
        self._stores: dict[str, Store] = {}
        self._queues: dict[str, MemorySwitchboard] = {}

    @classmethod
    def from_config(cls, config: str | os.PathLike[str] | Config, **keys: Any) -> MemorySpool:
        """Make the queues and exchanges that a configuration describes; its ``spool`` is not touched.

        :param config: the path of the file, or the configuration read from it.
        :raises ConfigError: the file cannot be used; the text says where and why.
        """
        if isinstance(config, str | os.PathLike):
            from switchboard.config.config import Config

            config = Config.load(os.fspath(config))
        return cls(config, **keys)

    def queue_names(self) -> list[str]:
        """:return: the queues that are declared or were named, sorted; ``bad`` among them."""
        declared = self.config.queue_names() if self.config else ()
        return sorted({*declared, *self._stores, BAD})

    def __getitem__(self, name: str) -> MemorySwitchboard:
        """See `ISpool`."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = self.queue(name)
        return queue

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.queue_names()

    def queue(self, name: str, slice: int | None = None, numslices: int = 1) -> MemorySwitchboard:
        """See `ISpool`."""
        options = self.queue_options(check_queue_name(name))
        queue = MemorySwitchboard(
            name,
            slice,
            numslices,
            options=options,
            clock=self.clock,
            namer=self._namer,
            store=self._stores.setdefault(name, Store()),
            bad=self._stores.setdefault(BAD, Store()),
        )
        if options.dead_letter != BAD:
            queue.dead_letter = lambda stored, cause, reason: self._dead_letter(queue, stored, cause, reason)
        return queue

    board = queue  # the old name

    def queue_options(self, name: str) -> QueueOptions:
        """:raises UnknownQueueError: the configuration does not declare such a queue."""
        if self.config is None:
            return self._defaults
        if name not in self.config.queue_names():
            known = ', '.join(sorted(self.config.queue_names()))
            raise UnknownQueueError(f'no such queue: the configuration declares {known}', queue=name)
        return self.config.queue_options(name)

    @property
    def exchanges(self) -> ExchangeTable:
        """The exchange table; without a configuration, it has the default exchange only."""
        return self.config.exchanges if self.config else ExchangeTable()

    def publish(
        self,
        msg: Any,
        metadata: Mapping[str, Any] | None = None,
        *,
        exchange: str = '',
        routing_key: str = '',
        **metadata_keys: Any,
    ) -> dict[str, str]:
        """See `ISpool`."""
        merged = {**(metadata or {}), **metadata_keys}
        queues = self.exchanges.route(exchange, routing_key, merged)
        if exchange:
            merged |= {'exchange': exchange, 'routing_key': routing_key}
        transaction = self.transaction()
        filebases = {queue: transaction.emit(self[queue], msg, dict(merged)) for queue in queues}
        transaction.commit()
        return filebases

    def _dead_letter(self, source: MemorySwitchboard, stored: Stored, cause: str, reason: str) -> bool:
        target = source.options.dead_letter
        entry = stored.read()
        try:
            queues: Sequence[str] = (target,)
            if target.startswith(EXCHANGE_PREFIX):
                metadata = entry.changed_metadata(load_metadata(entry.metadata))
                key = metadata.get('routing_key', source.name)
                queues = self.exchanges.route(target.removeprefix(EXCHANGE_PREFIX), key, metadata)
            for name in queues:
                self[name].check_room(entry)
        except SwitchboardError:
            return False
        source.store.remove(stored)
        now = with_when(stored.filebase, self.clock.time_ns())
        for name in queues:
            copy = Stored(now, stored.content, wished=False)
            move(copy, source, self[name], 'dead-lettered', cause=cause, reason=reason)
        return True

    def transaction(self, queue: MemorySwitchboard | None = None, filebase: str = '') -> MemoryTransaction:
        """See `ISpool`."""
        return MemoryTransaction(queue, filebase)

    def commit_all(self, transactions: Sequence[MemoryTransaction]) -> dict[MemoryTransaction, QueueError]:
        """See `ISpool`."""
        failed = {}
        for transaction in transactions:
            try:
                transaction.commit()
            except QueueError as error:
                failed[transaction] = error
        return failed

    def recover(self) -> int:
        """See `ISpool`.  In memory nothing is left half done."""
        return 0
