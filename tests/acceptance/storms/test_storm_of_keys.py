"""Producers and runners are killed at any moment, while keys are to be stored once, and a full queue pushes into two others."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Runner, Spool
from switchboard.options import RunnerOptions

MESSAGES, KILLS = 400, 60
SETTINGS = """
[switchboard]
spool = spool
durability = lazy
[queue.*]
max_recoveries = 1000
[queue.in]
[queue.copy]
[queue.out]
max_messages = 20
overflow = dead-letter
dead_letter = exchange:dead
[queue.left]
[queue.right]
"""
EXCHANGES = """
[exchange.both]
type = fanout
bindings = -> in, copy
[exchange.dead]
type = fanout
bindings = -> left, right
"""


class Keyed(Runner):
    """Makes two messages of each: one with a key of its own, one with that of its neighbour."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        self.emit('out', msg, msgdata, dedupe_key=f'own {msg}')
        self.emit('out', msg, msgdata, dedupe_key=f'pair {msg // 2}')
        return False


def produce(config: Path) -> None:
    spool = Spool.from_config(config)
    for number in range(MESSAGES):
        spool.publish(number, exchange='both', dedupe_key=f'produced {number}')


def run(config: Path, batch_size: int) -> None:
    options = RunnerOptions('keyed', '', 'in', batch_size=batch_size, recovery_interval_s=0.2)
    Keyed(Spool.from_config(config), options).run()


def fork(work: Callable[..., None], *arguments: Any) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(*arguments)
            code = 0
        finally:
            os._exit(code)
    return pid


class Storm:
    """Keeps the processes running, and kills one of them now and then."""

    def __init__(self, config: Path) -> None:
        self.jobs = {
            fork(*work): work
            for work in ((produce, config), (produce, config), (run, config, 1), (run, config, 5))
        }
        self.producing = 2
        self.kills = 0

    def kill_one(self, seed: random.Random) -> None:
        pid = seed.choice(sorted(self.jobs))
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        self._end(pid, os.waitpid(pid, 0)[1])

    def reap(self) -> None:
        for pid in list(self.jobs):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._end(pid, status)

    def _end(self, pid: int, status: int) -> None:
        work = self.jobs.pop(pid)
        if status == 0:
            self.producing -= 1
        else:
            self.jobs[fork(*work)] = work

    def close(self) -> None:
        for pid in self.jobs:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def is_worked_off(spool: Spool) -> bool:
    return not spool['in'].get_files() and not spool['in'].get_files('.bak')


def keys(spool: Spool, *queues: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for queue in queues:
        spool[queue].recover()
        while (taken := spool[queue].take()) is not None:
            found[taken.msgdata['dedupe_key']] += 1
            spool[queue].finish(taken.filebase)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_key_arrives_once_in_each_queue_that_it_is_for(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text(SETTINGS)
    (tmp_path / 'exchange.cfg').write_text(EXCHANGES)
    spool = Spool.from_config(config)
    seed, storm = random.Random(5), Storm(config)
    try:
        while storm.producing or not is_worked_off(spool):
            time.sleep(
                seed.uniform(0.01, 0.06)
            )  # the moment of a kill is to be any, so there is no event to wait for
            storm.reap()
            if storm.kills < KILLS:
                storm.kill_one(seed)
    finally:
        storm.close()
    spool.recover()
    assert keys(spool, 'copy') == {f'produced {number}': 1 for number in range(MESSAGES)}
    pushed_out = keys(spool, 'left')
    assert keys(spool, 'right') == pushed_out
    expected = {f'own {number}' for number in range(MESSAGES)} | {
        f'pair {number // 2}' for number in range(MESSAGES)
    }
    assert pushed_out + keys(spool, 'out') == dict.fromkeys(expected, 1)
    assert spool['bad'].get_files('.psv') == []
    assert os.listdir(spool.path('.stage')) == []
