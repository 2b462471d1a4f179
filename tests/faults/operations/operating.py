"""Operations of operators, and of producers and runners whose messages are to be stored once."""

from __future__ import annotations

from typing import Any

from switchboard.message.naming import PRESERVED, READY
from switchboard.operating.acts import ChosenEntry, OperatorSession, Remove, Restore
from switchboard.operating.audit import Operator
from switchboard.operating.editing import Editing
from switchboard.operating.holding import hold, release
from switchboard.operating.spool_view import SpoolView
from switchboard.store.layout import TRASH
from tests.faults.harness.world import World, state
from tests.faults.operations.operation import operation, subsets
from tests.faults.operations.working import claim_a

FANNED_OUT = {'left': ('a',), 'middle': ('a',), 'right': ('a',)}


def enqueue_a(world: World) -> None:
    world.kept['a'] = world.queue('in').enqueue('a')


@operation('hold', 'a', 'a', prepare=enqueue_a)
def hold_a(world: World) -> None:
    hold(world.queue('in'), world.kept['a'], reason='why')


def enqueue_and_hold(world: World) -> None:
    enqueue_a(world)
    world.kept['a'] = hold(world.queue('in'), world.kept['a'])


@operation('let go', 'a', 'a', prepare=enqueue_and_hold)
def let_go_a(world: World) -> None:
    release(world.queue('in'), world.kept['a'])


@operation('edit', 'a', 'b', prepare=enqueue_a, durable=True)
def edit(world: World) -> None:
    with Editing(world.spool, 'in', world.kept['a']) as editing:
        editing.store({'key': 'value'}, b'b')


def enqueue_and_operate(world: World) -> None:
    enqueue_a(world)
    session = world.kept['session'] = OperatorSession(
        SpoolView(world.path, None), world.spool, Operator('ann')
    )
    session.unconfigured_spool[TRASH].folder.open()


@operation('remove to the trash', 'a', {TRASH: ('a',)}, prepare=enqueue_and_operate)
def remove(world: World) -> None:
    Remove()(world.kept['session'], ChosenEntry('in', world.kept['a'], READY))


def enqueue_and_remove(world: World) -> None:
    enqueue_and_operate(world)
    remove(world)


@operation('restore', {TRASH: ('a',)}, 'a', prepare=enqueue_and_remove)
def restore(world: World) -> None:
    Restore()(world.kept['session'], ChosenEntry(TRASH, world.kept['a'], PRESERVED, return_queue='in'))


def enqueue_three(world: World) -> None:
    world.queue('in').enqueue_many(['a', 'b', 'c'])


@operation('purge', 'a b c', '', prepare=enqueue_three, between=subsets('a b c'))
def purge(world: World) -> None:
    world.spool.purge('in')


def emit_once(world: World) -> Any:
    transaction = world.spool.transaction(world.queue('in'), world.kept['a'])
    try:
        transaction.emit_all([world.queue('out')], 'A', {'dedupe_key': 'k'})
    except BaseException:
        transaction.discard()
        raise
    for error in world.spool.commit_all([transaction]).values():
        raise error


@operation('hand off once', 'a', {'out': ('A',)}, prepare=claim_a, durable=True)
def hand_off_once(world: World) -> None:
    emit_once(world)


def emit_and_claim_another(world: World) -> None:
    claim_a(world)
    emit_once(world)
    claim_a(world)


@operation(
    'hand off what was there',
    {'in': ('a',), 'out': ('A',)},
    state(out='A'),
    prepare=emit_and_claim_another,
)
def hand_off_what_was_there(world: World) -> None:
    emit_once(world)


@operation(
    'publish once to three queues',
    '',
    FANNED_OUT,
    prepare=lambda world: [world.configured()[name] for name in FANNED_OUT],
    durable=True,
)
def publish_once(world: World) -> None:
    world.spool.publish('a', exchange='all', dedupe_key='k')
