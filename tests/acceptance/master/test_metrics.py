"""Metrics while everything changes: a master whose slices come, go and die, and somebody who scrapes without a rest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip('prometheus_client')

from prometheus_client.parser import text_string_to_metric_families

from switchboard import Spool
from switchboard.config.config import Config
from switchboard.metrics.collector import render
from switchboard.metrics.counting import Count
from switchboard.metrics.families import FAMILIES, PREFIX
from switchboard.status.measurements import ERROR_NAME
from tests.acceptance.installation import Installation
from tests.helpers.commands import succeed, switchboard
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.slow

HOSTILE = """
def make(name):
    return type(name, (Exception,), {})

from jobs import Job, tell

class Hostile(Job):
    def dispose(self, msg, msgdata):
        if msg.startswith('raise '):
            tell('raised', msg)
            raise make(msg[6:])(msg)
        super().dispose(msg, msgdata)
"""
NAMES = ['Plain', 'a"b', 'x{y="z"} 1', 'new\nline', '-->', 'e' * 200]

Totals = dict[tuple[str, ...], float]


def scrape(directory: Path, config: Config) -> Totals:
    """:return: every counter, and the count of every histogram."""
    found: Totals = {}
    for family in text_string_to_metric_families(render(directory, Count(), config)[0].decode()):
        for sample in family.samples:
            if sample.name.endswith(('_total', '_bucket', '_count')) and 'exporter' not in sample.name:
                found[(sample.name, *(f'{key}={value}' for key, value in sorted(sample.labels.items())))] = (
                    sample.value
                )
    return found


@contextmanager
def scraped(directory: Path, config: Config) -> Iterator[list[Totals]]:
    """Scrape in a thread, one after the other without a rest, until the block ends."""
    seen: list[Totals] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            seen.append(scrape(directory, config))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_totals_never_fall_and_names_stay_few_while_slices_come_go_and_die(site: Installation) -> None:
    (site.home / 'hostile.py').write_text(HOSTILE)
    site.configure(
        {'in': {'instances': 3, 'class': 'hostile:Hostile'}}, restart='10ms..100ms', max_restarts=1000
    )
    with site.config.open('a') as configuration:
        configuration.write('[queue.in]\nmax_attempts = 3\nretry = 0s\nmax_recoveries = 1000\n')
    site.start()
    config = Config.load(site.config)
    directory = site.spool_directory
    queue = Spool.from_config(site.config)['in']
    with scraped(directory, config) as seen:
        for round_, count in enumerate((5, 1, 4, 2)):
            for number in range(15):
                queue.enqueue(f'{round_}-{number}')
            for name in NAMES:
                queue.enqueue(f'raise {name}')  # a storm of attempts, and then bad
            if round_ % 2:
                queue.enqueue('killed', order_key='killed')
            # A master that is looked at without a rest does what it is told; it may tell of one that was just killed.
            switchboard('-C', site.config, 'scale', f'in={count}')
            eventually(lambda count=count: len(site.records('in')) == count, f'{count} slices')
            eventually(lambda: bool(seen), 'somebody has scraped')
            if round_ == 1:
                site.configure(
                    {'in': {'instances': 3, 'class': 'hostile:Hostile'}, 'out': {}},
                    restart='10ms..100ms',
                    max_restarts=1000,
                )
                with site.config.open('a') as configuration:
                    configuration.write('[queue.in]\nmax_attempts = 3\nretry = 0s\nmax_recoveries = 2\n')
                assert site.ask('reload')['ok']
        eventually(lambda: site.count('in') == 0, 'all is worked off')
    assert len(seen) > 20
    before: Totals = {}
    for totals in seen:
        for key, value in before.items():
            assert totals[key] >= value, key
        before = totals
    last = scrape(directory, config)
    # The command line reads the same figures, and adds them up the same.
    slices = [
        each for each in succeed('-C', site.config, 'status', '--json').objects if each['type'] == 'runner'
    ]
    for word in ('done', 'failed', 'retried', 'kept'):
        told = sum(each[word] for each in slices)
        assert sum(value for key, value in last.items() if key[0] == f'{PREFIX}entries_{word}_total') == told
    assert sum(each['failed'] for each in slices) >= 4 * len(NAMES)
    # What a hostile message calls its error is no label.
    errors = {part[6:] for key in last for part in key[1:] if part.startswith('error=')}
    assert 'Plain' in errors
    assert all(ERROR_NAME.fullmatch(name) for name in errors)
    labels = {part.partition('=')[0] for key in last for part in key[1:]}
    known = {label for family in FAMILIES.values() for label in family.labels}
    assert labels <= known | {'le'}
