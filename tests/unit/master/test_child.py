"""A runner and its programs die with the master, by each of the means alone."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from switchboard.master import child
from tests.helpers import processes


def pause_for_ever() -> None:
    while True:
        signal.pause()


def a_master_with_a_runner(*, dead_at_once: bool = False) -> tuple[int, int, int]:
    """:return: the pids of a master, of its runner and of the runner's program."""
    reading, writing = os.pipe()
    master = os.fork()
    if master == 0:
        try:
            line, held = os.pipe()
            parent = os.getpid() + (1 if dead_at_once else 0)
            if os.fork() == 0:
                os.close(held)
                os.setsid()
                program = subprocess.Popen(['sleep', '600'])
                os.write(writing, f'{os.getpid()} {program.pid}\n'.encode())
                child.die_with(parent, line)
                os.write(writing, b'tied\n')
            pause_for_ever()
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as stream:
        runner, program_pid = map(int, stream.readline().split())
        if not dead_at_once:
            assert stream.readline() == 'tied\n'
    return master, runner, program_pid


def ends(pid: int) -> bool:
    return processes.ends(pid, 60)


@pytest.mark.parametrize(
    ('means', 'reaches_programs'),
    [('both', True), ('death signal', False), ('owner', True), ('handler', True)],
)
def test_each_means_ends_the_runner(
    monkeypatch: pytest.MonkeyPatch, means: str, *, reaches_programs: bool
) -> None:
    if means in ('owner', 'handler'):
        monkeypatch.setattr(child, 'LIBC', None)
    if means == 'handler':
        monkeypatch.setattr(child, 'F_SETSIG', None)
    if means == 'death signal':
        monkeypatch.setattr(child, 'tie_group_to_lifeline', refuse)
    master, runner, program = a_master_with_a_runner()
    os.kill(master, signal.SIGKILL)
    os.waitpid(master, 0)
    assert ends(runner)
    if not reaches_programs:
        os.kill(program, signal.SIGKILL)
    assert ends(program)


def refuse(_lifeline: int) -> None:
    raise PermissionError


def test_without_any_means_a_runner_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, 'LIBC', None)
    monkeypatch.setattr(child, 'tie_group_to_lifeline', refuse)
    with pytest.raises(PermissionError):
        child.die_with(os.getppid(), 0)


def test_a_runner_whose_master_died_before_it_was_tied_ends_itself() -> None:
    master, runner, program = a_master_with_a_runner(dead_at_once=True)
    assert ends(runner)
    os.kill(program, signal.SIGKILL)
    os.kill(master, signal.SIGKILL)
    os.waitpid(master, 0)
