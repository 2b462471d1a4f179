"""The subscription by which an idle runner is notified that something has come.

It has a connection of its own, and not one of the pool that the commands use: that pool is thrown away when a command fails, so the thread that
renews leases would close what a runner sleeps on, and an epoll says nothing of a descriptor that was closed.  It counts when Redis has confirmed it: commands
go by another connection and may overtake it, so a runner that looked before, and found nothing, would miss what came in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from redis import ConnectionPool, Redis, exceptions


class Subscription:
    """The notices that are published on channels.

    :param pool: of connections to the server: another one like it is made.
    :param connection_number: the connection's, when these were made.
    :raises OSError: Redis did not confirm the subscription in time.
    :raises redis.RedisError: or did not take it.
    """

    def __init__(
        self, pool: ConnectionPool, channels: Iterable[str], *, connection_number: int, timeout_s: float
    ) -> None:
        self.connection_number = connection_number
        wanted = set(channels)
        # A sign of life would be answered, and the answer would wake a sleeper.
        keys = {**pool.connection_kwargs, 'health_check_interval': 0}
        client: Any = Redis(connection_pool=ConnectionPool(connection_class=pool.connection_class, **keys))
        self._pubsub = client.pubsub()
        try:
            self._pubsub.subscribe(*wanted)
            while wanted:
                reply = self._pubsub.get_message(timeout=timeout_s)
                if reply is None:
                    raise TimeoutError('Redis does not confirm a subscription')
                if reply['type'] == 'subscribe':
                    wanted.discard(reply['channel'].decode())
        except BaseException:
            self.close()
            raise

    def descriptors(self) -> list[int]:
        """:return: the descriptors to poll."""
        sock = getattr(self._pubsub.connection, '_sock', None)
        return [sock.fileno()] if sock is not None else []

    def has_message(self) -> bool:
        """Has something come?

        :raises OSError: the connection is gone.
        :raises redis.RedisError: the same.
        """
        noticed = False
        # Not by polling the socket: the messages behind the first one may have been read already.
        while self._pubsub.connection.can_read(0):
            reply = self._pubsub.get_message()
            noticed = noticed or (reply is not None and reply['type'] == 'message')
        return noticed

    def close(self) -> None:
        """End the subscription."""
        with suppress(OSError, exceptions.RedisError):
            self._pubsub.close()
