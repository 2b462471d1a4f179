"""One contender in one process: reads commands from standard input, a line each, and answers with a line of numbers.

Started as ``python -m tests.benchmarks.worker NAME DIRECTORY [KEY=VALUE ...]``::

    fill bytes 500 0.2          ->  0.2313 1500 0.2     seconds, messages, and seconds of processor time
    produce bytes 500 in        ->  1234.1 1235.9 0.1   begin and end, on the machine's clock, and processor time; into `in`
    consume TALLY 1000 2:0:in   ->  1234.1 1236.2 0.1   until 1000 were taken by 2 consumers, of which this is the first, from `in`

The key ``source`` names another checkout of this project, to be measured instead of this one; with ``tasks``, the contender is the broker of
a Celery application (see ``tasks``).
"""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from pathlib import Path

from tests.benchmarks.contenders.contender import ENTRANTS, Contender

CONSUME_TIMEOUT_S = 60.0


def _answer(contender: Contender, words: list[str]) -> tuple[float, ...]:
    from tests.benchmarks.workloads import Tally, consume, produce, timed

    workload, kind, count, rest = words
    gc.collect()
    if workload == 'produce':
        return produce(contender, kind, int(count), rest)
    if workload == 'idle':
        return contender.idle(), 1
    if workload == 'consume':
        consumers, consumer, queue = rest.split(':')
        tally = Tally(Path(kind), int(consumers))
        return consume(contender, tally, int(consumer), int(count), queue, CONSUME_TIMEOUT_S)
    return timed(contender, workload, kind, int(count), float(rest))


def main(arguments: list[str]) -> int:
    """:return: the exit status."""
    name, directory, *pairs = arguments
    options: dict[str, str] = dict(pair.split('=', 1) for pair in pairs)
    source = options.pop('source', '')
    if source:
        sys.path.insert(0, source)
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    if options.pop('tasks', ''):
        from tests.benchmarks.measures.tasks import Tasks

        return _serve(Tasks(Path(directory), ENTRANTS[name]))
    numbers = {key: int(options.pop(key)) for key in ('slice', 'numslices') if key in options}
    flags = {key: value == 'yes' for key, value in options.items()}
    return _serve(ENTRANTS[name].make(Path(directory), **numbers, **flags))


def _serve(contender: Contender) -> int:
    print('ready', flush=True)
    for line in sys.stdin:
        try:
            print(*_answer(contender, line.split()), flush=True)
        except Exception as error:
            print(f'failed {type(error).__name__}: {error}'.replace('\n', ' '), flush=True)
            contender.close()
            raise
    contender.close()
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
