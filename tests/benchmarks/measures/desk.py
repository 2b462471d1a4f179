"""What the desk costs on a spool of a million waiting and 100,000 bad entries: how soon a page begins to come, and what five tabs take from a queue.

``bin/bench --only desk`` fills a spool and starts a desk.  A program puts messages into a queue of that spool
and takes them out; its speed is measured in turns, with five tabs open and with none.  A tab is here what it is for the desk: the request
that it sends every five seconds, with the tag of what it has.  A browser draws on another machine.
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from switchboard import Spool
from tests.helpers.ports import free_port

WAITING, BAD = 1_000_000, 100_000
PAIRS, TURN_S = 4, 10.0
# To see that it runs, and about how fast.
QUICK_WAITING, QUICK_BAD, QUICK_PAIRS, QUICK_TURN_S = 50_000, 5000, 2, 3.0
# As a tab does that nobody has set otherwise.
REFRESH_S = 5.0
TABS = ('/', '/entries', '/queues/in', '/groups', '/entries?q=queue:in')
PAGES = (*TABS, '/entries?q=error:Timeout* older:1m', '/groups?by=frame', '/runners', '/topology', '/configuration', '/acts', '/metrics')  # fmt: skip
CONFIG = '[switchboard]\nspool = spool\ndurability = lazy\n[queue.in]\nexternal = yes\n[queue.out]\nexternal = yes\n[queue.busy]\nexternal = yes\n'


def fill(spool: Spool, waiting: int, bad: int) -> None:
    """Make the entries."""
    for start in range(0, waiting, 10_000):
        spool['in'].enqueue_many(f'message {number}' for number in range(start, min(start + 10_000, waiting)))
    out = spool['out']
    for number in range(bad):
        filebase = out.enqueue(number)
        out.dequeue(filebase)
        error = ('TimeoutError', 'SMTPConnectError', 'UnknownRecipient')[number % 3]
        out.annotate(
            filebase,
            {'event': 'failed', 'attempt': 1, 'error': error, 'message': 'no answer', 'time': time.time()},
        )
        out.finish(filebase, preserve=True)


def work(config: str) -> None:
    """Put a message in and take it out, until standard input ends; print how many for each line that comes."""
    queue = Spool.from_config(config)['busy']
    done = [0]

    def cycle() -> None:
        while True:
            queue.enqueue('x' * 200)
            taken = queue.take()
            assert taken is not None
            queue.finish(taken.filebase)
            done[0] += 1

    threading.Thread(target=cycle, daemon=True).start()
    for _ in sys.stdin:
        print(done[0], flush=True)


def ask(url: str, tag: str = '') -> tuple[float, str]:
    """:return: seconds until the answer began, and its tag."""
    request = urllib.request.Request(url.replace(' ', '+'), headers={'If-None-Match': tag} if tag else {})
    began_s = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            took_s = time.perf_counter() - began_s
            answer.read()
            return took_s, answer.headers.get('ETag') or ''
    except urllib.error.HTTPError as error:
        if error.code != 304:
            raise
        return time.perf_counter() - began_s, tag


def is_counted(url: str) -> bool:
    """:return: whether the desk has counted everything once."""
    with urllib.request.urlopen(f'{url}/api/', timeout=60) as answer:
        return bool(json.load(answer)['counted_at_ns'])


@contextmanager
def tabs(url: str, slowest: list[float]) -> Iterator[None]:
    """Have five tabs open."""
    over = threading.Event()

    def tab(path: str) -> None:
        tag = ''
        while not over.is_set():
            took_s, tag = ask(url + path, tag)
            slowest.append(took_s)
            over.wait(REFRESH_S)

    threads = [threading.Thread(target=tab, args=(path,)) for path in TABS]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def run(directory: Path, *, quick: bool) -> dict[str, Any]:
    """:return: the figures of a spool as deep as it is to be, or of a smaller one."""
    if quick:
        return measure(directory, QUICK_WAITING, QUICK_BAD, QUICK_PAIRS, QUICK_TURN_S)
    return measure(directory, WAITING, BAD, PAIRS, TURN_S)


def measure(directory: Path, waiting: int, bad: int, pairs: int, turn_s: float) -> dict[str, Any]:
    """:return: the figures."""
    config = directory / 'switchboard.cfg'
    config.write_text(CONFIG)
    spool = Spool.from_config(config)
    logging.disable(logging.WARNING)  # of each that is preserved a line is told
    try:
        fill(spool, waiting, bad)
    finally:
        logging.disable(logging.NOTSET)
    spool.close()
    port = free_port()
    words = ['-m', 'switchboard', '-C', str(config), 'web', '--listen', f'127.0.0.1:{port}']
    desk = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    code = f'from tests.benchmarks.measures.desk import work; work({str(config)!r})'
    worker = subprocess.Popen(
        [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert desk.stderr is not None
    assert worker.stdin is not None
    assert worker.stdout is not None
    url = f'http://127.0.0.1:{port}'

    def done() -> int:
        worker.stdin.write('\n')
        worker.stdin.flush()
        return int(worker.stdout.readline())

    def turn() -> float:
        before, began_s = done(), time.perf_counter()
        time.sleep(turn_s)  # so long a turn is
        return (done() - before) / (time.perf_counter() - began_s)

    try:
        line = desk.stderr.readline()
        if 'the desk is at' not in line:
            raise RuntimeError(f'the desk does not start: {line}{desk.stderr.read()}')
        first = {path: ask(url + path)[0] for path in PAGES}
        while not is_counted(url):
            time.sleep(0.5)  # each question costs the desk what is measured
        counted = {path: max(ask(url + path)[0] for _ in range(3)) for path in PAGES}
        closed, opened, slowest = [], [], list[float]()
        for _ in range(pairs):
            closed.append(turn())
            with tabs(url, slowest):
                opened.append(turn())
        ratios = [b / a for a, b in zip(closed, opened, strict=True)]
        return {
            'waiting': waiting,
            'bad': bad,
            'first_byte_s_before_it_has_counted': {path: round(took_s, 3) for path, took_s in first.items()},
            'first_byte_s': {path: round(took_s, 3) for path, took_s in counted.items()},
            'first_byte_s_slowest_of_tabs': round(max(slowest), 3),
            'messages_a_second': {
                'no tab': [round(one) for one in closed],
                'five tabs': [round(one) for one in opened],
            },
            'ratio': {
                'median': round(statistics.median(ratios), 3),
                'low': round(min(ratios), 3),
                'high': round(max(ratios), 3),
            },
        }
    finally:
        worker.kill()
        worker.wait()
        desk.terminate()
        desk.wait(60)
        for stream in (desk.stderr, worker.stdin, worker.stdout):
            stream.close()
