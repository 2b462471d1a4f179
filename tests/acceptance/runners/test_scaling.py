"""Slices scaled while they work: every message once, and each key in order across the change."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby

import pytest

from switchboard import Spool
from tests.acceptance.installation import Installation
from tests.helpers.commands import succeed, switchboard
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.slow

KEYS = 'abcdefgh'
# Enough for each slice to have always something to do.
BACKLOG = 100


def steps(site: Installation) -> dict[str, list[tuple[str, int]]]:
    """What was told of each key, in order: ``begin`` and ``end``, with the message's number."""
    site.told.said('never')  # read what has come
    told = defaultdict(list)
    for line in site.told.seen:
        if match := re.search(r'^(begin|end) in \d+ ([a-h])-(\d+)$', line):
            told[match[2]].append((match[1], int(match[3])))
    return told


@contextmanager
def load(site: Installation) -> Iterator[list[int]]:
    """Put messages of all keys into the queue until the block ends, and wait until all is worked off.

    :return: how many of each key were put, in a list of one.
    """
    queue = Spool.from_config(site.config)['in']
    rounds, over = [0], threading.Event()

    def produce() -> None:
        while not over.is_set():
            for key in KEYS:
                queue.enqueue(f'{key}-{rounds[0]}', order_key=key)
            rounds[0] += 1
            # What is to be worked off in the end must not depend on how fast this machine is.
            while site.count('in') > BACKLOG and not over.wait(0.01):
                pass

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        yield rounds
        eventually(lambda: rounds[0] > 20, 'some of each key')
    finally:
        over.set()
        producer.join()
    eventually(lambda: bool(steps(site)) and site.count('in') == 0, 'all is worked off')


def scale(site: Installation, count: int) -> None:
    word = 'slice' if count == 1 else 'slices'
    assert succeed('-C', site.config, 'scale', f'in={count}').out == f'in: {count} {word}\n'


def signal_master(site: Installation, signum: int) -> None:
    site.masters[-1].send_signal(signum)
    site.log.wait_for('request finished request="scale in=')


def more(site: Installation, _count: int) -> None:
    signal_master(site, signal.SIGTTIN)


def less(site: Installation, _count: int) -> None:
    signal_master(site, signal.SIGTTOU)


def reload(site: Installation, count: int) -> None:
    site.configure({'in': {'instances': count, 'batch_size': 3}})
    assert site.ask('reload')['changes'] == 'scaled runners in'


@pytest.mark.parametrize(
    'changes',
    [
        [(scale, 5), (scale, 1), (scale, 4), (scale, 3)],
        [(more, 3), (more, 4), (less, 3), (less, 2)],
        [(reload, 5), (reload, 1), (more, 2), (reload, 4)],
    ],
    ids=['scale', 'TTIN and TTOU', 'reload'],
)
def test_keys_stay_in_order_while_the_number_of_slices_changes(
    site: Installation, changes: list[tuple[Callable[[Installation, int], None], int]]
) -> None:
    site.configure({'in': {'instances': 2, 'batch_size': 3}})
    site.start()
    with load(site) as rounds:
        for change, count in changes:
            change(site, count)
            assert len(site.records('in')) == count
            steps(site)
    expected = [(what, each) for each in range(rounds[0]) for what in ('begin', 'end')]
    assert steps(site) == dict.fromkeys(KEYS, expected)
    assert site.count('bad') == 0


def test_keys_stay_in_order_and_whole_though_slices_are_killed_while_their_number_changes(
    site: Installation,
) -> None:
    site.configure({'in': {'instances': 3}}, restart='10ms..100ms', max_restarts=1000)
    with site.config.open('a') as configuration:
        # Who is killed again and again may be killed with the same message in his hands: that is not its fault.
        configuration.write('[queue.in]\nmax_recoveries = 1000\n')
    site.start()
    with load(site) as rounds:
        for count in (5, 2, 4, 3):
            for pid in filter(None, site.pids().values()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            scale(site, count)
            steps(site)
    for told in steps(site).values():
        # One that was killed with a message is followed by one that does it again.
        assert [each for each, _ in groupby(number for _, number in told)] == list(range(rounds[0]))
        assert {number for what, number in told if what == 'end'} == set(range(rounds[0]))
    assert site.count('bad') == 0


def test_a_runner_can_be_scaled_to_nothing_and_back(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    succeed('-C', site.config, 'scale', 'in=0')
    site.put('in', 'waits')
    assert site.records('in') == []
    succeed('-C', site.config, 'scale', 'in=1')
    site.told.wait_for('end in .* waits')


def test_a_runner_that_is_not_there_is_not_scaled(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    assert 'no such runner; did you mean in?' in switchboard('-C', site.config, 'scale', 'inn=2').err
    assert 'number from 0 to 256' in switchboard('-C', site.config, 'scale', 'in=9999').err
