"""What it costs to find the queues of a message among many topic bindings: by the trie, and by a scan of all patterns.

The scan is what a publisher does that tries one pattern after the other, each with words that are split once; it is the shortest
that is right, and checked against the trie before anything is measured.  Patterns are of the kinds that installations have: mostly
words, some ``*``, a ``#`` at the end of a few.  Keys match three to five of them, however many there are.

By itself: ``python -m tests.benchmarks.measures.routing``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from switchboard.routing.exchange import Binding, Exchange, ExchangeTable, Target
from tests.benchmarks.cases import FULL, TINY, Effort
from tests.benchmarks.pairs import Figure, alternate, figure

BINDINGS = (10, 100, 1000, 10_000)
KEYS = 200

Pattern = list[str]


def patterns_and_keys(count: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """:return: that many different patterns, and keys that some of them match."""
    rng = random.Random(seed)
    patterns = ['#.bounce', 'lists.#']
    number = 0
    while len(patterns) < count:
        area, one, what = f'area{number % 40}', f'list{number}', rng.choice(('post', 'bounce', 'command'))
        patterns.append(
            rng.choice((f'{area}.{one}.{what}', f'{area}.{one}.*', f'*.{one}.{what}', f'{area}.{one}.#'))
        )
        number += 1
    patterns = list(dict.fromkeys(patterns))
    keys = [
        f'area{pick % 40}.list{pick}.{rng.choice(("post", "bounce", "command"))}'
        for pick in (rng.randrange(max(1, number)) for _ in range(KEYS))
    ]
    return patterns, keys


def _matches(pattern: Pattern, words: Sequence[str]) -> bool:
    if pattern and pattern[0] == '#':
        return any(_matches(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    if not pattern or not words:
        return not pattern and not words
    return pattern[0] in ('*', words[0]) and _matches(pattern[1:], words[1:])


class Scan:
    """All patterns, one after the other."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [(pattern.split('.'), f'q{number}') for number, pattern in enumerate(patterns)]

    def route(self, key: str) -> list[str]:
        """:return: the queues of a message with this key."""
        words = key.split('.')
        return [queue for pattern, queue in self._patterns if _matches(pattern, words)]


def table_of(patterns: Sequence[str]) -> ExchangeTable:
    """:return: an exchange ``x`` with a queue for each pattern."""
    bindings = tuple(Binding(pattern, (Target(f'q{number}'),)) for number, pattern in enumerate(patterns))
    return ExchangeTable([Exchange('x', 'topic', bindings, Target('rest'))])


def run(place: Path, effort: Effort) -> Iterator[Figure]:
    """The trie against the scan, with each number of bindings; and against itself with ten."""
    few_patterns, few_keys = patterns_and_keys(BINDINGS[0])
    few = table_of(few_patterns)
    for count in BINDINGS[:2] if effort is TINY else BINDINGS:
        patterns, keys = patterns_and_keys(count)
        table, scan = table_of(patterns), Scan(patterns)
        for key in keys:
            assert list(table.route('x', key)) == (scan.route(key) or ['rest']), key

        turns = [
            partial(_timed, partial(table.route, 'x'), keys, effort.min_s),
            partial(_timed, scan.route, keys, effort.min_s),
            partial(_timed, partial(few.route, 'x'), few_keys, effort.min_s),
        ]
        rounds = alternate(place, turns, effort.pairs)
        yield figure(f'{count} bindings', 'trie', 'scan', rounds, (0, 1))
        yield figure(f'{count} bindings', 'trie', 'trie with 10', rounds, (0, 2))


def _timed(route: Callable[[str], Sequence[str]], keys: Sequence[str], min_s: float) -> tuple[float, int]:
    done = 0
    begun_s = time.perf_counter()
    while not done or time.perf_counter() - begun_s < min_s:
        for key in keys:
            route(key)
        done += len(keys)
    return (time.perf_counter() - begun_s) / done, done


def main() -> None:
    """Measure and print."""
    for found in run(Path('/var/tmp'), FULL):
        print(
            f'{found.case:>15}  {found.b:>13} / {found.a}: {found.ratio:8.2f}  ({found.low:.2f} to {found.high:.2f})'
        )


if __name__ == '__main__':
    main()
