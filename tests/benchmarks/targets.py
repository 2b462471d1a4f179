"""What was to be reached, and whether this run has: the numbers come from the results, the goals stand here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .cases import SUSTAINED
from .messages import TITLES

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One line of the table.

    :param goal: the number to reach.
    :param at_least: whether more is better.
    :param find: takes the figure out of the results; None if it was not measured.
    """

    name: str
    goal: float
    at_least: bool
    find: Callable[[Results], float | None]
    unit: str = ''

    def is_met(self, value: float) -> bool:
        """:return: whether `value` reaches the goal."""
        return value >= self.goal if self.at_least else value <= self.goal


def ratio(group: str, case: str, a: str, b: str) -> Callable[[Results], float | None]:
    """:return: what finds the ratio of one comparison."""

    def find(results: Results) -> float | None:
        for each in results.get(group, {}).get('figures', ()):
            if (each['case'], each['a'], each['b']) == (case, a, b):
                return float(each['ratio'])
        return None

    return find


def inverse(find: Callable[[Results], float | None]) -> Callable[[Results], float | None]:
    """:return: what finds the same ratio the other way round."""

    def find_inverse(results: Results) -> float | None:
        value = find(results)
        return 1 / value if value else None

    return find_inverse


def fact(group: str, *path: str, factor: float = 1.0) -> Callable[[Results], float | None]:
    """:return: what finds a number that is no comparison of pairs."""

    def find(results: Results) -> float | None:
        at: Any = results.get(group, {}).get('facts')
        for key in path:
            if not isinstance(at, Mapping) or key not in at:
                return None
            at = at[key]
        return None if at is None else float(at) * factor

    return find


_BYTES, _AGAIN, _FRESH = TITLES['bytes'], TITLES['mail-again'], TITLES['mail']

TARGETS = (
    Target(
        'life cycle, bytes, lazy: Mailman without fsync / ours, sustained',
        8,
        True,
        ratio('cycle', SUSTAINED, 'ours', 'mailman-nosync'),
    ),
    Target('the same, in bursts of 0.2 s', 8, True, ratio('cycle', _BYTES, 'ours', 'mailman-nosync')),
    Target(
        'life cycle, mail object out of a queue, lazy: Mailman without fsync / ours',
        5,
        True,
        ratio('cycle', _AGAIN, 'ours', 'mailman-nosync'),
    ),
    Target(
        'the same, mail object that was just parsed and must be flattened',
        5,
        True,
        ratio('cycle', _FRESH, 'ours', 'mailman-nosync'),
    ),
    Target(
        'life cycle, full, one at a time: Mailman with fsync / ours',
        2,
        True,
        ratio('cycle', _BYTES, 'ours-full', 'mailman'),
    ),
    Target(
        'life cycle, full, batches of 100: Mailman with fsync / ours',
        8,
        True,
        ratio('cycle', _BYTES, 'ours-batch', 'mailman'),
    ),
    Target('ours / C floor, lazy', 2, False, inverse(ratio('cycle', _BYTES, 'ours', 'floor'))),
    Target(
        'kombu filesystem at 5,000 waiting / ours',
        50,
        True,
        ratio('backlog', '5,000 waiting', 'ours', 'kombu-fs'),
    ),
    Target(
        'RabbitMQ, persistent, with confirms / ours, full, batches of 100',
        3,
        True,
        ratio('cycle', _BYTES, 'ours-batch', 'rabbitmq-confirms'),
    ),
    Target(
        'cost of a message at 1,000,000 waiting / at 1,000',
        1.5,
        False,
        ratio('depth', '1,000,000 waiting', 'ours', 'ours'),
    ),
    Target(
        'three-stage pipeline with exactly-once hand-off, lazy, in life cycles',
        5,
        False,
        ratio('own', 'pipeline, emitted', 'ours', 'ours'),
    ),
    Target('wake-up, median', 0.5, False, fact('wakeup', 'runner', 'p50_us', factor=0.001), 'ms'),
    Target('wake-up, 99th percentile', 5, False, fact('wakeup', 'runner', 'p99_us', factor=0.001), 'ms'),
    Target('master and 16 idle runners, PSS', 60, False, fact('footprint', 'pss_mb'), 'MB'),
    Target('start to 16 runners ready', 0.5, False, fact('footprint', 'start', 'b_us', factor=1e-6), 's'),
    Target(
        'bin/drop / python3 -c pass', 1.5, False, ratio('start', 'one mail', 'python3 -c pass', 'bin/drop')
    ),
)


def verdicts(results: Results) -> list[dict[str, Any]]:
    """:return: each target with what this run has shown, and whether that reaches it; None where it was not measured."""
    rows = []
    for target in TARGETS:
        value = target.find(results)
        rows.append(
            {
                'name': target.name,
                'goal': f'{">=" if target.at_least else "<="} {target.goal:g}{" " + target.unit if target.unit else ""}',
                'value': value,
                'unit': target.unit,
                'met': None if value is None else target.is_met(value),
            }
        )
    return rows
