"""May a message come in?  Everything that a queue asks before it stores one, in one place.

In this order: is it being drained, does it accept the kind, is there room.  A full queue may make room by taking its oldest entries
out (``overflow``); a message that could never fit is refused before any of them goes.
"""

from __future__ import annotations

from collections.abc import Callable

from switchboard.errors import ContentDisallowedError, QueueFullError, QueuePausedError
from switchboard.message.entry import Entry
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.store.limits import Limits
from switchboard.store.publishing import PreparedEntry

# How often a full queue whose oldest is to make room is looked at, when nothing can be taken out of it.
ROOM_TRIES = 3


class Admission:
    """Lets messages into one queue.

    :param is_draining: has an operator closed the queue to new messages?
    :param evict: takes the oldest entry out and returns how many bytes it had, or None if there is none to be had.
    """

    def __init__(
        self,
        queue: str,
        options: QueueOptions,
        serializers: Serializers,
        limits: Limits,
        is_draining: Callable[[], bool],
        evict: Callable[[], int | None],
    ) -> None:
        self._queue = queue
        self._options = options
        self._serializers = serializers
        self._limits = limits
        self._is_draining = is_draining
        self._evict = evict

    def check_open(self) -> None:
        """:raises QueuePausedError: the queue is being drained."""
        if self._is_draining():
            raise QueuePausedError('it is being drained: nothing is let in', queue=self._queue)

    def ask_for_room(self, size: int) -> None:
        """Ask for room for one message, and count it in.

        :param size: in bytes.
        :raises MessageTooLargeError: it could never fit.
        :raises QueueFullError: there is no room, and none could be made.
        """
        limits = self._limits
        room, tries = not limits.any, 0
        while not room:
            try:
                limits.check(1, size)
                room = True
            except QueueFullError:
                if self._options.overflow == 'reject' or not limits.counted or limits.is_hopeless(size):
                    raise
                if (freed := self._evict()) is not None:
                    limits.left(1, freed)
                    continue
                # Full of what others work on, or are about to put in: what they have by now is counted again.
                tries += 1
                if tries == ROOM_TRIES:
                    raise
                limits.left(0)

    def check(self, entry: Entry) -> None:
        """Ask whether another queue's entry may come in.

        :raises QueuePausedError: the queue is being drained.
        :raises ContentDisallowedError: its kind is not accepted.
        :raises QueueFullError: there is no room.
        """
        self.check_open()
        if self._serializers.for_kind(entry.kind) is None:
            raise ContentDisallowedError(entry.kind, queue=self._queue)
        self.ask_for_room(len(entry.body) + len(entry.metadata))

    def note_written(self, item: PreparedEntry) -> None:
        """Count a message that is written and not yet published, until it is."""
        if self._limits.counted:
            self._limits.pending.add(item)

    def take_back(self, messages: int = 1) -> None:
        """Note that messages did not come though there was room for them; 0: nobody knows how many."""
        self._limits.left(messages)
