"""Operations on what a queue cannot keep: dead letters, a full queue whose oldest makes room, and what was there before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from switchboard.errors import QueueFullError
from tests.faults.harness.world import DAMAGED, World, state
from tests.faults.operations.operation import operation

IN_BAD = state(bad='a')


def claimed_in(queue: str) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        world.configured()
        world.kept['a'] = world.claimed('a', queue)

    return prepare


# What cannot be brought to where dead letters go is preserved.
@operation('dead letter', state(dying='a'), state(out='a'), prepare=claimed_in('dying'), between=(IN_BAD,))
def dead_letter(world: World) -> None:
    world.queue('dying').finish(world.kept['a'], preserve=True)


@operation(
    'dead letter to three queues',
    state(fanned='a'),
    state(left='a', middle='a', right='a'),
    prepare=claimed_in('fanned'),
    between=(IN_BAD,),
)
def dead_letter_to_three_queues(world: World) -> None:
    world.queue('fanned').finish(world.kept['a'], preserve=True)


def filled(queue: str) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        world.configured()
        world.queue(queue).enqueue('a')
        world.queue('out')

    return prepare


# A crash, or an error, between the two steps has made room for nobody.  After a power cut the old name may be there again, though
# its file holds the new message by now: it is found to be damaged, as any finished entry is whose file was used again.  Before it has
# returned, the new name may be there without its content, as that of any message, and the old one still beside it.
@operation(
    'push the oldest out',
    state(ring='a'),
    state(ring='b'),
    prepare=filled('ring'),
    between=(state(ring=''), state(ring=DAMAGED), state(ring=f'a {DAMAGED}')),
    undone=(state(ring='a b'), state(ring=f'b {DAMAGED}')),
    durable=True,
)
def push_the_oldest_out(world: World) -> None:
    world.queue('ring').enqueue('b')


@operation(
    'push the oldest to the dead letters',
    state(pushed='a'),
    state(pushed='b', out='a'),
    prepare=filled('pushed'),
    between=(state(out='a'), IN_BAD, state(pushed='b', bad='a')),
    undone=(state(pushed='a b'),),
)
def push_the_oldest_to_the_dead_letters(world: World) -> None:
    world.queue('pushed').enqueue('b')


def input_for_a_full_queue(world: World) -> None:
    filled('ring')(world)
    world.kept['input'] = world.claimed('input')


# Room is made when the outputs are written, and before the commit.
@operation(
    'hand-off that pushes the oldest out',
    state(**{'in': 'input', 'ring': 'a'}),
    state(ring='b', out='c'),
    prepare=input_for_a_full_queue,
    between=(state(**{'in': 'input'}), state(**{'in': 'input', 'ring': DAMAGED})),
    undone=(state(ring='a b', out='c'), state(ring=f'b {DAMAGED}', out='c')),
)
def hand_off_that_pushes_the_oldest_out(world: World) -> None:
    transaction = world.spool.transaction(world.queue('in'), world.kept['input'])
    try:
        transaction.emit(world.queue('ring'), 'b', {})
        transaction.emit(world.queue('out'), 'c', {})
    except BaseException:
        transaction.discard()
        raise
    transaction.commit()


@operation(
    'publish to two queues, and push the oldest out of one',
    state(ring='a'),
    state(ring='b', out='b'),
    prepare=filled('ring'),
    between=(state(), state(ring=DAMAGED)),
    undone=(state(ring='a b', out='b'), state(ring=f'b {DAMAGED}', out='b')),
    durable=True,
)
def publish_and_push_the_oldest_out(world: World) -> None:
    world.spool.publish('b', exchange='full')


# Whatever fails in it, nothing has gone for what does not come.
@operation(
    'batch that does not fit, and pushes nothing out',
    state(ring='a'),
    state(ring='a'),
    prepare=filled('ring'),
)
def batch_that_does_not_fit(world: World) -> None:
    with suppress(QueueFullError):
        world.queue('ring').enqueue_many(['b', 'c'])


@operation('enqueue once', after='a', prepare=lambda world: world.queue('in'), durable=True)
def enqueue_once(world: World) -> None:
    world.queue('in').enqueue('a', dedupe_key='k')


@operation('enqueue what was there', 'a', 'a', prepare=enqueue_once, durable=True)
def enqueue_what_was_there(world: World) -> None:
    world.queue('in').enqueue('b', dedupe_key='k')


def enqueue_once_and_finish(world: World) -> Any:
    enqueue_once(world)
    filebase = world.queue('in').files[0]
    world.queue('in').dequeue(filebase)
    world.queue('in').finish(filebase)


@operation('enqueue what was there and is done', '', '', prepare=enqueue_once_and_finish)
def enqueue_what_was_there_and_is_done(world: World) -> None:
    world.queue('in').enqueue('b', dedupe_key='k')
