"""What a message costs after a burst, in a queue that is new, and on a machine that has just been started: ours beside ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .cases import TINY, Effort
from .pairs import Figure, Turn, Worker, alternate, figure, settle, workers

ONE_AT_A_TIME = 'one at a time'
SECOND_BURST = 'second burst'
NEW = 'the first 500 of a new spool'
STARTED = 'the first 500 after a start'
FIRST = 500
# A burst to compare a great one with.
SMALL_BURST = 1000


def _drop_caches() -> None:
    """Let the kernel forget what it knows of files: as after a start of the machine.  Only root may."""
    with suppress(OSError):
        os.sync()
        Path('/proc/sys/vm/drop_caches').write_text('3')


def bursts(
    place: Path, effort: Effort, tell: Callable[[str], None], facts: dict[str, Any]
) -> Iterator[Figure]:
    """Let a burst come and go, and then once more; then one message at a time beside a fresh spool.

    :param facts: is given the time for a message of each great burst, and of small ones.
    """
    count = 2 if effort is TINY else 300
    for size in effort.bursts:
        tell(f'switchboard: after {size:,} came and went')
        with workers(place, ('ours', {}), ('ours', {})) as (fresh, old):
            first, second = (_burst(place, old, size) for _ in range(2))
            small_bursts = [_burst(place, fresh, min(size, SMALL_BURST)) for _ in range(2 * effort.pairs + 1)]
            small = sorted(small_bursts[1:], key=lambda turn: turn.cpu_s or 0)[effort.pairs]
            facts[str(size)] = {
                name: {'us': turn.seconds * 1e6, 'cpu_us': (turn.cpu_s or 0) * 1e6}
                for name, turn in (('first', first), ('second', second), ('small', small))
            }
            rounds = alternate(
                place,
                [
                    lambda fresh=fresh: fresh.turn('pingpong', 'bytes', count, effort.min_s),
                    lambda old=old: old.turn('pingpong', 'bytes', count, effort.min_s),
                ],
                2 * effort.pairs,
            )
        yield figure(f'after {size:,}', 'ours', 'ours', rounds)


def _burst(place: Path, worker: Worker, size: int) -> Turn:
    settle(place)
    return worker.turn('fill', 'bytes', size, 0)


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
