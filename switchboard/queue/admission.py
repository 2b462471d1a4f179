"""May a message come in?  Everything that a queue asks before it stores one, in one place.

In this order: is it being drained, does it accept the kind, is there room.  A full queue may make room by letting its oldest entries
go (``overflow``).  That is done last, when all that comes in together (a batch, the outputs of a hand-off) is written, and only if it makes
room for all of it: a refusal has pushed nothing out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from switchboard.errors import (
    ContentDisallowedError,
    MessageTooLargeError,
    QueueDrainingError,
    QueueFullError,
)
from switchboard.message.entry import Entry
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.queue_defaults import has_limits
from switchboard.store.limits import Limits, Reservation

# How often a full queue whose oldest is to make room is looked at, when nothing can be taken out of it.
ROOM_TRIES = 3


class Admission:
    """Lets messages into one queue.

    :param is_draining: has an operator closed the queue to new messages?
    :param evict: takes the oldest entries out, see `Consumer`.
    :param can_evict: would it find enough?
    """

    def __init__(
        self,
        queue: str,
        options: QueueOptions,
        serializers: Serializers,
        limits: Limits,
        is_draining: Callable[[], bool],
        evict: Callable[[int, int], tuple[int, int] | None],
        can_evict: Callable[[int, int], bool],
    ) -> None:
        self.has_limits = has_limits(options)
        self._queue = queue
        self._options = options
        self._serializers = serializers
        self._limits = limits
        self._is_draining = is_draining
        self._evict = evict
        self._can_evict = can_evict

    def check_open(self) -> None:
        """:raises QueueDrainingError: the queue is being drained."""
        if self._is_draining():
            raise QueueDrainingError('it is being drained: nothing is let in', queue=self._queue)

    def reserve(self, size: int) -> Reservation | None:
        """Ask for room for one message, and count it in.

        :param size: in bytes.
        :return: the reservation; if its room is not there yet, it is to be made before the message is published (`make_room`).  None: the queue has no limits.
        :raises MessageTooLargeError: it could never fit.
        :raises QueueFullError: there is no room, and the queue makes none.
        """
        if not self.has_limits:
            return None
        limits = self._limits
        limits.check_size(size)
        refuses = self._options.overflow == 'reject'
        shortage = limits.reserve_or_shortage(1, size, recounts=refuses)
        if shortage is not None and refuses:
            raise QueueFullError(shortage.reason, queue=self._queue)
        if not limits.counted:
            return None
        reservation = Reservation(self, size)
        if shortage is None:
            self._grant(reservation)
        return reservation

    def _grant(self, reservation: Reservation) -> None:
        reservation.is_granted = True
        self._limits.pending.add(reservation)

    def check_can_make_room_for(self, reservations: Sequence[Reservation]) -> None:
        """Find out whether the oldest entries could make so much room; none is touched.

        :raises QueueFullError: they could not.
        """
        shortage = self._limits.reserve_or_shortage(
            len(reservations), sum(each.size for each in reservations), dry_run=True
        )
        if shortage is None:
            return
        if self._options.overflow == 'reject' or not self._can_evict(shortage.messages, shortage.size):
            raise QueueFullError(shortage.reason, queue=self._queue)

    def make_room_for(self, reservations: Sequence[Reservation]) -> None:
        """Have the oldest entries make room for messages that come in together.

        :raises QueueFullError: they could not make so much; none went, but for what others have changed in this moment.
        """
        limits, messages, size = self._limits, len(reservations), sum(each.size for each in reservations)
        tries = 0
        while (shortage := limits.reserve_or_shortage(messages, size)) is not None:
            if self._options.overflow == 'reject':
                raise QueueFullError(shortage.reason, queue=self._queue)
            if (freed := self._evict(shortage.messages, shortage.size)) is not None:
                limits.note_evicted(*freed, shortage)
                continue
            # Full of what others work on, or are about to put in: count anew what they hold.
            tries += 1
            if tries == ROOM_TRIES:
                raise QueueFullError(shortage.reason, queue=self._queue)
            limits.forget_count()
        for reservation in reservations:
            self._grant(reservation)

    def check_fits(self, entry: Entry) -> None:
        """:raises MessageTooLargeError: the queue could never hold another queue's entry, however empty it is."""
        limit = self._options.max_body_bytes
        if limit is not None and len(entry.body) > limit:
            raise MessageTooLargeError(
                f'a body of {len(entry.body)} bytes, and the queue takes {limit}', queue=self._queue
            )
        self._limits.check_size(_size_of(entry))

    def reserve_for(self, entry: Entry) -> Reservation | None:
        """Ask whether another queue's entry may come in.

        :return: as :meth:`reserve`.
        :raises QueueDrainingError: the queue is being drained.
        :raises ContentDisallowedError: its kind is not accepted.
        :raises MessageTooLargeError: it could never fit.
        :raises QueueFullError: there is no room, and the queue makes none.
        """
        self.check_open()
        if self._serializers.for_kind(entry.kind) is None:
            raise ContentDisallowedError(entry.kind, queue=self._queue)
        self.check_fits(entry)
        return self.reserve(_size_of(entry))

    def cancel_reservation(self) -> None:
        """Note that a message did not come though there was room for it."""
        self._limits.forget_count()


def _size_of(entry: Entry) -> int:
    # One that comes from a broker has no file, and so no end of one.
    return max(entry.end, len(entry.metadata) + len(entry.body))
