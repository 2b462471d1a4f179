"""The command line in this process: for what needs no process of its own, which is most of it."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from switchboard import Spool
from switchboard.cli.app import call


@dataclass(frozen=True)
class Ran:
    """What a command has written, and how it ended."""

    status: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The lines as JSON."""
        return [json.loads(line) for line in self.lines]


def switchboard(*words: str | Path, input: bytes = b'') -> Ran:
    """Run one verb, in a pipe."""
    module_path = list(sys.path)
    with CliRunner().isolation(input=input) as (out, err, _both):
        status = call([str(word) for word in words])
    sys.path[:] = module_path  # `check --imports` is at its end when it has added to it
    return Ran(int(status), out.getvalue(), err.getvalue().decode())


def succeed(*words: str | Path, input: bytes = b'') -> Ran:
    """Run one verb that must end well."""
    ran = switchboard(*words, input=input)
    assert ran.status == 0, ran.err
    return ran


@contextmanager
def at_work(spool: Spool, queue: str, msg: object) -> Iterator[str]:
    """Yield an entry that another process works on, as far as this one can tell: its lock is not one of ours."""
    filebase = spool[queue].enqueue(msg)
    path = Path(spool.path(queue, filebase))
    with path.with_name(filebase + '.pck').open('rb') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        path.with_name(filebase + '.pck').rename(path.with_name(filebase + '.bak'))
        yield filebase


def fail(
    spool: Spool, name: str, msg: object, error: str = 'ValueError', text: str = 'no way', **metadata: object
) -> str:
    """Put a message into the bad queue, as a runner does that could not handle it."""
    queue = spool[name]
    filebase = queue.enqueue(msg, metadata)
    queue.dequeue(filebase)
    traceback = f'Traceback (most recent call last):\n  File "jobs.py", line 3, in dispose\n{error}: {text}\n'
    record = {'event': 'failed', 'attempt': 1, 'error': error, 'message': text, 'traceback': traceback}
    queue.annotate(filebase, record)
    queue.finish(filebase, preserve=True, reason=f'{error}: {text}')
    return filebase
