"""How much memory a large body takes: to enqueue, to take, to show.

Each is done by a process of its own: ``python -m tests.benchmarks.measures.large WHAT SPOOL BYTES``.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.measures.depth import peak_of
from tests.benchmarks.pairs import ROOT, ContenderError

STEPS = ('enqueue', 'take', 'enqueue text', 'take text')
QUEUES = {'enqueue': 'bytes', 'take': 'bytes', 'enqueue text': 'text', 'take text': 'text'}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _one(what: str, directory: str, size: int) -> None:
    from switchboard import Spool

    queue = Spool(directory, durability='lazy')[QUEUES[what]]
    if what.startswith('take'):
        taken = queue.take()
        assert taken is not None
        queue.release(taken.filebase)
    else:
        queue.enqueue('x' * size if what.endswith('text') else bytes(size))
    print(json.dumps(_peak_mb()))


def run(place: Path, size: int) -> dict[str, Any]:
    """:return: the size in megabytes, and for each step the most memory that a process had, in bodies."""
    directory = place / 'large'
    facts: dict[str, Any] = {'mb': size / 1e6}
    for step in STEPS:
        done = subprocess.run(
            [sys.executable, '-m', f'{__package__}.large', step, str(directory), str(size)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ContenderError(f'{step}: {done.stderr[-300:]}')
        facts[step] = json.loads(done.stdout)
    for show, queue in (('show', 'bytes'), ('show text', 'text')):
        name = next(path.stem for path in (directory / queue).iterdir() if path.suffix == '.pck')
        facts[show] = peak_of(['show', f'{queue}/{name}'], str(directory))
    facts['import'] = peak_of(['version'], str(directory))
    return facts


if __name__ == '__main__':
    _one(sys.argv[1], sys.argv[2], int(sys.argv[3]))
