"""The growth of a cost with the length of its input, told from the noise of a machine that others use too.

An input that is four times as long may take nine times as long; what goes over its input twice for each byte takes sixteen times.
A pause of the machine can do the same to one pair of readings and not to each of many: a pair within the factor is proof enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Less than this is not measured: what goes over the longer input twice for each byte takes a hundred times as long.
QUICK_S = 0.02
FACTOR_MAX = 9
PAIRS = 5


def is_linear(run_short: Callable[[], object], run_long: Callable[[], object]) -> bool:
    """Whether the longer of two runs, of inputs that differ four times in length, costs no more than its length explains."""
    for number in range(PAIRS):
        # One reading of the longer one will do: more would only make it less.
        long_s = _seconds(run_long, 3 if number else 1)
        if long_s < QUICK_S or long_s < FACTOR_MAX * _seconds(run_short):
            return True
    return False


def _seconds(run: Callable[[], object], readings: int = 3) -> float:
    """The processor time of this thread for one run: the least of some, or the first that is quick."""
    best_s = float('inf')
    for _ in range(readings):
        began_s = time.thread_time()
        run()
        best_s = min(best_s, time.thread_time() - began_s)
        if best_s < QUICK_S:
            break
    return best_s
