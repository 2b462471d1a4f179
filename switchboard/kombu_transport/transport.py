"""The transport: connections, and waiting for messages, blocking or in an event loop."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from amqp.exceptions import ConnectionError as AMQPConnectionError
from amqp.exceptions import RecoverableConnectionError
from kombu.exceptions import ChannelError
from kombu.transport import virtual

import switchboard
from switchboard.errors import QueueError, SwitchboardError
from switchboard.kombu_transport.address import SCHEME, read_address
from switchboard.kombu_transport.channel import BURST, Channel
from switchboard.kombu_transport.errors import DiskFault, amqp_errors
from switchboard.kombu_transport.spool_connection import SpoolConnection
from switchboard.kombu_transport.unacked import retry_refused_endings
from switchboard.message.naming import CLAIMED
from switchboard.queue.watch import ARRIVALS, CLOSED, POLL_S, DirectoryWatch

# The kernel tells of a closed file just before it drops the lock: how long to wait before looking, and looking again.
DEATH_WAITS_S = (0.001, 0.01, 0.1)


class Transport(virtual.Transport):
    """See `kombu.transport.virtual.Transport`.

    :param client: the `kombu.Connection`.
    """

    Channel = Channel
    can_parse_url = True
    default_port = None
    driver_type = SCHEME
    driver_name = SCHEME
    connection_errors = (AMQPConnectionError, OSError)
    channel_errors = (ChannelError, SwitchboardError)
    # What another try may mend.  kombu tries again at once, so nothing of a channel is among it.
    recoverable_connection_errors = (RecoverableConnectionError, OSError)
    recoverable_channel_errors = ()
    implements = virtual.Transport.implements.extend(
        asynchronous=True,
        batch_publish=True,
        exchange_type=frozenset(['direct', 'topic', 'fanout', 'headers']),
        heartbeats=False,
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.spool_connection: SpoolConnection
        self.watch: DirectoryWatch | None = None
        self._pid = os.getpid()
        self._loop: Any = None
        self._timers: list[Any] = []
        self._readers: list[int] = []
        self._thread: int | None = None
        self._next_look_s = 0.0
        self._turns = itertools.count(1)
        # Claims that somebody closed, by directory and filebase: when to look whether he is dead, and how often we did.
        self._suspects: dict[tuple[str, str], tuple[float, int]] = {}

    # Connections.

    def establish_connection(self) -> Transport:
        """Open the spool.

        :raises SpoolMissing: there is none.
        :raises InvalidPath: the URL cannot be used.
        :raises DiskFault: the disk has refused something, and still takes nothing.
        """
        address = read_address(self.client)
        with amqp_errors('Connection.open'), ExitStack() as opened:
            self.spool_connection = spool_connection = SpoolConnection(address)
            opened.callback(spool_connection.close)
            if amqp_errors.doubts_disk:
                spool_connection.check_disk()
                amqp_errors.doubts_disk = False
            spool_connection.spool.delete_unused_queues()
            self.watch = DirectoryWatch()
            opened.callback(self._close_watch)
            self._pid = os.getpid()
            self._avail_channels.append(self.create_channel(self))
            opened.pop_all()
        return self

    def close_connection(self, connection: Any) -> None:
        """Close all channels, and take the exclusive queues away.

        Nothing stays open, whatever the disk refuses: what it has refused is said when all is closed.
        """
        self._leave_loop()
        with amqp_errors('Connection.close'), ExitStack() as closing:
            closing.callback(self._close_watch)
            closing.callback(self.spool_connection.close)
            self.cycle.close()
            for channels in (self.channels, self._avail_channels):
                while channels:
                    closing.callback(channels.pop().close)

    def _close_watch(self) -> None:
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.wake()  # another thread may be waiting
            watch.close()

    def verify_connection(self, connection: Any) -> bool:
        """Is the connection open?"""
        return self.watch is not None

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """None: the URL says all."""
        return {}

    def as_uri(self, uri: str | None, include_password: bool = False, mask: str = '**') -> str:
        """:return: the URL; there is nothing secret in it."""
        if uri and '://' in uri:
            return uri
        options = self.client.transport_options or {}
        directory = (self.client.virtual_host or '').strip('/') or str(options.get('directory', ''))
        return f'{SCHEME}:///{directory.lstrip("/")}'

    def driver_version(self) -> str:
        """:return: the version of this package."""
        return switchboard.__version__

    # Waiting.

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message; if there is none, wait for it.

        :raises TimeoutError: nothing came in time.
        """
        watch = self.watch
        if watch is None:
            raise DiskFault('the connection is closed')
        ends_s = None if timeout is None else time.monotonic() + timeout
        self._thread = threading.get_ident()
        if self._deliver():
            return
        while True:
            is_watched = watch.watch_only(set(self._directories()), ARRIVALS)
            if self._deliver():
                return
            left_s = None if ends_s is None else ends_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise TimeoutError('no message came in time')
            self._look_after_queues()
            wait_s = self._wait_s(is_watched)
            self._sleep(watch, wait_s if left_s is None else min(wait_s, left_s))
            if self.watch is not watch:
                raise DiskFault('the connection was closed meanwhile')

    def _deliver(self) -> bool:
        if time.monotonic() >= self._next_look_s:
            self._look_after_queues()  # who always has something to do must not leave with exited processes what they held
        return self.deliver(list(self.channels))

    def deliver(self, channels: Iterable[Any]) -> bool:
        """Hand one message to its consumer, and no more: a program that waits for one event decides after each what to do next.

        :return: False if there is none.
        """
        turns = [(one, channel) for channel in channels if not channel.closed for one in channel.consumers()]
        for consumer, channel in sorted(turns, key=lambda turn: turn[0].turn):
            message = channel.next_message(consumer)
            consumer.left -= 1
            is_over = consumer.left <= 0
            if is_over and self.watch is not None:
                self.watch.unwatch_all()  # a busy consumer needs no notice that there is something to do
            if message is None or is_over or self.spool_connection.needs_listing(consumer.name):
                consumer.turn, consumer.left = next(self._turns), BURST
            if message is not None:
                consumer.callback(message)
                return True
        return False

    def _directories(self) -> list[str]:
        path = self.spool_connection.spool.path
        return [path(name) for channel in self.channels for name in channel.deliverable_queues()]

    def _wait_s(self, is_watched: bool) -> float:
        """:return: the seconds until the next look: nothing before that comes without a notice."""
        poll_interval_s = self.spool_connection.address.poll_interval_s
        waits = [poll_interval_s if is_watched else min(POLL_S, poll_interval_s)]
        now_s = time.monotonic()
        whens = [self._next_look_s, *(when_s for when_s, _ in self._suspects.values())]
        waits += [max(0.0, when_s - now_s) for when_s in whens]
        with self.spool_connection.lock:
            for channel in self.channels:
                for name in channel.deliverable_queues():
                    try:
                        wait_s = self.spool_connection.queue(name, 'consume').wait_s()
                    except QueueError:
                        wait_s = 0.0  # deleted: the next delivery says so
                    if wait_s is not None:
                        waits.append(wait_s)
        return min(waits)

    def _sleep(self, watch: DirectoryWatch, wait_s: float) -> None:
        """Wait for something to do; that another consumer has taken a message is nothing."""
        ends_s = time.monotonic() + wait_s
        while watch.wait(wait_s) and not self._read_watch(watch) and self.watch is watch:
            wait_s = ends_s - time.monotonic()
            if wait_s <= 0:
                return

    def _read_watch(self, watch: DirectoryWatch) -> bool:
        """:return: whether something has come: a word, or an event that is not only of a claim."""
        now_s = time.monotonic()
        is_news = watch.clear_wakes()
        for directory, name, mask in watch.events():
            if not name.endswith(CLAIMED):
                is_news = True
            elif mask & CLOSED:
                # A claim's file was closed: its owner died, or somebody looked whether it had.
                suspect = directory, name[: -len(CLAIMED)]
                self._suspects.setdefault(suspect, (now_s + DEATH_WAITS_S[0], 0))
                is_news = True
        return is_news

    def _look_after_queues(self) -> None:
        """Make ready again what exited processes held, end what the disk refused to, and take away queues and messages whose time is over."""
        now_s = time.monotonic()
        with self.spool_connection.lock, amqp_errors('Basic.recover'):
            self._look_at_suspects(now_s)
            if now_s < self._next_look_s:
                return
            self._next_look_s = now_s + self.spool_connection.address.recovery_interval_s
            retry_refused_endings()
            for channel in list(self.channels):
                channel.qos.end_refused()
            for name in {one.name for channel in list(self.channels) for one in channel.consumers()}:
                try:
                    self.spool_connection.recover(self.spool_connection.queue(name, 'consume'))
                except QueueError:
                    continue  # deleted: the next delivery says so
            self.spool_connection.spool.recover()
            self.spool_connection.spool.delete_unused_queues()
            if (more_s := self.spool_connection.expire()) is not None:
                self._next_look_s = min(self._next_look_s, time.monotonic() + more_s)

    def _look_at_suspects(self, now_s: float) -> None:
        for suspect, (when_s, count) in list(self._suspects.items()):
            if when_s > now_s:
                continue
            directory, filebase = suspect
            del self._suspects[suspect]
            try:
                queue = self.spool_connection.queue(os.path.basename(directory), 'consume')
            except QueueError:
                continue  # deleted meanwhile
            if not self.spool_connection.recover(queue, [filebase]) and count + 1 < len(DEATH_WAITS_S):
                self._suspects[suspect] = (now_s + DEATH_WAITS_S[count + 1], count + 1)

    def wake_for_capacity(self) -> None:
        """A message was acknowledged, or the limit changed: there may be room for another one."""
        if self.watch is not None and (self._loop is not None or self._thread != threading.get_ident()):
            self.watch.wake()

    def rescan(self) -> None:
        """Look at the queues once more: there are others than before, or the time has come."""
        if self.watch is not None:
            self.watch.wake()

    # The event loop.

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have messages delivered by kombu's event loop, as they come."""
        assert self.watch is not None
        self._leave_loop()
        self._loop = loop
        self._add_readers()
        self._timers = [loop.call_repeatedly(self.spool_connection.address.poll_interval_s, self.rescan)]
        self.watch.wake()

    def _add_readers(self) -> None:
        assert self.watch is not None
        for fd in self.watch.descriptors():
            if fd not in self._readers:
                self._loop.add_reader(fd, self._on_news)
                self._readers.append(fd)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        """Undo `register_with_event_loop`."""
        self._leave_loop()

    def _leave_loop(self) -> None:
        loop, self._loop = self._loop, None
        for timer in self._timers:
            timer.cancel()
        self._timers = []
        if (
            loop is not None
            and self.watch is not None
            and self._pid == os.getpid()
            and loop.poller is not None
        ):
            for fd in self._readers:
                loop.remove_reader(fd)
        self._readers = []

    def _on_news(self) -> None:
        """Deliver the ready messages, one at a time, and go back to sleep when there is none.

        While there is something, the descriptor stays readable: the loop comes back here after it has looked at all others, and at
        whether it is to end.
        """
        watch = self.watch
        if watch is None:
            return
        if not self._read_watch(watch):
            return
        try:
            if self._deliver():
                watch.wake()
                return
            is_watched = watch.watch_only(set(self._directories()), ARRIVALS)
            self._add_readers()
            if self._deliver():
                watch.wake()
                return
        except BaseException:
            watch.wake()  # a callback of the program's failed: the next message is another one
            raise
        self._look_after_queues()
        self._sleep_for(self._wait_s(is_watched))

    def _sleep_for(self, wait_s: float) -> None:
        for timer in self._timers[1:]:
            timer.cancel()
        del self._timers[1:]
        if wait_s < self.spool_connection.address.poll_interval_s:
            self._timers.append(self._loop.call_later(wait_s, self.rescan))
