"""What a message costs after a burst, in a queue that is new, and on a machine that has just been started: ours beside ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.benchmarks.cases import TINY, Effort
from tests.benchmarks.measures.crowd import IDLE, MESSAGES, Crowd
from tests.benchmarks.pairs import Figure, Turn, Worker, alternate, figure, settle, workers

ONE_AT_A_TIME = 'one at a time'
NEW = 'the first 500 of a new spool'
STARTED = 'the first 500 after a start'
FIRST = 500
# A burst to compare a great one with.
SMALL_BURST = 1000
# A second burst of more takes minutes, and leaves the same directories as the first.
SECOND_UP_TO = 100_000
# What the name of a case ends in if runners do it.
IDLE_TOO = ', by runners, eight of nine of them idle'


def after(size: int) -> str:
    """:return: the name of a case."""
    return f'after {size:,} came and went'


def _drop_caches() -> None:
    """Let the kernel forget what it knows of files: as after a start of the machine.  Only root may."""
    with suppress(OSError):
        os.sync()
        Path('/proc/sys/vm/drop_caches').write_text('3')


def bursts(
    place: Path, effort: Effort, tell: Callable[[str], None], facts: dict[str, Any]
) -> Iterator[Figure]:
    """Let a burst come and go, and then once more if it is not too large; then one message at a time beside a fresh spool.

    :param facts: is given the time for a message of each great burst, and of small ones.
    """
    count = 2 if effort is TINY else 300
    for size in effort.bursts:
        tell(f'switchboard: after {size:,} came and went')
        with workers(place, ('ours', {}), ('ours', {})) as (fresh, old):
            if size <= SECOND_UP_TO:
                facts[str(size)] = _beside_small(place, fresh, old, size, effort)
            else:
                _burst(place, old, size, 'small')
            rounds = alternate(
                place,
                [
                    lambda fresh=fresh: fresh.turn('pingpong', 'bytes', count, effort.min_s),
                    lambda old=old: old.turn('pingpong', 'bytes', count, effort.min_s),
                ],
                2 * effort.pairs,
            )
            yield figure(after(size), 'ours', 'ours', rounds)
            yield _with_idle_slices(place, after(size) + IDLE_TOO, (fresh, old), effort)


def _beside_small(
    place: Path, fresh: Worker, old: Worker, size: int, effort: Effort
) -> dict[str, dict[str, float]]:
    """:return: the time for a message of the first burst, of a second one, and of small ones in a fresh spool."""
    first, second = (_burst(place, old, size) for _ in range(2))
    small_bursts = [_burst(place, fresh, min(size, SMALL_BURST)) for _ in range(2 * effort.pairs + 1)]
    small = sorted(small_bursts[1:], key=lambda turn: turn.cpu_s or 0)[effort.pairs]
    return {
        name: {'us': turn.seconds * 1e6, 'cpu_us': (turn.cpu_s or 0) * 1e6}
        for name, turn in (('first', first), ('second', second), ('small', small))
    }


def _with_idle_slices(place: Path, case: str, sides: tuple[Worker, Worker], effort: Effort) -> Figure:
    """Let runners do it, eight of nine of them idle, and count the processor time of all of them."""
    with ExitStack() as stack:
        crowds = []
        for worker in sides:
            crowd = Crowd(worker.directory / 'spool', 1 + IDLE, 'in')
            stack.callback(crowd.close)
            crowds.append(crowd)
        count = 2 if effort is TINY else MESSAGES
        turns = [lambda crowd=crowd: crowd.turn(count) for crowd in crowds]
        return figure(case, 'ours', 'ours', alternate(place, turns, 2 * effort.pairs))


def _burst(place: Path, worker: Worker, size: int, kind: str = 'bytes') -> Turn:
    settle(place)
    return worker.turn('fill', kind, size, 0)


def starts(place: Path, effort: Effort, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Let a process that has worked for a while meet a new spool, and one in which nobody has worked since the machine was started."""
    count = 2 if effort is TINY else FIRST
    for peer in ('ours', 'ours-full', 'mailman-nosync'):
        if not effort.has(peer) and not peer.startswith('ours'):
            continue
        tell(f'{peer}: just started')
        with workers(place, (peer, {})) as (warm,):
            warm.turn('fill', 'bytes', count, 0)

            def new(peer: str = peer) -> Turn:
                with workers(place, (peer, {})) as (worker,):
                    return worker.turn('fill', 'bytes', count, 0)

            def started(peer: str = peer, warm: Worker = warm) -> Turn:
                _drop_caches()
                again = Worker(warm.entrant, warm.directory, place)
                try:
                    return again.turn('fill', 'bytes', count, 0)
                finally:
                    again.close()

            rounds = alternate(
                place, [lambda warm=warm: warm.turn('fill', 'bytes', count, 0), new, started], effort.pairs
            )
        for number, case in ((1, NEW), (2, STARTED)):
            yield figure(case, peer, peer, rounds, (0, number))
