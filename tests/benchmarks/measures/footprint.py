"""What a master with 16 idle runners takes of the memory, and how long they take to be ready; and how long ``bin/drop`` takes.

Memory is the proportional set size of all the processes: what they share counts once.  The floor is as many bare interpreters:
one for the master and one for each runner, each waiting for a line of input.

The runners are of a class that comes with this package, which the master loads before it forks them.  It loads no class of a program's
own, so a runner of such a class takes more: it is measured beside.
"""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.messages import message
from tests.benchmarks.pairs import ROOT, ContenderError, Figure, alternate, figure

RUNNERS = 16
READY_TIMEOUT_S = 60.0
MASTER = 'from switchboard.master.programs import master; master()'
BARE = 'print("ready", flush=True); input()'
IDLE = """
from switchboard import Runner


class Idle(Runner):
    def dispose(self, msg, msgdata):
        pass
"""
SHIPPED_CLASS = 'runners.null:Null'
QUEUE = 'in'


def _configure(home: Path, runner_class: str) -> Path:
    home.mkdir(exist_ok=True)
    (home / 'idle.py').write_text(IDLE)
    lines = ['[switchboard]', f'spool = {home / "spool"}', 'durability = lazy', '[master]']
    for number in range(RUNNERS):
        lines += [f'[runner.r{number}]', f'class = {runner_class}', f'queue = q{number}']
    config = home / 'switchboard.cfg'
    config.write_text('\n'.join(lines) + '\n')
    return config


def _pss_bytes(pid: int) -> int:
    for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1]) * 1024
    raise ContenderError('the kernel does not tell the proportional set size')


def _read_until(stream: Any, word: str) -> None:
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    seen = b''
    while word.encode() not in seen:
        ready, _, _ = select.select([stream], [], [], max(0.0, give_up_s - time.monotonic()))
        piece = os.read(stream.fileno(), 65536) if ready else b''
        if not piece:
            raise ContenderError(f'it did not say {word!r}: {seen.decode(errors="replace")[-500:]}')
        seen += piece


class Fleet:
    """The processes of one side, from the start of the first until all are ready."""

    def __init__(self) -> None:
        self.pss_mb: list[float] = []

    def start_master(self, config: Path) -> tuple[float, int]:
        """:return: seconds until all runners of a new master were ready; and 1."""
        begun_s = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, '-c', MASTER, '-C', str(config)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _read_until(process.stderr, f'ready slices={RUNNERS}')
            took_s = time.perf_counter() - begun_s
            children = psutil.Process(process.pid).children(recursive=True)
            if len(children) < RUNNERS:
                raise ContenderError(f'{len(children)} runners where {RUNNERS} should be')
            time.sleep(0.3)  # they go to sleep; memory is looked at when they are idle
            self.pss_mb.append(
                sum(_pss_bytes(pid) for pid in (process.pid, *(c.pid for c in children))) / 1e6
            )
        finally:
            process.terminate()
            process.wait(30)
            assert process.stderr is not None
            process.stderr.close()
        return took_s, 1

    def start_bare(self) -> tuple[float, int]:
        """:return: seconds until as many bare interpreters were ready; and 1."""
        begun_s = time.perf_counter()
        processes = [
            subprocess.Popen([sys.executable, '-c', BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(RUNNERS + 1)
        ]
        try:
            for process in processes:
                _read_until(process.stdout, 'ready')
            took_s = time.perf_counter() - begun_s
            self.pss_mb.append(sum(_pss_bytes(process.pid) for process in processes) / 1e6)
        finally:
            for process in processes:
                process.communicate(b'\n')
        return took_s, 1


def run(place: Path, pairs: int) -> dict[str, Any]:
    """Start both fleets in turns.

    :return: the figure of the start, memory of both in megabytes, and its ratio.
    """
    config = _configure(place / 'footprint', SHIPPED_CLASS)
    own_config = _configure(place / 'footprint-own', 'idle:Idle')
    ours, own, bare = Fleet(), Fleet(), Fleet()
    turns = [bare.start_bare, lambda: ours.start_master(config), lambda: own.start_master(own_config)]
    rounds = alternate(place, turns, pairs)
    ours_mb, own_mb, bare_mb = (statistics.median(each.pss_mb) for each in (ours, own, bare))
    return {
        'start': figure('start to ready', 'bare interpreters', 'ours', rounds).as_dict(),
        'runners': RUNNERS,
        'pss_mb': round(ours_mb, 1),
        'own_class_pss_mb': round(own_mb, 1),
        'bare_pss_mb': round(bare_mb, 1),
        'pss_ratio': round(ours_mb / bare_mb, 3),
    }


def _timed(arguments: list[str], body: Path) -> tuple[float, int]:
    with body.open('rb') as stdin:
        begun_s = time.perf_counter()
        done = subprocess.run(arguments, cwd=ROOT, stdin=stdin, capture_output=True, check=False)
        took_s = time.perf_counter() - begun_s
    if done.returncode:
        raise ContenderError(f'{arguments[0]}: exit {done.returncode}: {done.stderr.decode()[-300:]}')
    return took_s, 1


def drop(place: Path, pairs: int) -> list[Figure]:
    """Let ``bin/drop`` and interpreters that do nothing start in turns.

    :return: against an interpreter as it comes, and one without site-packages.
    """
    from switchboard import Spool

    home = place / 'drop'
    home.mkdir(exist_ok=True)
    Spool(home / 'spool')[QUEUE].enqueue(b'')
    body = home / 'mail'
    body.write_bytes(message('mail').as_bytes())
    program = [str(ROOT / 'bin' / 'drop'), QUEUE, '-s', str(home / 'spool')]
    os.environ['SWITCHBOARD_VENV'] = sys.prefix
    commands: list[list[str]] = [
        program,
        [sys.executable, '-c', 'pass'],
        [sys.executable, '-I', '-S', '-c', 'pass'],
    ]
    turns: list[Callable[[], tuple[float, int]]] = [
        lambda command=command: _timed(command, body) for command in commands
    ]
    rounds = alternate(place, turns, pairs)
    return [
        figure('one mail', 'python3 -c pass', 'bin/drop', rounds, (1, 0)),
        figure('one mail', 'python3 -I -S -c pass', 'bin/drop', rounds, (2, 0)),
    ]
