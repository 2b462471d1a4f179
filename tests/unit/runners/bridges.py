"""A spool with bridges to a broker in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from switchboard import Runner
from switchboard.brokers.message import OutgoingMessage
from switchboard.runners.bridge import FromBroker, ToBroker
from tests.unit.runners.memory_broker import MemoryBroker, MemoryConnection
from tests.unit.runners.pipelines import Pipeline

OUT = """
[runner.up]
class = runners.bridge:ToBroker
queue = out
batch_size = 10
url = amqp://broker.example.com//
remote_exchange = orders
remote_queue = orders
origin_name = here
send_history = yes
[queue.out]
consumed_externally = yes
max_attempts = 2
retry = 10s
"""
IN = """
[runner.down]
class = runners.bridge:FromBroker
queue =
url = amqp://broker.example.com//
remote_queue = invoices
routing_key = in
origin_name = here
[queue.in]
consumed_externally = yes
"""


class Bridged(Pipeline):
    """A spool with bridges to a broker in memory."""

    def __init__(self, directory: Path, text: str, exchanges: str | None = None) -> None:
        directory.mkdir(exist_ok=True)
        super().__init__(directory, text, exchanges)
        self.broker = MemoryBroker()
        self.links: list[MemoryConnection] = []

    def bridge(self, name: str) -> Any:
        """:return: the runner of a section, set up."""
        outer = self

        class Out(ToBroker):
            def make_connection(self) -> Any:
                return outer.connection()

        class In(FromBroker):
            def make_connection(self) -> Any:
                return outer.connection()

        return self.runner(Out if name == 'up' else In, name)

    def connection(self) -> MemoryConnection:
        self.links.append(MemoryConnection(self.broker))
        return self.links[-1]

    def turn(self, runner: Runner) -> None:
        self.clock.advance(0.001)
        runner.run(once=True)

    def contents(self, name: str) -> list[Any]:
        queue = self.spool[name]
        taken = list(iter(queue.take, None))
        for one in taken:
            queue.release(one.filebase)
        return [one.msg for one in taken]


def letter(text: str, message_id: str = '', **headers: Any) -> OutgoingMessage:
    properties = {'content_type': 'text/plain', 'content_encoding': 'utf-8'}
    return OutgoingMessage(
        text.encode(), headers, properties | ({'message_id': message_id} if message_id else {})
    )
