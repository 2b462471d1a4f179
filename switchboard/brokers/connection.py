"""A connection to a broker, for queues and bridges.

What a program that holds messages for long needs of a connection, and kombu leaves to its users:

- it is made when it is first needed, so in the process that uses it.  After a fork the child lets go of what it inherited without a
  word to the broker: the parent goes on using it;
- one thread works on it at a time (a lock), and a thread of its own keeps it alive while a long job runs;
- when it breaks, the next call makes another one.  Messages held by the old one are the broker's again, which gives them out anew: the old
  tags are void, and say so (`EntryTakenError`).  Acknowledging by an old tag would end another's delivery;
- while the broker is away, calls fail at once until the next try is due: 0.5 s, doubling to 30 s;
- a published message counts when the broker has confirmed it, and nothing is fetched ahead.

RabbitMQ and Redis differ in all the rest: each has a `Driver`.  Rejected: a thread that owns the connection and is
sent requests, because each call would pay for two switches of threads; kombu's own ``ensure``, which sleeps where a runner must go on.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from switchboard.brokers.driver import UNCONFIRMED, AddressedMessage, Driver, QueueLimits
from switchboard.brokers.message import Delivery, OutgoingMessage
from switchboard.brokers.url import BrokerUrl
from switchboard.clock import SYSTEM_CLOCK, Backoff, Clock
from switchboard.errors import BrokerDownError, EntryTakenError, SwitchboardError
from switchboard.events import log_event
from switchboard.message.naming import NS_PER_S
from switchboard.store.forks import after_fork

log = logging.getLogger('switchboard.queue')

# How long after a failed try to connect the next one is due: the first, and the longest.
BACKOFF_S = (0.5, 30.0)
CONNECT_TIMEOUT_S = 5.0
# A broker that is short of memory or of disk holds confirms back; one that is well needs milliseconds.
CONFIRM_TIMEOUT_S = 30.0

T = TypeVar('T')


class Connection:
    """A connection to one broker.  Every operation raises `BrokerDownError` while the broker is away.

    :param make_driver: makes the `Driver` of an address with the two time limits.
    :ivar held: the messages that were given out and not ended, by tag; some of them may be void by now (:meth:`is_ours`).
    """

    def __init__(
        self,
        url: BrokerUrl,
        make_driver: Callable[[BrokerUrl, float, float], Driver],
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        confirm_timeout_s: float = CONFIRM_TIMEOUT_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.driver = make_driver(url, connect_timeout_s, confirm_timeout_s)
        self.url = url.shown
        self._tls = url.tls
        self._clock = clock
        # A holder is back before its lease is over.
        first_s, last_s = BACKOFF_S
        self._backoff = Backoff(
            first_s, min(last_s, 2 * self.driver.heartbeat_interval_s) if self.driver.has_leases else last_s
        )
        self._next_try_ns = 0
        self._why_down = ''
        self._reset()
        _CONNECTIONS.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._heartbeat_thread: threading.Thread | None = None
        self._stop_event = threading.Event()
        self.held: dict[Any, Delivery] = {}
        self._acks: list[Delivery] = []
        self._heartbeat_failed = False

    def __repr__(self) -> str:
        return f'Connection({self.url!r})'

    @property
    def connection_number(self) -> int:
        """Another number after each time the connection was made anew."""
        return self.driver.connection_number

    @property
    def counts_deaths(self) -> bool:
        """Does the broker count how often holders of a message have died, or given it up?"""
        return self.driver.has_leases

    # The connection.

    def connect(self) -> None:
        """Connect now, if there is no connection.

        :raises BrokerDownError: that failed, or the time for the next try has not come.
        """
        with self._lock:
            if self.driver.is_open():
                return
            now_ns = self._clock.monotonic_ns()
            if now_ns < self._next_try_ns:
                wait_s = (self._next_try_ns - now_ns) / NS_PER_S
                raise self._down(f'{self._why_down}; tried again in {wait_s:.1f} s', 'connect', wait_s)
            try:
                self.driver.open()
            except Exception as error:
                # The libraries raise whatever a broken greeting makes them raise, and all of it means: not now.
                self.abort()
                wait_s = self._backoff.next()
                self._next_try_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
                self._why_down = _text(error) if self._tls is None else self._tls.explain(_text(error))
                raise self._down(self._why_down, 'connect', wait_s) from error
            if self._backoff.wait_s:
                log_event(log, logging.WARNING, None, 'broker back', url=self.url)
            self._backoff.reset()
            self._next_try_ns = 0
            self._start_heartbeat()

    def _down(self, reason: str, step: str, retry_after_s: float = 0.0) -> BrokerDownError:
        return BrokerDownError(f'{self.url}: {reason}', step=step, retry_after_s=retry_after_s)

    @contextmanager
    def _working(self, step: str) -> Iterator[None]:
        """Work on the connection alone; a broken one is dropped.

        :raises BrokerDownError: it broke.
        """
        with self._lock:
            try:
                yield
            except BaseException as error:
                # Without memory for what comes, too, nobody knows where on the connection the next thing begins.
                if self.driver.is_connection_error(error) or isinstance(error, MemoryError):
                    self.abort()
                    raise self._down(_text(error), step) from error
                if not isinstance(error, Exception):
                    self.abort()  # stopped in the middle of a frame: nobody knows what comes next on this connection
                raise

    def _once(self, step: str, work: Callable[[], T]) -> T:
        """Make a call that must not be made twice."""
        with self._lock:
            self.connect()
            with self._working(step):
                return work()

    def call_with_reconnect(self, step: str, work: Callable[[], T]) -> T:
        """Do what may be done twice: over a new connection, if the old one turns out to be broken."""
        with self._lock:
            was_open = self.driver.is_open()
            try:
                return self._once(step, work)
            except BrokerDownError:
                if not was_open:
                    raise
            return self._once(step, work)

    def abort(self) -> None:
        """Throw the connection away, as when it broke, and everything that is void without it."""
        if not self.driver.has_leases:
            self.held.clear()
            self.stop_heartbeat()
        try:
            self.driver.abort()
        except Exception as error:
            log_event(log, logging.DEBUG, None, 'not closed', url=self.url, error=error)

    def close(self) -> None:
        """Acknowledge the finished messages, give back the held ones, and disconnect.  The connection can be used again."""
        heartbeat_thread = self._heartbeat_thread
        with self._lock:
            try:
                self.flush_acks()
            except BrokerDownError as error:
                log_event(log, logging.WARNING, None, 'not acknowledged', number=len(self._acks), error=error)
                self._acks.clear()
            for delivery in reversed(list(self.held.values())):
                try:
                    self.requeue(delivery)
                except EntryTakenError:
                    continue  # it will be given out again; the others may still be given back
            self.stop_heartbeat()
            try:
                self.driver.close()
            except Exception as error:
                log_event(log, logging.DEBUG, None, 'not closed', url=self.url, error=error)
            self.abort()
        if heartbeat_thread is not None and heartbeat_thread is not threading.current_thread():
            heartbeat_thread.join(CONNECT_TIMEOUT_S)

    # Out.

    def publish(self, outgoing: OutgoingMessage, *, exchange: str = '', routing_key: str = '') -> None:
        """Publish one message, and return when the broker has confirmed it.

        :raises NoRouteError: there is no queue for it.
        :raises UnknownExchangeError: there is no such exchange.
        :raises QueueFullError: the queue takes no more.
        :raises MessageTooLargeError: it is more than the broker takes, or its protocol has room for.
        :raises BrokerDownError: it was not confirmed; it may have been stored all the same.
        """
        for error in self.publish_many([(outgoing, exchange, routing_key)]):
            if error is not None:
                raise error

    def publish_many(self, messages: Sequence[AddressedMessage]) -> list[Exception | None]:
        """Publish many messages, and wait once.  A message that cannot go does not hold up the others.

        :return: for each, None if the broker has confirmed it, or why not.
        """
        outcomes: list[Any] = [UNCONFIRMED] * len(messages)
        with self._lock:
            for batch in self.driver.batches(messages):
                try:
                    self.call_with_reconnect('publish', partial(self.driver.send, messages, batch, outcomes))
                except SwitchboardError as error:
                    for number in batch:
                        if outcomes[number] is UNCONFIRMED:
                            outcomes[number] = error
        return outcomes

    def delay(self, queue: str, outgoing: OutgoingMessage, delay_s: float) -> None:
        """Put a message into a queue when a time has passed; the broker keeps it until then.

        :raises BrokerDownError: it was not confirmed.
        """
        self.call_with_reconnect('delay', lambda: self.driver.delay(queue, outgoing, delay_s))

    # In.

    def get(self, queue: str) -> Delivery | None:
        """Take the next message of a queue, and hold it until it is acknowledged or given back.

        :return: None if there is none.
        :raises UnknownQueueError: the broker has no such queue.
        """
        with self._lock:
            delivery = self.call_with_reconnect('get', lambda: self.driver.get(queue))
            if delivery is not None:
                self.held[delivery.tag] = delivery
            return delivery

    def ack(self, delivery: Delivery) -> None:
        """Say that a message is done.

        :raises EntryTakenError: the connection it came by is gone: the broker gives it out again.
        :raises BrokerDownError: the connection is lost, and the lease is still ours (Redis only): call again.
        """
        self._end(delivery, lambda: self.driver.ack(delivery))

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
            for delivery in deliveries:
                try:
                    self.ack(delivery)
                except BrokerDownError as error:
                    self._acks.append(delivery)
                    down = error
                except EntryTakenError as error:
                    name = delivery.message_id
                    log_event(log, logging.INFO, name, 'not acknowledged', queue=delivery.queue, error=error)
        if down is not None:
            raise down

    def requeue(self, delivery: Delivery, *, died: bool = False) -> None:
        """Give a message back, to where it was.

        :param died: have that counted as a death, where the broker counts.
        :raises EntryTakenError: the broker gives it out again by itself.
        """
        try:
            self._end(delivery, lambda: self.driver.requeue(delivery, died))
        except BrokerDownError as error:
            self.held.pop(delivery.tag, None)  # its lease is not renewed any more
            raise EntryTakenError('given out again when its lease is over', queue=delivery.queue) from error

    def _end(self, delivery: Delivery, end: Callable[[], None]) -> None:
        with self._lock:
            if not self.is_ours(delivery):
                raise _lost(delivery)
            end_it = partial(
                self.call_with_reconnect if self.driver.has_leases else self._once, 'acknowledge', end
            )
            try:
                try:
                    end_it()
                except EntryTakenError:
                    # Where the broker has lost it, and not another one got it, it has it again after a sign of life.
                    self.call_with_reconnect('heartbeat', self._heartbeat)
                    if not self.is_ours(delivery):
                        raise
                    end_it()
            except BrokerDownError as error:
                if self.driver.has_leases:
                    raise
                raise _lost(delivery) from error
            except BaseException:
                self.held.pop(delivery.tag, None)
                raise
            self.held.pop(delivery.tag, None)

    def is_ours(self, delivery: Delivery) -> bool:
        """Is a message still ours?"""
        driver = self.driver
        with self._lock:
            return self.held.get(delivery.tag) is delivery and (
                driver.has_leases
                or (driver.is_open() and delivery.connection_number == driver.connection_number)
            )

    def is_redelivery(self, first: Delivery, second: Delivery) -> bool:
        """Is the second a redelivery of the first, and the first void by that?  Else it is a copy of the message."""
        is_redelivery = self.driver.is_redelivery(first, second)
        if is_redelivery:
            self.held.pop(first.tag, None)
        return is_redelivery

    def recover(self, queue: str) -> list[tuple[str, int]]:
        """Give out anew what dead holders had, where the broker does not do that by itself.

        :return: the message id of each, and how often that has happened to it.
        """
        return (
            self.call_with_reconnect('recover', lambda: self.driver.recover(queue))
            if self.driver.has_leases
            else []
        )

    def requeue_uncounted(self, queue: str, keys: Collection[str]) -> None:
        """Have messages delivered again whose process is dead, or will never run again, without counting that as a death.

        A broker that keeps messages by its connections does that by itself.

        :param keys: of the messages, see `Delivery`.
        """
        if self.driver.has_leases:
            self.call_with_reconnect('requeue', lambda: self.driver.requeue_uncounted(queue, keys))

    # While idle.

    def consume(self, queues: Sequence[str], *, prefetch: int = 1) -> None:
        """Make arrivals in some queues visible: one of :meth:`descriptors` is then readable.

        :param prefetch: how many messages RabbitMQ sends ahead of their acknowledgement; Redis sends none.
        :raises UnknownQueueError: the broker has no such queue.
        """
        self.call_with_reconnect('listen', lambda: self.driver.consume(queues, prefetch))

    def cancel(self) -> None:
        """End :meth:`consume`."""
        with self._working('cancel'):
            self.driver.cancel()

    def descriptors(self) -> list[int]:
        """:return: the descriptors to poll after :meth:`consume`."""
        with self._lock:
            return self.driver.descriptors()

    def has_message(self) -> bool:
        """Is there something, or is the connection gone?  A descriptor may be readable for a mere sign of life."""
        with self._working('listen'):
            return self.driver.has_message()

    def next_due_s(self, queue: str) -> float | None:
        """:return: seconds until a delayed message is due, where the broker does not tell by itself."""
        return (
            self.call_with_reconnect('look', lambda: self.driver.next_due_s(queue))
            if self.driver.has_leases
            else None
        )

    # What there is.

    def declare_queue(
        self, queue: str, *, limits: QueueLimits | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Make a durable queue, if it is not there.

        :param arguments: RabbitMQ's.
        :raises QueueMismatchError: it is there with other arguments.
        """
        self.call_with_reconnect('declare', lambda: self.driver.declare_queue(queue, limits, arguments))

    def declare_exchange(self, exchange: str, type: str = 'topic') -> None:
        """Make a durable exchange, if it is not there.

        :raises ExchangeMismatchError: it is there, and is another one.
        """
        self.call_with_reconnect('declare', lambda: self.driver.declare_exchange(exchange, type))

    def expect_exchange(self, exchange: str, type: str = 'topic') -> None:
        """Say of which type an exchange is that others have made.

        A broker that keeps the types of its exchanges needs no hint; Redis does not keep them.
        """
        with self._working('declare'):
            self.driver.expect_exchange(exchange, type)

    def bind(self, queue: str, exchange: str, routing_key: str = '') -> None:
        """Have an exchange deliver to a queue.

        :raises UnknownExchangeError: one of them is not there.
        """
        self.call_with_reconnect('bind', lambda: self.driver.bind(queue, exchange, routing_key))

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with all that is in it."""
        self.call_with_reconnect('delete', lambda: self.driver.delete_queue(queue))

    def count(self, queue: str) -> int:
        """:return: how many messages are ready; 0 for a queue that is not there."""
        return self.call_with_reconnect('count', lambda: self.driver.count(queue))

    # The thread that keeps the connection alive.

    def _start_heartbeat(self) -> None:
        if self._heartbeat_thread is None:
            self._stop_event = threading.Event()
            self._heartbeat_thread = threading.Thread(
                target=_keep_alive,
                args=(weakref.ref(self), self._stop_event, self.driver.heartbeat_interval_s),
                name='broker-heartbeat',
                daemon=True,
            )
            self._heartbeat_thread.start()

    def stop_heartbeat(self) -> None:
        """Show the broker no more signs of life, until the connection is made anew."""
        self._stop_event.set()
        self._heartbeat_thread = None

    def send_heartbeat(self, stop: threading.Event | None = None) -> None:
        """Show the broker that this process lives; called by a thread every now and then.

        :param stop: nothing is sent any more once this is set.
        """
        with self._lock:
            if stop is not None and stop.is_set():
                return
            try:
                (self.call_with_reconnect if self.driver.has_leases else self._once)(
                    'heartbeat', self._heartbeat
                )
            except Exception as error:
                level = logging.DEBUG if self._heartbeat_failed else logging.WARNING
                self._heartbeat_failed = True
                log_event(log, level, None, 'heartbeat failed', url=self.url, error=_text(error))
                self.abort()
                return
            self._heartbeat_failed = False

    def _heartbeat(self) -> None:
        for tag in self.driver.send_heartbeat(self.held.values()):
            delivery = self.held.pop(tag, None)
            if delivery is not None:
                name, queue = delivery.message_id, delivery.queue
                log_event(log, logging.WARNING, None, 'claim lost', name=name, queue=queue)

    def __del__(self) -> None:
        # A process that ends has stopped the thread wherever it was: perhaps with the event's lock in its hands.
        if sys.is_finalizing():
            return
        self._stop_event.set()
        if self.driver.is_open():
            self.abort()

    def _after_fork(self) -> None:
        self.driver.forget_after_fork()
        self._reset()


def _keep_alive(
    connection: weakref.ref[Connection], stop: threading.Event, heartbeat_interval_s: float
) -> None:
    # By a weak reference, or the connection would live as long as its thread.
    while not stop.wait(heartbeat_interval_s):
        alive = connection()
        if alive is None:
            return
        alive.send_heartbeat(stop)
        del alive


_CONNECTIONS = after_fork(Connection._after_fork)


def _text(error: BaseException) -> str:
    return f'{type(error).__name__}: {error}'[:300]


def _lost(delivery: Delivery) -> EntryTakenError:
    return EntryTakenError(
        'its connection or its lease is gone, and the broker gives it out again', queue=delivery.queue
    )
