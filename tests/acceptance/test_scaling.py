"""Slices scaled while they work: every message once, and each key in order across the change."""

from __future__ import annotations

import re
import threading
from collections import defaultdict

from switchboard import Spool
from tests.acceptance.installation import Installation, wait_until
from tests.unit.commands import succeed, switchboard

KEYS = 'abcdefgh'


def steps(site: Installation) -> dict[str, list[tuple[str, int]]]:
    """What was told of each key, in order: ``begin`` and ``end``, with the message's number."""
    site.told.said('never')  # read what has come
    told = defaultdict(list)
    for line in site.told.seen:
        if match := re.search(r'^(begin|end) in \d+ ([a-h])-(\d+)$', line):
            told[match[2]].append((match[1], int(match[3])))
    return told


def test_keys_stay_in_order_while_the_number_of_slices_changes(site: Installation) -> None:
    site.configure({'in': {'instances': 2, 'batch_size': 3}})
    site.start()
    board = Spool.from_config(site.config)['in']
    rounds, over = [0], threading.Event()

    def produce() -> None:
        while not over.is_set():
            for key in KEYS:
                board.enqueue(f'{key}-{rounds[0]}', order_key=key)
            rounds[0] += 1

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for count in (5, 1, 4, 3):
            word = 'slice' if count == 1 else 'slices'
            assert succeed('-C', site.config, 'scale', f'in={count}').out == f'in: {count} {word}\n'
            assert len(site.records('in')) == count
            steps(site)
    finally:
        over.set()
        producer.join()
    wait_until(lambda: bool(steps(site)) and site.count('in') == 0, 'all is worked off')
    expected = [(what, each) for each in range(rounds[0]) for what in ('begin', 'end')]
    assert steps(site) == dict.fromkeys(KEYS, expected)
    assert rounds[0] > 20
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
