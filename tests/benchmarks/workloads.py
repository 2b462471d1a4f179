"""What contenders do while the clock runs.  Each workload handles `count` messages and returns when the last has gone out."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders.contender import Contender
from tests.benchmarks.messages import message

FAN = [f'f{number}' for number in range(10)]


class LostError(Exception):
    """A contender gave back fewer messages than it was given."""


def _take_all(contender: Contender, queue: str, count: int) -> None:
    taken = 0
    idle = 0
    while taken < count:
        if contender.take(queue) is None:
            idle += 1
            if idle > 200:
                raise LostError(f'{queue}: {taken} of {count} came back')
            continue
        contender.done(queue)
        taken += 1


def fill(contender: Contender, msg: Any, count: int) -> None:
    """Put all, then take all."""
    contender.put_many('in', repeat(msg, count))
    _take_all(contender, 'in', count)


def again(contender: Contender, msg: Any, count: int) -> None:
    """The same, with the object that came out of a queue: the second and later stations of a message."""
    contender.put('first', msg)
    once_stored = contender.take('first')
    contender.done('first')
    contender.put_many('in', repeat(once_stored, count))
    _take_all(contender, 'in', count)


def fill_and_read(contender: Contender, msg: Any, count: int) -> None:
    """Put all, then take all and look at one header of each."""
    contender.put_many('in', repeat(msg, count))
    for _ in range(count):
        if not contender.take('in')['subject']:
            raise LostError('a mail without its subject')
        contender.done('in')


def pingpong(contender: Contender, msg: Any, count: int) -> None:
    """Put one, take one."""
    for _ in range(count):
        contender.put('in', msg)
        _take_all(contender, 'in', 1)


def pipeline(contender: Contender, msg: Any, count: int) -> None:
    """Three stages: into the first queue, on to the second, on to the third, and out."""
    contender.put_many('one', repeat(msg, count))
    contender.move('one', 'two')
    contender.move('two', 'three')
    _take_all(contender, 'three', count)


def fan_out(contender: Contender, msg: Any, count: int) -> None:
    """One message into ten queues, then out of all of them."""
    for _ in range(count):
        contender.fan_out(FAN, msg)
    for queue in FAN:
        _take_all(contender, queue, count)


def prefill(contender: Contender, msg: Any, count: int) -> None:
    """Put and leave."""
    contender.put_many('in', repeat(msg, count))


WORKLOADS: dict[str, Callable[[Contender, Any, int], None]] = {
    'fill': fill,
    'again': again,
    'fill-and-read': fill_and_read,
    'pingpong': pingpong,
    'pipeline': pipeline,
    'fan-out': fan_out,
    'prefill': prefill,
}


def timed(
    contender: Contender, workload: str, kind: str, count: int, min_s: float
) -> tuple[float, int, float]:
    """Do a workload, again and again until `min_s` seconds are over.

    :return: the seconds it took, the number of messages, and the seconds of this process's processor time.
    """
    msg = message(kind)
    work = WORKLOADS[workload]
    done = 0
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    while True:
        work(contender, msg, count)
        done += count
        took_s = time.perf_counter() - begun_s
        if took_s >= min_s:
            return took_s, done, time.process_time() - cpu_s


class Tally:
    """How many messages each of several consumers has had: a number each in a shared page.

    :param path: a file of eight zero bytes for each consumer, which whoever starts them has made.
    """

    def __init__(self, path: Path, consumers: int) -> None:
        size = 8 * consumers
        with path.open('r+b') as file:
            self._page = mmap.mmap(file.fileno(), size)
        self._form = f'={consumers}q'

    def add(self, consumer: int) -> None:
        """Count one."""
        offset = 8 * consumer
        self._page[offset : offset + 8] = struct.pack(
            '=q', struct.unpack_from('=q', self._page, offset)[0] + 1
        )

    def total(self) -> int:
        """:return: the messages of all."""
        return int(sum(struct.unpack(self._form, self._page)))


def produce(contender: Contender, kind: str, count: int, queue: str) -> tuple[float, float, float]:
    """:return: when it began and ended, on the clock that all processes share, and this process's processor time."""
    begun_s, cpu_s = time.monotonic(), time.process_time()
    contender.put_many(queue, repeat(message(kind), count))
    return begun_s, time.monotonic(), time.process_time() - cpu_s


def consume(
    contender: Contender, tally: Tally, consumer: int, count: int, queue: str, timeout_s: float
) -> tuple[float, float, float]:
    """Take until all consumers together have had `count`.

    :param consumer: the place of this one in the tally.
    :return: when it began and ended, and this process's processor time.
    """
    begun_s, cpu_s = time.monotonic(), time.process_time()
    while tally.total() < count:
        if contender.take(queue) is None:
            if time.monotonic() > begun_s + timeout_s:
                raise LostError(f'{tally.total()} of {count} came back')
            time.sleep(0.0005)  # nothing there: the same patience for everybody
            continue
        contender.done(queue)
        tally.add(consumer)
    return begun_s, time.monotonic(), time.process_time() - cpu_s
