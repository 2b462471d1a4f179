"""How long a process has lived, whatever became of the wall clock meanwhile."""

from __future__ import annotations

import subprocess

from switchboard.status.alive import process_age_s


def lived_of(title: str, *wall_clock_s: float) -> list[float]:
    """Ask of a process that has this title."""
    pipe = subprocess.PIPE
    with subprocess.Popen([title], executable='/bin/cat', stdin=pipe, stdout=pipe, bufsize=0) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        # Its title stands a moment after the program was begun: one that answers has it.
        child.stdin.write(b'?')
        assert child.stdout.read(1) == b'?'
        found = [process_age_s(child.pid, each_s) for each_s in wall_clock_s]
        child.communicate(b'')
    return found


def test_the_kernel_knows_how_long_a_process_has_lived() -> None:
    # The wall clock was set back by an hour, or on by as much, since it began.
    assert all(0 <= each < 3000 for each in lived_of('switchboard: in 1/1', -3600.0, 3600.0))


def test_of_one_that_is_not_seen_from_here_the_wall_clock_has_to_do() -> None:
    assert process_age_s(1 << 30, 5.0) == 5.0
    assert process_age_s(1 << 30, -3600.0) == 0.0


def test_a_stranger_with_its_number_as_in_another_pid_namespace_says_nothing_of_it() -> None:
    assert lived_of('cat', 12345.0, -3600.0) == [12345.0, 0.0]
