"""A real installation for tests: a spool, a configuration, runner classes of its own, a real master.

Tests wait for what is said (a log line, a word from a runner, the end of a process), never for a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from switchboard import Spool
from switchboard.master.control import ask
from switchboard.status.alive import master_alive
from switchboard.status.scoreboard import Scoreboard, SliceRecord
from tests.acceptance.forked import Forked
from tests.helpers import processes
from tests.helpers.waiting import PATIENCE_S

# What Linux allows everybody.
TOLD_BYTES = 1 << 20

JOBS = '''
"""Runners that tell the test what they do, and do what the message says."""
import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from switchboard import AsyncRunner, Runner

HERE = Path(__file__).parent


def tell(*words):
    with open(HERE / 'told', 'ab', buffering=0) as told:
        told.write((' '.join(map(str, words)) + '\\n').encode())


def wait_at_gate():
    with open(HERE / 'gate', 'rb', buffering=0) as gate:
        gate.read(1)


class Job(Runner):
    def setup(self):
        tell('setup', self.name, os.getpid())

    def cleanup(self):
        tell('cleanup', self.name, os.getpid())

    def dispose(self, msg, msgdata):
        tell('begin', self.name, os.getpid(), msg)
        if msg == 'wait':
            wait_at_gate()
        elif msg == 'killed':
            os.kill(os.getpid(), signal.SIGKILL)
        elif msg == 'print':
            print('printed by a runner', flush=True)
        elif msg in ('program', 'stubborn'):
            if msg == 'stubborn':
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            program = subprocess.Popen(['sleep', '600'])
            tell('program', program.pid)
            program.wait()
        elif msg == 'daemon':
            # It leads a session of its own, and its parent ends at once.
            code = 'import os, sys, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True); time.sleep(600)'
            program = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
            tell('daemon', program.stdout.readline().decode().strip())
            program.wait()
            wait_at_gate()
        elif msg == 'become another program':
            os.execv('/bin/sleep', ['sleep', '600'])
        elif msg == 'fail':
            raise ValueError('fails')
        elif msg == 'log':
            logging.getLogger('mine').info('logged by %s', 'a runner')
            logging.info('logged by the root')
            self.log.warning('logged by itself', extra={'seconds': 0.25, 'endless': float('inf'), 'times': 3})
        elif msg == 'write':
            sys.stdout.write('in ')
            sys.stdout.write('pieces\\n\\n')
            sys.stdout.buffer.write(b'bytes \\xff\\n')
            print('to standard error', file=sys.stderr)
            print('without an end', end='', flush=True)
            print('x' * 20000, file=sys.stderr)
        elif msg == 'write past':
            os.write(1, b'by a system call\\n')
            ctypes.CDLL(None).dprintf(2, b'by a library: %d\\n', 42)
            subprocess.run(['sh', '-c', 'echo by a program; echo and its trouble >&2; printf "without an end"'])
        elif msg == 'write much':
            subprocess.run(['sh', '-c', 'yes | head -n 30000; echo that is all'])
        elif msg == 'crash':
            ctypes.string_at(0)
        elif msg == 'environment':
            tell('environment', *sorted(os.environ))
        elif msg == 'c code':
            tell('in c', os.getpid())
            ctypes.PyDLL(None).pause()
        tell('end', self.name, os.getpid(), msg)


class Together(AsyncRunner):
    met = None

    async def setup(self):
        self.met = asyncio.Barrier(2)

    async def dispose(self, msg, msgdata):
        # Both are at work at once, and each speaks while the other is.
        await self.met.wait()
        print('printed of', msg)
        await self.met.wait()
        self.log.info('logged of %s', msg)
        await self.met.wait()
        await asyncio.to_thread(print, 'printed in a thread of', msg)


class Sender(Job):
    def dispose(self, msg, msgdata):
        self.spool.publish(msg, exchange='x')


class Crash(Job):
    def setup(self):
        tell('crash', os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)


class Sleepy(Job):
    def periodic(self):
        tell('periodic', os.getpid())
        wait_at_gate()


class SlowStart(Job):
    def setup(self):
        tell('starting', os.getpid())
        wait_at_gate()
'''


class Lines:
    """What comes in through a pipe, line by line."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.seen: list[str] = []
        self._rest = b''
        self._unread: list[str] = []

    def wait_for(self, pattern: str, timeout_s: float = PATIENCE_S) -> re.Match[str]:
        """:return: the match with the first line from here on in which `pattern` is found; the lines before it are passed."""
        give_up_s = time.monotonic() + timeout_s
        while True:
            while self._unread:
                if match := re.search(pattern, self._unread.pop(0)):
                    return match
            if not self._read(max(0.0, give_up_s - time.monotonic())):
                seen = '\n'.join(self.seen[-40:])
                raise AssertionError(f'nobody said {pattern!r}; what was said:\n{seen}')

    def said(self, pattern: str) -> bool:
        """:return: whether `pattern` has been said up to now."""
        return self.count(pattern) > 0

    def count(self, pattern: str) -> int:
        """:return: in how many lines `pattern` has been said up to now."""
        while self._read(0):
            pass
        return sum(bool(re.search(pattern, line)) for line in self.seen)

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self.descriptor], [], [], timeout_s)
        chunk = os.read(self.descriptor, 65536) if ready else b''
        *lines, self._rest = (self._rest + chunk).split(b'\n')
        texts = [line.decode() for line in lines]
        self.seen += texts
        self._unread += texts
        return bool(chunk)


def ends(pid: int, timeout_s: float = PATIENCE_S) -> bool:
    """:return: whether the process ends within the time; it need not be our child."""
    return processes.ends(pid, timeout_s)


class Installation:
    """One spool with a configuration and the module ``jobs`` beside it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / 'switchboard.cfg'
        self.spool_directory = home / 'spool'
        self.run = self.spool_directory / '.run' / 'master'
        self.masters: list[Forked | subprocess.Popen[bytes]] = []
        (home / 'jobs.py').write_text(JOBS)
        self._fifos = []
        for name in ('told', 'gate'):
            os.mkfifo(home / name)
            self._fifos.append(os.open(home / name, os.O_RDWR | os.O_CLOEXEC))
        # Nobody who tells something is to wait until the test reads it.
        fcntl.fcntl(self._fifos[0], fcntl.F_SETPIPE_SZ, TOLD_BYTES)
        self.told = Lines(self._fifos[0])
        self.log: Lines

    def configure(self, runners: dict[str, dict[str, Any]], **master: object) -> None:
        """Write the configuration: each runner is a `Job` on a queue of its own name, unless its keys say otherwise."""
        lines = ['[switchboard]', f'spool = {self.spool_directory}', 'durability = lazy', '[master]']
        lines += [f'{key} = {value}' for key, value in master.items()]
        for name, keys in runners.items():
            section = {'class': 'jobs:Job', 'queue': name, **keys}
            lines += [f'[runner.{name}]', *(f'{key} = {value}' for key, value in section.items())]
        self.config.write_text('\n'.join(lines) + '\n')

    def start(self, *, ready: bool = True, fresh: bool = False) -> Forked | subprocess.Popen[bytes]:
        """Start a master, and wait until its runners are ready.

        :param fresh: as a program that imports all it needs, for tests that measure it.
        """
        master: Forked | subprocess.Popen[bytes]
        if fresh:
            code = 'from switchboard.master.programs import master; master()'
            arguments = [sys.executable, '-c', code, '-C', str(self.config)]
            master = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        else:
            with open(os.devnull, 'wb') as nowhere:
                master = Forked('master', '-C', str(self.config), stdout=nowhere.fileno())
        self.masters.append(master)
        assert master.stderr is not None
        self.log = Lines(master.stderr.fileno())
        if ready:
            self.log.wait_for(' ready slices=')
        return master

    def stop(self) -> int:
        """Stop the master.

        :return: its exit status.
        """
        self.masters[-1].terminate()
        return self.masters[-1].wait(PATIENCE_S)

    def open_gate(self) -> None:
        """Let one runner that waits at the gate go on."""
        os.write(self._fifos[1], b'x')

    def put(self, queue: str, *messages: str) -> None:
        """Enqueue."""
        spool = Spool.from_config(self.config)
        for message in messages:
            spool[queue].enqueue(message)

    def count(self, queue: str) -> int:
        """:return: how many entries of any state a queue holds."""
        directory = self.spool_directory / queue
        return len([each for each in directory.glob('*') if each.suffix in ('.pck', '.bak', '.psv')])

    def records(self, runner: str | None = None) -> list[SliceRecord]:
        """:return: what the scoreboard says."""
        with contextlib.closing(Scoreboard.open(self.run / 'scoreboard')) as scoreboard:
            return [each for each in scoreboard.records() if runner in (None, each.runner)]

    def record(self, runner: str) -> SliceRecord:
        """:return: what the scoreboard says of a runner with one slice."""
        [record] = self.records(runner)
        return record

    def pids(self) -> dict[str, int]:
        """:return: the processes by title."""
        return {each.title: each.pid for each in self.records()}

    def ask(self, do: str, **request: object) -> dict[str, Any]:
        """Ask the master for something and wait for its answer."""
        return ask(self.spool_directory, {'do': do, **request}, PATIENCE_S)

    def close(self) -> None:
        """End whatever is left."""
        pids = (
            [each.pid for each in self.records() if each.pid]
            if self.run.joinpath('scoreboard').exists()
            else []
        )
        for master in self.masters:
            if master.poll() is None:
                master.kill()
            master.wait()
            assert master.stderr is not None
            master.stderr.close()
        if master_alive(self.spool_directory):  # one in the background
            with contextlib.closing(Scoreboard.open(self.run / 'scoreboard')) as scoreboard:
                pid = scoreboard.master().pid
            kill(pid)
            assert ends(pid)
        for pid in pids:
            assert ends(pid), f'runner {pid} has outlived its master'
        for descriptor in self._fifos:
            os.close(descriptor)


@contextlib.contextmanager
def installation(home: Path) -> Iterator[Installation]:
    """Yield an installation, and leave no process behind."""
    made = Installation(home)
    try:
        yield made
    finally:
        made.close()


def kill(pid: int) -> None:
    """``kill -9``"""
    os.kill(pid, signal.SIGKILL)
