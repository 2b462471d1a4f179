"""Brokers, and directories as brokers: all through kombu's ``SimpleQueue``, one connection a process.

RabbitMQ sends its messages ahead, which is its fastest way.  Redis and the directories are asked for each: being sent them is no
faster for a queue that is full, up to a third faster for one message at a time, and kombu mixes up the queues of
one process then.  Where transports are compared (``transports``), there is one queue, and all are sent their messages, as Celery is.
"""

from __future__ import annotations

import os
from email.message import Message
from pathlib import Path
from typing import Any

from kombu import Connection, Exchange, Queue
from kombu.simple import SimpleQueue

from tests.benchmarks.contenders.contender import BytesContender

# What a consumer is sent ahead of its acknowledgements.
PREFETCH = 100
# Longer than any message takes to come.
PATIENCE_S = 20.0
# How long to look at an empty queue whose messages are on their way.
SENT_WAIT_S = 0.02
FAN = 'fan'


class Kombu(BytesContender):
    """What the transports share.

    :param is_sent: be sent the messages, whatever is the transport's fastest way.
    """

    # Ask for each message, instead of being sent them.
    asks = True
    # The largest number of seconds that an empty queue is waited at.
    wait_s = 0.0

    def __init__(self, directory: Path, *, is_sent: bool = False, **options: Any) -> None:
        super().__init__(directory, **options)
        if is_sent:
            self.asks, self.wait_s = False, SENT_WAIT_S
        url, transport_options = self.address(directory, **options)
        self.connection = Connection(url, transport_options=transport_options)
        self.channel = self.connection.channel()
        self._queues: dict[str, SimpleQueue] = {}
        self._fan = False
        self._taken: Any = None

    @classmethod
    def address(cls, directory: Path, **options: Any) -> tuple[str, dict[str, Any]]:
        """:return: the broker's URL, and what else the transport is told."""
        return os.environ['BENCH_URL'], {}

    def queue(self, name: str) -> SimpleQueue:
        """:return: the queue, declared."""
        if name not in self._queues:
            if not self.asks:
                self.channel.basic_qos(0, PREFETCH, False)
            self._queues[name] = SimpleQueue(self.channel, name)
            self._queues[name].queue.declare()
        return self._queues[name]

    def put(self, queue: str, msg: Any) -> None:
        if isinstance(msg, bytes | Message):
            body = self.pack(msg)
            self.queue(queue).put(body, content_type='application/octet-stream', content_encoding='binary')
        else:
            self.queue(queue).put(msg, serializer='json')

    def take(self, queue: str) -> Any:
        simple = self.queue(queue)
        try:
            self._taken = simple.get_nowait() if self.asks else simple.get(timeout=self.wait_s)
        except simple.Empty:
            return None
        payload = self._taken.payload
        return self.unpack(payload) if isinstance(payload, bytes) else payload

    def done(self, queue: str) -> None:
        self._taken.ack()

    def fan_out(self, queues: list[str], msg: Any) -> None:
        """Through a direct exchange to which all of them are bound."""
        if not self._fan:
            exchange = Exchange(FAN, 'direct', channel=self.channel)
            exchange.declare()
            for queue in queues:
                self.queue(queue)
                Queue(queue, exchange, FAN, channel=self.channel).declare()
            self._fan = True
        self.queue(queues[0]).producer.publish(
            self.pack(msg),
            exchange=FAN,
            routing_key=FAN,
            content_type='application/octet-stream',
            content_encoding='binary',
        )

    def close(self) -> None:
        for queue in self._queues.values():
            if self.asks:
                queue.queue.delete()
            else:
                queue.close()
                queue.queue.delete()
        self.connection.release()


class Filesystem(Kombu):
    """kombu's filesystem transport."""

    @classmethod
    def address(cls, directory: Path, **options: Any) -> tuple[str, dict[str, Any]]:
        messages, control = directory / 'messages', directory / 'control'
        for folder in (messages, control):
            folder.mkdir(exist_ok=True)
        folders = {'data_folder_in': str(messages), 'data_folder_out': str(messages)}
        return 'filesystem://', {**folders, 'control_folder': str(control)}

    def close(self) -> None:
        self.connection.release()


class Spooled(Kombu):
    """Our transport."""

    @classmethod
    def address(
        cls, directory: Path, *, durability: str = 'lazy', **options: Any
    ) -> tuple[str, dict[str, Any]]:
        return f'switchboard://{directory}/spool?create=yes&durability={durability}', {}


class Rabbitmq(Kombu):
    """RabbitMQ: durable queues, persistent messages, 100 messages ahead."""

    asks = False
    wait_s = SENT_WAIT_S

    @classmethod
    def address(
        cls, directory: Path, *, confirms: bool = False, **options: Any
    ) -> tuple[str, dict[str, Any]]:
        """:param confirms: wait until the server says that a message is safe."""
        return os.environ['BENCH_URL'], {'confirm_publish': confirms}


class Redis(Kombu):
    """Redis: lists, and a hash of what is not yet acknowledged."""
