"""Operations on one entry: claiming it, working on it, ending it."""

from __future__ import annotations

import contextlib
import os

from switchboard.errors import CorruptEntryError, EntryExpiredError
from tests.faults.harness.world import DAMAGED, World
from tests.faults.operations.entering import open_alone
from tests.faults.operations.operation import operation


def enqueue_a(world: World) -> None:
    world.kept['a'] = world.queue('in').enqueue('a')


@operation('dequeue', 'a', 'a', prepare=enqueue_a)
def dequeue(world: World) -> None:
    world.queue('in').dequeue(world.kept['a'])


@operation('take', 'a b', 'a b', prepare=lambda world: world.queue('in').enqueue_many(['a', 'b']))
def take(world: World) -> None:
    world.kept['taken'] = world.queue('in').take()


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
        world.queue('in').dequeue(world.kept['a'])


def enqueue_expired(world: World) -> None:
    world.kept['a'] = world.queue('in').enqueue('a', ttl=0)


@operation('dequeue an expired entry', 'a', {'bad': ('a',)}, prepare=enqueue_expired, repeatable=False)
def dequeue_expired(world: World) -> None:
    with contextlib.suppress(EntryExpiredError):
        world.queue('in').dequeue(world.kept['a'])


def claim_a(world: World) -> None:
    world.kept['a'] = world.claimed('a')


@operation('finish', 'a', '', prepare=claim_a)
def finish(world: World) -> None:
    world.queue('in').finish(world.kept['a'])


@operation('finish what nobody claimed', 'a', '', prepare=enqueue_a)
def finish_unclaimed(world: World) -> None:
    world.queue('in').finish(world.kept['a'])


def claim_alone(world: World) -> None:
    open_alone(world)
    queue = world.kept['queue']
    world.kept['a'] = queue.enqueue('a')
    queue.dequeue(world.kept['a'])


@operation('finish, without a spool', 'a', '', prepare=claim_alone)
def finish_alone(world: World) -> None:
    world.kept['queue'].finish(world.kept['a'])


@operation('preserve', 'a', {'bad': ('a',)}, prepare=claim_a)
def preserve(world: World) -> None:
    world.queue('in').finish(world.kept['a'], preserve=True, reason='told to')


@operation(
    'preserve, with dead letters elsewhere',
    {'dying': ('a',)},
    {'out': ('a',)},
    prepare=lambda world: (world.configured(), world.kept.update(a=world.claimed('a', 'dying'))),
    # If the other queue cannot have it, the bad queue gets it.
    between=({'bad': ('a',)},),
)
def preserve_elsewhere(world: World) -> None:
    world.queue('dying').finish(world.kept['a'], preserve=True, reason='told to')


@operation('release', 'a', 'a', prepare=claim_a)
def release(world: World) -> None:
    world.queue('in').release(world.kept['a'], delay_s=0.001, record={'event': 'failed'})


@operation('annotate', 'a', 'a', prepare=claim_a)
def annotate(world: World) -> None:
    world.queue('in').annotate(world.kept['a'], {'event': 'noted', 'text': 'x' * 1000})


@operation('keep with another body', 'a', 'A', prepare=claim_a, durable=True)
def keep_changed(world: World) -> None:
    queue = world.queue('in')
    transaction = world.spool.transaction(queue, world.kept['a'])
    try:
        transaction.keep('A', {})
    except BaseException:
        transaction.discard()
        raise
