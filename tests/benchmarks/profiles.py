"""Where the time of a message goes: ``perf`` tells the kernel from the interpreter, py-spy one function from another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.pairs import ContenderError, Worker, workers

RATE_HZ = 500
# Lines of each table.
TOP = 12
_SHARE = re.compile(r'^\s*([0-9.]+)%\s+(\S+)\s*(?:\[(.)\]\s+(\S+))?')


def _py_spy() -> str:
    program = shutil.which('py-spy', path=sysconfig.get_path('scripts')) or shutil.which('py-spy')
    if program is None:
        raise ContenderError('py-spy is not installed')
    return program


def functions(pid: int, seconds: int, place: Path) -> dict[str, float]:
    """:return: by function, the share of the samples in which it was at work itself, the calls to the kernel that it makes included."""
    output = place / 'py-spy.txt'
    arguments = [_py_spy(), 'record', '--pid', str(pid), '--duration', str(seconds), '--rate', str(RATE_HZ)]
    done = subprocess.run(
        [*arguments, '--format', 'raw', '--output', str(output)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ContenderError(f'py-spy: {done.stderr[-300:]}')
    own: Counter[str] = Counter()
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(' ')
        innermost = stack.rpartition(';')[2]
        function, _, where = innermost.partition(' (')
        file = Path(where.rstrip(')').rpartition(':')[0]).name
        own[f'{function} ({file})'] += int(count)
    total = sum(own.values()) or 1
    return {name: round(count / total, 3) for name, count in own.most_common(TOP)}


def _report(data: Path, keys: str) -> Iterator[re.Match[str]]:
    done = subprocess.run(
        ['perf', 'report', '-i', str(data), '--stdio', '--sort', keys],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        match = _SHARE.match(line)
        if match:
            yield match


def kernel(pid: int, seconds: int, place: Path) -> dict[str, dict[str, float]]:
    """:return: shares by program or library, and by function of the kernel; empty where ``perf`` is missing or forbidden."""
    data = place / 'perf.data'
    if shutil.which('perf') is None:
        return {}
    arguments = ['perf', 'record', '-F', str(RATE_HZ), '-p', str(pid), '-o', str(data)]
    done = subprocess.run(
        [*arguments, '--', 'sleep', str(seconds)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {}
    parts = {match[2]: round(float(match[1]) / 100, 3) for match in _report(data, 'dso')}
    symbols = {
        match[4]: round(float(match[1]) / 100, 3) for match in _report(data, 'dso,symbol') if match[3] == 'k'
    }
    return {'parts': dict(list(parts.items())[:6]), 'kernel': dict(list(symbols.items())[:TOP])}


def _profile(worker: Worker, seconds: int, place: Path) -> dict[str, Any]:
    worker.turn('fill', 'bytes', 500, 0.5)
    worker.send('fill', 'bytes', 500, 2 * seconds + 3)
    facts: dict[str, Any] = {'functions': functions(worker.pid, seconds, place)}
    facts.update(kernel(worker.pid, seconds, place))
    worker.answer()
    return facts


def run(place: Path, seconds: int, tell: Callable[[str], None], source: str = '') -> dict[str, Any]:
    """Profile the life cycle of 1 KB of bytes.

    :param source: an older checkout, to be profiled as well.
    :return: profiles by name.
    """
    subjects: dict[str, tuple[str, dict[str, object]]] = {'lazy': ('ours', {}), 'full': ('ours-full', {})}
    if source:
        subjects['lazy, before'] = ('ours', {'source': source})
    profiles = {}
    for title, side in subjects.items():
        tell(f'profile: {title}')
        try:
            with workers(place, side) as (worker,):
                profiles[title] = _profile(worker, seconds, place)
        except ContenderError as error:
            tell(f'left out: {error}')
    return profiles
