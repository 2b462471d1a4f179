"""A spool: all queues of one installation, in one directory, on one file system.

Here the parts are put together: the configuration's queues and exchanges, the spares that they share, and the stage over
which one message becomes several in one step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import proxy

from zope.interface import implementer

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.declared.declarations import Declaration
from switchboard.declared.declared_queues import DeclaredQueues
from switchboard.declared.presence import Ticket
from switchboard.errors import (
    ConfigError,
    NotListableError,
    QueueError,
    QueueMismatchError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.handoff.deduplication import Dedupe, commit_deduplicated
from switchboard.handoff.handoff import DedupedOutput, Handoff
from switchboard.handoff.publish_many import Publication, PublishOutcome, publish_many
from switchboard.handoff.stage import Stage
from switchboard.handoff.transaction import Transaction
from switchboard.interfaces import ISpool
from switchboard.message.metadata import merge_keys
from switchboard.message.naming import (
    CLAIMED,
    READY,
    SYSTEM_NAME_GENERATOR,
    FilebaseFinder,
    NameGenerator,
    check_queue_name,
    is_queue_name,
    make_slice,
)
from switchboard.options import QueueOptions, check_values
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.queue.switchboard import SpoolServices, Switchboard
from switchboard.queue.wakeup import other_slices_arrivals
from switchboard.routing.exchange import ExchangeTable
from switchboard.spool.deadletters import DeadLetters, discard_dead_letter, store_dead_letter
from switchboard.spool.pickup import Pickup
from switchboard.store.claims import Claim
from switchboard.store.disk import Disk
from switchboard.store.flags import Flags
from switchboard.store.folder import Folder, close_folders
from switchboard.store.kernel import open_files_limit
from switchboard.store.layout import BAD, COUNTS, DELIVERIES_PREFIX, ORDER, RUN, SPARE, STAGE
from switchboard.store.limits import SharedCount
from switchboard.store.order_lock import OrderLock
from switchboard.store.pool import FilePool
from switchboard.store.publishing import raise_queue_error
from switchboard.store.renewal import renew

if TYPE_CHECKING:
    from switchboard.config.config import Config
    from switchboard.queue_defaults import Durability
    from switchboard.spool.active_config import ActiveConfig

_DEFAULT_EXCHANGE_ONLY = ExchangeTable(())


# Of a process's descriptors, one in so many may go to queues that it has used and may use again; and no more than so many queues.
DESCRIPTORS_A_QUEUE, MAX_OPEN_QUEUES = 16, 128


def max_open_queues() -> int:
    """:return: how many queues a spool keeps open, and as many again for a while, by the limit of open files."""
    return max(4, min(MAX_OPEN_QUEUES, open_files_limit() // DESCRIPTORS_A_QUEUE))


def as_config(config: str | os.PathLike[str] | Config) -> Config:
    """:return: a configuration, read if only its file's path is given."""
    if isinstance(config, str | os.PathLike):
        from switchboard.config.config import Config

        return Config.load(os.fspath(config))
    return config


class OpenQueues:
    """The queues that a spool has opened, in two generations: one that was not used for a whole generation is closed.

    A queue that is let go of is closed when nobody else uses its object either.
    """

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._recent: dict[str, Switchboard] = {}
        self._older: dict[str, Switchboard] = {}

    def get(self, name: str) -> Switchboard | None:
        """:return: the queue, if it is open."""
        queue = self._recent.get(name)
        if queue is None and (queue := self._older.pop(name, None)) is not None:
            self.add(name, queue)
        return queue

    def add(self, name: str, queue: Switchboard) -> None:
        """Remember a queue that was opened or used."""
        self._older.pop(name, None)
        if len(self._recent) >= self._generation:
            self._older, self._recent = self._recent, {}
        self._recent[name] = queue

    def pop(self, name: str) -> None:
        """Let go of one."""
        self._recent.pop(name, None)
        self._older.pop(name, None)

    def clear(self) -> None:
        """Let go of all."""
        self._recent, self._older = {}, {}


@implementer(ISpool)
class Spool:
    """All queues of one installation.  See `ISpool`.

    :param directory: the root of the spool; made, with mode 0770, if it is not there.
    :param durability: of the queues that no configuration describes: ``full`` (on the disk when enqueue returns) or ``lazy``
        (handed to the kernel: it survives the death of any process, and not a power cut).
    :param message_class: the class of mails where no configuration says it: a subclass of ``Message``, or its path.
    :param options: all options of queues that no configuration describes, instead of those two.
    :param config: names the queues and exchanges; without one, queues are made as they are named.
    :raises ConfigError: an option is of another type, or none of its words.
    :raises OSError: a directory cannot be made or opened.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        durability: Durability = 'full',
        *,
        message_class: str | type | None = None,
        options: QueueOptions | None = None,
        config: Config | None = None,
        disk: Disk | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.disk = disk = disk or Disk.of_system()
        self.clock = clock
        self._defaults = options or QueueOptions(durability=durability, message_class=message_class)
        if config is None:
            check_values(self._defaults)
        self._name_generator = SYSTEM_NAME_GENERATOR if clock is SYSTEM_CLOCK else NameGenerator(clock)
        self.pool = FilePool(self._folder(SPARE), self._name_generator)
        self._scrubbed = FilePool(self._folder(SPARE), self._name_generator, scrub=True)
        self._counts, self._order = (Folder(self.path(RUN, each), disk) for each in (COUNTS, ORDER))
        self.stage = Stage(self.directory, self._folder(STAGE), self.pool, self._name_generator, self._order)
        self.run_folder = run = self._folder(RUN)
        self.expiry_clock = ExpiryClock(clock, run)
        self.expiry_clock.time_ns()  # so that a clock that is turned later is known to have been turned
        self._active_config: ActiveConfig | None = None
        if config is not None:
            # Here, because a spool without a configuration needs none.
            from switchboard.spool.active_config import ActiveConfig

            self._active_config = ActiveConfig(config, run, disk, clock)
        self.flags = Flags(run.path, disk, clock)
        self._open_queues = OpenQueues(max_open_queues())
        self._bad = Folder(self.path(BAD), disk)
        self._prepared: dict[tuple[str, int | None, int], Switchboard] = {}
        self.declared = DeclaredQueues(
            self.directory,
            disk,
            clock,
            self._name_generator,
            self.pool,
            self.expiry_clock,
            config=lambda: self.config,
            base=lambda: _DEFAULT_EXCHANGE_ONLY if (config := self.config) is None else config.exchanges,
        )

    def close(self) -> None:
        """Let go of all descriptors now.  Nothing may be claimed any more; a spool that is used again opens them anew."""
        self._open_queues.clear()
        for pool in (self.pool, self._scrubbed):
            pool.close()
        close_folders(self.disk)

    @classmethod
    def from_config(cls, config: str | os.PathLike[str] | Config, **keys: Any) -> Spool:
        """Make the spool that a configuration describes.

        :param config: the path of the file, or the configuration read from it.
        :raises ConfigError: the file cannot be used; the text says where and why.
        """
        config = as_config(config)
        return cls(config.spool, config=config, **keys)

    @property
    def config(self) -> Config | None:
        """The configuration that this spool goes by; another one as soon as that was put into force."""
        if self._active_config is None:
            return None
        if self._active_config.refresh():
            # Their options may have changed; entries that somebody holds are held by the process, not by the object.
            self._open_queues.clear()
        return self._active_config.config

    @property
    def _broker_transactions(self) -> Any:
        """The module of hand-offs from and to brokers; None where no queue is on one: it is loaded for nothing else."""
        config = self.config
        if config is None or not config.has_remote_queues:
            return None
        from switchboard.brokers import transaction

        return transaction

    def __repr__(self) -> str:
        return f'Spool({self.directory!r})'

    def _folder(self, name: str) -> Folder:
        folder = Folder(os.path.join(self.directory, name), self.disk)
        folder.make()
        folder.open()
        return folder

    def path(self, *parts: str) -> str:
        """:return: a path in the spool."""
        return os.path.join(self.directory, *parts)

    def queue_names(self) -> list[str]:
        """:return: the queues that are declared or have a directory, sorted; ``bad`` among them."""
        names = {*config.queue_names()} if (config := self.config) else set()
        names.update(self.declared.records.names())
        with Folder(self.directory, self.disk).scan() as entries:
            names.update(e.name for e in entries if is_queue_name(e.name) and e.is_dir(follow_symlinks=False))
        return sorted(names | {BAD})

    def __getitem__(self, name: str) -> Switchboard:
        """See `ISpool`."""
        fixed = self.declared.is_configured(name)  # first, for it looks whether other options are in force
        queue = self._open_queues.get(name)
        try:
            # Another process may have deleted what a program declared.
            if queue is None or (not fixed and queue.folder.is_deleted()):
                queue = self.queue(name)
                self._open_queues.add(name, queue)
        except OSError as error:
            raise_queue_error(error, 'open', name, os.path.join(self.directory, name))
        return queue

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            return self.declared.is_known(check_queue_name(name))
        except UnknownQueueError:
            return False

    def queue(
        self, name: str, slice: int | None = None, numslices: int = 1, **changed_options: Any
    ) -> Switchboard:
        """:return: a new object for one slice of a queue; ``spool[name]`` is the shared one for the whole queue.

        :param changed_options: fields of `QueueOptions` that this object sees otherwise than all others.
        :raises UnknownQueueError: nobody declared it, or the name cannot be one.
        :raises ConfigError: an option is of another type, or none of its words.
        """
        if not changed_options and (prepared := self._prepared.pop((name, slice, numslices), None)):
            return prepared
        check_queue_name(name)
        if changed_options:
            check_values(QueueOptions(**changed_options))
        with self.declared.opening(name) as declaration:
            options = self._options(name, declaration)._replace(**changed_options)
            return self._open(name, slice, numslices, options, declaration)

    def preload_queue(self, name: str, slice: int | None, numslices: int) -> None:
        """Make in advance what :meth:`queue` is to return: in a process that is about to be forked, it is made for all."""
        self._prepared[name, slice, numslices] = queue = self.queue(name, slice, numslices)
        queue.is_paused()  # opens the directory where that is looked up
        whose = make_slice(slice, numslices)
        finder = FilebaseFinder(whose)
        for suffix in (READY, CLAIMED):
            finder.filebases('', suffix)
        finder.others('')
        if numslices > 1:
            other_slices_arrivals(whose)
        self.declared.prepare(name)

    def _open(
        self,
        name: str,
        slice: int | None,
        numslices: int,
        options: QueueOptions,
        declaration: Declaration | None,
    ) -> Switchboard:
        if options.url is not None:
            found: Switchboard = self._open_on_broker(name, slice, numslices, options)
            return found
        return Switchboard(
            name,
            self.path(name),
            slice,
            numslices,
            options=options,
            disk=self.disk,
            clock=self.clock,
            name_generator=self._name_generator,
            pool=self._scrubbed if options.scrub else self.pool,
            bad=self._bad,
            services=self._services(name, options, declaration),
        )

    def _open_on_broker(self, name: str, slice: int | None, numslices: int, options: QueueOptions) -> Any:
        # Loaded only where a queue has a `url`, for it needs an extra's libraries.
        from switchboard.brokers.delivery_counts import DeliveryCounts
        from switchboard.brokers.queue import BrokerQueue

        config, target = self.config, options.dead_letter
        assert options.url is not None
        folder = Folder(self.path(f'{DELIVERIES_PREFIX}{name}'), self.disk)
        try:
            return BrokerQueue(
                name,
                options.url,
                slice,
                numslices,
                options=options,
                clock=self.clock,
                bad=self[BAD] if name != BAD else None,
                delivery_counts=DeliveryCounts(folder, self.disk, self.clock, self.expiry_clock),
                finished_markers=self.dedupe_keys,
                dead_letter=(lambda queue: DeadLetters(self, name, target, queue.store_dead_letter))
                if target != BAD
                else None,
                services=self._services(name, options, None),
            )
        except ConfigError as error:
            error.section = error.section or f'queue.{name}'
            error.file = error.file or (str(config.path) if config is not None else None)
            raise

    def _services(self, name: str, options: QueueOptions, declaration: Declaration | None) -> SpoolServices:
        imports = (options.maildir or options.accept_eml_files) and name != BAD
        return SpoolServices(
            is_draining=partial(self.flags.is_set, 'draining', name),
            is_paused=partial(self.flags.is_set, 'paused', name),
            expiry_clock=self.expiry_clock,
            order=OrderLock(self._order, name, self.stage.is_handoff_unfinished)
            if options.strict_order
            else None,
            shared_count=SharedCount(self._counts, name),
            # What a queue has does not keep the queue: it is closed when nobody uses it any more, and not by and by.
            enqueue_once=lambda queue: partial(self._enqueue_once, proxy(queue)),
            dead_letter=self._dead_letter(options, declaration),
            pickup=(lambda queue: Pickup(self.stage, proxy(queue))) if imports else None,
            # What the configuration names is never deleted.
            renew=renew if self.declared.is_configured(name) else self.declared.removal.renew,
        )

    def _dead_letter(
        self, options: QueueOptions, declaration: Declaration | None
    ) -> Callable[[Switchboard], Callable[[Claim, str, str], bool]] | None:
        if options.dead_letter != BAD:
            key = declaration.dead_letter_routing_key if declaration is not None else None
            target = options.dead_letter
            return lambda queue: DeadLetters(
                self, queue.name, target, partial(store_dead_letter, self, proxy(queue)), key
            )
        causes = declaration.discard_causes if declaration is not None else ()
        return (lambda queue: partial(discard_dead_letter, proxy(queue), causes)) if causes else None

    def _enqueue_once(self, queue: Switchboard, msg: Any, metadata: dict[str, Any], key: str) -> str:
        handoff = Handoff(self.stage)
        output = DedupedOutput(queue, key, make=lambda: queue.prepare(msg, metadata))
        handoff.deduped.append(output)
        for error in commit_deduplicated(self, [handoff]).values():
            raise error
        return output.filebase

    def dedupe_keys(self, queue: Switchboard) -> Dedupe:
        """:return: the keys that a queue has seen."""
        return Dedupe(self.stage, queue, self.expiry_clock)

    def queue_options(self, name: str) -> QueueOptions:
        """:raises UnknownQueueError: nobody declared such a queue."""
        fixed = self.declared.is_configured(name)
        return self._options(name, None if fixed else self.declared.records.get(name))

    def _options(self, name: str, declaration: Declaration | None) -> QueueOptions:
        config = self.config
        if config is None:
            options = self._defaults._replace(durability='full') if name == BAD else self._defaults
        elif declaration is None and not config.declares(name):
            known = ', '.join(sorted(config.queue_names()))
            raise UnknownQueueError(f'no such queue: the configuration declares {known}', queue=name)
        else:
            options = config.queue_options(name)
        # What programs declare is a directory, whatever a section for many queues says.
        return options if declaration is None else declaration.applied_to(options)._replace(url=None)

    @property
    def exchanges(self) -> ExchangeTable:
        """The exchange table: the exchange file's, and what programs have declared up to now."""
        try:
            return self.declared.exchanges.table
        except OSError as error:
            raise_queue_error(error, 'read the declared exchanges', '', self.directory)

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
        merged = merge_keys(metadata, metadata_keys)
        queues = self.exchanges.route(exchange, routing_key, merged)
        if exchange:
            merged |= {'exchange': exchange, 'routing_key': routing_key}
        if len(queues) == 1:
            return {queue: self._enqueue(queue, msg, merged) for queue in queues}
        [outcome] = self.publish_many([Publication(msg, merged, queues)])
        if isinstance(outcome, SwitchboardError):
            raise outcome
        return outcome

    def _enqueue(self, name: str, msg: Any, metadata: Mapping[str, Any]) -> str:
        try:
            return self[name].enqueue(msg, metadata)
        except UnknownQueueError:
            # Deleted since it was looked at: perhaps there is a new one of that name; if not, this says so.
            return self[name].enqueue(msg, metadata)

    def publish_many(self, publications: Sequence[Publication]) -> list[PublishOutcome]:
        """Store many messages with the flushes of one, each in all of its queues or in none.

        :return: the outcome of each, in the same order: filebases by queue, or the error.
        """
        if (brokers := self._broker_transactions) is not None:
            outcomes: list[PublishOutcome] = brokers.publish_many(self, publications)
            return outcomes
        return publish_many(self, publications)

    def pause(self, name: str, reason: str = '', by: str = '') -> None:
        """Have nothing taken out of a queue until :meth:`resume`, in any process, also after a restart."""
        self.flags.set('paused', self[name].name, reason, by)

    def drain(self, name: str, reason: str = '', by: str = '') -> None:
        """Let nothing into a queue until :meth:`resume`: producers get `QueueDrainingError`, mail servers try again later."""
        self.flags.set('draining', self[name].name, reason, by)

    def resume(self, name: str) -> bool:
        """End a pause and a drain.

        :return: False if there was neither.
        """
        flags = [self.flags.clear('paused', name), self.flags.clear('draining', name)]
        self[name].wake_consumers()
        return any(flags)

    def transaction(self, queue: Switchboard | None, filebase: str | None) -> Transaction:
        """See `ISpool`."""
        if (brokers := self._broker_transactions) is not None:
            transaction: Transaction = brokers.BrokerTransaction(self, queue, filebase)
            return transaction
        if queue is None or filebase is None:
            return Transaction(self.stage)
        return Transaction(self.stage, queue, queue.claim_of(filebase))

    def commit_all(self, transactions: Sequence[Transaction]) -> dict[Transaction, QueueError]:
        """Commit many transactions with the flushes of one.

        :return: the transactions that were not committed, and why; their inputs are still claimed.
        """
        if (brokers := self._broker_transactions) is not None:
            failed: dict[Transaction, QueueError] = brokers.commit_all(self, transactions)
            return failed
        return commit_deduplicated(self, transactions)

    def recover(self, *, wait: bool = False) -> int:
        """Finish or undo the hand-offs of dead processes.

        :param wait: wait for those that other processes are finishing, too, for ten seconds at most.
        :return: how many were dealt with.
        """
        return self.stage.recover(wait=wait)

    def renew_empty_directories(self) -> None:
        """Put fresh directories in the place of those that are empty, and large from many earlier entries.

        Runners do that when they have emptied their queue; this is for what nobody works on, and for what many share.
        """
        for folder in (self.pool.folder, self.stage.folder, self[BAD].folder):
            renew(folder)
        for place in self.declared.presence.places():
            self.declared.removal.renew(place)
        Folder(self.directory, self.disk).clear_drafts()

    # Queues that come and go.

    def declare(self, name: str, **keys: Any) -> Switchboard:
        """Make a queue, or make sure that it is there as asked for.  The configuration file is not touched.

        :param owner: a ticket (see :attr:`DeclaredQueues.owner`): the queue is his alone, and goes when he does.
        :param auto_delete: deleted when its last consumer leaves (of an owner's queue: when the owner does).
        :param expires_s: deleted when nobody has declared it or consumed from it for that long.
        :param options: fields of `QueueOptions`, which go before those of the configuration.
        :param arguments: the program's own words; like all else they are compared when the queue is there.
        :raises QueueMismatchError: it is there, and otherwise.
        :raises ConfigError: an option is none.
        :raises QueueLockedError: it is there, and another owner's.
        """
        self.declared.declare(name, **keys)
        return self[name]

    def delete(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue, and the messages that wait in it: entries at work may be finished.

        :return: how many messages were dropped.
        :raises UnknownQueueError: there is no such queue.
        :raises QueueInUseError: it has consumers, and `if_unused`; or messages, and `if_empty`.
        :raises QueueMismatchError: the configuration declares it.
        """
        if self.declared.is_configured(name):
            always = name == BAD
            raise QueueMismatchError(
                'it is always there' if always else 'the configuration declares it', queue=name
            )
        dropped = self.declared.removal.delete(check_queue_name(name), if_unused=if_unused, if_empty=if_empty)
        self._open_queues.pop(name)
        return dropped

    def purge(self, name: str, on_failure: Callable[[str, Exception], object] | None = None) -> int:
        """Drop the messages that wait in a queue.

        :param on_failure: called for each entry that could not be dropped, with its file's name and the error; by default they are in the log.
        :return: how many.
        :raises QueueError: it cannot be looked into.
        :raises NotListableError: the queue is on a broker.
        """
        queue = self[name]
        if queue.is_remote:
            raise NotListableError('the queue is on a broker, whose tools purge it', queue=queue.name)
        try:
            return self.declared.removal.purge(queue.name, on_failure)
        except OSError as error:
            raise_queue_error(error, 'purge', name, queue.queue_directory)

    def register_consumer(self, name: str, owner: Ticket | None = None) -> Ticket:
        """Say that this process consumes from a queue, for as long as it holds the ticket.

        :raises UnknownQueueError: there is no such queue.
        :raises QueueLockedError: it is another owner's.
        """
        return self.declared.register_consumer(name, owner)

    def consumer_count(self, name: str) -> int:
        """:return: how many living consumers said so of a queue."""
        return self.declared.removal.consumer_count(name)

    def delete_unused_queues(self, on_failure: Callable[[str, Exception], object] | None = None) -> list[str]:
        """Delete declared queues whose owner or last consumer is gone, or whose time is over.

        :param on_failure: called for each queue that should go and cannot, with its name and the error; by default the first error is raised, when
            all others were looked at.
        :return: which.
        """
        return self.declared.removal.delete_unused_queues(on_failure)
