"""Whole runs of runners, each in a process of its own that is killed at every call on its spool.

Only a real death says something of these: what a runner makes of an error is its policy, and is tested where that is; and a simulated
death would be one more error that its hooks catch.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from switchboard.options import RunnerOptions
from switchboard.runner.asyncrunner import AsyncRunner
from switchboard.runner.runner import Runner
from switchboard.runners.command import Command
from tests.faults.harness.world import State, World, state
from tests.faults.operations.operation import Operation


def handed_on(bodies: str, source: str = 'in') -> list[State]:
    """Every state in which each message is where it was, or has been handed on in capitals."""
    return [
        state(**{source: ' '.join(set(bodies) - set(done)), 'out': ' '.join(done).upper()})
        for number in range(len(bodies) + 1)
        for done in combinations(bodies, number)
    ]


class Async(AsyncRunner):
    """Emits what it gets, in capitals, two at a time."""

    async def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        self.emit('out', msg.upper())
        return False


class FromMaildir(Runner):
    """Emits the last letter of a mail, in capitals."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        self.emit('out', bytes(msg)[-1:].decode().upper())
        return False


def wait_for_async(world: World) -> None:
    world.queue('in').enqueue_many(['a', 'b', 'c'])
    options = RunnerOptions('upper', '', 'in', settings={'concurrency': '2'})
    world.kept['runner'] = Async(world.spool, options)


def wait_for_a_program(world: World) -> None:
    world.queue('in').enqueue_many(['a', 'b'])
    settings = {'command': '/usr/bin/tr a-c A-C', 'output_queue': 'out'}
    world.kept['runner'] = Command(world.spool, RunnerOptions('upper', '', 'in', settings=settings))


def wait_for_mails(world: World) -> None:
    world.configured()['letters']
    for letter in 'ab':
        (world.path / 'letters' / 'new' / f'17000000{ord(letter)}.M1P1.host').write_text(f'A: b\n\n{letter}')
    world.kept['runner'] = FromMaildir(world.spool, RunnerOptions('upper', '', 'letters'))


def mails_handed_on() -> list[State]:
    found = []
    for each in handed_on('ab', 'letters'):
        letters = each.pop('letters', ())
        found.append(each | ({'letters': tuple(f'A: b\n\n{one}' for one in letters)} if letters else {}))
    return found


def run_until_empty(world: World) -> None:
    world.kept['runner'].run(until_empty=True)


RUNS = [
    Operation(
        'three messages through an async runner',
        run_until_empty,
        {'in': ('a', 'b', 'c')},
        {'out': ('A', 'B', 'C')},
        wait_for_async,
        handed_on('abc'),
    ),
    Operation(
        'two messages through a program',
        run_until_empty,
        {'in': ('a', 'b')},
        {'out': ('A', 'B')},
        wait_for_a_program,
        handed_on('ab'),
    ),
    Operation(
        'two mails through a maildir and a runner',
        run_until_empty,
        {'letters': ('A: b\n\na', 'A: b\n\nb')},
        {'out': ('A', 'B')},
        wait_for_mails,
        mails_handed_on(),
    ),
]
