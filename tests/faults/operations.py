"""The operations whose every call is made to fail, and what must be there before, after and in between.

Each has two halves: ``prepare`` is never struck, ``act`` is.  ``before`` and ``after`` say what an observer finds
after a restart if the operation did not take place, and if it did; nothing else may ever be found, but for what ``between``
lists, which only a kill may leave.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from switchboard.claims import HELD
from switchboard.errors import CorruptEntryError, EntryExpiredError, SwitchboardError
from switchboard.moving import claim_any, move, send_back
from switchboard.options import RunnerOptions
from switchboard.runner import Runner
from switchboard.switchboard import Switchboard
from switchboard.testing.faults import FaultyDisk, Killed
from tests.faults.world import DAMAGED, State, World, hand_on, state


@dataclass(frozen=True)
class Operation:
    """See the module."""

    name: str
    act: Callable[[World], Any]
    before: State
    after: State
    prepare: Callable[[World], Any] = lambda world: None
    between: Sequence[State] = field(default_factory=tuple)
    # What may be raised: opening a spool may say what the operating system says.
    errors: tuple[type[Exception], ...] = (SwitchboardError,)
    # May the same process do it again after an error?
    repeatable: bool = True
    # Is it on the disk when it returns?  The others are one rename, which a power cut may undo, and no more.
    durable: bool = False

    def __str__(self) -> str:
        return self.name


OPERATIONS: list[Operation] = []


def operation(
    name: str, before: str | State = '', after: str | State = '', **keys: Any
) -> Callable[[Callable[[World], Any]], Callable[[World], Any]]:
    """Add an operation; a text says what is in the queue ``in``."""

    def add(act: Callable[[World], Any]) -> Callable[[World], Any]:
        first = state(**{'in': before}) if isinstance(before, str) else before
        last = state(**{'in': after}) if isinstance(after, str) else after
        OPERATIONS.append(Operation(name, act, first, last, **keys))
        return act

    return add


def subsets(bodies: str, queue: str = 'in') -> list[State]:
    """Every choice of these messages."""
    names = bodies.split()
    return [
        state(**{queue: ' '.join(some)}) for n in range(len(names) + 1) for some in combinations(names, n)
    ]


# In.


@operation('enqueue', after='a', prepare=lambda world: world.board('in'), durable=True)
def enqueue(world: World) -> None:
    world.board('in').enqueue('a')


@operation('enqueue in a new spool', after='a', errors=(SwitchboardError, OSError), durable=True)
def enqueue_in_a_new_spool(world: World) -> None:
    world.spool['in'].enqueue('a')


def finish_one(world: World) -> None:
    world.board('in').finish(world.claimed('old'))


@operation('enqueue in a spare', after='a', prepare=finish_one, durable=True)
def enqueue_in_a_spare(world: World) -> None:
    world.board('in').enqueue('a', clock='set back')


def leave_spares(world: World) -> None:
    """Spares that no process keeps open, as those of one that has ended."""
    for _ in range(3):
        finish_one(world)
    world.spool.spares.close()
    world.spool.spares._misses = 1000


@operation("enqueue in another's spare", after='a', prepare=leave_spares, durable=True)
def enqueue_in_anothers_spare(world: World) -> None:
    world.board('in').enqueue('a')


def open_alone(world: World) -> None:
    world.kept['board'] = Switchboard('in', world.path / 'in', disk=world.disk)


@operation('enqueue, without a spool', after='a', prepare=open_alone, durable=True)
def enqueue_alone(world: World) -> None:
    world.kept['board'].enqueue('a')


@operation(
    'batch of three',
    after='a b c',
    between=subsets('a b c'),
    prepare=lambda world: world.board('in'),
    durable=True,
)
def batch(world: World) -> None:
    world.board('in').enqueue_many(['a', 'b', 'c'])


@operation(
    'enqueue with a limit',
    after={'few': ('a',)},
    prepare=lambda world: world.configured()['few'].enqueue,
    durable=True,
)
def enqueue_with_a_limit(world: World) -> None:
    world.board('few').enqueue('a')


# At work.


def enqueue_a(world: World) -> None:
    world.kept['a'] = world.board('in').enqueue('a')


@operation('dequeue', 'a', 'a', prepare=enqueue_a)
def dequeue(world: World) -> None:
    world.board('in').dequeue(world.kept['a'])


@operation('take', 'a b', 'a b', prepare=lambda world: world.board('in').enqueue_many(['a', 'b']))
def take(world: World) -> None:
    world.kept['taken'] = world.board('in').take()


def enqueue_damaged(world: World) -> None:
    enqueue_a(world)
    path = world.path / 'in' / f'{world.kept["a"]}.pck'
    fd = world.disk.open(str(path), os.O_RDWR)
    world.disk.pwrite(fd, b'b', path.stat().st_size - 1)
    world.disk.close(fd)


@operation(
    'dequeue a damaged entry',
    {'in': (DAMAGED,)},
    {'bad': (DAMAGED,)},
    prepare=enqueue_damaged,
    repeatable=False,
)
def dequeue_damaged(world: World) -> None:
    with contextlib.suppress(CorruptEntryError):
        world.board('in').dequeue(world.kept['a'])


def enqueue_expired(world: World) -> None:
    world.kept['a'] = world.board('in').enqueue('a', ttl=0)


@operation('dequeue an expired entry', 'a', {'bad': ('a',)}, prepare=enqueue_expired, repeatable=False)
def dequeue_expired(world: World) -> None:
    with contextlib.suppress(EntryExpiredError):
        world.board('in').dequeue(world.kept['a'])


def claim_a(world: World) -> None:
    world.kept['a'] = world.claimed('a')


@operation('finish', 'a', '', prepare=claim_a)
def finish(world: World) -> None:
    world.board('in').finish(world.kept['a'])


@operation('finish what nobody claimed', 'a', '', prepare=enqueue_a)
def finish_unclaimed(world: World) -> None:
    world.board('in').finish(world.kept['a'])


def claim_alone(world: World) -> None:
    open_alone(world)
    board = world.kept['board']
    world.kept['a'] = board.enqueue('a')
    board.dequeue(world.kept['a'])


@operation('finish, without a spool', 'a', '', prepare=claim_alone)
def finish_alone(world: World) -> None:
    world.kept['board'].finish(world.kept['a'])


@operation('preserve', 'a', {'bad': ('a',)}, prepare=claim_a)
def preserve(world: World) -> None:
    world.board('in').finish(world.kept['a'], preserve=True, reason='told to')


@operation(
    'preserve, with dead letters elsewhere',
    {'dying': ('a',)},
    {'out': ('a',)},
    prepare=lambda world: (world.configured(), world.kept.update(a=world.claimed('a', 'dying'))),
    # If the other queue cannot have it, the bad queue gets it.
    between=({'bad': ('a',)},),
)
def preserve_elsewhere(world: World) -> None:
    world.board('dying').finish(world.kept['a'], preserve=True, reason='told to')


@operation('release', 'a', 'a', prepare=claim_a)
def release(world: World) -> None:
    world.board('in').release(world.kept['a'], delay_s=0.001, record={'event': 'failed'})


@operation('annotate', 'a', 'a', prepare=claim_a)
def annotate(world: World) -> None:
    world.board('in').annotate(world.kept['a'], {'event': 'noted', 'text': 'x' * 1000})


@operation('keep with another body', 'a', 'A', prepare=claim_a, durable=True)
def keep_changed(world: World) -> None:
    board = world.board('in')
    transaction = world.spool.transaction(board, world.kept['a'])
    try:
        transaction.keep('A', {})
    except BaseException:
        transaction.discard()
        raise


# Hand-off.


@operation('hand-off, no output', 'a', '', prepare=claim_a)
def hand_off_nothing(world: World) -> None:
    hand_on(world.spool, world.board('in'), world.kept['a'], {})


@operation('hand-off, 1 output', 'a', {'out': ('b',)}, prepare=claim_a, durable=True)
def hand_off_one(world: World) -> None:
    hand_on(world.spool, world.board('in'), world.kept['a'], {'out': ['b']})


@operation(
    'hand-off, 5 outputs',
    'a',
    {'out': ('b', 'c'), 'left': ('d', 'e'), 'in': ('f',)},
    prepare=claim_a,
    durable=True,
)
def hand_off_five(world: World) -> None:
    outputs = {'out': ['b', 'c'], 'left': ['d', 'e'], 'in': ['f']}
    hand_on(world.spool, world.board('in'), world.kept['a'], outputs)


def claim_three(world: World) -> None:
    world.kept['inputs'] = [world.claimed(body) for body in 'abc']


@operation(
    'three hand-offs, one flush',
    'a b c',
    {'out': ('A', 'B', 'C')},
    prepare=claim_three,
    between=[
        state(**{'in': ' '.join(set('abc') - set(done)), 'out': ' '.join(done).upper()})
        for n in range(4)
        for done in combinations('abc', n)
    ],
    repeatable=False,
    durable=True,
)
def hand_off_three(world: World) -> None:
    transactions = []
    try:
        for filebase, body in zip(world.kept['inputs'], 'ABC', strict=True):
            transactions.append(world.spool.transaction(world.board('in'), filebase))
            transactions[-1].emit(world.board('out'), body, {})
    except BaseException:
        for transaction in transactions:
            transaction.discard()
        raise
    for error in world.spool.commit_all(transactions).values():
        raise error


class Forwarding(Runner):
    """Emits what it gets, in capitals."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        self.emit('out', msg.upper())
        return False


def wait_for_a_runner(world: World) -> None:
    world.board('in').enqueue_many(['a', 'b', 'c'])
    world.kept['runner'] = Forwarding(world.spool, RunnerOptions('forward', '', 'in', batch_size=2))


@operation(
    'a pass of a runner',
    'a b c',
    {'out': ('A', 'B', 'C')},
    prepare=wait_for_a_runner,
    errors=(),
    between=[
        state(**{'in': ' '.join(set('abc') - set(done)), 'out': ' '.join(done).upper()})
        for n in range(4)
        for done in combinations('abc', n)
    ],
)
def run_once(world: World) -> None:
    world.kept['runner'].run(once=True)


@operation(
    'publish to three queues',
    '',
    {'left': ('a',), 'middle': ('a',), 'right': ('a',)},
    prepare=lambda world: [world.configured()[name] for name in ('left', 'middle', 'right')],
    durable=True,
)
def publish(world: World) -> None:
    world.spool.publish('a', exchange='all')


def forward_to(world: World, *queues: str) -> None:
    transaction = world.spool.transaction(world.board('in'), world.kept['a'])
    try:
        transaction.forward(*(world.board(name) for name in queues))
    except BaseException:
        transaction.discard()
        raise
    transaction.commit()


@operation('forward', 'a', {'out': ('a',)}, prepare=claim_a)
def forward(world: World) -> None:
    forward_to(world, 'out')


@operation(
    'forward to three queues',
    'a',
    {'left': ('a',), 'middle': ('a',), 'right': ('a',)},
    prepare=claim_a,
    durable=True,
)
def forward_to_three(world: World) -> None:
    forward_to(world, 'left', 'middle', 'right')


# Repair.


def die_at(world: World, call: str, number: int, act: Callable[[World], Any], first: Any) -> None:
    """Let another process begin something and die in it."""
    disk = FaultyDisk()
    doomed = World(world.directory, disk)
    first(doomed)
    disk.calls, disk.kill = (call,), 'simulated'
    disk.arm(number)
    with contextlib.suppress(Killed):
        act(doomed)
    assert disk.struck
    disk.bury()


def die_with_claim(world: World, times: int = 1) -> None:
    die_at(world, 'pread', 1, dequeue, enqueue_a)
    world.board('in')
    for _ in range(times - 1):
        board = World(world.directory).board('in')
        board.recover_backup_files()
        board.dequeue(board.get_files()[0])
        for key in list(HELD):
            HELD.pop(key).close()


# A file that can only be read cannot count how often its owners died, and is preserved at the first time.
@operation('recover a claim', 'a', 'a', prepare=die_with_claim, between=({'bad': ('a',)},))
def recover_claim(world: World) -> None:
    world.board('in').recover_backup_files()


@operation(
    'recover a claim the third time',
    {'bad': ('a',)},
    {'bad': ('a',)},
    prepare=lambda world: die_with_claim(world, 3),
)
def recover_claim_the_third_time(world: World) -> None:
    world.board('in').recover_backup_files()


def recover_stage(world: World) -> None:
    world.spool.recover()


# With two outputs, the renames of a hand-off are: output, output, input, output, output, record.
for _number, _what, _found in (
    (3, 'not committed', state(**{'in': 'a'})),
    (4, 'committed', state(out='b c')),
    (5, 'half published', state(out='b c')),
    (6, 'published', state(out='b c')),
):

    def _prepare(world: World, number: int = _number) -> None:
        def act(doomed: World) -> None:
            hand_on(doomed.spool, doomed.board('in'), doomed.kept['a'], {'out': ['b', 'c']})

        die_at(world, 'rename', number, act, claim_a)
        world.board('in')

    operation(
        f'recover a hand-off, {_what}',
        _found,
        _found,
        prepare=_prepare,
        errors=(SwitchboardError, OSError),
    )(recover_stage)


def preserve_a(world: World) -> None:
    claim_a(world)
    preserve(world)


@operation('retry', {'bad': ('a',)}, {'in': ('a',)}, prepare=preserve_a)
def retry(world: World) -> None:
    send_back(world.board('bad'), world.kept['a'], world.board('in'))


def enqueue_to_move(world: World) -> None:
    enqueue_a(world)
    world.board('out')


@operation('move', 'a', {'out': ('a',)}, prepare=enqueue_to_move)
def move_to_another_queue(world: World) -> None:
    board = world.board('in')
    move(claim_any(board, world.kept['a']), board, world.board('out'))


# What a full or failing disk says, and what it means for the one who asked.
ERRORS = {name: getattr(errno, name) for name in ('EIO', 'ENOSPC', 'EDQUOT', 'EROFS', 'EMFILE', 'EACCES')}
