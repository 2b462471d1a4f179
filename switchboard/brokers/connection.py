"""A connection to a broker: what queues and bridges ask of it, and what RabbitMQ and Redis share of the answer.

What a program that holds messages for long needs of a connection, and kombu leaves to its users:

- it is made when it is first needed, so in the process that uses it.  After a fork the child lets go of what it inherited without a
  word to the broker: the parent goes on using it;
- one thread works on it at a time (a lock), and a thread of its own keeps it alive while a long job runs;
- when it breaks, the next call makes another one.  Messages held by the old one are the broker's again, which gives them out anew: the old
  tags are void, and say so (`EntryTakenError`).  Acknowledging by an old tag would end another's delivery;
- while the broker is away, calls fail at once until the next try is due: 0.5 s, doubling to 30 s;
- a published message counts when the broker has confirmed it, and nothing is fetched ahead.

RabbitMQ and Redis differ in all the rest; see ``rabbitmq`` and ``redis_connection``.  Rejected: a thread that owns the connection and is
sent requests, because each call would pay for two switches of threads; kombu's own ``ensure``, which sleeps where a runner must go on.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from switchboard.brokers.message import Delivery, OutgoingMessage
from switchboard.brokers.url import BrokerUrl
from switchboard.clock import SYSTEM_CLOCK, Backoff, Clock
from switchboard.errors import BrokerDownError, EntryTakenError
from switchboard.events import event
from switchboard.message.naming import NS
from switchboard.store.forks import after_fork

# A message, its exchange and its routing key.
Publish = tuple[OutgoingMessage, str, str]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much a queue of the broker may hold; ``overflow`` is ``reject`` or ``drop-oldest``."""

    max_messages: int | None = None
    max_bytes: int | None = None
    overflow: str = 'reject'
    priorities: bool = True


class Remote(ABC):
    """The operations of one broker.  Any of them raises `BrokerDownError` while the broker is away.

    ``kind`` is ``rabbitmq`` or ``redis``.
    """

    kind = ''
    # Does it count how often holders of a message have died, or given it up?
    counts_deaths = False

    @abstractmethod
    def publish_many(self, postings: Sequence[Publish], *, mandatory: bool = True) -> list[Exception | None]:
        """Publish many messages, and wait once.  A message that cannot go does not hold up the others.

        :return: for each, None if the broker has confirmed it, or why not.
        """

    @abstractmethod
    def get(self, queue: str) -> Delivery | None:
        """Take the next message of a queue, and hold it until it is acknowledged or given back.

        :return: None if there is none.
        :raises UnknownQueueError: the broker has no such queue.
        :raises BrokerDownError: the broker is away.
        """

    @abstractmethod
    def _ack(self, delivery: Delivery) -> None:
        """Tell the broker that it is done."""

    @abstractmethod
    def _requeue(self, delivery: Delivery) -> None:
        """Give it back to the broker."""

    @abstractmethod
    def declare_queue(
        self, queue: str, *, limits: QueueLimits | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Make a durable queue, if it is not there.

        :param arguments: RabbitMQ's.
        :raises QueueMismatchError: it is there with other arguments.
        """

    @abstractmethod
    def declare_exchange(self, exchange: str, type: str = 'topic') -> None:
        """Make a durable exchange, if it is not there.

        :raises ExchangeMismatchError: it is there, and is another one.
        """

    def expect_exchange(self, exchange: str, type: str = 'topic') -> None:
        """Say of which type an exchange is that others have made.

        A broker that keeps the types of its exchanges needs no hint; Redis does not keep them.
        """
        return

    @abstractmethod
    def bind(self, queue: str, exchange: str, routing_key: str = '') -> None:
        """Have an exchange deliver to a queue.

        :raises UnknownExchangeError: one of them is not there.
        """

    @abstractmethod
    def delete_queue(self, queue: str) -> None:
        """Delete a queue with all that is in it."""

    @abstractmethod
    def count(self, queue: str) -> int:
        """:return: how many messages are ready; 0 for a queue that is not there."""

    @abstractmethod
    def delay(self, queue: str, outgoing: OutgoingMessage, delay_s: float) -> None:
        """Put a message into a queue when a time has passed; the broker keeps it until then.

        :raises BrokerDownError: it was not confirmed.
        """

    @abstractmethod
    def consume(self, queues: Sequence[str], *, prefetch: int = 1) -> None:
        """Make arrivals in some queues visible: one of :meth:`descriptors` is then readable.

        :param prefetch: how many messages RabbitMQ sends ahead of their acknowledgement; Redis sends none.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End :meth:`consume`."""

    @abstractmethod
    def descriptors(self) -> list[int]:
        """:return: the descriptors to poll after :meth:`consume`."""

    def next_due_s(self, queue: str) -> float | None:
        """:return: seconds until a delayed message is due, where the broker does not tell by itself."""
        return None

    @abstractmethod
    def has_message(self) -> bool:
        """Is there something, or is the connection gone?  A descriptor may be readable for a mere sign of life."""

    def is_same(self, one: Delivery, other: Delivery) -> bool:
        """Is the second a redelivery of the first, and the first void by that?  Else it is a copy of the message."""
        return False

    @abstractmethod
    def restore(self, queue: str) -> list[tuple[str, int]]:
        """Give out anew what dead holders had, where the broker does not do that by itself.

        :return: the message id of each, and how often that has happened to it.
        """


log = logging.getLogger('switchboard.queue')

# How long after a failed try to connect the next one is due: the first, and the longest.
BACKOFF_S = (0.5, 30.0)
CONNECT_TIMEOUT_S = 5.0
# A broker that is short of memory or of disk holds confirms back; one that is well needs milliseconds.
CONFIRM_TIMEOUT_S = 30.0


class Connection(Remote):
    """A connection to one broker; what both kinds share.

    :ivar connection_number: another number after each time the connection was made anew.
    """

    def __init__(
        self,
        url: BrokerUrl,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        confirm_timeout_s: float = CONFIRM_TIMEOUT_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.broker = url
        self.url = url.shown
        self.connect_timeout_s = connect_timeout_s
        self.confirm_timeout_s = confirm_timeout_s
        self.clock = clock
        self.connection_number = 0
        self._backoff = Backoff(*BACKOFF_S)
        self._next_try_ns = 0
        self._begin()
        _CONNECTIONS.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._heartbeat_thread: threading.Thread | None = None
        self._stop_event = threading.Event()
        self._held: dict[Any, Delivery] = {}
        self._acks: list[Delivery] = []

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.url!r})'

    # What the kinds do.

    @abstractmethod
    def _open(self) -> None:
        """Connect.  Raises what the library raises."""

    @abstractmethod
    def _is_open(self) -> bool:
        """Is there a connection, as far as is known?"""

    @abstractmethod
    def _shut(self) -> None:
        """Close the connection politely, if that is possible."""

    @abstractmethod
    def _abandon(self) -> None:
        """Forget a connection that a fork has copied; the parent must not notice."""

    @abstractmethod
    def _beat(self) -> None:
        """Show the broker that we live."""

    @abstractmethod
    def beat_s(self) -> float:
        """:return: how often that is to be done."""

    @abstractmethod
    def _troubles(self) -> tuple[type[BaseException], ...]:
        """:return: the errors that the library raises when a connection is of no more use."""

    def is_trouble(self, error: BaseException) -> bool:
        """Does an error say that the connection is of no more use?"""
        return isinstance(error, self._troubles())

    # The part that both drivers share.

    def connect(self) -> None:
        """Connect now, if there is no connection.

        :raises BrokerDownError: that failed, or the time for the next try has not come.
        """
        with self._lock:
            if self._is_open():
                return
            now_ns = self.clock.monotonic_ns()
            if now_ns < self._next_try_ns:
                wait_s = (self._next_try_ns - now_ns) / NS
                raise self._down(f'away; tried again in {wait_s:.1f} s', 'connect', wait_s)
            self.connection_number += 1
            self._forget_held()
            try:
                self._open()
            except Exception as error:
                # The libraries raise whatever a broken greeting makes them raise, and all of it means: not now.
                self._drop()
                wait_s = self._backoff.next()
                self._next_try_ns = self.clock.monotonic_ns() + int(wait_s * NS)
                reason = _text(error) if self.broker.tls is None else self.broker.tls.explain(_text(error))
                raise self._down(reason, 'connect', wait_s) from error
            if self._backoff.wait_s:
                event(log, logging.WARNING, None, 'broker back', url=self.url)
            self._backoff.reset()
            self._next_try_ns = 0
            self._start_heartbeat()

    def _down(self, reason: str, step: str, retry_after_s: float = 0.0) -> BrokerDownError:
        return BrokerDownError(f'{self.url}: {reason}', step=step, retry_after_s=retry_after_s)

    @contextmanager
    def _working(self, step: str) -> Iterator[None]:
        """Have a connection, alone; a broken one is dropped.

        :raises BrokerDownError: there is none, or it broke.
        """
        with self._lock:
            self.connect()
            try:
                yield
            except BaseException as error:
                if self.is_trouble(error):
                    self._drop()
                    raise self._down(_text(error), step) from error
                if not isinstance(error, Exception):
                    self._drop()  # stopped in the middle of a frame: nobody knows what comes next on this connection
                raise

    def again(self, step: str, work: Callable[[], Any]) -> Any:
        """Do what may be done twice: over a new connection, if the old one turns out to be broken."""
        with self._lock:
            was_open = self._is_open()
            try:
                with self._working(step):
                    return work()
            except BrokerDownError:
                if not was_open:
                    raise
            with self._working(step):
                return work()

    def publish(
        self, outgoing: OutgoingMessage, *, exchange: str = '', routing_key: str = '', mandatory: bool = True
    ) -> None:
        """Publish one message, and return when the broker has confirmed it.

        :raises NoRouteError: it is mandatory, and there is no queue for it.
        :raises UnknownExchangeError: there is no such exchange.
        :raises QueueFullError: the queue takes no more.
        :raises MessageTooLargeError: it is more than the broker takes, or its protocol has room for.
        :raises BrokerDownError: it was not confirmed; it may have been stored all the same.
        """
        for error in self.publish_many([(outgoing, exchange, routing_key)], mandatory=mandatory):
            if error is not None:
                raise error

    def ack(self, delivery: Delivery) -> None:
        """Say that a message is done.

        :raises EntryTakenError: the connection it came by is gone: the broker gives it out again.
        :raises BrokerDownError: the connection is lost, and the lease is still ours (Redis only): call again.
        """
        self._end(delivery, self._ack)

    def ack_many(self, deliveries: Sequence[Delivery]) -> list[EntryTakenError | BrokerDownError | None]:
        """Say of many that they are done.

        :return: for each, None or why not, as :meth:`ack` raises it; with `BrokerDownError` the message is still held.
        """
        outcomes: list[EntryTakenError | BrokerDownError | None] = []
        with self._lock:
            for delivery in deliveries:
                try:
                    self.ack(delivery)
                    outcomes.append(None)
                except (EntryTakenError, BrokerDownError) as error:
                    outcomes.append(error)
        return outcomes

    def ack_later(self, *deliveries: Delivery) -> None:
        """Acknowledge messages with the next :meth:`flush_acks`; until then they are held."""
        with self._lock:
            self._acks += deliveries

    def flush_acks(self) -> None:
        """Acknowledge what :meth:`ack_later` was given.  A message that the broker took back meanwhile comes again, and is known then.

        :raises BrokerDownError: the broker is away; a message that is still held is acknowledged by a later call.
        """
        if not self._acks:
            return
        with self._lock:
            deliveries, self._acks = self._acks, []
            down: BrokerDownError | None = None
            for delivery, error in zip(deliveries, self.ack_many(deliveries), strict=True):
                if isinstance(error, BrokerDownError):
                    self._acks.append(delivery)
                    down = error
                elif error is not None:
                    name = delivery.message_id
                    event(log, logging.INFO, name, 'not acknowledged', queue=delivery.queue, error=error)
        if down is not None:
            raise down

    def requeue(self, delivery: Delivery) -> None:
        """Give a message back, to where it was.

        :raises EntryTakenError: the connection it came by is gone: it is back already.
        """
        self._end(delivery, self._requeue)

    def give_up(self, delivery: Delivery) -> None:
        """Give a message back, and have it counted as a death, where the broker counts.

        :raises EntryTakenError: as :meth:`requeue`.
        """
        self.requeue(delivery)

    def _end(self, delivery: Delivery, end: Callable[[Delivery], None]) -> None:
        with self._lock:
            if self._held.get(delivery.tag) is not delivery or not self._is_open():
                raise _lost(delivery)
            try:
                with self._working('acknowledge'):
                    end(delivery)
            except BrokerDownError as error:
                raise _lost(delivery) from error
            finally:
                self._held.pop(delivery.tag, None)

    def holds(self, delivery: Delivery) -> bool:
        """Is a message still ours?"""
        with self._lock:
            return self._held.get(delivery.tag) is delivery and self._is_open()

    def unacked(self) -> int:
        """:return: how many messages this connection holds."""
        return len(self._held)

    def close(self) -> None:
        """Acknowledge the finished messages, give back the held ones, and disconnect.  The connection can be used again."""
        heartbeat_thread = self._heartbeat_thread
        with self._lock:
            try:
                self.flush_acks()
            except BrokerDownError as error:
                event(log, logging.WARNING, None, 'not acknowledged', number=len(self._acks), error=error)
                self._acks.clear()
            for delivery in reversed(list(self._held.values())):
                try:
                    self.requeue(delivery)
                except EntryTakenError:
                    continue  # it will be given out again; the others may still be given back
            self._stop_heartbeat()
            if self._is_open():
                try:
                    self._shut()
                except Exception as error:
                    event(log, logging.DEBUG, None, 'not closed', url=self.url, error=error)
            self._drop()
        if heartbeat_thread is not None and heartbeat_thread is not threading.current_thread():
            heartbeat_thread.join(CONNECT_TIMEOUT_S)

    def _forget_held(self) -> None:
        """Forget the messages of the old connection: they are the broker's again."""
        self._held.clear()

    def _drop(self) -> None:
        """Throw a connection away, and what it held."""
        self._forget_held()
        self._stop_heartbeat()

    # The thread that keeps the connection alive.

    def _start_heartbeat(self) -> None:
        if self._heartbeat_thread is None:
            self._stop_event = threading.Event()
            self._heartbeat_thread = threading.Thread(
                target=_keep_alive,
                args=(weakref.ref(self), self._stop_event, self.beat_s()),
                name='broker-heartbeat',
                daemon=True,
            )
            self._heartbeat_thread.start()

    def _stop_heartbeat(self) -> None:
        self._stop_event.set()
        self._heartbeat_thread = None

    def _send_heartbeat(self, stop: threading.Event) -> None:
        with self._lock:
            if stop.is_set():
                return
            try:
                self._beat()
            except Exception as error:
                event(log, logging.WARNING, None, 'heartbeat failed', url=self.url, error=_text(error))
                self._drop()

    def __del__(self) -> None:
        # A process that ends has stopped the thread wherever it was: perhaps with the event's lock in its hands.
        if sys.is_finalizing():
            return
        self._stop_event.set()
        if self._is_open():
            self._drop()

    def _after_fork(self) -> None:
        self._abandon()
        self.connection_number += 1
        self._begin()


def _keep_alive(connection: weakref.ref[Connection], stop: threading.Event, beat_s: float) -> None:
    # By a weak reference, or the connection would live as long as its thread.
    while not stop.wait(beat_s):
        alive = connection()
        if alive is None:
            return
        alive._send_heartbeat(stop)
        del alive


_CONNECTIONS = after_fork(Connection._after_fork)


def _text(error: BaseException) -> str:
    return f'{type(error).__name__}: {error}'[:300]


def _lost(delivery: Delivery) -> EntryTakenError:
    return EntryTakenError(
        'the connection that it came by is gone, and the broker gives it out again', queue=delivery.queue
    )
