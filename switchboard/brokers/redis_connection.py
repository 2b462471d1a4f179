"""A connection to Redis: leases, scripts that are one step, and a subscription for idle runners.

Redis has no acknowledgement, so a holder has a lease, which its connection renews for as long as the process lives: a slow job keeps its message, and
a dead one's comes back when the lease is over.  What Redis has stored outlives a connection, so a delivery is ours still
after it was made anew.  A reply says that a message is in Redis's memory, and on its disk as far as its ``appendfsync`` goes.

**Scripts.**  kombu takes a message out of its list and then notes that it has it, so a crash in between loses it.  Here both are one script.  The lists are
kombu's own (``QUEUE`` and, by priority, ``QUEUE\x06\x163 ...6 ...9``), so its programs and ours read and write the same queue.  Our own keys:

``switchboard:QUEUE:held``
    a hash: the messages that somebody has, each behind the number of its list, by the number of this taking.
``switchboard:QUEUE:leases``
    a sorted set: until when each is its holder's, in milliseconds, by tag.  A holder that lives renews it.  A tag is the list's number, the
    SHA-1 of the message and the number of this taking.
``switchboard:QUEUE:deaths``
    a hash: how often a lease ran out, by SHA-1.
``switchboard:QUEUE:delayed``
    a sorted set: messages that wait, each behind the number of its list, by the time they are due.
``switchboard:QUEUE:wake``
    a channel: something has come.

No Redis Cluster: the keys of a queue have no hash tag, and a cluster would have them on different nodes.

Times are those of the server, so that the clocks of its clients do not matter.

Where Redis has used up its ``maxmemory``, it stops a script at its first write if that is one that may need memory; if the first is one
that needs no memory (``HDEL``, ``ZREM``, ``RPOP``), Redis runs the rest of the script even above ``maxmemory``.  What ends, renews or gives back a message must go on there,
or a full Redis would take messages from the consumers that work on them, and could not be emptied: so these scripts begin with such a write.
Rejected: the flag ``allow-oom``, because it is Redis 7's.

**The subscription** has a connection of its own, and not one of the pool that the commands use: that pool is thrown away when a command fails, so the thread that
renews leases would close what a runner sleeps on, and an epoll says nothing of a descriptor that was closed.  It counts when Redis has confirmed it: commands
go by another connection and may overtake it, so a runner that looked before, and found nothing, would miss what came in between.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any

from kombu import Connection as KombuConnection
from kombu.transport.virtual import Base64
from kombu.utils import json as kombu_json
from redis import ConnectionPool, Redis, exceptions

from switchboard.brokers.connection import Connection, Publish, QueueLimits
from switchboard.brokers.message import Delivery, OutgoingMessage
from switchboard.errors import (
    BrokerDownError,
    ConfigError,
    EntryTakenError,
    NoRouteError,
    QueueFullError,
    SwitchboardError,
    UnknownExchangeError,
)
from switchboard.events import event
from switchboard.message.naming import HIGHEST_PRIORITY


def pack(channel: Any, outgoing: OutgoingMessage, exchange: str, routing_key: str) -> str:
    """:return: the value that kombu's consumers read."""
    properties = dict(outgoing.properties)
    told = {name: properties.pop(name, None) for name in ('content_type', 'content_encoding')}
    message = channel.prepare_message(outgoing.body, headers=outgoing.headers, properties=properties, **told)
    channel._inplace_augment_message(message, exchange, routing_key)
    text: str = kombu_json.dumps(message)
    return text


def unpack(
    queue: str, message: bytes, *, deaths: int = 0, tag: str = '', connection_number: int = 0
) -> Delivery:
    """Read an item of a list.  Never raises: one that is no message of kombu's is a body."""
    try:
        payload = kombu_json.loads(message.decode())
        properties = dict(payload['properties'])
        told = dict(properties.pop('delivery_info', None) or {})
        body = payload['body']
        body = Base64().decode(body) if properties.pop('body_encoding', None) == 'base64' else body.encode()
        headers = dict(payload.get('headers') or {})
    except Exception:  # anything may be in a list
        payload, properties, told, body, headers = {}, {}, {}, bytes(message), {}
    redelivered = bool(headers.pop('redelivered', False)) or deaths > 0
    for name in ('content-type', 'content-encoding'):
        if payload.get(name):
            properties[name.replace('-', '_')] = payload[name]
    # Each has a tag of kombu's, which stays the same: as good as an id, where the producer gave none.
    kombus_tag = properties.pop('delivery_tag', None)
    if not properties.get('message_id') and kombus_tag:
        properties['message_id'] = str(kombus_tag)
    return Delivery(
        queue,
        body,
        headers,
        properties,
        str(told.get('exchange') or ''),
        str(told.get('routing_key') or ''),
        redelivered,
        deaths,
        tag,
        connection_number,
    )


class Subscription:
    """Hears the notices that are published on channels.

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
                told = self._pubsub.get_message(timeout=timeout_s)
                if told is None:
                    raise TimeoutError('Redis does not confirm a subscription')
                if told['type'] == 'subscribe':
                    wanted.discard(told['channel'].decode())
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
        heard = False
        # Not by polling the socket: the messages behind the first one may have been read already.
        while self._pubsub.connection.can_read(0):
            told = self._pubsub.get_message()
            heard = heard or (told is not None and told['type'] == 'message')
        return heard

    def close(self) -> None:
        """End the subscription."""
        with suppress(OSError, exceptions.RedisError):
            self._pubsub.close()


PARTS = ('held', 'leases', 'deaths', 'delayed')


def key_of(queue: str, part: str) -> str:
    """:return: the name of one of our own keys of a queue."""
    return f'switchboard:{queue}:{part}'


@cache
def script_of(name: str) -> str:
    """:return: the text of a script, with the names of its keys before it.  See ``scripts/``."""
    folder = files('switchboard.brokers') / 'scripts'
    return ''.join((folder / f'{part}.lua').read_text('utf-8') for part in ('names', name.lower()))


log = logging.getLogger('switchboard.queue')

_SCRIPTS = ('TAKE', 'END', 'REQUEUE', 'RESTORE', 'RENEW', 'PUT', 'DELAY', 'NEXT_DUE')


class RedisConnection(Connection):
    """A connection to Redis.  See `Connection`."""

    kind = 'redis'
    counts_deaths = True

    def _begin(self) -> None:
        super()._begin()
        self._limits: dict[str, QueueLimits] = {}
        # By exchange: the type, which Redis does not keep.  What its bindings mean depends on it.
        self._exchanges: dict[str, str] = {}
        self._client: Any = None
        self._subscription: Subscription | None = None
        # By queue: the number of a taking that was not answered.  Asked again by the same, Redis gives the same message.
        self._asked: dict[str, str] = {}
        self._forget()

    def _forget(self) -> None:
        self._channel: Any = None
        self._scripts: dict[str, Any] = {}

    # The connection.

    def _open(self) -> None:
        tls = self.broker.tls
        if tls is not None:
            tls.check_files()
        if self._client is None:
            self._client = KombuConnection(
                self.broker.address,
                ssl=False if tls is None else tls.for_redis(),
                transport_options={
                    'socket_timeout': self.confirm_timeout_s,
                    'socket_connect_timeout': self.connect_timeout_s,
                },
            )
        try:
            transport = self._client.transport
            channel = transport.create_channel(transport.establish_connection())
            # kombu connects when the first command is sent, and would look for no other address then.
            channel.client.ping()
        except Exception:
            self._client.maybe_switch_next()  # the next of a list of addresses
            raise
        self._scripts = {name: channel.client.register_script(script_of(name)) for name in _SCRIPTS}
        for exchange, kind in self._exchanges.items():
            channel.exchange_declare(exchange, type=kind, durable=True)
        self._channel = channel

    def _is_open(self) -> bool:
        return self._channel is not None

    def _shut(self) -> None:
        self._channel.close()

    def close(self) -> None:
        """See `Connection`."""
        self.cancel()
        super().close()

    def _drop(self) -> None:
        # A held message stays held, and its lease is renewed; the subscription stays, too.
        channel = self._channel
        self._forget()
        if channel is not None:
            try:
                channel._disconnect_pools()
            except Exception:  # noqa: S110  it is thrown away, whatever its state is
                pass

    def _forget_held(self) -> None:
        pass

    def _abandon(self) -> None:
        pass  # redis-py lets go of what a fork has copied

    def _troubles(self) -> tuple[type[BaseException], ...]:
        return (OSError, exceptions.RedisError)

    def beat_s(self) -> float:
        return self.broker.lease_s / 4

    def _beat(self) -> None:
        by_queue: dict[str, list[str]] = {}
        for delivery in self._held.values():
            by_queue.setdefault(delivery.queue, []).append(delivery.tag)
        for queue, tags in by_queue.items():
            for tag in map(_text, self._run('RENEW', queue, [self._lease_ms, *tags])):
                if (lost := self._held.pop(tag, None)) is not None:
                    event(log, logging.WARNING, None, 'claim lost', name=lost.message_id, queue=queue)

    @property
    def _lease_ms(self) -> int:
        return int(self.broker.lease_s * 1000)

    # Keys.

    def _lists(self, queue: str) -> list[str]:
        return [self._channel._q_for_pri(queue, step) for step in self._channel.priority_steps]

    def _keys(self, queue: str) -> list[str]:
        """:return: the keys of a queue in the order in which the scripts name them."""
        return [key_of(queue, part) for part in PARTS] + self._lists(queue)

    def _list_number(self, outgoing: OutgoingMessage) -> int:
        """:return: which list a message goes into, from 1: a higher priority into a later one, which is emptied first."""
        priority = max(0, min(int(outgoing.properties.get('priority') or 0), HIGHEST_PRIORITY))
        steps: list[int] = self._channel.priority_steps[1:]
        return 1 + sum(step <= priority for step in steps)

    def _run(self, script: str, queue: str, arguments: Sequence[Any]) -> Any:
        """Run a script about a message that is taken out of a queue; a second time if the connection was broken."""

        def run() -> Any:
            return self._scripts[script](keys=self._keys(queue), args=arguments)

        return self.again(script.lower(), run)

    # Out.

    def publish_many(self, postings: Sequence[Publish], *, mandatory: bool = True) -> list[Exception | None]:
        """See `Remote`."""
        outcomes: list[Exception | None] = []
        for outgoing, exchange, routing_key in postings:
            try:
                self._publish(outgoing, exchange, routing_key, mandatory)
                outcomes.append(None)
            except SwitchboardError as error:
                outcomes.append(error)
        return outcomes

    def _publish(self, outgoing: OutgoingMessage, exchange: str, routing_key: str, mandatory: bool) -> None:
        with self._lock:
            queues = [routing_key] if not exchange else self._route(exchange, routing_key)
            if mandatory and not queues:
                raise NoRouteError(exchange, routing_key)
            for queue in queues:
                self._put(outgoing, exchange, routing_key, queue)

    def _route(self, exchange: str, routing_key: str) -> list[str]:
        """:raises UnknownExchangeError: of which type the exchange is was never said."""
        if exchange not in self._exchanges:
            raise UnknownExchangeError(exchange)  # kombu would take it for a direct one
        found: list[str] = self.again('route', lambda: self._channel._lookup(exchange, routing_key))
        return found

    def _put(self, outgoing: OutgoingMessage, exchange: str, routing_key: str, queue: str) -> None:
        limits = self._limits.get(queue)
        most = '' if limits is None or limits.max_messages is None else limits.max_messages

        def put() -> Any:
            message = pack(self._channel, outgoing, exchange, routing_key)
            arguments = [self._list_number(outgoing), message, most, key_of(queue, 'wake')]
            return self._scripts['PUT'](keys=self._keys(queue), args=arguments)

        if not self.again('publish', lambda: _with_room(queue, put)):
            raise QueueFullError(f'max_messages is {most}', queue=queue)

    def delay(self, queue: str, outgoing: OutgoingMessage, delay_s: float) -> None:
        """See `Remote`."""

        def put() -> Any:
            message = pack(self._channel, outgoing, '', queue)
            arguments = [self._list_number(outgoing), message, int(min(delay_s, 1e10) * 1000)]
            return self._scripts['DELAY'](keys=self._keys(queue), args=arguments)

        self.again('delay', lambda: _with_room(queue, put))

    # In.

    def get(self, queue: str) -> Delivery | None:
        """See `Remote`."""
        with self._lock:
            asked = self._asked.setdefault(queue, uuid.uuid4().hex)
            taken = self._run('TAKE', queue, [asked, self._lease_ms])
            del self._asked[queue]
            if not taken:
                return None
            tag, message, deaths = taken
            delivery = unpack(
                queue, message, deaths=int(deaths), tag=_text(tag), connection_number=self.connection_number
            )
            self._held[delivery.tag] = delivery
            return delivery

    def _end(self, delivery: Delivery, end: Any) -> None:
        with self._lock:
            if self._held.get(delivery.tag) is not delivery:
                raise EntryTakenError('not held by this process', queue=delivery.queue)
            end(delivery)
            del self._held[delivery.tag]

    def _ack(self, delivery: Delivery) -> None:
        self._settle('END', delivery)

    def _requeue(self, delivery: Delivery, died: str = '') -> None:
        try:
            self._settle('REQUEUE', delivery, died)
        except BrokerDownError as error:
            # A consumer that gives a message back forgets it, so its lease must not be renewed any more.
            self._held.pop(delivery.tag, None)
            reason = 'given out again when its lease is over'
            raise EntryTakenError(reason, queue=delivery.queue) from error

    def give_up(self, delivery: Delivery) -> None:
        """See `Remote`."""
        self._end(delivery, lambda given: self._requeue(given, '1'))

    def _settle(self, script: str, delivery: Delivery, died: str = '') -> None:
        if not self._run(script, delivery.queue, [delivery.tag, key_of(delivery.queue, 'wake'), died]):
            del self._held[delivery.tag]
            raise EntryTakenError('the lease ran out, and another one has it', queue=delivery.queue)

    def holds(self, delivery: Delivery) -> bool:
        """See `Remote`."""
        return self._held.get(delivery.tag) is delivery

    def is_same(self, one: Delivery, other: Delivery) -> bool:
        """See `Remote`."""
        if one.tag.rpartition(':')[0] != other.tag.rpartition(':')[0]:
            return False
        self._held.pop(one.tag, None)
        return True

    def restore(self, queue: str) -> list[tuple[str, int]]:
        """See `Remote`."""
        found = self._run('RESTORE', queue, [key_of(queue, 'wake')])
        return [(unpack(queue, message).message_id or '', int(deaths)) for message, deaths in found]

    # While idle.

    def consume(self, queues: Sequence[str], *, prefetch: int = 1) -> None:
        """See `Remote`."""

        channels = [key_of(queue, 'wake') for queue in queues]

        def subscribe() -> None:
            if self._subscription is None or self._subscription.connection_number != self.connection_number:
                self.cancel()
                pool = self._channel.client.connection_pool
                self._subscription = Subscription(
                    pool, channels, connection_number=self.connection_number, timeout_s=self.confirm_timeout_s
                )

        with self._lock:
            self.again('listen', subscribe)

    def cancel(self) -> None:
        """See `Remote`."""
        with self._lock:
            subscription, self._subscription = self._subscription, None
            if subscription is not None:
                subscription.close()

    def descriptors(self) -> list[int]:
        """See `Remote`."""
        return [] if self._subscription is None else self._subscription.descriptors()

    def has_message(self) -> bool:
        """See `Remote`."""
        with self._lock:
            if self._subscription is None:
                return True
            try:
                return self._subscription.has_message()
            except self._troubles():
                self.cancel()
                return True

    def next_due_s(self, queue: str) -> float | None:
        """See `Remote`."""
        due_ms = int(self.again('look', lambda: self._scripts['NEXT_DUE'](keys=self._keys(queue))))
        return None if due_ms < 0 else due_ms / 1000

    # What there is.

    def declare_queue(
        self, queue: str, *, limits: QueueLimits | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """See `Remote`: a list of Redis is there when something is in it; the limit is kept by its producers."""
        if limits is not None:
            self._limits[queue] = limits

    def declare_exchange(self, exchange: str, type: str = 'topic') -> None:
        """See `Remote`."""
        self.expect_exchange(exchange, type)  # the bindings are all that Redis keeps of it

    def expect_exchange(self, exchange: str, type: str = 'topic') -> None:
        """See `Remote`."""
        if type == 'fanout':
            raise ConfigError(f'{exchange}: a fanout of kombu on Redis stores nothing; take a topic and "#"')
        with self._lock:
            if self._exchanges.get(exchange) != type:
                self._exchanges[exchange] = type
                if self._channel is not None:
                    self._channel.exchange_declare(exchange, type=type, durable=True)

    def bind(self, queue: str, exchange: str, routing_key: str = '') -> None:
        """See `Remote`."""
        self.again('bind', lambda: self._channel.queue_bind(queue, exchange, routing_key))

    def delete_queue(self, queue: str) -> None:
        """See `Remote`."""
        parts = [key_of(queue, part) for part in PARTS]
        self.again('delete', lambda: self._channel.client.delete(*self._lists(queue), *parts))

    def count(self, queue: str) -> int:
        """See `Remote`."""
        return int(self.again('count', lambda: self._channel._size(queue)))


def _with_room(queue: str, put: Callable[[], Any]) -> Any:
    """:raises QueueFullError: Redis has used up its ``maxmemory``."""
    try:
        return put()
    except exceptions.ResponseError as error:
        if 'OOM command not allowed' not in str(error) and not isinstance(error, exceptions.OutOfMemoryError):
            raise
        raise QueueFullError('Redis has no more memory', queue=queue) from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
