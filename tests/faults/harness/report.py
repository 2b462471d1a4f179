"""Runs the whole proof and writes its tables into the page ``docs/explanation/proof.md``.

::

    python -m tests.faults.harness.report            # some minutes: every call, every fault, every cut
    python -m tests.faults.harness.report --storm    # and the long storm, some minutes more

The tables stand between comments in the page; what is around them is written by hand.  A hole is a case whose outcome is not
one of those that the operation allows; the command says so and ends with 1.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from switchboard.testing.power import PowerLossDisk
from tests.acceptance.storms.storm import storm
from tests.faults.conftest import MEMORY
from tests.faults.harness.dying import die_at
from tests.faults.harness.images import Recovery
from tests.faults.harness.world import State, observe
from tests.faults.operations import ERRORS, OPERATIONS, Operation
from tests.faults.operations.whole_runners import RUNS
from tests.faults.test_death_and_power import after_failed_syncs, after_recoveries
from tests.faults.test_every_call import Case, cases, expected
from tests.faults.test_power_loss import (
    Tally,
    WithoutDataSync,
    WithoutDirectorySync,
    WithoutQueueSync,
    WithoutStageSync,
    cut_pipelines,
    cuts,
    record,
)
from tests.plugins.turns import FSYNC_SCOPES

PAGE = Path(__file__).parents[3] / 'docs' / 'explanation' / 'proof.md'
CUTS_PER_MOMENT = 20
# The same where something else has gone wrong before.
CUTS_AFTER_ANOTHER = 6
PIPELINES = 100
STORM_MESSAGES, STORM_KILLS = 100_000, 600

FAULTS = {name: {'error': number} for name, number in ERRORS.items()} | {
    'short': {'error': 0, 'short': True},
    'short, ENOSPC': {'error': errno.ENOSPC, 'short': True},
    'ENOSPC for good': {'error': errno.ENOSPC, 'persistent': True},
    'EROFS for good': {'error': errno.EROFS, 'persistent': True},
}

Row = list[str]
holes: list[str] = []


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(heads: Row, rows: Iterable[Row]) -> str:
    lines = [heads, ['---'] * len(heads), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


# Each call fails.


def fault_table(scratch: Path) -> str:
    rows = []
    for operation in OPERATIONS:
        tell(f'faults: {operation}')
        cells = [fault_cell(operation, scratch / 'fault', name) for name in FAULTS]
        rows.append([operation.name, str(count_calls(operation, scratch / 'count')), *cells])
    return table(['operation', 'calls', *FAULTS], rows)


def count_calls(operation: Operation, directory: Path) -> int:
    directory.mkdir()
    case = Case(operation, directory, 10**6, {}, time.time(), Recovery())
    case.restart()
    directory.rmdir()
    return case.disk.count


def fault_cell(operation: Operation, directory: Path, name: str) -> str:
    """:return: how many calls, struck so, made the operation fail, and how many it got over."""
    directory.mkdir()
    refused = absorbed = 0
    for case in cases(operation, directory, **FAULTS[name]):
        if case.error is None:
            absorbed += bool(case.disk.failed_call)
        else:
            refused += 1
        leaks, misuse = case.world.leaks(), case.disk.bad_descriptor_calls
        allowed = expected(case)
        if 'for good' in name:  # taking back may fail as well, so the first copy may still arrive
            allowed = operation.after_death()
        if leaks or misuse or case.restart() not in allowed:
            holes.append(f'{case}, {name}: leaks {leaks}, misuse {misuse}')
    directory.rmdir()
    return f'{refused} / {absorbed}'


# The process dies.


def kill_table(scratch: Path) -> str:
    rows = []
    for operation in (*OPERATIONS, *RUNS):
        tell(f'kills: {operation}')
        outcomes = list(kill_outcomes(operation, scratch))
        spans = []
        for what, span in groupby(enumerate(outcomes, 1), key=lambda each: each[1]):
            numbers = [number for number, _ in span]
            spans.append(f'{numbers[0]}-{numbers[-1]}: {what}' if numbers[1:] else f'{numbers[0]}: {what}')
        rows.append([operation.name, str(len(outcomes)), ', '.join(spans)])
    return table(['operation', 'kills', 'killed at call: what recovery leads to'], rows)


def kill_outcomes(operation: Operation, scratch: Path) -> Iterator[str]:
    for number in itertools.count(1):
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            if not os.WIFSIGNALED(die_at(operation, Path(directory), number)):
                return
            found = observe(Path(directory) / 'spool')
            yield name_of(operation, found)
            if found not in operation.after_death():
                holes.append(f'{operation}, killed at call {number}: {found}')


def name_of(operation: Operation, found: State) -> str:
    if operation.before == operation.after == found:
        return 'there'
    if found == operation.before:
        return 'before'
    if found == operation.after:
        return 'after'
    return 'part' if found in (*operation.between, *operation.undone) else '**hole**'


# The power goes, whatever else a flush of a file makes durable.


def power_table(scratch: Path) -> str:
    rows = []
    for operation in OPERATIONS:
        tell(f'power: {operation}')
        counts: Counter[str] = Counter()
        for fsync_scope in FSYNC_SCOPES:
            with tempfile.TemporaryDirectory(dir=scratch) as directory:
                counts.update(power_counts(operation, Path(directory), fsync_scope))
            for key, outcomes in SECOND_MISFORTUNES.items():
                with tempfile.TemporaryDirectory(dir=scratch) as directory:
                    for outcome in outcomes(
                        operation, Path(directory), fsync_scope, range(CUTS_AFTER_ANOTHER)
                    ):
                        counts[key] += 1
                        if outcome.found not in outcome.allowed:
                            counts['holes'] += 1
                            holes.append(f'{operation}, {key}, fsync scope {fsync_scope}: {outcome}')
        promise = 'on the disk' if operation.durable else 'one rename'
        rows.append([operation.name, promise, *(str(counts[key]) for key in POWER_KEYS)])
    return table(['operation', 'when it has returned', *POWER_KEYS], rows)


SECOND_MISFORTUNES = {'after a failed sync': after_failed_syncs, 'after death and recovery': after_recoveries}
POWER_KEYS = ('cuts', 'before', 'after', 'part', *SECOND_MISFORTUNES, 'holes')


def power_counts(operation: Operation, scratch: Path, fsync_scope: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    disk = PowerLossDisk(seed=1, fsync_scope=fsync_scope)
    source = scratch / 'run'
    source.mkdir()
    record(operation, source, disk)
    for outcome in cuts(operation, source, disk, range(CUTS_PER_MOMENT)):
        what = name_of(operation, outcome.found)
        what = 'after' if what == 'there' else what
        if outcome.found not in outcome.allowed:
            holes.append(f'{operation}, power lost, fsync scope {fsync_scope}: {outcome}')
            what = 'holes'
        counts[what] += 1
        counts['cuts'] += 1
    return counts


def pipeline_table(scratch: Path) -> str:
    """The pipeline as it is, and with something taken out."""
    rows = []

    def add(name: str, tally: Tally, *, harmless: bool) -> None:
        lost = sum('there 0 times' in error for error in tally.errors)
        doubled = sum('there 2 times' in error for error in tally.errors)
        made_up = sum('never sent' in error for error in tally.errors)
        numbers = (tally.runs, tally.kills, tally.cuts, tally.remains, lost, doubled, made_up)
        rows.append([name, *map(str, numbers)])
        if harmless and tally.errors:
            holes.extend(tally.errors)
        if not harmless and not tally.errors:
            holes.append(f'{name}: the model saw nothing')

    tell('pipelines')
    add('as it is', cut_pipelines(scratch, PowerLossDisk, range(PIPELINES)), harmless=True)
    for name, kind in (
        ('no directory is synced', WithoutDirectorySync),
        ('the stage is not synced', WithoutStageSync),
        ('the queues are not synced', WithoutQueueSync),
        ('no data is synced', WithoutDataSync),
    ):
        tell(f'pipelines: {name}')
        add(name, cut_pipelines(scratch, kind, range(10)), harmless=False)
    add(
        '`durability = lazy`',
        cut_pipelines(scratch, PowerLossDisk, range(10), durability='lazy'),
        harmless=False,
    )
    believing = cut_pipelines(scratch, PowerLossDisk, range(20), believing=True)
    add('readers believe every header', believing, harmless=False)
    heads = ['', 'runs', 'kills', 'cuts', 'remains set aside', 'lost', 'doubled', 'made up']
    return table(heads, rows)


def loops_apart() -> str:
    """:return: the table of a process of its own: what this one still holds of all the others is none of a loop's."""
    tell('loops')
    command = [sys.executable, '-m', 'tests.faults.harness.loops']
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def storm_table() -> str:
    tell('the long storm')
    result = storm(STORM_MESSAGES, STORM_KILLS)
    if not result.is_clean:
        holes.append(f'storm: {result}')
    rows = []
    for key, value in asdict(result).items():
        if isinstance(value, dict):
            value = ', '.join(f'{name}: {number}' for name, number in sorted(value.items())) or 'none'
        elif isinstance(value, list):
            value = len(value)
        rows.append([key.replace('_', ' '), str(value)])
    return table(['counted', 'result'], rows)


def machine() -> str:
    return f'Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors.'


def replace(page: str, name: str, content: str) -> str:
    """Put a table between its comments."""
    pattern = re.compile(rf'(<!-- {name}: generated -->\n).*?(<!-- end -->)', re.DOTALL)
    assert pattern.search(page), f'the page has no place for {name}'
    return pattern.sub(lambda match: f'{match[1]}\n{content}\n\n{match[2]}', page)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--storm', action='store_true', help='run the long storm too')
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    sections: dict[str, Callable[[Path], str]] = {
        'faults': fault_table,
        'kills': kill_table,
        'power': power_table,
        'pipelines': pipeline_table,
        'loops': lambda _: loops_apart(),
        'machine': lambda _: machine(),
    }
    if arguments.storm:
        sections['storm'] = lambda _: storm_table()
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory(prefix='proof-', dir=place) as scratch:
        for name, make in sections.items():
            page = replace(page, name, make(Path(scratch)))
    verdict = f'{len(holes)} holes.' if holes else 'No hole was found.'
    PAGE.write_text(replace(page, 'verdict', verdict))
    for hole in holes:
        print(hole)
    tell(verdict)
    return 1 if holes else 0


if __name__ == '__main__':
    sys.exit(main())
