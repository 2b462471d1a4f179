"""Publish, consume, acknowledge: the same program through kombu, over our transport and over others.

The program is sent its messages, as Celery's worker is; a message is 1 KB of JSON.  Who promises about as much meets ours of the same
promise: Redis that syncs each second and the directory of kombu ours in *lazy*, RabbitMQ that confirms ours in *full*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.cases import TINY, Effort
from tests.benchmarks.contenders.contender import ENTRANTS
from tests.benchmarks.pairs import ContenderError, Figure, Worker, alternate, figure, workers
from tests.benchmarks.servers import ServerError

PEERS = ('kombu-fs', 'redis', 'rabbitmq', 'redis-always', 'rabbitmq-confirms')
DEPTH = 2000
WAITING = f'one at a time, {DEPTH:,} waiting'
BURST, SINGLE = 'put all, take all', 'one at a time'
# Messages of a turn; `kombu-fs` reads the whole directory for each, so a few show it.
COUNTS = {BURST: 500, SINGLE: 100, WAITING: 300}
FEW = 50
_SENT = {'is_sent': 'yes'}


def side(peer: str) -> str:
    """:return: who of us meets a peer."""
    return 'ours-kombu' if ENTRANTS[peer].durability == 'lazy' else 'ours-kombu-full'


def run(place: Path, effort: Effort, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Let us meet each transport: with an empty queue, and with many messages waiting."""
    for peer in PEERS:
        if not effort.has(peer):
            continue
        tell(f'{ENTRANTS[peer].title}: as a transport of kombu')
        try:
            with workers(place, (side(peer), _SENT), (peer, _SENT)) as pair:
                for case in (BURST, SINGLE):
                    yield _meet(place, pair, case, effort)
                for worker in pair:
                    worker.turn('prefill', 'json', _deep(effort), 0)
                yield _meet(place, pair, WAITING, effort)
        except (ContenderError, ServerError) as error:
            tell(f'left out: {error}')


def _deep(effort: Effort) -> int:
    return effort.depths[0] if effort is TINY else DEPTH


def _meet(place: Path, pair: list[Worker], case: str, effort: Effort) -> Figure:
    workload = 'fill' if case == BURST else 'pingpong'
    names = [worker.entrant.name for worker in pair]
    turns = [_turn(worker, workload, _count(worker, case, effort), effort) for worker in pair]
    return figure(case, names[0], names[1], alternate(place, turns, effort.pairs))


def _count(worker: Worker, case: str, effort: Effort) -> int:
    if effort is TINY:
        return 2
    return FEW if (worker.entrant.name, case) == ('kombu-fs', WAITING) else COUNTS[case]


def _turn(worker: Worker, workload: str, count: int, effort: Effort) -> Callable[[], tuple[float, int]]:
    return lambda: worker.turn(workload, 'json', count, effort.min_s)
