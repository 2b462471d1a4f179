"""The driver of a connection to Redis: leases, scripts that are one step, and a subscription for idle runners.

Redis has no acknowledgement, so a holder has a lease, which its connection renews for as long as the process lives: a slow job keeps its message, and
a dead one's comes back when the lease is over.  What Redis has stored outlives a connection, so a delivery is ours still
after it was made anew.  A reply says that a message is in Redis's memory, and on its disk as far as its ``appendfsync`` goes.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kombu import Connection as KombuConnection
from redis import exceptions

from switchboard.brokers.driver import AddressedMessage, Driver, QueueLimits
from switchboard.brokers.message import Delivery, OutgoingMessage
from switchboard.brokers.redis.keys import KEY_PARTS, SCRIPTS, message_key, read_script, redis_key
from switchboard.brokers.redis.payload import pack, unpack
from switchboard.brokers.redis.subscription import Subscription
from switchboard.brokers.url import BrokerUrl
from switchboard.errors import (
    EntryTakenError,
    MessageTooLargeError,
    NoRouteError,
    QueueFullError,
    UnknownExchangeError,
)
from switchboard.events import log_event
from switchboard.message.naming import HIGHEST_PRIORITY

log = logging.getLogger('switchboard.queue')

# The ``proto-max-bulk-len`` of a Redis, beyond which it hangs up: what it is by default, and the least that it may be.
DEFAULT_BULK_BYTES, LEAST_BULK_BYTES = 512 << 20, 1 << 20

# What redis-py raises when a connection is of no more use.
_CONNECTION_ERRORS = (OSError, exceptions.RedisError)


class RedisDriver(Driver):
    """See `Driver`.

    :param connect_timeout_s: how long connecting may take.
    :param confirm_timeout_s: how long an answer may take.
    """

    has_leases = True

    def __init__(self, url: BrokerUrl, connect_timeout_s: float, confirm_timeout_s: float) -> None:
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._confirm_timeout_s = confirm_timeout_s
        self.heartbeat_interval_s = url.lease_s / 4
        self._lease_ms = int(url.lease_s * 1000)
        self.connection_number = 0
        self._reset()

    def _reset(self) -> None:
        self._limits: dict[str, QueueLimits] = {}
        # By exchange: the type, which Redis does not keep.  What its bindings mean depends on it.
        self._exchanges: dict[str, str] = {}
        self._client: Any = None
        self._subscription: Subscription | None = None
        # By queue: the number of a taking that was not answered.  Asked again by the same, Redis gives the same message.
        self._unanswered_takes: dict[str, str] = {}
        self._consumed_queues: set[str] = set()
        # By queue, when its keys came to be; our leases on it are of that time.
        self._born: dict[str, bytes] = {}
        # The message that is being stored, and the queues that it is not in yet.
        self._storing: tuple[AddressedMessage, list[str]] | None = None
        self._forget_channel()

    def _forget_channel(self) -> None:
        self._channel: Any = None
        self._scripts: dict[str, Any] = {}

    # The connection.

    def open(self) -> None:
        """See `Driver`."""
        self.connection_number += 1
        tls = self._url.tls
        if tls is not None:
            tls.check_files()
        if self._client is None:
            self._client = KombuConnection(
                self._url.address,
                ssl=False if tls is None else tls.for_redis(),
                transport_options={
                    'socket_timeout': self._confirm_timeout_s,
                    'socket_connect_timeout': self._connect_timeout_s,
                },
            )
        try:
            self._check_server()
            transport = self._client.transport
            channel = transport.create_channel(transport.establish_connection())
        except Exception:
            self._client.maybe_switch_next()  # the next of a list of addresses
            raise
        self._scripts = {name: channel.client.register_script(read_script(name)) for name in SCRIPTS}
        for exchange, kind in self._exchanges.items():
            channel.exchange_declare(exchange, type=kind, durable=True)
        self._channel = channel

    def _check_server(self) -> None:
        """Find out whether the address is one of a Redis that takes messages, by a connection of its own.

        One that accepts connections and says nothing (a stopped process, a firewall) is left in the time that connecting may take: the address
        behind it may be well.  kombu connects when the first command is sent, and would look for no other address then.

        :raises ReadOnlyError: it is a replica.
        """
        options = self._client.transport_options
        options['socket_timeout'] = min(self._connect_timeout_s, self._confirm_timeout_s)
        try:
            transport = self._client.transport
            channel = transport.create_channel(transport.establish_connection())
            try:
                role = channel.client.info('replication').get('role')
            finally:
                channel.close()
                channel._disconnect_pools()
        finally:
            options['socket_timeout'] = self._confirm_timeout_s
        if role == 'slave':
            raise exceptions.ReadOnlyError('it is a replica, which takes no messages')

    def is_open(self) -> bool:
        """See `Driver`."""
        return self._channel is not None

    def close(self) -> None:
        """See `Driver`."""
        self.cancel()
        if self._channel is not None:
            self._channel.close()

    def abort(self) -> None:
        """See `Driver`: the subscription stays."""
        channel = self._channel
        self._forget_channel()
        if channel is not None:
            channel._disconnect_pools()

    def forget_after_fork(self) -> None:
        """See `Driver`: redis-py lets go of what a fork has copied."""
        self.connection_number += 1
        self._reset()

    def is_connection_error(self, error: BaseException) -> bool:
        """See `Driver`."""
        return isinstance(error, _CONNECTION_ERRORS)

    def send_heartbeat(self, claimed: Collection[Delivery]) -> list[Any]:
        """See `Driver`."""
        by_queue: dict[str, dict[str, Delivery]] = {queue: {} for queue in self._consumed_queues}
        for delivery in claimed:
            by_queue.setdefault(delivery.queue, {})[delivery.tag] = delivery
        return [tag for queue, mine in by_queue.items() for tag in self._renew(queue, mine)]

    def _renew(self, queue: str, mine: Mapping[str, Delivery]) -> list[str]:
        """:return: the tags of those that are ours no longer."""
        born, *lost = self._run('RENEW', queue, [self._lease_ms, *mine])
        if self._born.setdefault(queue, born) == born:
            return [_text(tag) for tag in lost]
        unwritable = []
        for tag in map(_text, lost):
            one = mine[tag]
            outgoing = OutgoingMessage(one.body, one.headers, one.properties)
            try:
                message = pack(self._channel, outgoing, one.exchange, one.routing_key)
            except Exception:  # what a stranger has sent may be read by kombu, and not written
                unwritable.append(tag)
                continue
            self._run('RECLAIM', queue, [tag, tag[0] + message, self._lease_ms])
        self._born[queue] = born
        self.connection_number += 1  # bindings went with it
        kept = len(lost) - len(unwritable)
        log_event(log, logging.WARNING, None, 'data lost', queue=queue, url=self._url.shown, kept=kept)
        return unwritable

    # Keys.

    def _lists(self, queue: str) -> list[str]:
        return [self._channel._q_for_pri(queue, step) for step in self._channel.priority_steps]

    def _keys(self, queue: str) -> list[str]:
        """:return: the keys of a queue in the order in which the scripts name them."""
        return [redis_key(queue, part) for part in KEY_PARTS] + self._lists(queue)

    def _list_number(self, outgoing: OutgoingMessage) -> int:
        """:return: which list a message goes into, from 1: a higher priority into a later one, which is emptied first."""
        priority = max(0, min(int(outgoing.properties.get('priority') or 0), HIGHEST_PRIORITY))
        steps: list[int] = self._channel.priority_steps[1:]
        return 1 + sum(step <= priority for step in steps)

    def _run(self, script: str, queue: str, arguments: Sequence[Any] = ()) -> Any:
        try:
            return self._scripts[script](keys=self._keys(queue), args=arguments)
        except exceptions.ResponseError as error:
            if 'WRONGTYPE' not in str(error):
                raise
            what = (
                f'another program has a key of queue {queue!r}, or one that begins with switchboard:{queue}:'
            )
            raise exceptions.ResponseError(
                f'{what} (the option `queue` gives it another name); {error}'
            ) from error

    # Out.

    def batches(self, messages: Sequence[AddressedMessage]) -> Iterator[list[int]]:
        """See `Driver`."""
        return ([number] for number in range(len(messages)))

    def send(self, messages: Sequence[AddressedMessage], batch: Sequence[int], outcomes: list[Any]) -> None:
        """See `Driver`."""
        [number] = batch
        message = messages[number]
        outgoing, exchange, routing_key = message
        if self._storing is None or self._storing[0] is not message:
            queues = self._route(exchange, routing_key) if exchange else [routing_key]
            if not queues:
                raise NoRouteError(exchange, routing_key)
            self._storing = (message, queues)
        left = self._storing[1]
        while left:
            self._put(outgoing, exchange, routing_key, left[0])
            del left[0]
        self._storing = None
        outcomes[number] = None

    def _route(self, exchange: str, routing_key: str) -> list[str]:
        """:raises UnknownExchangeError: of which type the exchange is was never said."""
        if exchange not in self._exchanges:
            raise UnknownExchangeError(exchange)  # kombu would take it for a direct one
        return list(self._channel._lookup(exchange, routing_key))

    def _put(self, outgoing: OutgoingMessage, exchange: str, routing_key: str, queue: str) -> None:
        limits = self._limits.get(queue)
        most = '' if limits is None or limits.max_messages is None else limits.max_messages
        message = self._pack(outgoing, exchange, routing_key, queue)
        arguments = [self._list_number(outgoing), message, most, redis_key(queue, 'wake')]
        with _room(queue):
            is_stored = self._run('PUT', queue, arguments)
        if not is_stored:
            raise QueueFullError(f'max_messages is {most}', queue=queue)

    def _pack(self, outgoing: OutgoingMessage, exchange: str, routing_key: str, queue: str) -> str:
        """Write a message as kombu's consumers read it.

        :raises MessageTooLargeError: Redis would hang up in the middle of it, now and each time.
        """
        message = pack(self._channel, outgoing, exchange, routing_key)
        if len(message) >= LEAST_BULK_BYTES:
            name = 'proto-max-bulk-len'
            try:
                most = int(self._channel.client.config_get(name)[name])
            except (exceptions.ResponseError, KeyError):  # not for this user
                most = DEFAULT_BULK_BYTES
            if len(message) > most:
                raise MessageTooLargeError(
                    f'{len(message)} bytes as it is written, and {name} of Redis is {most}', queue=queue
                )
        return message

    def delay(self, queue: str, outgoing: OutgoingMessage, delay_s: float) -> None:
        """See `Driver`."""
        message = self._pack(outgoing, '', queue, queue)
        with _room(queue):
            delay_ms = int(min(delay_s, 1e10) * 1000)
            self._run('DELAY', queue, [self._list_number(outgoing), message, delay_ms])

    # In.

    def get(self, queue: str) -> Delivery | None:
        """See `Driver`."""
        self._consumed_queues.add(queue)
        asked = self._unanswered_takes.setdefault(queue, uuid.uuid4().hex)
        taken = self._run('TAKE', queue, [asked, self._lease_ms])
        del self._unanswered_takes[queue]
        if not taken:
            return None
        tag, message, deaths, born = taken
        self._born.setdefault(queue, born)
        return unpack(
            queue, message, deaths=int(deaths), tag=_text(tag), connection_number=self.connection_number
        )

    def ack(self, delivery: Delivery) -> None:
        """See `Driver`."""
        self._settle('ACK', delivery)

    def requeue(self, delivery: Delivery, died: bool) -> None:
        """See `Driver`."""
        self._settle('REQUEUE', delivery, '1' if died else '')

    def _settle(self, script: str, delivery: Delivery, died: str = '') -> None:
        if not self._run(script, delivery.queue, [delivery.tag, redis_key(delivery.queue, 'wake'), died]):
            raise EntryTakenError('the lease ran out, and another one has it', queue=delivery.queue)

    def is_redelivery(self, first: Delivery, second: Delivery) -> bool:
        """See `Driver`."""
        return str(first.tag).rpartition(':')[0] == str(second.tag).rpartition(':')[0]

    def recover(self, queue: str) -> list[tuple[str, int]]:
        """See `Driver`."""
        found = self._run('RECOVER', queue, [redis_key(queue, 'wake'), self._lease_ms])
        return [(unpack(queue, message).message_id or '', int(deaths)) for message, deaths in found]

    def requeue_uncounted(self, queue: str, keys: Collection[str]) -> None:
        """See `Driver`."""
        for tag in map(_text, self._channel.client.zrange(redis_key(queue, 'leases'), 0, -1)):
            if message_key(tag) in keys:
                self._run('REQUEUE', queue, [tag, redis_key(queue, 'wake'), ''])

    # While idle.

    def consume(self, queues: Sequence[str], prefetch: int) -> None:
        """See `Driver`."""
        if self._subscription is None or self._subscription.connection_number != self.connection_number:
            self.cancel()
            self._subscription = Subscription(
                self._channel.client.connection_pool,
                [redis_key(queue, 'wake') for queue in queues],
                connection_number=self.connection_number,
                timeout_s=self._confirm_timeout_s,
            )

    def cancel(self) -> None:
        """See `Driver`."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def descriptors(self) -> list[int]:
        """See `Driver`."""
        return [] if self._subscription is None else self._subscription.descriptors()

    def has_message(self) -> bool:
        """See `Driver`."""
        if self._subscription is None:
            return True
        try:
            return self._subscription.has_message()
        except _CONNECTION_ERRORS:
            self.cancel()
            return True

    def next_due_s(self, queue: str) -> float | None:
        """See `Driver`."""
        due_ms = int(self._run('NEXT_DUE', queue))
        return None if due_ms < 0 else due_ms / 1000

    # What there is.

    def declare_queue(
        self, queue: str, limits: QueueLimits | None, arguments: Mapping[str, Any] | None
    ) -> None:
        """See `Driver`: a list of Redis is there when something is in it; the limit is kept by its producers."""
        if limits is not None:
            self._limits[queue] = limits

    def declare_exchange(self, exchange: str, type: str) -> None:
        """See `Driver`: the bindings are all that Redis keeps of it."""
        self.expect_exchange(exchange, type)

    def expect_exchange(self, exchange: str, type: str) -> None:
        """See `Driver`."""
        self._url.check_exchange_type(exchange, type)
        if self._exchanges.get(exchange) != type:
            self._exchanges[exchange] = type
            if self._channel is not None:
                self._channel.exchange_declare(exchange, type=type, durable=True)

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """See `Driver`."""
        # kombu binds nothing twice, whatever Redis has lost since, or has refused.
        self._channel.state.binding_delete(queue, exchange, routing_key)
        self._channel.queue_bind(queue, exchange, routing_key)

    def delete_queue(self, queue: str) -> None:
        """See `Driver`."""
        self._consumed_queues.discard(queue)  # or the next sign of life makes one of its keys again
        self._born.pop(queue, None)
        self._channel.client.delete(*self._keys(queue))

    def count(self, queue: str) -> int:
        """See `Driver`."""
        return int(self._channel._size(queue))


@contextmanager
def _room(queue: str) -> Iterator[None]:
    """:raises QueueFullError: Redis has used up its ``maxmemory``."""
    try:
        yield
    except exceptions.ResponseError as error:
        if 'OOM command not allowed' not in str(error) and not isinstance(error, exceptions.OutOfMemoryError):
            raise
        raise QueueFullError('Redis has no more memory', queue=queue, is_disk_full=True) from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
