"""Operations by which one entry becomes others, as one step."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from switchboard.options import RunnerOptions
from switchboard.runner.runner import Runner
from tests.faults.harness.world import World, hand_on, state
from tests.faults.operations.operation import operation
from tests.faults.operations.working import claim_a


@operation('hand-off, no output', 'a', '', prepare=claim_a)
def hand_off_nothing(world: World) -> None:
    hand_on(world.spool, world.queue('in'), world.kept['a'], {})


@operation('hand-off, 1 output', 'a', {'out': ('b',)}, prepare=claim_a, durable=True)
def hand_off_one(world: World) -> None:
    hand_on(world.spool, world.queue('in'), world.kept['a'], {'out': ['b']})


@operation(
    'hand-off, 5 outputs',
    'a',
    {'out': ('b', 'c'), 'left': ('d', 'e'), 'in': ('f',)},
    prepare=claim_a,
    durable=True,
)
def hand_off_five(world: World) -> None:
    outputs = {'out': ['b', 'c'], 'left': ['d', 'e'], 'in': ['f']}
    hand_on(world.spool, world.queue('in'), world.kept['a'], outputs)


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
            transactions.append(world.spool.transaction(world.queue('in'), filebase))
            transactions[-1].emit(world.queue('out'), body, {})
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
    world.queue('in').enqueue_many(['a', 'b', 'c'])
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
    transaction = world.spool.transaction(world.queue('in'), world.kept['a'])
    try:
        transaction.forward(*(world.queue(name) for name in queues))
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
