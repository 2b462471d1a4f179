"""What an idle runner of a broker's queue sleeps on: the broker's word that something has come, a timer, or a signal handler's."""

from __future__ import annotations

import logging
import os
import select
import time
from typing import TYPE_CHECKING

from switchboard.errors import QueueError
from switchboard.events import event
from switchboard.queue.wakeup import LONGEST_S, Wakeup

if TYPE_CHECKING:
    from switchboard.brokers.board import BrokerSwitchboard

log = logging.getLogger('switchboard.queue')


class BrokerWakeup(Wakeup):
    """Has the broker tell of new messages while somebody sleeps.  See `Wakeup`.

    Where the broker is away, the timer is all there is.
    """

    def __init__(self, board: BrokerSwitchboard) -> None:
        super().__init__()
        self._board = board
        # One descriptor for good, for event loops, though connections come and go.
        self._ears = select.epoll()
        self._poll.register(self._ears.fileno(), select.POLLIN)
        self._heard: list[int] = []

    @property
    def watches(self) -> bool:
        """See `Wakeup`."""
        return bool(self._heard)

    def arm(self) -> None:
        """See `Wakeup`."""
        link = self._board.link
        self._quiet()
        if not self._board.may_take():
            return  # the broker would push what nobody takes, at once and again
        try:
            self._board.declare(self._board.broker_queues)
            link.listen(self._board.broker_queues)
            for descriptor in link.descriptors():
                self._ears.register(descriptor, select.EPOLLIN)
                self._heard.append(descriptor)
        except (QueueError, OSError) as error:
            event(log, logging.DEBUG, None, 'not watched', queue=self._board.name, error=error)
            self._quiet()

    def disarm(self) -> None:
        """See `Wakeup`."""
        if self._heard:
            self._quiet()
            try:
                self._board.link.unlisten()
            except QueueError as error:
                event(log, logging.DEBUG, None, 'not unwatched', queue=self._board.name, error=error)

    def _quiet(self) -> None:
        for descriptor in self._heard:
            try:
                self._ears.unregister(descriptor)
            except OSError:
                pass  # the connection is gone, and its descriptor with it
        self._heard.clear()

    def wait(self, timeout_s: float | None) -> bool:
        """See `Wakeup`.  A sign of life of the broker's wakes nobody."""
        ends_s = time.monotonic() + min(LONGEST_S if timeout_s is None else timeout_s, LONGEST_S)
        while True:
            left_s = max(0.0, ends_s - time.monotonic())
            ready = [fd for fd, _ in self._poll.poll(int(left_s * 1000) + (left_s > 0))]
            if self._read_end in ready:
                os.read(self._read_end, 4096)
                return True
            if any(fd != self._ears.fileno() for fd in ready):
                return True
            if ready and self._hears():
                return True
            if time.monotonic() >= ends_s:
                return False

    def _hears(self) -> bool:
        link = self._board.link
        try:
            heard = link.hears()
        except QueueError:
            heard = True
        if heard and not link.descriptors():
            self._quiet()  # the connection is gone: its descriptor would leave no sleep
        return heard

    def descriptors(self) -> list[int]:
        """See `Wakeup`."""
        return [*super().descriptors(), self._ears.fileno()]

    def close(self) -> None:
        """See `Wakeup`."""
        if not self._ears.closed:
            self._ears.close()
        super().close()
