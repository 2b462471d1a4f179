"""One queue on a broker: `ISwitchboard` over RabbitMQ or Redis.

A claim is an unacknowledged message, and the broker's redelivery is the recovery.  What that changes, against a directory:

- nothing can be listed, because looking is taking: ``files`` says so (`NotListableError`);
- a message cannot be changed where it is.  Given back as it was, it goes to its old place; with a new history, or later, it is published anew
  and then acknowledged, never the reverse: a crash in between leaves two, with the same message id;
- the history of a message that is claimed is in this process's memory until then.

A message that its queue cannot keep goes to the dead letters, by default the bad queue of the spool on this machine, where operators' tools find it: it is
on the disk there before the broker hears that it is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from switchboard.brokers.claims import BrokerClaim
from switchboard.brokers.depositing import Keeper
from switchboard.brokers.ledger import Ledger
from switchboard.brokers.link import Link
from switchboard.brokers.outlet import BrokerOutlet
from switchboard.brokers.url import BrokerUrl
from switchboard.brokers.wakeup import BrokerWakeup
from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    EntryExpiredError,
    EntryTakenError,
    ForeignFileError,
    NotListableError,
    QueueError,
)
from switchboard.events import event
from switchboard.interfaces import ISwitchboard, Taken
from switchboard.message.expiry import is_expired
from switchboard.message.journal import count_since_retry
from switchboard.message.naming import CLAIMED, is_filebase
from switchboard.options import QueueOptions
from switchboard.queue.consumer import CAUSES
from switchboard.queue.recovery import timestamp
from switchboard.queue.throttle import Throttle

log = logging.getLogger('switchboard.queue')


@implementer(ISwitchboard)
class BrokerSwitchboard(BrokerOutlet):
    """One queue on a broker.  See `ISwitchboard`.

    :param url: ``amqp://...`` or ``redis://...``; see `BrokerUrl`.
    :param slice: which of `numslices` runners this object is for; see ``slices`` in the URL.
    :param recover: give back what this process gave up.
    :param bad: where entries go that cannot be processed: a queue in a directory, or another one on a broker; by default the
        queue ``bad`` of the same broker.
    :param ledger: where the deaths of holders are counted; by default in this object alone.
    """

    def __init__(
        self,
        name: str,
        url: str | BrokerUrl,
        slice: int | None = None,
        numslices: int = 1,
        recover: bool = False,
        *,
        options: QueueOptions | None = None,
        clock: Clock = SYSTEM_CLOCK,
        namer: Any = None,
        link: Link | None = None,
        bad: Keeper | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(
            name, url, slice, numslices, options=options, clock=clock, namer=namer, link=link, ledger=ledger
        )
        self._bad = bad
        self._throttle = Throttle(self.options.rate and self.options.rate / numslices, clock)
        # Set by a spool, which knows what operators say.
        self.paused_by_operator: Callable[..., bool] = lambda **_keys: False
        # And where markers are written: `Dedupe` asks for these.
        self.disk: Any = None
        self.pool: Any = None
        if recover:
            self.recover()

    def __repr__(self) -> str:
        return f'BrokerSwitchboard({self.name!r}, {self.url.shown!r}, {self.slice.index}, {self.slice.count})'

    @property
    def bad(self) -> Keeper:
        """Where entries go that cannot be processed."""
        if self._bad is None:
            self._bad = BrokerSwitchboard('bad', self.url.without_options(), link=self.link, clock=self.clock)
        return self._bad

    def is_paused(self, *, anew: bool = False) -> bool:
        """Is nothing to be taken for now?"""
        return self.options.paused or self.paused_by_operator(anew=anew)

    def may_take(self) -> bool:
        """Is anything to be taken at this moment, if it is there?"""
        return not self.is_paused(anew=True) and self._throttle.allows()

    # At work.

    def dequeue(self, filebase: str) -> tuple[Any, dict[str, Any]]:
        """See `ISwitchboard`.  A broker gives out what is next: what is before this entry is taken and given back."""
        if not is_filebase(filebase):
            raise ForeignFileError('not the name of an entry', queue=self.name, filebase=filebase)
        claim = self._source.find(filebase)
        if claim is None:
            raise EntryTakenError('taken, or gone', queue=self.name, filebase=filebase)
        return self._open(claim)

    def take(self) -> Taken | None:
        """See `ISwitchboard`."""
        if self.is_paused() or not self._throttle.allows():
            return None
        while (claim := self._source.next()) is not None:
            try:
                taken = Taken(claim.filebase, *self._open(claim))
            except (CorruptEntryError, ContentDisallowedError, EntryExpiredError, EntryTakenError) as error:
                event(log, logging.DEBUG, claim.filebase, 'skipped', error=error)
                continue
            self._throttle.took()
            return taken
        return None

    def _open(self, claim: BrokerClaim) -> tuple[Any, dict[str, Any]]:
        """Read what was taken."""
        self._count_deaths(claim)
        self._source.hold(claim)
        try:
            msg, msgdata = claim.entry.load(self.serializers)
            if is_expired(msgdata, self.clock):
                raise EntryExpiredError('its time to live is over')
        except (CorruptEntryError, ContentDisallowedError, EntryExpiredError) as error:
            error.queue, error.filebase = self.name, claim.filebase
            self._set_aside(claim, CAUSES[type(error)], error.reason, error=type(error).__name__)
            raise
        return msg, msgdata

    def _count_deaths(self, claim: BrokerClaim) -> None:
        """Put the deaths of those who had the message before into its history.

        :raises EntryTakenError: they were too many, and it is in the bad queue now.
        """
        deaths = claim.deaths
        before = count_since_retry(claim.entry.records, 'recovered')
        for number in range(before + 1, before + deaths + 1):
            claim.entry.records.append({'event': 'recovered', 'time': timestamp(self.clock), 'count': number})
        recoveries = before + deaths
        if deaths and recoveries >= self.options.max_recoveries:
            self._source.hold(claim)
            reason = f'recovered {recoveries} times: its owner died each time'
            self._set_aside(claim, 'recoveries', reason)
            raise EntryTakenError('its owners died', queue=self.name, filebase=claim.filebase)

    def ready(self) -> bool:
        """See `ISwitchboard`."""
        if not self.may_take():
            return False
        try:
            return self._source.look()
        except QueueError as error:
            event(log, logging.DEBUG, None, 'not read', queue=self.name, error=error)
            return False

    def defer(self, filebase: str, seconds: float) -> None:
        """See `ISwitchboard`.  It is kept from the other processes, too, if it is met with before the time is over."""
        self._source.put_off(filebase, seconds)

    def wait_s(self) -> float | None:
        """See `ISwitchboard`."""
        waits = [wait for wait in (self._source.wait_s(), self._throttle.wait_s()) if wait is not None]
        return min(waits) if waits and not self.is_paused() else None

    def wakeup(self) -> BrokerWakeup:
        """See `ISwitchboard`."""
        return BrokerWakeup(self)

    def nudge(self) -> None:
        """Runners of a broker's queue see the end of a pause when they look again."""

    def recover_backup_files(self, *, own: bool = True) -> None:
        """See `ISwitchboard`."""
        self.recover(own=own)

    def recover(self, *, own: bool = True) -> list[str]:
        """See `ISwitchboard`.  What dead processes had, the broker gives out again by itself; on Redis, this sees to it."""
        self.ledger.collect()
        for queue in self.broker_queues:
            for message_id, deaths in self.link.restore(queue):
                event(log, logging.INFO, None, 'recovered', id=message_id, queue=self.name, count=deaths)
        claims = [self.held(filebase) for filebase in self.get_files(CLAIMED)] if own else []
        ready = [claim.filebase for claim in reversed(claims) if self._give_up(claim)]
        return sorted(ready)

    def _give_up(self, claim: BrokerClaim) -> bool:
        recoveries = count_since_retry(claim.entry.records, 'recovered') + 1
        if recoveries >= self.options.max_recoveries:
            claim.note(self._record({'event': 'recovered', 'count': recoveries}, 'recovered'))
            self._set_aside(claim, 'recoveries', f'recovered {recoveries} times: its owner died each time')
            return False
        self._source.let_go(claim)
        if not claim.link.counts_deaths:
            self.ledger.add(claim.identity)
        claim.link.give_up(claim.delivery)
        return True

    def close(self) -> None:
        """Give back what was looked at and not taken, and disconnect; what is claimed goes back, too."""
        self._source.close()
        self.link.close()
        self.ledger.close()

    # All that is there.

    @property
    def files(self) -> list[str]:
        """See `ISwitchboard`.

        :raises NotListableError: always.
        """
        return self.get_files()

    def get_files(self, extension: str = '.pck') -> list[str]:
        """See `ISwitchboard`, of what this process holds (``.bak``).

        :raises NotListableError: of what is ready.
        """
        if extension == CLAIMED:
            return self._source.claimed()
        raise NotListableError(
            f'the queue is on a broker ({self.url.shown}), where looking is taking: it can be counted, not listed',
            queue=self.name,
        )
