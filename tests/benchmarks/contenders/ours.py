"""This project, as a program would use it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from switchboard import Runner, Spool, Switchboard
from switchboard.options import RunnerOptions
from tests.benchmarks.contenders.contender import Contender

# What the other workloads call their queues.
OTHER_QUEUES = ('in', 'first', 'one', 'two', 'three')


class _Emit(Runner):
    """One stage of the pipeline: hands on what it gets, exactly once."""

    target = ''

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        self.emit(self.target, msg, msgdata)


class _Forward(_Emit):
    """The same, for a stage that changes nothing: one rename."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        self.forward(self.target)


class Ours(Contender):
    """A spool.

    :param batch: messages that share one flush.
    :param forward: hand on by :meth:`Runner.forward` in the pipeline.
    :param listed: take what `Switchboard.files` names, as Mailman's runners do, instead of asking for the next one.
    :param accelerated: with the accelerator, which has to be there.
    """

    def __init__(
        self,
        directory: Path,
        *,
        durability: str = 'lazy',
        batch: int = 1,
        forward: bool = False,
        listed: bool = False,
        accelerated: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(directory, **options)
        self.spool = Spool(directory / 'spool', durability=durability)
        assert not accelerated or self.spool.disk.accelerator is not None
        self.durability = durability
        self.batch = batch
        self.forward = forward
        self.listed = listed
        self._names: deque[str] = deque()
        self._fans = False
        self._queues: dict[str, Switchboard] = {}
        self._stages: dict[tuple[str, str], _Emit] = {}
        self._taken = ''

    def queue(self, name: str) -> Switchboard:
        """:return: this process's slice of a queue."""
        queue = self._queues.get(name)
        if queue is None:
            # An older checkout, measured instead of this one, may call it a board.
            open_queue = getattr(self.spool, 'queue', None) or self.spool.board
            queue = self._queues[name] = open_queue(name, self.slice, self.numslices)
        return queue

    def put(self, queue: str, msg: Any) -> None:
        self.queue(queue).enqueue(msg)

    def put_many(self, queue: str, messages: Iterable[Any]) -> None:
        target = self.queue(queue)
        if self.batch == 1:
            for msg in messages:
                target.enqueue(msg)
            return
        rest = iter(messages)
        while some := list(islice(rest, self.batch)):
            target.enqueue_many(some)

    def take(self, queue: str) -> Any:
        if self.listed:
            return self._take_listed(self.queue(queue))
        taken = self.queue(queue).take()
        if taken is None:
            return None
        self._taken = taken.filebase
        return taken.msg

    def _take_listed(self, queue: Switchboard) -> Any:
        if not self._names:
            self._names.extend(queue.files)
        if not self._names:
            return None
        self._taken = self._names.popleft()
        return queue.dequeue(self._taken)[0]

    def done(self, queue: str) -> None:
        self.queue(queue).finish(self._taken)

    def move(self, source: str, target: str) -> int:
        """By a runner, with all that a runner does for each message."""
        stage = self._stages.get((source, target))
        if stage is None:
            options = RunnerOptions(source, '', queue=source, batch_size=self.batch)
            stage = (_Forward if self.forward else _Emit)(self.spool, options)
            stage.target = target
            self._stages[source, target] = stage
        stage.run(until_empty=True)
        return 0

    def fan_out(self, queues: list[str], msg: Any) -> None:
        """By a fanout exchange, in one transaction."""
        if not self._fans:
            # One spool for both ends, or they would not share their spares.
            self.spool = Spool.from_config(self._fan_config(queues))
            self._queues.clear()
            self._stages.clear()
            self._fans = True
        self.spool.publish(msg, exchange='fan', routing_key='all')

    def _fan_config(self, queues: list[str]) -> Path:
        path = self.directory / 'fan.cfg'
        exchange = self.directory / 'fan-exchange.cfg'
        bindings = ''.join(f'    -> {queue}\n' for queue in queues)
        exchange.write_text(f'[exchange.fan]\ntype = fanout\nbindings =\n{bindings}')
        lines = ['[switchboard]', f'spool = {self.spool.directory}', f'durability = {self.durability}']
        lines += [f'exchange_file = {exchange}']
        lines += [f'[queue.{queue}]\nexternal = yes' for queue in (*queues, *OTHER_QUEUES)]
        path.write_text('\n'.join(lines) + '\n')
        return path
