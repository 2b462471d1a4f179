"""Operations in which a directory is renewed, or was, by somebody else, while it was open here."""

from __future__ import annotations

from typing import Any

from switchboard.errors import SwitchboardError
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.testing.faults import FaultyDisk
from tests.faults.harness.world import World, hand_on
from tests.faults.operations.operation import operation
from tests.faults.operations.working import claim_a, finish, preserve
from tests.large_directories import GrowingDisk, grow_and_renew


def grow(world: World, *places: str) -> None:
    """Have the disk below say that these directories have grown."""
    growing = GrowingDisk()
    disk: Any = world.disk
    if isinstance(disk, FaultyDisk) and type(disk.disk) is Disk:
        disk.disk = growing
    else:  # what loses its power is to see all that is done
        (disk.disk if isinstance(disk, FaultyDisk) else disk).fstat = growing.fstat
    for place in places:
        growing.grow(Folder(world.path / place, Disk()))


def renew(world: World, *places: str) -> None:
    """Have somebody else renew what this process has open."""
    for place in places:
        folder = Folder(world.path / place, Disk())
        folder.make()
        for draft in folder.names():  # what is kept open for the next message keeps `.spare`
            Disk().unlink(draft, dir_fd=folder.fd)
        grow_and_renew(folder)


def grow_an_empty_queue(world: World) -> None:
    world.queue('in')
    grow(world, 'in')


@operation('renew a queue', after='a', prepare=grow_an_empty_queue, durable=True)
def renew_and_enqueue(world: World) -> None:
    assert world.queue('in').take() is None
    world.queue('in').enqueue('a')


def take_a_from_a_grown_queue(world: World) -> None:
    queue = world.queue('in')
    grow(world, 'in')
    queue.enqueue('a')
    taken = queue.take()
    assert taken is not None
    world.kept['a'] = taken.filebase


operation('finish, and renew a queue', 'a', '', prepare=take_a_from_a_grown_queue)(finish)


def grow_what_all_share(world: World) -> None:
    world.queue('in')
    world.queue('bad')
    world.spool.pool.close()
    grow(world, '.spare', '.stage', 'bad')


@operation(
    'renew what all queues share',
    after='a',
    prepare=grow_what_all_share,
    errors=(SwitchboardError, OSError),
    durable=True,
)
def renew_empty_directories(world: World) -> None:
    world.spool.renew_empty_directories()
    world.queue('in').enqueue('a')


@operation(
    'enqueue in a renewed queue',
    after='a',
    prepare=lambda world: (world.queue('in'), renew(world, 'in', '.spare')),
    durable=True,
)
def enqueue_in_a_renewed_queue(world: World) -> None:
    world.queue('in').enqueue('a')


@operation(
    'take from a renewed queue',
    'a',
    'a',
    prepare=lambda world: (
        world.queue('in'),
        renew(world, 'in'),
        World(world.directory, clock=world.clock).queue('in').enqueue('a'),
    ),
)
def take_from_a_renewed_queue(world: World) -> None:
    world.queue('in').take()


def claim_and_renew(*places: str) -> Any:
    def prepare(world: World) -> None:
        claim_a(world)
        world.queue('out')
        renew(world, *places)

    return prepare


operation('finish into renewed spares', 'a', '', prepare=claim_and_renew('.spare'))(finish)
operation('preserve in a renewed bad queue', 'a', {'bad': ('a',)}, prepare=claim_and_renew('bad'))(preserve)


@operation(
    'hand on over a renewed stage to a renewed queue',
    'a',
    {'out': ('b', 'c')},
    prepare=claim_and_renew('.stage', 'out', '.spare'),
    durable=True,
)
def hand_on_where_all_was_renewed(world: World) -> None:
    hand_on(world.spool, world.queue('in'), world.kept['a'], {'out': ['b', 'c']})
