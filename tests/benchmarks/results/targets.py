"""What was to be reached, and whether this run has: the numbers come from the results, the goals stand here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tests.benchmarks.cases import BURST, BURSTS, ONE, STAGES, SUSTAINED
from tests.benchmarks.contenders.contender import ENTRANTS
from tests.benchmarks.measures import aftermath, crowd, tasks, transports
from tests.benchmarks.measures.transports import WAITING, side
from tests.benchmarks.messages import TITLES

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One line of the table.

    :param goal: the number to reach.
    :param at_least: whether more is better.
    :param find: takes the figure out of the results; None if it was not measured.
    :param floor: takes what could be had at best out of the same results.
    :param between: what stands between, for the case that the goal is not reached.
    """

    name: str
    goal: float
    at_least: bool
    find: Callable[[Results], float | None]
    unit: str = ''
    floor: Callable[[Results], float | None] | None = None
    between: str = ''

    def is_met(self, value: float) -> bool:
        """:return: whether `value` reaches the goal."""
        return value >= self.goal if self.at_least else value <= self.goal


Measure = Literal['time', 'cpu', 'quickest']
MEASURES: tuple[Measure, ...] = ('time', 'cpu', 'quickest')


@dataclass(frozen=True)
class Ratio:
    """Finds the ratio of one comparison.

    :param measure: of times, of processor times, or of the quickest turn of each side, which says least of what others did at the same time.
    :param is_turned: the ratio the other way round.
    """

    group: str
    case: str
    a: str
    b: str
    measure: Measure = 'time'
    is_turned: bool = False

    def __call__(self, results: Results) -> float | None:
        figure = self.figure(results)
        value = None if figure is None else self._value(figure)
        return 1 / value if value and self.is_turned else value

    def figure(self, results: Results) -> Mapping[str, Any] | None:
        """:return: the comparison; None if it was not measured."""
        for each in results.get(self.group, {}).get('figures', ()):
            if (each['case'], each['a'], each['b']) == (self.case, self.a, self.b):
                found: Mapping[str, Any] = each
                return found
        return None

    def _value(self, figure: Mapping[str, Any]) -> float | None:
        if self.measure == 'time':
            return float(figure['ratio'])
        if self.measure == 'quickest':
            quickest: float | None = figure['extra'].get('quickest')
            return quickest
        cpu = figure['extra'].get('cpu')
        return None if cpu is None else float(cpu['ratio'])

    def by(self, measure: Measure) -> Ratio:
        """:return: the same comparison by another measure."""
        return replace(self, measure=measure)


def ratio(group: str, case: str, a: str, b: str) -> Ratio:
    """:return: what finds the ratio of one comparison: of processor time where both work in one process and do not wait for the disk."""
    lazy = ('ours', 'ours-accelerated', 'floor')
    is_work = group in ('cycle', 'bursts', 'pingpong', 'after', 'crowd', 'depth') and a in lazy
    is_work = is_work and not ENTRANTS[b].needs.startswith(('redis', 'rabbitmq'))
    return Ratio(group, case, a, b, 'cpu' if is_work else 'time')


def time_of(group: str, case: str, a: str, b: str) -> Callable[[Results], float | None]:
    """:return: what finds how long `b` took: for what never met in one pair."""

    def find(results: Results) -> float | None:
        for each in results.get(group, {}).get('figures', ()):
            if (each['case'], each['a'], each['b']) == (case, a, b):
                return float(each['b_us'])
        return None

    return find


def fact(group: str, *path: str, factor: float = 1.0) -> Callable[[Results], float | None]:
    """:return: what finds a number that is no comparison of pairs."""

    def find(results: Results) -> float | None:
        at: Any = results.get(group, {}).get('facts')
        for key in path:
            if not isinstance(at, Mapping) or key not in at:
                return None
            at = at[key]
        return None if at is None else float(at) * factor

    return find


def _slowest_first_byte(results: Results) -> float | None:
    facts = results.get('desk', {}).get('facts') or {}
    return max(
        (
            *facts.get('first_byte_s_before_it_has_counted', {}).values(),
            *facts.get('first_byte_s', {}).values(),
        ),
        default=None,
    )


def quotient(
    dividend: Callable[[Results], float | None], divisor: Callable[[Results], float | None]
) -> Callable[[Results], float | None]:
    """:return: what finds one ratio divided by another: how a peer compares with the floor, if both met us."""

    def find_quotient(results: Results) -> float | None:
        above, below = dividend(results), divisor(results)
        return above / below if above is not None and below else None

    return find_quotient


def cycle(case: str, name: str, title: str, goal: float, a: str, peer: str, between: str) -> Target:
    """:return: a target of the life cycle; its floor is what the C program would reach against the same peer."""
    floor = a.replace('ours', 'floor')
    best = quotient(ratio('cycle', case, a, peer), ratio('cycle', case, a, floor))
    if case == TITLES['mail-again']:
        # The floor knows no objects, so it has met us with a mail of that size once, and not twice.
        best = quotient(time_of('cycle', case, a, peer), time_of('cycle', TITLES['mail'], a, floor))
    return Target(
        f'{name}: {title} / ours',
        goal,
        True,
        ratio('cycle', case, a, peer),
        floor=best,
        between=between,
    )


_BYTES = TITLES['bytes']
_EXPLAINED = '[explained](../explanation/performance.md#against-the-targets)'
_PYTHON = (
    'The floor makes the same calls from C. A loop in Python that does nothing else takes 1.3 times as long; the rest is packing, checks, metadata and order. '
    'How far the floor is from the peer depends on how long this file system, on this day, takes to create and to delete a file: that is what the peer pays for.'
)
_SYNC = (
    'Both ask the disk for the same: one flush a message on each file system, with 4 writes on ext4 without a journal and 3 with one, counted by the block device. So where a flush is most of the time, the ratio is near 1, '
    f'and the floor, which flushes once as well, is at 1.2 to 1.7 by runs; what lies between it and ours is Python. Done: one flush where there were two. Fewer than one there cannot be. The counts of all cases are {_EXPLAINED}.'
)
_SQLITE = (
    'SQLite writes blocks that exist, in one file, and flushes its log three times a message; ours writes a file, its inode and the names in two directories, and flushes once. On ext4 without a journal that is 8 writes and 3 flushes against 4 writes and 1 flush. '
    'Where a flush is dear ours is quicker (5.0 ms against 13.1, file systems in files of a busy disk); where it is cheap, inode and names count for more. '
    f'Done: one flush where there were two, and spares, so that no inode is new. All counts are {_EXPLAINED}.'
)
_ONE = (
    'Where nothing was deleted in the last seconds, creating and deleting a file costs the kernel what our three renames and the lock cost. Ours lists the directory for each message, because there was nothing before; Mailman makes five calls fewer, because it has no lock. '
    'In fresh directories ours takes 64 µs and the floor 31, with the accelerator 53: 20 µs are 85 calls of Python functions. In directories that bursts have gone through, see the table of other shapes of work. '
    f'The parts, and what was tried, are {_EXPLAINED}.'
)
_PIPELINE = (
    'Ours flushes five times on ext4 with a journal and on XFS, seven times without a journal, and Mailman three times: it promises nothing of a hand-off, which a crash doubles or loses. What each flush is for is in '
    '[the states of an entry](../explanation/states.md#by-how-many-flushes). Thought through and refused: one flush for outputs and record together, and none for the record.'
)
_LARGE_POOL = (
    'The queue is renewed with its last entry, and `.spare` is not, for it is not empty: it keeps up to 262,000 finished files, and a rename in a directory of so many names costs more than among few. '
    'Deleting the files after a burst makes the next burst several times dearer.'
)
_CROWD = (
    'The kernel wakes every sleeper of a directory. A slice that was woken by messages of others listens again after 1 to 20 ms, and then looks through the events of that time in one text: 1 µs an event, where reading each took 5.5. In turns on a busy machine that was 1.43 before and 1.19 to 1.23 after. '
    'Left are a wake in 20 ms for each slice, and the three events a message that the kernel writes for each.'
)
_MANY_LAZY = (
    'The C floor, which makes our calls and nothing else, gains little or loses, too: by its quickest turns it had 0.75 to 1.09 times the messages a second of one and one, for only one process at a time changes a directory. With a queue for each two, four and four were 1.4 times as quick. '
    'Ours adds cold caches on two cores (0.1 switches a message and process), each slice reading the names of all (8 to 12 µs a message for 2; it was 24), and 0.26 tries a message for a spare that another took. '
    f'Calls of the kernel: 11.6 for 11.1 on the way in, 10.4 for 9.7 on the way out. What was mended is {_EXPLAINED}.'
)
_MANY_FULL = (
    'The kernel joins the flushes (0.68 a message for 1.0, counted by a block device; the floor 0.64), and no lock is held across one. The C floor gains 1.3 to 1.4 times by that on two cores, and little more can be had. Ours waits for the processor: 370 to 510 µs a message on two cores, '
    'where the floor takes 185 to 210. A flush waits four times, and after each wait Python finds its caches cold; and consumers that are quicker than the disk look 2.3 times a message for what its producer still has locked, 90 µs a look. '
    f'Done: a look reads the directory once, it was twice; fewer tries for the same spares (0.6 a message, it was 1.2). The table is {_EXPLAINED}.'
)
_BURST = 'With a journal, and on other file systems, creating and deleting a file costs the kernel what three renames cost; the floor has the same renames.'
_BATCH = (
    'One `syncfs` is for all files and names of a batch: 0.09 writes and 0.01 flushes a message, counted by the block device on ext4 without a journal, against 4.8 and 1.0 of Mailman. The rest is mostly Python, as processor time and floor show; how long Mailman waits for its flush is up to the disk. '
    'Tried: `fdatasync` or `fsync` of each file, and beginning to write all of them before; they are in the table of ways to flush.'
)
_FLATTEN = (
    'A mail that was parsed elsewhere is flattened by the standard library, in Python; pickling, as Mailman does, '
    'runs in C. It is paid once: out of a queue, a mail keeps its bytes.'
)

_KOMBU = "About a third of the time of a message through kombu is kombu's own, the same for all transports; our life cycle is as much again."
_DEEPEST = '1,000,000 waiting'
_DEEP = (
    'The floor pays for it as well: a million names are 100 MB of directory in the order of a hash, and a message looks into three blocks of it, an inode and a page, none of which is in the caches: 10 to 14 µs more. A reading takes 1.2 s of the processor and is shared by 200,000 to 400,000 messages: 3 to 7 µs. '
    f'Where the memory was needed for other things, each message waits for the disk, up to 190 µs. What was tried is {_EXPLAINED}.'
)
_HAND_OFF = (
    'Three lives are the least. A hand-off makes 17.4 calls with five renames, and a life 18.6 with three: 65 µs of the kernel for 42. What a runner does in Python for each message is as much again: 115 µs in all, where a life takes 66. '
    f'The parts are {_EXPLAINED}.'
)
_DESK = 'The desk counts what waits beside the program, and has the other core for it, caches and the disk in common.'

TARGETS = (
    Target(
        'one at a time, full: Mailman with fsync / ours',
        1.5,
        True,
        ratio('pingpong', ONE, 'ours-full', 'mailman'),
        floor=quotient(
            ratio('pingpong', ONE, 'ours-full', 'mailman'), ratio('pingpong', ONE, 'ours-full', 'floor-full')
        ),
        between=_SYNC,
    ),
    Target(
        'one at a time, full: SQLite, plain, WAL, synchronous = FULL / ours',
        1,
        True,
        ratio('pingpong', ONE, 'ours-full', 'sqlite-full'),
        between=_SQLITE,
    ),
    Target(
        'three-stage pipeline, full, one at a time: Mailman with fsync / ours',
        1.5,
        True,
        ratio('pipeline', STAGES, 'ours-full', 'mailman'),
        between=_PIPELINE,
    ),
    cycle(_BYTES, 'full, in batches of 100', 'Mailman with fsync', 12, 'ours-batch', 'mailman', _BATCH),
    Target(
        'one at a time, lazy: Mailman without fsync / ours',
        1.3,
        True,
        ratio('pingpong', ONE, 'ours', 'mailman-nosync'),
        floor=quotient(
            ratio('pingpong', ONE, 'ours', 'mailman-nosync'), ratio('pingpong', ONE, 'ours', 'floor')
        ),
        between=_ONE,
    ),
    Target(
        'put 2,000, take 2,000, lazy: Mailman without fsync / ours',
        6,
        True,
        ratio('bursts', BURST, 'ours', 'mailman-nosync'),
        floor=quotient(
            ratio('bursts', BURST, 'ours', 'mailman-nosync'), ratio('bursts', BURST, 'ours', 'floor')
        ),
        between=_BURST,
    ),
    Target(
        'a message of a burst of 2,000 / of one of 500, lazy',
        1.1,
        False,
        Ratio('own', BURSTS, 'ours', 'ours', 'cpu'),
        between='64 finished files are kept open and locked; those beyond are opened and locked again, four calls each.',
    ),
    Target(
        'ours / C floor, lazy',
        2,
        False,
        replace(ratio('cycle', _BYTES, 'ours', 'floor'), is_turned=True),
        floor=lambda _results: 1.0,
        between=_PYTHON,
    ),
    Target(
        'ours with the accelerator / C floor, lazy',
        1.5,
        False,
        replace(ratio('cycle', _BYTES, 'ours-accelerated', 'floor'), is_turned=True),
        floor=lambda _results: 1.0,
        between=_PYTHON,
    ),
    Target(
        'a message of the second burst of 100,000 / of a burst of 1,000',
        1.3,
        False,
        quotient(fact('after', '100000', 'second', 'cpu_us'), fact('after', '100000', 'small', 'cpu_us')),
        between=_LARGE_POOL,
    ),
    *(
        Target(
            f'one at a time after {came:,} came and went{how} / in a fresh spool',
            1.2,
            False,
            ratio('after', aftermath.after(came) + how, 'ours', 'ours'),
            between=_LARGE_POOL,
        )
        for came in (100_000, 1_000_000)
        for how in ('', aftermath.IDLE_TOO)
    ),
    Target(
        "the runners' processor time for a message, eight idle slices beside the one that works / one slice alone",
        1.3,
        False,
        ratio('crowd', crowd.CASE, 'ours', 'ours'),
        between=_CROWD,
    ),
    *(
        Target(
            f'four producers and four consumers / one and one, messages a second, {durability}',
            goal,
            True,
            replace(ratio('speed-up', '4 to 4', name, name), is_turned=True),
            floor=replace(ratio('speed-up', '4 to 4', floor, floor), is_turned=True),
            between=between,
        )
        for durability, name, floor, goal, between in (
            ('lazy', 'ours', 'floor', 0.95, _MANY_LAZY),
            ('full', 'ours-full', 'floor-full', 1.3, _MANY_FULL),
        )
    ),
    cycle(
        SUSTAINED,
        'life cycle, bytes, lazy, sustained',
        'Mailman without fsync',
        8,
        'ours',
        'mailman-nosync',
        _PYTHON,
    ),
    cycle(
        TITLES['mail-again'],
        'life cycle, mail out of a queue, lazy',
        'Mailman without fsync',
        5,
        'ours',
        'mailman-nosync',
        _PYTHON,
    ),
    cycle(
        TITLES['mail'],
        'life cycle, mail just parsed, lazy',
        'Mailman without fsync',
        5,
        'ours',
        'mailman-nosync',
        _FLATTEN,
    ),
    Target(
        'kombu filesystem at 5,000 waiting / ours',
        50,
        True,
        ratio('backlog', '5,000 waiting', 'ours', 'kombu-fs'),
        between='It lists the directory for each message, and how long that takes is up to the file system.',
    ),
    cycle(
        _BYTES,
        'life cycle, full, batches of 100',
        'RabbitMQ, persistent, with confirms, through kombu',
        3,
        'ours-batch',
        'rabbitmq-confirms',
        _BATCH,
    ),
    Target(
        'through kombu, 2,000 waiting: kombu filesystem / ours',
        10,
        True,
        ratio('kombu', WAITING, 'ours-kombu', 'kombu-fs'),
        between=_KOMBU,
    ),
    *(
        Target(
            f'{what}: {title} / ours',
            1,
            True,
            ratio(group, case, side(peer), peer),
            between=_KOMBU,
        )
        for what, group, case in (
            ('through kombu, put all, take all', 'kombu', transports.BURST),
            ("Celery's tasks that do nothing", 'celery', tasks.BURST),
        )
        for peer, title in (('redis', 'Redis, append-only'), ('rabbitmq-confirms', 'RabbitMQ with confirms'))
    ),
    *(
        Target(
            f'Celery, a task to an idle worker, {durability}, median',
            5,
            False,
            fact('celery', peer, name, 'p50_us', factor=0.001),
            'ms',
            between="Most of it is Celery's own way: from its loop to its pool, by a pipe, and back.",
        )
        for durability, peer, name in (
            ('lazy', 'redis', 'ours-kombu'),
            ('full', 'rabbitmq-confirms', 'ours-kombu-full'),
        )
    ),
    Target(
        'cost of a message at 1,000,000 waiting / at 1,000',
        1.5,
        False,
        ratio('depth', _DEEPEST, 'ours', 'ours'),
        floor=ratio('depth', _DEEPEST, 'floor', 'floor'),
        between=_DEEP,
    ),
    Target(
        'three-stage pipeline with exactly-once hand-off, lazy, in life cycles',
        5,
        False,
        ratio('own', 'pipeline, emitted', 'ours', 'ours'),
        floor=lambda _results: 3.0,
        between=_HAND_OFF,
    ),
    Target(
        'wake-up, median',
        0.5,
        False,
        fact('wakeup', 'runner', 'p50_us', factor=0.001),
        'ms',
        fact('wakeup', 'bare', 'p50_us', factor=0.001),
        'A bare process that wakes by inotify is the floor; a runner also lists, claims and reads.',
    ),
    Target(
        'wake-up, 99th percentile',
        5,
        False,
        fact('wakeup', 'runner', 'p99_us', factor=0.001),
        'ms',
        fact('wakeup', 'bare', 'p99_us', factor=0.001),
        'Where the bare process is late too, it was the machine; what is beyond it is ours.',
    ),
    Target(
        'master and 16 idle runners, PSS',
        60,
        False,
        fact('footprint', 'pss_mb'),
        'MB',
        fact('footprint', 'bare_pss_mb'),
        'Seventeen interpreters that have loaded nothing and share what the system shares, the floor, take 68 MB; ours with all that a runner loads take 72. What a forked runner shares with its master becomes its own when it '
        "is written to, and counting a reference is writing: a function that runs for the first time makes five to ten pages (20 to 40 KB) its own. Done: what each runner made first is made by the master before the forks, and it takes a runner's first turn, at an empty queue, and puts the code of that side by side, with that of a child's first steps; fewer functions run on the way to an "
        'idle loop: 97 MB before. Tried in vain: filling the holes between objects; `gc.freeze` saves 1 MB.',
    ),
    Target(
        'start to 16 runners ready',
        0.5,
        False,
        fact('footprint', 'start', 'b_us', factor=1e-6),
        's',
        fact('footprint', 'start', 'a_us', factor=1e-6),
        'Two cores start seventeen processes.',
    ),
    Target(
        "a program's messages a second, five tabs of the desk open / none, a million waiting",
        0.95,
        True,
        fact('desk', 'ratio', 'median'),
        between=_DESK,
    ),
    Target(
        'first byte of the slowest page of the desk, a million waiting and 100,000 bad',
        1,
        False,
        _slowest_first_byte,
        's',
        between=_DESK,
    ),
    Target(
        'bin/drop / python3 -c pass',
        1.5,
        False,
        ratio('start', 'one mail', 'python3 -c pass', 'bin/drop'),
        floor=quotient(
            ratio('start', 'one mail', 'python3 -c pass', 'bin/drop'),
            ratio('start', 'one mail', 'python3 -I -S -c pass', 'bin/drop'),
        ),
        between='The floor is an interpreter without site-packages; a shell, two dozen modules and two syncs come on top.',
    ),
)


def took(target: Target, results: Results) -> str:
    """:return: what each side of a target's comparison took for a message; nothing for a number that is no comparison."""
    find = target.find
    if not isinstance(find, Ratio):
        return ''
    figure = find.figure(results)
    if figure is None:
        return ''
    sides = [(_title(find.a), figure['a_us']), (_title(find.b), figure['b_us'])]
    if find.a == find.b:
        sides = [('the one', figure['a_us']), ('the other', figure['b_us'])]
    floor = time_of(find.group, find.case, find.a, find.a.replace('ours', 'floor'))(results)
    if floor is not None and not find.b.startswith('floor'):
        sides.append(('the floor', floor))
    text = ', '.join(f'{title} {us:,.0f} µs' for title, us in sides)
    cpu = figure['extra'].get('cpu')
    return text + (f'; in processor time {cpu["ratio"]:.2f}' if cpu and find.measure == 'time' else '')


def _title(name: str) -> str:
    return ENTRANTS[name].title if name in ENTRANTS else f'`{name}`'


def verdicts(results: Results) -> list[dict[str, Any]]:
    """:return: each target with what this run has shown, and whether that reaches it; None where it was not measured."""
    return [
        {
            'name': target.name,
            'goal': f'{">=" if target.at_least else "<="} {target.goal:g} {target.unit}'.rstrip(),
            'value': value,
            'floor': target.floor(results) if target.floor and value is not None else None,
            'unit': target.unit,
            'met': None if value is None else target.is_met(value),
            'between': target.between,
            'took': took(target, results),
            **{
                measure: target.find.by(measure)(results) if isinstance(target.find, Ratio) else None
                for measure in MEASURES
            },
            'elsewhere': {name: target.find(there) for name, there in results.get('elsewhere', {}).items()},
        }
        for target in TARGETS
        for value in [target.find(results)]
    ]
