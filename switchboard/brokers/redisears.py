"""How Redis tells an idle runner that something has come: a subscription, on a connection of its own.

It is not of the pool that the commands use, which is thrown away when a command fails: the thread that renews leases would otherwise
close what a runner sleeps on, and an epoll says nothing of a descriptor that was closed.

A subscription counts when Redis has confirmed it.  Commands go by another connection and may overtake it, so who looked before that, and
found nothing, would not be told of what came in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from redis import ConnectionPool, Redis, exceptions


class Ears:
    """Hears what is published on channels.

    :param pool: of connections to the server: another one like it is made.
    :param generation: the link's, when these were made.
    :raises OSError: Redis did not confirm the subscription in time.
    :raises redis.RedisError: or did not take it.
    """

    def __init__(
        self, pool: ConnectionPool, channels: Iterable[str], *, generation: int, timeout_s: float
    ) -> None:
        self.generation = generation
        wanted = set(channels)
        # A sign of life would be answered, and the answer would wake a sleeper.
        keys = {**pool.connection_kwargs, 'health_check_interval': 0}
        client: Any = Redis(connection_pool=ConnectionPool(connection_class=pool.connection_class, **keys))
        self._pubsub = client.pubsub()
        try:
            self._pubsub.subscribe(*wanted)
            while wanted:
                told = self._pubsub.get_message(timeout=timeout_s)
                if told is None:
                    raise TimeoutError('Redis does not confirm a subscription')
                if told['type'] == 'subscribe':
                    wanted.discard(told['channel'].decode())
        except BaseException:
            self.close()
            raise

    def descriptors(self) -> list[int]:
        """:return: what to poll."""
        sock = getattr(self._pubsub.connection, '_sock', None)
        return [sock.fileno()] if sock is not None else []

    def hears(self) -> bool:
        """Has something come?

        :raises OSError: the connection is gone.
        :raises redis.RedisError: the same.
        """
        heard = False
        # Not by polling the socket: what is behind the first message may have been read already.
        while self._pubsub.connection.can_read(0):
            told = self._pubsub.get_message()
            heard = heard or (told is not None and told['type'] == 'message')
        return heard

    def close(self) -> None:
        """Hear no longer."""
        with suppress(OSError, exceptions.RedisError):
            self._pubsub.close()
