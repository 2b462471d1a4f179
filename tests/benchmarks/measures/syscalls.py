"""How many system calls a message costs: ``strace -c`` over a run, and over a longer one; the difference counts.

So start, import and warm-up fall out, and what remains is the steady state, with the calls that come only now and then (a
listing for many messages) in it as fractions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders.contender import ENTRANTS
from tests.benchmarks.messages import stored_bytes
from tests.benchmarks.pairs import ROOT, ContenderError, build_floor

SUBJECTS = (
    *('ours', 'floor', 'ours-full', 'floor-full', 'ours-batch', 'floor-batch'),
    *('mailman', 'dirq', 'kombu-fs'),
)
# Turns of the short and of the long run.
SHORT, LONG = 2, 6


def _arguments(name: str, directory: Path, place: Path, source: str) -> list[str]:
    entrant = ENTRANTS[name]
    if entrant.is_native:
        return [str(build_floor(place)), str(directory), str(entrant.options['flags'])]
    more = [f'source={source}'] if source else []
    return [sys.executable, '-m', 'tests.benchmarks.worker', name, str(directory), *more]


def _count(name: str, place: Path, command: str, turns: int, source: str) -> dict[str, int]:
    directory = Path(tempfile.mkdtemp(prefix=f'{name}.', dir=place))
    table = place / 'strace.txt'
    try:
        done = subprocess.run(
            ['strace', '-f', '-c', '-o', str(table), *_arguments(name, directory, place, source)],
            cwd=ROOT,
            input=f'{command}\n' * turns,
            env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or 'failed' in done.stdout:
            raise ContenderError(f'{name} under strace: {done.stdout[-200:]} {done.stderr[-300:]}')
        return counts_of(table.read_text())
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def counts_of(table: str) -> dict[str, int]:
    """Read what ``strace -c`` wrote: the name is the last column, the number of calls the fourth."""
    calls = {}
    for line in table.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != 'total':
            calls[fields[-1]] = int(fields[3])
    return calls


def per_message(name: str, place: Path, workload: str, count: int, source: str = '') -> dict[str, float]:
    """:return: calls for each message, the most frequent first; what is below one in a hundred is left out.

    :param source: another checkout of this project to be measured.
    """
    kind = stored_bytes('bytes') if ENTRANTS[name].is_native else 'bytes'
    command = f'{workload} {kind} {count} 0'
    short = _count(name, place, command, SHORT, source)
    long = _count(name, place, command, LONG, source)
    calls = {call: (times - short.get(call, 0)) / (count * (LONG - SHORT)) for call, times in long.items()}
    return {
        call: round(share, 2)
        for call, share in sorted(calls.items(), key=lambda item: (-item[1], item[0]))
        if share >= 0.01
    }


def run(place: Path, count: int, tell: Callable[[str], None], source: str = '') -> Iterator[dict[str, Any]]:
    """Count for everybody who needs no server.

    :return: name, workload and calls by name.
    """
    if shutil.which('strace') is None:
        tell('left out: strace is not installed')
        return
    subjects = [(name, '') for name in SUBJECTS]
    if source:
        # Beside what it became, for the eye.
        subjects.insert(1, ('ours', source))
    for name, checkout in subjects:
        tell(f'{ENTRANTS[name].title}: system calls')
        for workload in ('fill', 'pingpong'):
            try:
                calls = per_message(name, place, workload, count, checkout)
            except ContenderError as error:
                tell(f'left out: {error}')
                break
            yield {'name': name, 'before': bool(checkout), 'workload': workload, 'calls': calls}
