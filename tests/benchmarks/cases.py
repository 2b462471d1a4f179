"""Who meets whom, and what for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contenders.contender import ENTRANTS, Entrant
from tests.benchmarks.messages import TITLES
from tests.benchmarks.pairs import ContenderError, Figure, Round, Turn, Worker, alternate, figure, workers
from tests.benchmarks.servers import ServerError


@dataclass(frozen=True)
class Effort:
    """How much time a run takes.

    :param pairs: turns of each side that count.
    :param min_s: the least that a turn lasts.
    :param depths: numbers of waiting messages, in ascending order.
    :param peers: who takes part; nothing means everybody.
    :param bursts: numbers of messages that come and go at once.
    :param large_bytes: the size of a large body.
    """

    pairs: int
    min_s: float
    depths: tuple[int, ...]
    peers: tuple[str, ...] = ()
    bursts: tuple[int, ...] = (100_000,)
    large_bytes: int = 500_000_000

    def has(self, peer: str) -> bool:
        """:return: whether that peer takes part."""
        return not self.peers or peer in self.peers


FULL = Effort(4, 0.15, (1000, 10_000, 100_000, 1_000_000), bursts=(100_000, 1_000_000))
QUICK = Effort(
    3,
    0.05,
    (1000, 10_000),
    ('floor', 'floor-batch', 'mailman', 'mailman-nosync', 'kombu-fs', 'litequeue', 'sqlite', 'sqlite-full'),
)
# For tests of the benchmark itself.
TINY = Effort(1, 0.0, (10, 20), bursts=(20, 21), large_bytes=1000)


@dataclass(frozen=True)
class Case:
    """One thing to do, with each peer.

    :param group: the table it belongs to.
    :param count: messages, for those that write lazily; those that sync get fewer.
    """

    group: str
    name: str
    workload: str
    kind: str
    count: int
    # Only for those whose names start so; nothing means everybody.
    peers: tuple[str, ...] = ()
    # Turns last this many times longer.
    longer: int = 1
    not_for: tuple[str, ...] = ()
    # Measured on each file system that is given.
    is_elsewhere: bool = False

    def suits(self, entrant: Entrant) -> bool:
        """:return: whether that peer does this."""
        if entrant.is_native and self.workload not in ('fill', 'pingpong'):
            return False
        name = entrant.name
        return (not self.peers or name.startswith(self.peers)) and not name.startswith(self.not_for or ' ')


# Each of its calls waits for the disk, and kombu makes five for a message: one case is enough to see it.
_SLOWEST = 'redis-always'
_MAIL_PEERS = ('mailman', 'floor')
# Those that create and delete a file for each message: the file system makes them pay more the longer they do it.
_FILE_PEERS = ('mailman-nosync', 'dirq', 'filestore', 'kombu-fs', 'huey-file', 'floor')
BURST = 'put 2,000, take 2,000'
BURSTS = 'bursts of 2,000 / of 500'
ONE = 'one at a time'
ONE_AFTER = 'one at a time, after bursts'
STAGES = 'three stages'
SUSTAINED = f'{TITLES["bytes"]}, sustained'
CASES = (
    # First, so that each peer does it in directories that nothing has come through yet.
    Case('pingpong', ONE, 'pingpong', 'bytes', 100, is_elsewhere=True),
    Case('cycle', TITLES['bytes'], 'fill', 'bytes', 500, is_elsewhere=True),
    Case('cycle', SUSTAINED, 'fill', 'bytes', 500, peers=_FILE_PEERS, not_for=('floor-',), longer=10),
    Case('cycle', TITLES['json'], 'fill', 'json', 500, not_for=('floor', _SLOWEST)),
    Case('cycle', TITLES['mail'], 'fill', 'mail', 500, not_for=(_SLOWEST,)),
    Case('cycle', TITLES['mail-again'], 'again', 'mail-again', 500, peers=_MAIL_PEERS),
    Case('cycle', TITLES['mail-read'], 'fill-and-read', 'mail-read', 500, peers=_MAIL_PEERS),
    Case('cycle', TITLES['large'], 'fill', 'large', 50, not_for=(_SLOWEST,)),
    Case('bursts', BURST, 'fill', 'bytes', 2000, not_for=(_SLOWEST, 'redis'), is_elsewhere=True),
    # Where the bursts above have come through: a file system without a journal then makes those pay who create and delete.
    Case(
        'pingpong',
        ONE_AFTER,
        'pingpong',
        'bytes',
        100,
        peers=('mailman', 'dirq', 'filestore', 'sqlite', 'floor'),
    ),
    Case('pipeline', STAGES, 'pipeline', 'bytes', 500, not_for=(_SLOWEST,), is_elsewhere=True),
    Case('fan-out', 'one into ten', 'fan-out', 'bytes', 50, not_for=(_SLOWEST, 'pq-')),
)
# Those that sync are slower by an order of magnitude; batches of 100 must still be full.
FULL_SHARE = 2.5

PEERS = [name for name in ENTRANTS if not name.startswith('ours')]


def _sides(peer: str) -> tuple[str, ...]:
    """:return: who of us meets a peer: with the same durability, and if that is full, also in batches."""
    if peer == 'floor':
        return ('ours', 'ours-accelerated')
    if peer == 'floor-full':
        return ('ours-full',)
    if peer == 'floor-batch':
        return ('ours-batch',)
    return ('ours',) if ENTRANTS[peer].durability == 'lazy' else ('ours-full', 'ours-batch')


def meet(place: Path, peer: str, cases: list[Case], effort: Effort) -> Iterator[tuple[str, Figure]]:
    """Let us and one peer go through all cases.

    :return: groups and figures.
    :raises ContenderError: a library or a server is not there, or fails.
    """
    ours = _sides(peer)
    entrant = ENTRANTS[peer]
    with workers(place, *((name, {}) for name in ours), (peer, {})) as started:
        for case in cases:
            count = int(case.count / FULL_SHARE) if entrant.durability == 'full' else case.count
            if effort is TINY:
                count = 2
            rounds = alternate(
                place, [_turn(worker, case, count, effort) for worker in started], effort.pairs
            )
            for number, name in enumerate(ours):
                yield case.group, figure(case.name, name, peer, rounds, (number, len(ours)), count=count)


def _turn(worker: Worker, case: Case, count: int, effort: Effort) -> Callable[[], Turn]:
    return lambda: worker.turn(case.workload, case.kind, count, effort.min_s * case.longer)


def meet_all(
    place: Path, groups: set[str], effort: Effort, tell: Callable[[str], None], names: set[str] | None = None
) -> Iterator[tuple[str, Figure]]:
    """Meet everybody who is there; say who is not.

    :param names: those of the cases; None means all.
    """
    for peer in PEERS:
        cases = [each for each in CASES if each.group in groups and each.suits(ENTRANTS[peer])]
        cases = [each for each in cases if names is None or each.name in names]
        if not cases or not effort.has(peer):
            continue
        tell(f'{ENTRANTS[peer].title}: {", ".join(dict.fromkeys(each.group for each in cases))}')
        try:
            yield from meet(place, peer, cases, effort)
        except (ContenderError, ServerError) as error:
            tell(f'left out: {error}')


def own_life_cycles(place: Path, effort: Effort) -> Iterator[Figure]:
    """What a pipeline of ours costs in life cycles of ours: by emitting, and by forwarding unchanged."""
    for case, options in (('pipeline, emitted', {}), ('pipeline, forwarded', {'forward': 'yes'})):
        with workers(place, ('ours', {}), ('ours', options)) as (plain, piped):
            count = 2 if effort is TINY else 1000
            rounds: list[Round] = alternate(
                place,
                [
                    lambda plain=plain, count=count: plain.turn('fill', 'bytes', count, effort.min_s),
                    lambda piped=piped, count=count: piped.turn('pipeline', 'bytes', count, effort.min_s),
                ],
                effort.pairs,
            )
            yield figure(case, 'ours', 'ours', rounds, count=count)
    with workers(place, ('ours', {}), ('ours', {'listed': 'yes'})) as (taken, listed):
        count = 2 if effort is TINY else 100
        rounds = alternate(
            place,
            [
                lambda: taken.turn('pingpong', 'bytes', count, effort.min_s),
                lambda: listed.turn('pingpong', 'bytes', count, effort.min_s),
            ],
            effort.pairs,
        )
        yield figure('one at a time, by `files` / by `take`', 'ours', 'ours', rounds, count=count)
    with workers(place, ('ours', {}), ('ours', {})) as (few, many):
        few_count, many_count = (2, 4) if effort is TINY else (500, 2000)
        rounds = alternate(
            place,
            [
                lambda: few.turn('fill', 'bytes', few_count, effort.min_s),
                lambda: many.turn('fill', 'bytes', many_count, effort.min_s),
            ],
            effort.pairs,
        )
        yield figure(BURSTS, 'ours', 'ours', rounds, count=many_count)


def before_after(place: Path, source: str, effort: Effort) -> Iterator[Figure]:
    """Meet an older checkout of this project."""
    chosen = [case for case in CASES if case.kind != 'mail-read']
    for name in ('ours', 'ours-full', 'ours-batch'):
        with workers(place, (name, {}), (name, {'source': source})) as started:
            for case in chosen:
                count = case.count if name == 'ours' else int(case.count / FULL_SHARE)
                count = 2 if effort is TINY else count
                turns = [_turn(worker, case, count, effort) for worker in started]
                yield figure(
                    f'{case.group}: {case.name}',
                    name,
                    name,
                    alternate(place, turns, effort.pairs),
                    count=count,
                )
