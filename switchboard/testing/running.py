"""Working a queue off in a test."""

from __future__ import annotations

from switchboard.runner.runner import Runner
from switchboard.testing.clock import FakeClock

# A message that is kept or retried more often than this will not leave its queue in this test.
MAX_ROUNDS = 1000


def run_until_empty(runner: Runner) -> int:
    """Let a runner work until nothing is left in its queue.

    With a `FakeClock`, time passes until delayed, kept and retried messages are due, so a retry after an
    hour takes no time at all.  Without one, delayed entries stay.

    ``setup`` and ``cleanup`` are called once for each stretch of time.

    :return: the exit code of the last run.
    :raises AssertionError: messages still go round after a thousand rounds.
    """
    for _ in range(MAX_ROUNDS):
        code = runner.run(until_empty=True)
        queue = runner.queue
        if queue is None or not isinstance(runner.clock, FakeClock) or not queue.get_files():
            return code
        wait_s = queue.wait_s()
        if wait_s is None:
            return code
        runner.clock.advance(max(wait_s, 0.001))
    raise AssertionError(f'{runner.name}: its queue is still not empty after {MAX_ROUNDS} rounds')
