"""What this process holds of queues on brokers.

As with a directory, it is the process that holds an entry, and not the object by which it was taken: any object of the same queue may
finish it.  So claims stand in one table, by broker, queue and filebase.  A fork leaves them with the parent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from switchboard.brokers.arriving import identity_of
from switchboard.brokers.linking import Link
from switchboard.brokers.wire import Delivery
from switchboard.message.entry import Entry
from switchboard.message.naming import digest_of


@dataclass(slots=True, eq=False)
class BrokerClaim:
    """A delivery, the connection by which it came, and the entry that it is.

    :ivar is_changed: its history is another one than the broker's message says.
    :ivar deaths: how many holders of it have died since it was given out first.
    """

    link: Link
    delivery: Delivery
    entry: Entry
    is_changed: bool = False
    deaths: int = 0

    @property
    def filebase(self) -> str:
        """The entry's name."""
        return self.entry.filebase

    @property
    def digest(self) -> str:
        """The entry's identity."""
        return digest_of(self.entry.filebase)

    @property
    def identity(self) -> str:
        """What deaths are counted by."""
        return identity_of(self.delivery)

    def read(self) -> Entry:
        """:return: the entry, as `Claim.read` does."""
        return self.entry

    def holds(self) -> bool:
        """Is it still ours?"""
        return self.link.holds(self.delivery)

    def note(self, record: dict[str, Any]) -> None:
        """Add a record to the history; the broker hears of it when the message is given back, or preserved."""
        self.entry.records.append(record)
        self.is_changed = True


# By broker, queue and filebase.
OWN_CLAIMS: dict[tuple[str, str, str], BrokerClaim] = {}

os.register_at_fork(after_in_child=OWN_CLAIMS.clear)
