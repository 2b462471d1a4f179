"""The dead letters of a queue that a program declared: as of all queues, but for what the program said of them.

A program that comes from AMQP expects that a message whose time is over, or for which a bounded queue has no room, is gone unless
the queue has somewhere to send it; the bad queue would fill with what nobody will ever ask for.  Its declaration says so by name, for
each cause; messages that were *rejected* are kept all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from switchboard.declared.declarations import Declaration
from switchboard.events import event
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.deadletters import DeadLetters, Targets
from switchboard.store.claims import Claim
from switchboard.store.layout import BAD

log = logging.getLogger('switchboard.queue')


class DeclaredLetters(DeadLetters):
    """The dead letters of one declared queue."""

    def __init__(self, spool: Targets, board: Switchboard, declaration: Declaration) -> None:
        super().__init__(spool, board)
        self._declaration = declaration

    def __call__(self, claim: Claim, cause: str, reason: str) -> bool:
        """See `DeadLetters`."""
        if self._board.options.dead_letter != BAD:
            return super().__call__(claim, cause, reason)
        if cause not in self._declaration.discard:
            return False
        board, filebase = self._board, claim.filebase
        claim.finish(board.pool)
        event(log, logging.INFO, filebase, 'dropped', queue=board.name, cause=cause)
        return True

    def routing_key(self, metadata: Mapping[str, Any]) -> str:
        """See `DeadLetters`."""
        key = self._declaration.dead_letter_key
        return super().routing_key(metadata) if key is None else key
