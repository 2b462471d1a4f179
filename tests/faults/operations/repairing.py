"""Operations that repair what the dead left, and those of operators."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from switchboard.errors import SwitchboardError
from switchboard.handoff.moving import claim_ready_or_preserved, move, send_back
from switchboard.store.claims import OWN_CLAIMS
from switchboard.testing.faults import FaultyDisk, Killed
from tests.faults.harness.world import World, hand_on, state
from tests.faults.operations.operation import operation
from tests.faults.operations.working import claim_a, dequeue, enqueue_a, preserve


def die_at(world: World, call: str, number: int, act: Callable[[World], Any], first: Any) -> None:
    """Let another process begin something and die in it."""
    disk = FaultyDisk()
    doomed = World(world.directory, disk, world.clock)
    first(doomed)
    disk.calls, disk.kill = (call,), 'simulated'
    disk.arm(number)
    with contextlib.suppress(Killed):
        act(doomed)
    assert disk.failed_call
    disk.end_process()


def die_with_claim(world: World, times: int = 1) -> None:
    die_at(world, 'pread', 1, dequeue, enqueue_a)
    world.queue('in')
    for _ in range(times - 1):
        queue = World(world.directory, clock=world.clock).queue('in')
        queue.recover_backup_files()
        queue.dequeue(queue.get_files()[0])
        for claim in list(OWN_CLAIMS.values()):
            claim.close()


# A file that can only be read cannot count how often its owners died, and is preserved at the first time.
@operation('recover a claim', 'a', 'a', prepare=die_with_claim, between=({'bad': ('a',)},))
def recover_claim(world: World) -> None:
    world.queue('in').recover_backup_files()


@operation(
    'recover a claim the third time',
    {'bad': ('a',)},
    {'bad': ('a',)},
    prepare=lambda world: die_with_claim(world, 3),
)
def recover_claim_the_third_time(world: World) -> None:
    world.queue('in').recover_backup_files()


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
            hand_on(doomed.spool, doomed.queue('in'), doomed.kept['a'], {'out': ['b', 'c']})

        die_at(world, 'rename', number, act, claim_a)
        world.queue('in')

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
    send_back(world.queue('bad'), world.kept['a'], world.queue('in'))


def enqueue_to_move(world: World) -> None:
    enqueue_a(world)
    world.kept['out'] = world.queue('out')


@operation('move', 'a', {'out': ('a',)}, prepare=enqueue_to_move)
def move_to_another_queue(world: World) -> None:
    queue = world.queue('in')
    move(claim_ready_or_preserved(queue, world.kept['a']), queue, world.kept['out'])
