"""What idle runners cost: the processor time of all runners for a message, one slice alone, and with eight idle ones beside it.

All messages have one order key, so one slice has all of the work.  Started as a program, this module is one of the runners.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks.cases import TINY, Effort
from tests.benchmarks.pairs import ROOT, ContenderError, Figure, Turn, alternate, figure

IDLE = 8
CASE = 'eight idle slices beside the one that works'
MESSAGES = 300
# How long a runner may take to come to rest, and a message to be worked on.
PATIENCE_S = 10.0
REST_S = 0.7


def _run(directory: str, queue: str, number: int, slices: int) -> None:
    from switchboard import Runner, Spool
    from switchboard.options import RunnerOptions

    class Idle(Runner):
        def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
            pass

    runner = Idle(
        Spool(directory, durability='lazy'),
        RunnerOptions(queue, '', queue=queue),
        slice=number,
        numslices=slices,
    )
    os.write(1, b'ready\n')
    runner.run()


def _cpu_s(pid: int) -> float:
    return int(Path(f'/proc/{pid}/schedstat').read_text().split()[0]) / 1e9


class Crowd:
    """The runners of one queue.

    :param directory: of the spool.
    """

    def __init__(self, directory: Path, slices: int, queue: str = 'c') -> None:
        from switchboard import Spool

        self._queue = Spool(directory, durability='lazy')[queue]
        self._directory = directory / queue
        self._runners = [
            subprocess.Popen(
                [
                    sys.executable,
                    '-m',
                    f'{__package__}.crowd',
                    str(directory),
                    queue,
                    str(number),
                    str(slices),
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
            )
            for number in range(slices)
        ]
        for runner in self._runners:
            assert runner.stdout is not None
            if not runner.stdout.readline():
                self.close()
                raise ContenderError('a runner did not start')

    def turn(self, count: int) -> Turn:
        """Send one message after the other, each when the last has been worked on."""
        time.sleep(REST_S)  # who is still awake from the last turn goes to sleep
        before_s = sum(_cpu_s(each.pid) for each in self._runners)
        begun_s = time.perf_counter()
        for _ in range(count):
            self._queue.enqueue(b'x' * 1024, order_key='k')
            last_s = time.perf_counter() + PATIENCE_S
            while any(not name.startswith('.') for name in os.listdir(self._directory)):
                if time.perf_counter() > last_s:
                    raise ContenderError('a message was not worked on')
                time.sleep(0.0002)  # a watch would be one more that is woken
        took_s = time.perf_counter() - begun_s
        cpu_s = sum(_cpu_s(each.pid) for each in self._runners) - before_s
        return Turn(took_s / count, count, cpu_s / count)

    def close(self) -> None:
        """End the runners."""
        for runner in self._runners:
            runner.kill()
            runner.wait()
            if runner.stdout is not None:
                runner.stdout.close()


def run(place: Path, effort: Effort) -> Iterator[Figure]:
    """Let one slice alone and one among nine take turns."""
    count = 2 if effort is TINY else MESSAGES
    with ExitStack() as stack:
        crowds = []
        for slices in (1, 1 + IDLE):
            directory = Path(tempfile.mkdtemp(prefix='crowd.', dir=place))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            crowd = Crowd(directory, slices)
            stack.callback(crowd.close)
            crowds.append(crowd)
        rounds = alternate(
            place, [lambda crowd=crowd: crowd.turn(count) for crowd in crowds], 2 * effort.pairs
        )
    yield figure(CASE, 'ours', 'ours', rounds)


if __name__ == '__main__':
    _run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
