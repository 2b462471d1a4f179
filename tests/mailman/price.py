"""What the queues cost a Mailman site: posts a second, processor time and flushes a post, Mailman's own queues and ours in turns.

::

    python -m tests.mailman.price [--posts 300] [--pairs 3] [--version 3.3.10]

Each turn is a new site: posts are handed over by LMTP one after the other, and the turn ends when the last has reached every member and the queues are
empty.  The processor time is that of all of the site's processes.  Flushes are counted in a turn of their own, by strace, which slows what it watches.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.helpers.waiting import eventually
from tests.mailman.site import Site
from tests.mailman.suite import CACHE, VERSIONS, MailmanTree

QUEUES = ("Mailman's", 'ours')

# Handed over before anything is measured: each runner has loaded what it needs then.
WARM_UP = 30

# A turn under strace shows the same number for each post, so few will do.
COUNTED = 50

_FLUSH = re.compile(r'(?:fsync|fdatasync|syncfs|sync_file_range)\(\d+<(?P<path>[^>]*)>')


def drain(site: Site, first: int, posts: int) -> float:
    """Hand posts over, and wait until all is done.

    :return: how many seconds passed until the last of them had reached every member.
    """
    numbers = list(range(first, first + posts))
    begun = time.monotonic()
    for number in numbers:
        assert site.post(number), number
    eventually(lambda: site.reached(numbers) == posts, 'all have arrived', every=0.02, within_s=600)
    taken_s = time.monotonic() - begun
    eventually(lambda: site.waiting() == 0, 'the queues are empty', every=0.05, within_s=60)
    return taken_s


def cpu_s(site: Site) -> float:
    """:return: the processor time of the site's processes up to now."""
    total = 0.0
    for process in site.processes():
        with suppress(psutil.Error):  # it has ended
            times = process.cpu_times()
            total += times.user + times.system
    return total


def turn(tree: MailmanTree, posts: int, *, with_plugin: bool) -> dict[str, float]:
    """:return: what was measured in one turn."""
    with running_site(tree, with_plugin=with_plugin) as site:
        drain(site, 0, WARM_UP)
        before = cpu_s(site)
        taken_s = drain(site, WARM_UP, posts)
        return {'posts a second': posts / taken_s, 'CPU ms a post': (cpu_s(site) - before) * 1000 / posts}


def flushes(tree: MailmanTree, *, with_plugin: bool) -> dict[str, float]:
    """:return: the flushes a post of the queues, and of all else."""
    with running_site(tree, with_plugin=with_plugin) as site:
        drain(site, 0, WARM_UP)
        trace = site.directory / 'trace'
        pids = [word for process in site.processes() for word in ('-p', str(process.pid))]
        calls = 'trace=fsync,fdatasync,syncfs,sync_file_range'
        strace = subprocess.Popen(
            ['strace', '-f', '-qq', '-y', '-e', calls, '-o', trace, *pids],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: all(_is_traced(int(pid)) for pid in pids[1::2]), 'strace watches them all')
            drain(site, WARM_UP, COUNTED)
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait()
        found = Counter(
            'queues' if match['path'].startswith(f'{site.queues}') else 'else'
            for match in _FLUSH.finditer(trace.read_text())
        )
        return {
            'flushes of the queues a post': found['queues'] / COUNTED,
            'other flushes a post': found['else'] / COUNTED,
        }


def _is_traced(pid: int) -> bool:
    return 'TracerPid:\t0\n' not in Path(f'/proc/{pid}/status').read_text()


@contextmanager
def running_site(tree: MailmanTree, *, with_plugin: bool) -> Iterator[Site]:
    """A new site that runs, and is gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        site = Site(tree, Path(directory), with_plugin=with_plugin)
        try:
            site.start()
            site.wait_until_it_listens()
            yield site
        finally:
            site.close()


def table(turns: dict[str, list[dict[str, float]]], counted: dict[str, dict[str, float]]) -> str:
    """:return: the rows of a page: the median of the turns, with their range."""
    rows = [f'| | {" | ".join(QUEUES)} |', '|---|---|---|']
    for name in turns[QUEUES[0]][0]:
        cells = []
        for queues in QUEUES:
            values = [each[name] for each in turns[queues]]
            cells.append(f'{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})')
        rows.append(f'| {name} | {" | ".join(cells)} |')
    for name in counted[QUEUES[0]]:
        rows.append(f'| {name} | {" | ".join(f"{counted[queues][name]:.1f}" for queues in QUEUES)} |')
    return '\n'.join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--version', default=VERSIONS[0])
    parser.add_argument('--posts', type=int, default=300)
    parser.add_argument('--pairs', type=int, default=3)
    parser.add_argument('--cache', type=Path, default=CACHE)
    options = parser.parse_args()
    tree = MailmanTree(options.version, options.cache)
    tree.prepare()
    turns: dict[str, list[dict[str, float]]] = {queues: [] for queues in QUEUES}
    for pair in range(options.pairs):
        # Whichever is first is so in every other pair only.
        for queues in QUEUES if pair % 2 == 0 else reversed(QUEUES):
            turns[queues].append(turn(tree, options.posts, with_plugin=queues == 'ours'))
            print(json.dumps({'queues': queues, **turns[queues][-1]}), flush=True)
    counted = {queues: flushes(tree, with_plugin=queues == 'ours') for queues in QUEUES}
    print(table(turns, counted))
    return 0


if __name__ == '__main__':
    sys.exit(main())
