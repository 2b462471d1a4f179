"""The alarm of a RabbitMQ that is short of memory or disk, and the connection that is kept aside for it.

A broker that is short of memory or disk stops reading from a connection that publishes.  Messages sent by it then lie in the buffers between, and are
published when the broker is well again, even if the connection was given up long before: so each further try would make one more copy.  Therefore the broken connection is
kept aside, unused, and nothing is sent until the broker has said on it that it reads again.  Meanwhile messages are taken and acknowledged by another connection: that
helps the broker most then.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from switchboard.brokers.rabbitmq.frames import read_frames
from switchboard.errors import BrokerDownError


class ResourceAlarm:
    """Knows whether the broker takes messages.

    :param url: the broker's address, to be shown.
    :ivar connection: that which the broker does not read from; None while all is well.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.connection: Any = None

    def watch(self, connection: Any) -> None:
        """Note from now on what the broker says of its alarm on a new connection."""
        connection.on_blocked = partial(self._set, connection)
        connection.on_unblocked = partial(self._set, None)

    def _set(self, connection: Any, _reason: str = '') -> None:
        self.connection = connection

    def check(self, in_use: Any) -> None:
        """Read what the broker has said, and refuse to publish while the alarm is on.

        :raises BrokerDownError: the broker does not read from the connection that publishes.
        """
        self.update(in_use)
        if self.connection is not None:
            raise BrokerDownError(
                f'{self._url}: it takes no messages for now, because it is short of memory or disk: '
                '`rabbitmq-diagnostics alarms` on its machine says of which',
                step='publish',
            )

    def update(self, in_use: Any) -> None:
        """Read whether the broker takes messages again.

        :param in_use: the connection that is not kept aside.
        """
        blocked = self.connection
        if blocked is None:
            return
        if blocked is in_use:
            read_frames(blocked)
            return
        try:
            read_frames(blocked)
        except Exception:  # the broker has ended it, or has ended
            self.connection = None
        if self.connection is None:
            blocked.collect()

    def close(self) -> None:
        """Throw away the connection that the broker does not read from: nobody reads that it ends."""
        blocked, self.connection = self.connection, None
        if blocked is not None:
            blocked.collect()
