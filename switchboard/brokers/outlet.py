"""The way out of a queue on a broker: what the holder of a claim can do with its message.

`BrokerInlet` is the way in; `BrokerSwitchboard` adds how a message is claimed.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from switchboard.brokers.claims import BrokerClaim
from switchboard.brokers.depositing import Keeper, deposit
from switchboard.brokers.inlet import LONGEST_DELAY_S, BrokerInlet, Posted, post
from switchboard.brokers.ledger import Ledger
from switchboard.brokers.source import LostClaimError, Source
from switchboard.errors import BrokerDownError, EntryTakenError
from switchboard.events import event
from switchboard.message.entry import changes, is_body_changed
from switchboard.message.journal import Record
from switchboard.message.naming import NS, PRESERVED, is_filebase, with_when
from switchboard.queue.recovery import timestamp
from switchboard.queue.switchboard import Switchboard
from switchboard.store.disk import Disk

log = logging.getLogger('switchboard.queue')


class BrokerOutlet(BrokerInlet, ABC):
    """What the holder of a message uses of a queue on a broker.  See `ISwitchboard`.

    :param ledger: where the deaths of holders are counted; by default in this object alone.
    """

    def __init__(self, *args: Any, ledger: Ledger | None = None, **keys: Any) -> None:
        super().__init__(*args, **keys)
        # What the broker counts need not be counted here.
        self.ledger = ledger if ledger and not self.link.counts_deaths else Ledger(None, Disk(), self.clock)
        self._source = Source(self)
        # Set by a spool: what was done already, and where dead letters go.
        self.is_done: Callable[[str], bool] = lambda _filebase: False
        self.dead_letter: Callable[[BrokerClaim, str, str], bool] | None = None

    @property
    @abstractmethod
    def bad(self) -> Keeper:
        """Where entries go that cannot be processed."""

    def held(self, filebase: str) -> BrokerClaim:
        """:return: this process's claim on an entry.

        :raises EntryTakenError: it has none, or has lost it with its connection.
        """
        return self._source.held(filebase)

    def annotate(self, filebase: str, record: Record) -> None:
        """See `ISwitchboard`."""
        self.held(filebase).note(self._record(record, 'noted'))

    def _record(self, record: Record, event: str) -> dict[str, Any]:
        return {**record, 'event': record.get('event', event), 'time': timestamp(self.clock)}

    def history(self, filebase: str) -> list[Record]:
        """See `ISwitchboard`, of what this process holds."""
        return list(self.held(filebase).entry.records)

    def changes(self, filebase: str, msgdata: Mapping[str, Any], *, strict: bool = True) -> dict[str, Any]:
        """See `ISwitchboard`."""
        return changes(self.held(filebase).entry.msgdata(self.serializers), msgdata, strict=strict)

    def is_changed(self, filebase: str, msg: Any) -> bool:
        """See `ISwitchboard`."""
        return is_body_changed(self.held(filebase).entry, msg, self.serializers)

    # Out.

    def finish(
        self, filebase: str, preserve: bool = False, *, reason: str = '', cause: str = 'rejected'
    ) -> None:
        """See `ISwitchboard`."""
        try:
            claim = self.held(filebase)
        except LostClaimError:
            raise
        except EntryTakenError:
            found = self._source.find(filebase) if is_filebase(filebase) else None
            if found is None:
                if preserve and self._is_preserved(filebase):
                    return
                raise EntryTakenError(
                    'gone, or another one has it', queue=self.name, filebase=filebase
                ) from None
            claim = found
            self._source.hold(claim)
        if preserve:
            self._set_aside(claim, cause, reason or 'preserved by its runner')
        else:
            self.end(claim)

    def end(self, claim: BrokerClaim) -> None:
        """Tell the broker that a message is done.

        :raises EntryTakenError: it has taken the message back meanwhile, and gives it out again.
        :raises BrokerDownError: it is away; the message stays claimed.
        """
        try:
            claim.link.ack(claim.delivery)
        except EntryTakenError:
            self._source.let_go(claim)
            raise
        self._source.let_go(claim)
        self.ledger.clear(claim.identity)

    def end_done(self, claim: BrokerClaim) -> bool:
        """Tell the broker that a message is done whose result is safe; if it is away, when it is back.

        :return: False if the broker gives it out again, or may do so.
        """
        try:
            self.end(claim)
        except (EntryTakenError, BrokerDownError) as error:
            event(log, logging.WARNING, claim.filebase, 'not acknowledged', queue=self.name, error=error)
            if isinstance(error, BrokerDownError):
                self._source.owe(claim)
            return False
        return True

    def _is_preserved(self, filebase: str) -> bool:
        bad = self.bad
        return isinstance(bad, Switchboard) and bad.disk.exists(filebase + PRESERVED, bad.folder.fd)

    def _set_aside(self, claim: BrokerClaim, cause: str, reason: str, **fields: Any) -> None:
        """End the claim on an entry that its queue cannot keep.

        :raises QueueError: it could not be stored elsewhere; it stays claimed.
        """
        readable = cause not in ('corrupt', 'disallowed')
        if not (self.dead_letter is not None and readable and self.dead_letter(claim, cause, reason)):
            told = {'event': 'preserved', 'queue': self.name, 'reason': reason, 'cause': cause, **fields}
            deposit(self.bad, claim.entry, [self._record(told, 'preserved')], suffix=PRESERVED)
            event(log, logging.WARNING, claim.filebase, 'preserved', queue=self.name, reason=reason)
        self.end_done(claim)  # if it comes again, it is preserved again, under the same name

    def release(self, filebase: str, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        """See `ISwitchboard`."""
        claim = self.held(filebase)
        if delay_s <= 0 and record is None and not claim.is_changed:
            self._source.let_go(claim)
            claim.link.requeue(claim.delivery)
            return filebase
        more = [] if record is None else [self._record(record, 'released')]
        if delay_s > 0:
            delay_s = min(delay_s, LONGEST_DELAY_S)
            filebase = with_when(filebase, self.clock.time_ns() + int(delay_s * NS))
        self.replace(claim, [self.posted_again(claim, filebase, more, delay_s)])
        return filebase

    def posted_again(
        self, claim: BrokerClaim, filebase: str, more: Sequence[Record], delay_s: float = 0.0
    ) -> Posted:
        """Pack a claimed message for being published anew, with its history."""
        return self.posted(replace(claim.entry, filebase=filebase), more, delay_s=delay_s)

    def replace(self, claim: BrokerClaim, posted: Sequence[Posted]) -> None:
        """Publish, and then end the claim: never the reverse.

        :raises QueueError: it was not published; the message stays claimed.
        """
        post(posted)
        self.end_done(claim)
