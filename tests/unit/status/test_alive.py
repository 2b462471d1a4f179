"""How long a process has lived, whatever became of the wall clock meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys

from switchboard.status.alive import lived_s


def test_the_kernel_knows_how_long_a_process_has_lived() -> None:
    with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as child:
        # The wall clock was set back by an hour, or on by as much, since it began.
        lived = [lived_s(child.pid, by_the_wall_clock_s) for by_the_wall_clock_s in (-3600.0, 3600.0)]
        child.communicate(b'\n')
    assert all(0 <= each < 3000 for each in lived)
    assert lived_s(os.getpid(), -3600.0) >= lived[0]


def test_of_one_that_is_not_seen_from_here_the_wall_clock_has_to_do() -> None:
    assert lived_s(1 << 30, 5.0) == 5.0
    assert lived_s(1 << 30, -3600.0) == 0.0
