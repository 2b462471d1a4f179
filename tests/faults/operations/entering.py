"""Operations by which messages come into a queue."""

from __future__ import annotations

from pathlib import Path

from switchboard.drop.program import Drop
from switchboard.drop.request import DropRequest
from switchboard.errors import SwitchboardError
from switchboard.queue.switchboard import Switchboard
from tests.faults.harness.world import World
from tests.faults.operations.operation import operation, subsets


@operation('enqueue', after='a', prepare=lambda world: world.queue('in'), durable=True)
def enqueue(world: World) -> None:
    world.queue('in').enqueue('a')


@operation('enqueue in a new spool', after='a', errors=(SwitchboardError, OSError), durable=True)
def enqueue_in_a_new_spool(world: World) -> None:
    world.spool['in'].enqueue('a')


def finish_one(world: World) -> None:
    world.queue('in').finish(world.claimed('old'))


@operation('enqueue in a spare', after='a', prepare=finish_one, durable=True)
def enqueue_in_a_spare(world: World) -> None:
    world.queue('in').enqueue('a', clock='set back')


def leave_spares(world: World) -> None:
    """FilePool that no process keeps open, as those of one that has ended."""
    for _ in range(3):
        finish_one(world)
    world.spool.pool.close()
    world.spool.pool.misses = 1000


@operation("enqueue in another's spare", after='a', prepare=leave_spares, durable=True)
def enqueue_in_anothers_spare(world: World) -> None:
    world.queue('in').enqueue('a')


def open_alone(world: World) -> None:
    world.kept['queue'] = Switchboard('in', world.path / 'in', disk=world.disk)


@operation('enqueue, without a spool', after='a', prepare=open_alone, durable=True)
def enqueue_alone(world: World) -> None:
    world.kept['queue'].enqueue('a')


@operation(
    'batch of three',
    after='a b c',
    between=subsets('a b c'),
    prepare=lambda world: world.queue('in'),
    durable=True,
)
def batch(world: World) -> None:
    world.queue('in').enqueue_many(['a', 'b', 'c'])


@operation(
    'enqueue with a limit',
    after={'few': ('a',)},
    prepare=lambda world: world.configured()['few'].enqueue,
    durable=True,
)
def enqueue_with_a_limit(world: World) -> None:
    world.queue('few').enqueue('a')


# A mail is there once, be it as the file that was dropped or as an entry.
MAIL = 'Subject: a\n\n'


def drop_file(world: World) -> None:
    queue = world.configured()['in']
    Path(queue.queue_directory, 'a.eml').write_text(MAIL)


@operation(
    'adopt a dropped file',
    {'in': (MAIL,)},
    {'in': (MAIL,)},
    prepare=drop_file,
    durable=True,
    knows_inodes=True,
)
def adopt_file(world: World) -> None:
    world.queue('in').take()


def deliver_to_maildir(world: World) -> None:
    queue = world.configured()['letters']
    Path(queue.queue_directory, 'new', '1.a.host').write_text(MAIL)


@operation(
    'adopt a mail from a maildir',
    {'letters': (MAIL,)},
    {'letters': (MAIL,)},
    prepare=deliver_to_maildir,
    durable=True,
    knows_inodes=True,
)
def adopt_mail(world: World) -> None:
    world.queue('letters').take()


def call_the_door(world: World) -> None:
    world.configured()['in']
    world.kept['mail'] = world.directory / 'mail'
    world.kept['mail'].write_text(MAIL)


@operation(
    "the mail servers' door",
    '',
    {'in': (MAIL,)},
    prepare=call_the_door,
    errors=(SwitchboardError, OSError),
    durable=True,
)
def drop_mail(world: World) -> None:
    drop = Drop(DropRequest(['in']), str(world.path), world.disk)
    drop.check()
    with world.kept['mail'].open() as stdin:
        drop.read(stdin.fileno())
    drop.write_metadata({})
    drop.store(lambda: None)
