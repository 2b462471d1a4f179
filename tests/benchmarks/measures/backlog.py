"""What a message costs while many others wait: put one, take the oldest, at a depth that stays the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.cases import TINY, Effort
from tests.benchmarks.contenders.contender import ENTRANTS
from tests.benchmarks.pairs import ROOT, ContenderError, Figure, Round, Worker, alternate, figure, workers
from tests.benchmarks.servers import ServerError

# Deep enough to see what grows with the depth, shallow enough for those to whom it does.
PEER_DEPTHS = (1000, 5000)
PEERS = (
    *('mailman-nosync', 'kombu-fs', 'dirq', 'filestore', 'litequeue', 'huey-file', 'huey-sqlite'),
    *('redis', 'rabbitmq'),
)
# These list all that waits for each message: a few messages show it.
LISTS_EACH_TIME = ('kombu-fs', 'huey-file')
FEW, MANY = 100, 1000
# At least one whole listing has to fall into each turn, and be shared by as many messages as it is good for: those of `KEPT` in the ready queue.
CYCLES_DEEP = 200_000
DEEP = 50_000


def peers(place: Path, effort: Effort, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Let us meet the others at the same depth; then each at two depths with itself, from the same turns."""
    for peer in filter(effort.has, PEERS):
        tell(f'{ENTRANTS[peer].title}: with a backlog')
        try:
            for depth in effort.depths[:2] if effort is TINY else PEER_DEPTHS:
                count = FEW if peer in LISTS_EACH_TIME else min(depth, MANY)
                with workers(place, ('ours', {}), (peer, {})) as (ours, theirs):
                    for worker in (ours, theirs):
                        worker.turn('prefill', 'bytes', depth, 0)
                    rounds = alternate(
                        place,
                        [
                            lambda ours=ours, depth=depth: ours.turn(
                                'pingpong', 'bytes', min(depth, MANY), 0
                            ),
                            lambda theirs=theirs, count=count: theirs.turn('pingpong', 'bytes', count, 0),
                        ],
                        min(2, effort.pairs),
                    )
                yield figure(_case(depth), 'ours', peer, rounds, depth=depth)
        except (ContenderError, ServerError) as error:
            tell(f'left out: {error}')


def depths(
    place: Path, effort: Effort, tell: Callable[[str], None], facts: dict[str, Any]
) -> Iterator[Figure]:
    """Let us at a great depth meet us at the smallest.

    :param facts: is given, for each depth, what :func:`look` says.
    """
    shallow, *rest = effort.depths
    for depth in rest:
        tell(f'switchboard: {depth:,} waiting')
        with workers(place, ('ours', {}), ('ours', {})) as (few, many):
            filled_s, rounds = _meet(place, effort, few, many, depth)
            facts[str(depth)] = {'fill_us': round(filled_s * 1e6, 1), **_look_at(many.directory / 'spool')}
        yield figure(_case(depth), 'ours', 'ours', rounds, depth=depth, than=shallow)
    # The file system's own part, at the greatest depth.
    tell(f'{ENTRANTS["floor"].title}: {depth:,} waiting')
    try:
        with workers(place, ('floor', {}), ('floor', {})) as (few, many):
            _, rounds = _meet(place, effort, few, many, depth)
        yield figure(_case(depth), 'floor', 'floor', rounds, depth=depth, than=shallow)
    except (ContenderError, ServerError) as error:
        tell(f'left out: {error}')


def _case(depth: int) -> str:
    return f'{depth:,} waiting'


def _meet(place: Path, effort: Effort, few: Worker, many: Worker, depth: int) -> tuple[float, list[Round]]:
    """Let one contender work at a depth, and its like at the smallest.

    :return: how long a message took to be put in and left there, in seconds, and the turns.
    """
    few.turn('prefill', 'small', effort.depths[0], 0)
    filled_s = many.turn('prefill', 'small', depth, 0).seconds
    count = CYCLES_DEEP if depth > DEEP else min(depth, 5000)
    turns = [lambda worker=worker: worker.turn('pingpong', 'small', count, 0) for worker in (few, many)]
    return filled_s, alternate(place, turns, min(2, effort.pairs))


def _look_at(spool: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, '-m', f'{__package__}.depth', str(spool)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ContenderError(f'depth: {done.stderr[-500:]}')
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts
