"""From a directory to a broker and back, while runners are killed at random: nothing lost, nothing twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.waiting import eventually
from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import drain, wait
from tests.servers.brokers.far import ROOT, Far

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]

MESSAGES = 400
STORM_S = 10.0
CODE = 'from switchboard.master.programs import runner; runner(prog_name="runner")'


def start(far: Far, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, '-c', CODE, '-C', str(far.path), name],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def runners(far: Far, names: list[str]) -> Iterator[list[tuple[str, subprocess.Popen[bytes]]]]:
    running = [(name, start(far, name)) for name in names]
    try:
        yield running
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait(60)


@pytest.mark.parametrize('seed', [1])
def test_runners_are_killed_at_random(server: Broker, tmp_path: Path, seed: int) -> None:
    # They die of us, and not of the messages.
    far = Far(server.url, tmp_path, 'max_recoveries = 1000\n[queue.i*]\nmax_recoveries = 1000')
    rng = random.Random(seed)
    produced = 0
    with runners(far, ['there', 'work', 'work']) as running:
        ends_s = time.monotonic() + STORM_S
        while time.monotonic() < ends_s or produced < MESSAGES:
            for _ in range(min(10, MESSAGES - produced)):
                far.spool['in'].enqueue(produced)
                produced += 1
            wait(rng.uniform(0.05, 0.4))
            number = rng.randrange(len(running))
            name, process = running[number]
            process.kill()
            process.wait()
            running[number] = name, start(far, name)
        eventually(lambda: len(far.spool['out'].files) >= MESSAGES, 'at an end', every=0.2)
        wait(3)  # what would come twice has come by then: a lease is over
        assert far.queue.count() == 0
    counted = Counter(drain(far.spool['out']))
    assert {number: count for number, count in counted.items() if count > 1} == {}
    assert sorted(counted) == list(range(MESSAGES))
    assert far.spool['bad'].get_files('.psv') == []
    far.close()
