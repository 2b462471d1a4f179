"""Producers and consumers, all at work at once, each a process: on one queue, or each two on a queue of their own."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.cases import TINY, Effort
from tests.benchmarks.contenders.contender import ENTRANTS
from tests.benchmarks.messages import stored_bytes
from tests.benchmarks.pairs import ContenderError, Figure, Turn, Worker, alternate, figure
from tests.benchmarks.servers import ServerError, server

SHAPES = ((1, 1), (2, 1), (1, 2), (2, 2))
PEERS = ('mailman-nosync', 'dirq', 'litequeue', 'rabbitmq')
COUNT = 2000
OWN = ('ours', 'ours-full', 'floor', 'floor-full')
# What the name of a case ends in if each two have a queue of their own.
APART = ', a queue for each two'
OWN_SHAPES = ((2, 1), (1, 2), (2, 2), (4, 4), (8, 8))
MANY_SHAPES = ((2, 2), (4, 4), (8, 8))
# So that there is something to share for eight consumers; fewer where each waits for the disk.
OWN_COUNT = {'ours': 4000, 'ours-full': 1000, 'floor': 4000, 'floor-full': 1000}


class ContenderProcesses:
    """The processes of one contender, on one directory: producers, and consumers with a slice each.

    :param apart: the n-th producer and the n-th consumer have a queue of their own.
    """

    def __init__(
        self,
        name: str,
        producers: int,
        consumers: int,
        directory: Path,
        environment: dict[str, str],
        *,
        apart: bool = False,
    ) -> None:
        self.directory = directory
        self._apart = apart
        self._turns = 0
        self._workers: list[Worker] = []
        entrant = ENTRANTS[name]
        try:
            for _ in range(producers):
                self._workers.append(Worker(entrant, directory / 'queues', directory, environment))
            for number in range(consumers):
                options = {} if apart or entrant.is_native else {'slice': number, 'numslices': consumers}
                worker = Worker(entrant, directory / 'queues', directory, environment, **options)
                self._workers.append(worker)
        except ContenderError:
            self.close()
            raise
        self._producers = self._workers[:producers]
        self._consumers = self._workers[producers:]

    def turn(self, count: int) -> Turn:
        """Send `count` messages through.

        :return: seconds a message from the first producer's start to the last consumer's end; processor time is that of all.
        """
        self._turns += 1
        tally = self.directory / f'tally.{self._turns}'
        tally.write_bytes(bytes(8 * len(self._consumers)))
        for number, worker in enumerate(self._consumers):
            worker.send('consume', tally, count, f'{len(self._consumers)}:{number}:{self._queue(number)}')
        share = count // len(self._producers)
        for number, worker in enumerate(self._producers):
            kind = stored_bytes('bytes') if worker.entrant.is_native else 'bytes'
            worker.send('produce', kind, share, self._queue(number))
        produced = [worker.answer() for worker in self._producers]
        consumed = [worker.answer() for worker in self._consumers]
        took_s = max(ended_s for _, ended_s, _ in consumed) - min(begun_s for begun_s, _, _ in produced)
        cpu_s = sum(cpu_s for _, _, cpu_s in (*produced, *consumed))
        return Turn(took_s / count, count, cpu_s / count)

    def _queue(self, number: int) -> str:
        return f'in{number}' if self._apart else 'in'

    def shares(self) -> list[int]:
        """:return: how many messages each consumer has had in all turns."""
        totals = [0] * len(self._consumers)
        for turn in range(1, self._turns + 1):
            page = (self.directory / f'tally.{turn}').read_bytes()
            totals = [
                total + had
                for total, had in zip(totals, struct.unpack(f'={len(totals)}q', page), strict=True)
            ]
        return totals

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()


def _start(
    stack: ExitStack, place: Path, name: str, producers: int, consumers: int, *, apart: bool = False
) -> ContenderProcesses:
    directory = Path(tempfile.mkdtemp(prefix=f'{name}.', dir=place))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    (directory / 'queues').mkdir()
    environment = stack.enter_context(server(ENTRANTS[name].needs, directory / 'server'))
    processes = ContenderProcesses(name, producers, consumers, directory, environment, apart=apart)
    stack.callback(processes.close)
    return processes


def run(place: Path, effort: Effort, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Let us meet each peer that allows several processes, in all shapes."""
    count = 8 if effort is TINY else COUNT
    for peer in filter(effort.has, PEERS):
        tell(f'{ENTRANTS[peer].title}: several processes')
        for producers, consumers in SHAPES:
            case = f'{producers} to {consumers}'
            try:
                with ExitStack() as stack:
                    ours = _start(stack, place, 'ours', producers, consumers)
                    theirs = _start(stack, place, peer, producers, consumers)
                    rounds = alternate(
                        place,
                        [
                            lambda processes=ours: processes.turn(count),
                            lambda processes=theirs: processes.turn(count),
                        ],
                        min(2, effort.pairs),
                    )
                    yield figure(case, 'ours', peer, rounds, count=count)
            except (ContenderError, ServerError) as error:
                tell(f'left out, {case}: {error}')
                break


def own_speed_up(place: Path, effort: Effort, tell: Callable[[str], None]) -> Iterator[Figure]:
    """What more consumers and producers bring us: one to one against the other shapes, on one queue and on as many as there are consumers.

    Their shares tell how even the slices are: the largest / the smallest.  What the same calls from C gain or lose in the same shapes is what
    the kernel, the disk and the one directory allow.
    """
    for name in OWN:
        tell(f'{ENTRANTS[name].title}: several processes beside one and one')
        count = 8 if effort is TINY else OWN_COUNT[name]
        together = [(*shape, False) for shape in OWN_SHAPES[: 1 if effort is TINY else None]]
        # The floor knows one queue.
        many = () if ENTRANTS[name].is_native else MANY_SHAPES[: 1 if effort is TINY else None]
        for producers, consumers, apart in (*together, *((*shape, True) for shape in many)):
            with ExitStack() as stack:
                single = _start(stack, place, name, 1, 1)
                several = _start(stack, place, name, producers, consumers, apart=apart)
                turns = [
                    lambda processes=single, count=count: processes.turn(count),
                    lambda processes=several, count=count: processes.turn(count),
                ]
                rounds = alternate(place, turns, max(3, effort.pairs))
                shares = several.shares()
                uneven = max(shares) / max(1, min(shares))
                case = f'{producers} to {consumers}' + APART * apart
                yield figure(case, name, name, rounds, count=count, uneven=uneven)
