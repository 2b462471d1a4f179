"""Brokers, and kombu's own directory: all through kombu's ``SimpleQueue``, one connection a process.

RabbitMQ sends its messages ahead, which is its fastest way.  Redis and the directory are asked for each: being sent them is no
faster for a queue that is full, up to a third faster for one message at a time, and kombu mixes up the queues of
one process then.
"""

from __future__ import annotations

import os
from email.message import Message
from pathlib import Path
from typing import Any

from kombu import Connection, Exchange, Queue
from kombu.simple import SimpleQueue

from .contender import BytesContender

# What a consumer is sent ahead of its acknowledgements.
PREFETCH = 100
# Longer than any message takes to come.
PATIENCE_S = 20.0
FAN = 'fan'


class Kombu(BytesContender):
    """What the three transports share."""

    # Ask for each message, instead of being sent them.
    asks = True
    # The largest number of seconds that an empty queue is waited at.
    wait_s = 0.0

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self.connection = self.connect()
        self.channel = self.connection.channel()
        self._queues: dict[str, SimpleQueue] = {}
        self._fan = False
        self._taken: Any = None

    def connect(self) -> Connection:
        """:return: the connection of this process."""
        raise NotImplementedError

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

    def connect(self) -> Connection:
        folders = {name: str(self.directory / name) for name in ('messages', 'control')}
        for folder in folders.values():
            Path(folder).mkdir(exist_ok=True)
        return Connection(
            'filesystem://',
            transport_options={
                'data_folder_in': folders['messages'],
                'data_folder_out': folders['messages'],
                'control_folder': folders['control'],
            },
        )

    def close(self) -> None:
        self.connection.release()


class Rabbitmq(Kombu):
    """RabbitMQ: durable queues, persistent messages, 100 messages ahead.

    :param confirms: wait until the server says that a message is safe.
    """

    asks = False
    wait_s = 0.02

    def __init__(self, directory: Path, *, confirms: bool = False, **options: Any) -> None:
        self.confirms = confirms
        super().__init__(directory, **options)

    def connect(self) -> Connection:
        return Connection(os.environ['BENCH_URL'], transport_options={'confirm_publish': self.confirms})


class Redis(Kombu):
    """Redis: lists, and a hash of what is not yet acknowledged."""

    def connect(self) -> Connection:
        return Connection(os.environ['BENCH_URL'])
