"""Files are dropped while the runners that take them in are killed: each becomes one message, and one only."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from switchboard import Spool
from tests.helpers.waiting import take_next

RUNNER = 'from switchboard.master.programs import runner; runner()'
MAILS = 1000
KILLS = 25


def start(config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, '-c', RUNNER, '-C', str(config), 'move'], stderr=subprocess.DEVNULL
    )


def drop(queue: Path, number: int) -> None:
    """By a link, by a rename, or written in place: as mail servers and scripts do."""
    content = b'Subject: %d\n\n' % number + b'x' * random.randrange(3000)
    if number % 3 == 2:
        (queue / f'{number}.eml').write_bytes(content)
        return
    draft = queue / 'tmp' / f'{number}.host'
    draft.write_bytes(content)
    if number % 3 == 1:
        os.link(draft, queue / 'new' / f'{number}.host')
        draft.unlink()
    else:
        draft.rename(queue / 'new' / f'{number}.host')


@pytest.mark.slow
def test_kill_9_neither_loses_nor_doubles_a_dropped_mail(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text(
        '[switchboard]\nspool = spool\ndurability = lazy\n'
        '[runner.move]\nclass = runners.route:Route\nqueue = in\nrouting_key = out\nrecovery_interval = 200ms\n'
        '[queue.in]\nmaildir = yes\nmax_recoveries = 1000\n[queue.out]\nexternal = yes\n'
    )
    spool = Spool.from_config(config)
    directory = tmp_path / 'spool' / 'in'
    queue, found = spool['out'], list[int]()
    spool['in']  # makes its directories

    numbers = iter(range(MAILS))
    runners = [start(config) for _ in range(3)]
    wakeup = queue.make_wakeup()
    try:
        for _ in range(KILLS):
            for number in islice(numbers, MAILS // KILLS):
                drop(directory, number)
            # At whatever instant: a runner starts in some tenths of a second, and is done in some hundredths.
            wakeup.wait(random.random() * 0.3)
            victim = random.randrange(len(runners))
            runners[victim].kill()
            runners[victim].wait()
            runners[victim] = start(config)
        while len(found) < MAILS:
            taken = take_next(queue, lambda: f'only {len(found)} of {MAILS}')
            found.append(int(taken.msg['subject']))
            queue.finish(taken.filebase)
    finally:
        for runner in runners:
            runner.kill()
            runner.wait()
        wakeup.close()
    assert sorted(found) == list(range(MAILS))
    assert queue.take() is None
    assert spool['bad'].get_files('.psv') == []
