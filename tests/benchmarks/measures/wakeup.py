"""How long an idle runner sleeps on: from the producer's rename to the first line of ``dispose``.

The runner is a process of its own; each message comes after a pause in which the runner has gone to sleep.  In turns with
it, the same is measured on the least that can be built in Python: a process that sleeps in ``poll`` on a bare inotify
descriptor and notes the time when it wakes.

Started as a program, this module is one of the two sleepers.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.pairs import ROOT, ContenderError

# Long enough for a runner to be asleep again, on a busy machine too.
PAUSE_S = (0.006, 0.014)
ANSWER_TIMEOUT_S = 5.0


def _run_runner(directory: str) -> None:
    from switchboard import Runner, Spool
    from switchboard.options import RunnerOptions

    class Clocked(Runner):
        """Notes when it is called."""

        def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
            now_ns = time.monotonic_ns()
            os.write(1, b'%d\n' % now_ns)

    runner = Clocked(Spool(directory, durability='lazy'), RunnerOptions('w', '', queue='w'))
    os.write(1, b'0\n')
    runner.run()


def _run_bare(directory: str) -> None:
    from inotify_simple import INotify, flags

    inotify = INotify()
    inotify.add_watch(directory, flags.MOVED_TO)
    poll = select.poll()
    poll.register(inotify.fileno(), select.POLLIN)
    os.write(1, b'0\n')
    while True:
        poll.poll()
        now_ns = time.monotonic_ns()
        inotify.read()
        os.write(1, b'%d\n' % now_ns)


class _Sleeper:
    def __init__(self, kind: str, directory: Path, source: str = '') -> None:
        path = {'PYTHONPATH': source} if source else {}
        self._process = subprocess.Popen(
            [sys.executable, '-m', f'{__package__}.wakeup', kind, str(directory), source],
            cwd=ROOT,
            env={**os.environ, **path},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer_ns()

    def answer_ns(self) -> int:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_TIMEOUT_S)
        line = self._process.stdout.readline() if ready else ''
        if not line:
            raise ContenderError('a sleeper did not wake')
        return int(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def percentiles(waits_us: list[float]) -> dict[str, float]:
    """:return: what the page shows of many waits."""
    return {
        'p50_us': round(_percentile(waits_us, 0.5), 1),
        'p90_us': round(_percentile(waits_us, 0.9), 1),
        'p99_us': round(_percentile(waits_us, 0.99), 1),
        'worst_us': round(max(waits_us), 1),
    }


def run(place: Path, times: int, source: str = '') -> dict[str, Any]:
    """Wake both sleepers in turns.

    :return: percentiles in microseconds, all waits, and the ratio of the medians.
    """
    from switchboard import Spool
    from switchboard.store.disk import Disk

    stamps: list[int] = []

    def stamped_rename(source: str, target: str, **fds: int) -> None:
        stamps.append(time.monotonic_ns())
        os.rename(source, target, **fds)

    class StampingDisk(Disk):
        rename = staticmethod(stamped_rename)

    spool_directory, bare_directory = place / 'wakeup', place / 'wakeup-bare'
    bare_directory.mkdir()
    (place / 'one').touch()
    queue = Spool(spool_directory, durability='lazy', disk=StampingDisk())['w']
    rng = random.Random(1)
    waits_us: dict[str, list[float]] = {'runner': [], 'bare': []}
    sleepers: list[_Sleeper] = []
    try:
        sleepers.append(_Sleeper('runner', spool_directory, source))
        sleepers.append(_Sleeper('bare', bare_directory))
        for number in range(times + 5):
            # Both are to be asleep, and for any time.
            time.sleep(rng.uniform(*PAUSE_S))
            begun_ns = time.monotonic_ns()
            stamps.clear()
            queue.enqueue(b'x' * 1024)
            runner_us = (sleepers[0].answer_ns() - (stamps[-1] if stamps else begun_ns)) / 1000
            # As above.
            time.sleep(rng.uniform(*PAUSE_S))
            begun_ns = time.monotonic_ns()
            os.rename(place / 'one', bare_directory / 'one')
            bare_us = (sleepers[1].answer_ns() - begun_ns) / 1000
            (bare_directory / 'one').rename(place / 'one')
            if number >= 5:
                waits_us['runner'].append(runner_us)
                waits_us['bare'].append(bare_us)
    finally:
        for sleeper in sleepers:
            sleeper.close()
    summary = {name: percentiles(waits) for name, waits in waits_us.items()}
    return {
        **summary,
        'times': times,
        'ratio': summary['runner']['p50_us'] / summary['bare']['p50_us'],
        'waits_us': {name: [round(wait, 1) for wait in sorted(waits)] for name, waits in waits_us.items()},
    }


if __name__ == '__main__':
    if len(sys.argv) > 3 and sys.argv[3]:
        sys.path.insert(0, sys.argv[3])
    (_run_runner if sys.argv[1] == 'runner' else _run_bare)(sys.argv[2])
