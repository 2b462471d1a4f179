"""How long an operator waits, and how much memory it takes, when very much is queued.

Each look is taken by a process of its own, so that its memory is its own: ``python -m tests.benchmarks.measures.depth SPOOL`` starts
them and prints what they say as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUEUE = 'in'


def _nothing(_directory: str) -> object:
    from switchboard import Spool

    return Spool


def _take(directory: str) -> object:
    """The first message out of a queue that nobody has listed yet."""
    from switchboard import Spool

    queue = Spool(directory, durability='lazy')[QUEUE]
    taken = queue.take()
    assert taken is not None
    return queue.release(taken.filebase)


def _recover(directory: str) -> object:
    from switchboard import Spool

    return Spool(directory, durability='lazy')[QUEUE].recover()


def _list(directory: str) -> object:
    """All names, as a list: what a program gets that asks for it."""
    from switchboard import Spool

    return len(Spool(directory, durability='lazy')[QUEUE].get_files())


LOOKS: dict[str, Callable[[str], object]] = {
    'import': _nothing,
    'first message': _take,
    'recovery': _recover,
    'get_files': _list,
}
COMMANDS = {
    'status': ['status'],
    'queues': ['queues'],
    'ls': ['ls', QUEUE, '--limit', '20'],
    'shape': ['shape'],
    'show': ['show'],
}


def _one(look: str, directory: str) -> None:
    begun_s = time.perf_counter()
    LOOKS[look](directory)
    took_s = time.perf_counter() - begun_s
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({'seconds': round(took_s, 3), 'peak_mb': round(peak_bytes / 1e6, 1)}))


def _command(words: list[str], directory: str) -> dict[str, Any]:
    """Run one of the program's verbs.

    :return: how long it took and the most memory that it had, and its exit status.
    """
    code = 'from switchboard.cli import main; main()'
    begun_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, '-c', code, '-s', directory, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - begun_s
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        'seconds': round(took_s, 3),
        'peak_mb': round(usage.ru_maxrss * 1024 / 1e6, 1),
        # `status` says so when no master runs, which is how it is here.
        'exit': 0 if process.returncode == os.EX_UNAVAILABLE else process.returncode,
    }


def peak_of(words: list[str], directory: str) -> float:
    """:return: the most memory, in megabytes, that one of the program's verbs had."""
    return float(_command(words, directory)['peak_mb'])


def _first(directory: str) -> str:
    """:return: the name of some entry."""
    with os.scandir(Path(directory) / QUEUE) as entries:
        return next(f'{QUEUE}/{Path(entry.name).stem}' for entry in entries if entry.name.endswith('.pck'))


def main(directory: str) -> None:
    """Take all looks and print what they say."""
    facts: dict[str, Any] = {}
    for name, words in COMMANDS.items():
        words = [*words, _first(directory)] if name == 'show' else words
        facts[name] = _command(words, directory)
    for look in LOOKS:
        done = subprocess.run(
            [sys.executable, '-m', f'{__package__}.depth', directory, look],
            capture_output=True,
            text=True,
            check=True,
        )
        facts[look] = json.loads(done.stdout)
    print(json.dumps(facts))


if __name__ == '__main__':
    if len(sys.argv) > 2:
        _one(sys.argv[2], sys.argv[1])
    else:
        main(sys.argv[1])
