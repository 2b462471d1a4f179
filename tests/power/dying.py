"""A process dies in a hand-off, and another one goes on with what it has left.

The input is on the disk for long: that is where Btrfs would keep a name that nobody has flushed away.
"""

from __future__ import annotations

import contextlib
import os

from switchboard import Spool
from switchboard.queue.switchboard import Switchboard
from switchboard.store.disk import Disk
from switchboard.testing.faults import FaultyDisk, Killed

# Two outputs are staged, then the input is renamed, then the outputs: the rename in which the first process dies, or after which it dies in the next call.
STEPS = {
    'before the commit': (3, 0),
    'before the record is flushed': (3, 1),
    'between the outputs': (5, 0),
    'before the outputs are flushed': (5, 1),
}
COUNTED = ('rename', 'fsync', 'fdatasync', 'syncfs')


def opened(directory: str, mode: str, disk: Disk) -> tuple[Spool, dict[str, Switchboard]]:
    """:return: a process's view of a spool."""
    spool = Spool(directory, disk=disk)
    keys = {'directory_sync': 'always'} if mode == 'two' else {}
    return spool, {name: spool.queue(name, **keys) for name in ('in', 'out', 'notes', 'next')}


def hand_on(directory: str, mode: str, die_in: int) -> list[str]:
    """Hand a message on, with two outputs, and die in a call of the commit.

    :param die_in: which one; 0: in none.
    :return: the names of its calls.
    """
    disk = FaultyDisk(sync=True)
    spool, queues = opened(directory, mode, disk)
    queues['in'].enqueue('input')
    os.sync()
    taken = queues['in'].take()
    assert taken is not None
    transaction = spool.transaction(queues['in'], taken.filebase)
    transaction.emit(queues['out'], 'output', {})
    transaction.emit(queues['notes'], 'note', {})
    disk.calls, disk.kill = COUNTED, 'simulated'
    disk.arm(die_in)
    with contextlib.suppress(Killed):
        transaction.commit()
    assert bool(disk.failed_call) == bool(die_in)
    calls = [name for name in disk.trace if name in COUNTED]
    disk.end_process()
    return calls


def call_of(step: str, calls: list[str]) -> int:
    """:return: the number of the call that a step is."""
    rename, more = STEPS[step]
    return [number for number, call in enumerate(calls, 1) if call == 'rename'][rename - 1] + more


def go_on(directory: str, mode: str) -> None:
    """Recover, and use the files of what is finished for the next messages."""
    spool, queues = opened(directory, mode, Disk())
    spool.recover()
    queues['next'].enqueue_many(['next'] * 3)


def die_and_go_on(directory: str, mode: str, step: str) -> None:
    """Die in a step of a hand-off; when this returns, all that was done after it is promised, and the power may go."""
    hand_on(directory, mode, call_of(step, hand_on(f'{directory}.trial', mode, 0)))
    go_on(directory, mode)
