"""Things that a program does again and again, each with what it holds after many rounds and after as many again: descriptors and memory.

::

    python -m tests.faults.harness.loops      # print the table of `docs/explanation/proof.md`
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import selectors
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import kombu
import psutil

import switchboard.extra.kombu  # noqa: F401  names the transport to kombu
from switchboard import AsyncRunner, Runner, Spool
from switchboard.errors import CorruptEntryError, QueueFullError, SwitchboardError
from switchboard.filestore import FileStore
from switchboard.master.control import MAX_SILENT, ControlSocket
from switchboard.master.directory import MasterDirectory
from switchboard.message.naming import PRESERVED, READY
from switchboard.options import QueueOptions, RunnerOptions
from switchboard.queue.switchboard import Switchboard
from switchboard.runners.command import Command
from switchboard.spool.replies import Replies
from tests.helpers.descriptors import Opened

MIB = 1024 * 1024
# How often a run is looked at: a look takes longer than most rounds.
LOOKS = 10
# What a child says of its failure fits into a pipe.
MOST_BYTES = 10_000


@dataclass(frozen=True)
class Loop:
    """Makes one round, each time that it is advanced.

    :ivar rounds: of the first run, which fills the caches, and of the second one.
    """

    name: str
    start: Callable[[Path], Iterator[None]]
    rounds: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Balance:
    """The most descriptors that a process held in a first run of rounds and in a second one, and its memory after each."""

    rounds: int
    descriptors: tuple[int, int]
    memory_bytes: tuple[int, int]


LOOPS: list[Loop] = []


def loop(
    name: str, rounds: int
) -> Callable[[Callable[[Path], Iterator[None]]], Callable[[Path], Iterator[None]]]:
    def add(start: Callable[[Path], Iterator[None]]) -> Callable[[Path], Iterator[None]]:
        LOOPS.append(Loop(name, start, rounds))
        return start

    return add


def balance(each: Loop, directory: Path) -> Balance:
    """Run a loop in this process."""
    process, opened = psutil.Process(), Opened()
    turning = each.start(directory)

    def look() -> tuple[int, int]:
        most = 0
        for number in range(1, each.rounds + 1):
            next(turning)
            if number % (each.rounds // LOOKS) == 0:
                gc.collect()  # what stands in a circle is closed at an hour that nothing here decides
                most = max(most, len(opened()))
        return most, process.memory_info().rss

    before, after = look(), look()
    turning.close()
    return Balance(each.rounds, (before[0], after[0]), (before[1], after[1]))


@loop('a message: enqueue, take, finish', 5000)
def messages(directory: Path) -> Iterator[None]:
    queue = Spool(directory, 'lazy')['in']
    while True:
        queue.enqueue('a' * 1000, key='value')
        taken = queue.take()
        assert taken is not None
        queue.finish(taken.filebase)
        yield


@loop('a batch of a hundred', 50)
def batches(directory: Path) -> Iterator[None]:
    queue = Spool(directory, 'lazy')['in']
    while True:
        for filebase in queue.enqueue_many(['a'] * 100):
            queue.finish(filebase)
        yield


@loop('a message that cannot be read goes to bad', 500)
def damaged(directory: Path) -> Iterator[None]:
    spool = Spool(directory, 'lazy')
    queue = spool['in']
    while True:
        filebase = queue.enqueue('a')
        with (directory / 'in' / (filebase + READY)).open('r+b') as file:
            file.truncate(10)
        with contextlib.suppress(CorruptEntryError):
            queue.dequeue(filebase)
        (directory / 'bad' / (filebase + PRESERVED)).unlink()
        yield


@loop('a full queue refuses', 1000)
def refusals(directory: Path) -> Iterator[None]:
    queue = Switchboard('in', directory / 'in', options=QueueOptions(durability='lazy', max_messages=1))
    queue.enqueue('a')
    while True:
        with contextlib.suppress(QueueFullError):
            queue.enqueue('b')
        yield


@loop('a message once, by its key', 500)
def keys(directory: Path) -> Iterator[None]:
    queue = Spool(directory, 'lazy')['in']
    number = 0
    while True:
        number += 1
        for _ in range(2):
            filebase = queue.enqueue('a', dedupe_key=f'{number % 50}')
        with contextlib.suppress(SwitchboardError):  # recovery has given it back
            queue.finish(filebase)
        yield


class Three(Runner):
    """Hands each message on to three queues; fails at every other one the first time."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        if msg == 'fail':
            sys.exit(3)
        for queue in ('a', 'b', 'c'):
            self.emit(queue, msg)


@loop('a runner hands on to three queues, and its code exits', 200)
def handoffs(directory: Path) -> Iterator[None]:
    spool = Spool(directory, 'lazy')
    runner = Three(spool, RunnerOptions('three', '', 'in'))
    while True:
        spool['in'].enqueue_many(['a', 'fail'])
        runner.run(until_empty=True)
        for queue, suffix in (('a', READY), ('b', READY), ('c', READY), ('bad', PRESERVED)):
            for filebase in spool[queue].get_files(suffix):
                (directory / queue / (filebase + suffix)).unlink()
        yield


class Quick(AsyncRunner):
    """Waits for nothing."""

    async def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        await asyncio.sleep(0)


@loop('an async runner works until its queue is empty', 100)
def async_runs(directory: Path) -> Iterator[None]:
    spool = Spool(directory, 'lazy')
    runner = Quick(spool, RunnerOptions('quick', '', 'in'))
    while True:
        spool['in'].enqueue_many(['a', 'b', 'c'])
        runner.run(until_empty=True)
        yield


@loop('a message through a program', 30)
def programs(directory: Path) -> Iterator[None]:
    spool = Spool(directory, 'lazy')
    options = RunnerOptions('program', '', 'in', settings={'command': '/bin/cat'})
    runner = Command(spool, options)
    while True:
        spool['in'].enqueue('a')
        runner.run(until_empty=True)
        yield


@loop('a queue is declared, used and deleted', 200)
def declared(directory: Path) -> Iterator[None]:
    spool = Spool(directory, 'lazy')
    number = 0
    while True:
        number += 1
        spool.declare(f'q{number}').enqueue('a')
        spool.delete(f'q{number}')
        yield


@loop('a client asks, is answered, and goes', 500)
def answers(directory: Path) -> Iterator[None]:
    spool, asking = Spool(directory, 'lazy'), Spool(directory, 'lazy')
    while True:
        with Replies(asking) as client:
            client.ask('question', routing_key='in')
            taken = spool['in'].take()
            assert taken is not None
            spool.publish('answer', routing_key=taken.msgdata['reply_to'])
            spool['in'].finish(taken.filebase)
        yield


@loop('another queue is opened', 500)
def queues(directory: Path) -> Iterator[None]:
    spool = Spool(directory, 'lazy')
    number = 0
    while True:
        number += 1
        spool[f'q{number}'].enqueue('a')
        yield


@loop('a spool is opened and closed', 100)
def spools(directory: Path) -> Iterator[None]:
    while True:
        spool = Spool(directory, 'lazy')
        spool['in'].finish(spool['in'].enqueue('a'))
        spool.close()
        yield


@loop('a connection of kombu is opened and closed', 50)
def connections(directory: Path) -> Iterator[None]:
    url = f'switchboard://{directory}?create=yes'
    while True:
        with kombu.Connection(url) as connection, connection.SimpleQueue('q') as queue:
            queue.put({'a': 1})
            queue.get(timeout=10).ack()
        yield


@loop('strangers call the master and say nothing, or nonsense', 20)
def strangers(directory: Path) -> Iterator[None]:
    own, selector = MasterDirectory(directory), selectors.DefaultSelector()
    control = ControlSocket(own, selector, lambda request, reply: reply({'ok': True}))
    with contextlib.closing(own), contextlib.closing(selector), contextlib.closing(control):
        while True:
            callers = []
            for number in range(2 * MAX_SILENT):
                callers.append(socket.socket(socket.AF_UNIX))
                callers[-1].connect(str(own.path / 'control'))
                if number % 2:
                    callers[-1].sendall(b'[' * 5000 + b'\n')
                for key, _ in selector.select(0):
                    key.data.on_readable(0.0)
            for caller in callers:
                caller.close()
            while ready := selector.select(0):
                for key, _ in ready:
                    key.data.on_readable(0.0)
            yield


@loop('a hostile mail in a maildir', 100)
def hostile_mails(directory: Path) -> Iterator[None]:
    settings = directory / 'switchboard.cfg'
    settings.write_text('[switchboard]\nspool = spool\ndurability = lazy\n[queue.in]\nmaildir = yes\n')
    queue = Spool.from_config(settings)['in']
    while True:
        path = directory / 'spool' / 'in' / 'new' / '1700000000.M1P1.host'
        path.write_bytes(b'a:' + b' ' * 16_000 + b'\rx\n\nbody')
        queue.has_ready()
        taken = queue.take()
        assert taken is not None
        queue.finish(taken.filebase)
        yield


@loop('a file store: create, move, remove', 500)
def stores(directory: Path) -> Iterator[None]:
    store = FileStore(directory / 'store')
    store.prepare()
    while True:
        with store.create('a') as file:
            file.write('a')
        store.move('a', 'tmp', 'new')
        [path] = store.list('new')
        os.unlink(path)
        yield


def balance_apart(name: str, directory: str) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Run a loop in a process of its own: what one holds is no other's, and what others have left is not looked through at each look.

    :return: the `Balance`.
    """
    [each] = [each for each in LOOPS if str(each) == name]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(astuple(balance(each, Path(directory)))).encode())
        except Exception:
            os.write(writing, json.dumps(traceback.format_exc()[-MOST_BYTES:]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as told:
        found = json.load(told)
    os.waitpid(child, 0)
    assert not isinstance(found, str), found
    rounds, descriptors, memory_bytes = found
    return rounds, descriptors, memory_bytes


def loop_table() -> str:
    rows = ['| again and again | rounds, twice | descriptors | memory, MiB |', '| --- | --- | --- | --- |']
    for each in LOOPS:
        with tempfile.TemporaryDirectory() as directory:
            try:
                found = Balance(*balance_apart(str(each), directory))
            except AssertionError:
                rows.append(f'| {each} | {each.rounds} | failed | |')
                continue
        memory = ' -> '.join(f'{one / MIB:.1f}' for one in found.memory_bytes)
        descriptors = ' -> '.join(map(str, found.descriptors))
        rows.append(f'| {each} | {found.rounds} | {descriptors} | {memory} |')
    return '\n'.join(rows)


def main() -> int:
    logging.disable(logging.CRITICAL)
    print(loop_table())
    return 0


if __name__ == '__main__':
    sys.exit(main())
