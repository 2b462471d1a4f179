"""``bin/bench``: measure, keep the results as JSON, and make the page and the charts of them.

See ``bin/bench --help``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import (
    aftermath,
    backlog,
    cases,
    crowd,
    desk,
    flush,
    footprint,
    large,
    machine,
    parallel,
    profiles,
    routing,
    syscalls,
    tasks,
    transports,
    wakeup,
)
from .cases import FULL, PEERS, QUICK, Effort
from .pairs import ROOT, ContenderError, Figure

PAGE = ROOT / 'docs' / 'reference' / 'benchmarks.md'
RESULTS = ROOT / 'docs' / 'reference' / 'benchmarks' / 'results.json'


def tell(text: str) -> None:
    """Say on standard error what is being done."""
    print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


@dataclass
class Run:
    """One run of the benchmark: where it works, how hard, and what it has found."""

    place: Path
    effort: Effort
    quick: bool
    before: str
    results: dict[str, Any]

    def keep(self, group: str, figures: Iterator[Figure] | list[Figure], facts: Any = None) -> None:
        """Add a group to the results.

        :param facts: what is no figure; read after the last figure was made.
        """
        made = [each.as_dict() for each in figures]
        when = datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')
        self.results[group] = {'figures': made, 'facts': facts, 'quick': self.quick, 'when': when}

    def meetings(self, groups: set[str], names: set[str] | None = None) -> None:
        """All cases with all peers.

        :param names: those of the cases; None means all.
        """
        figures: dict[str, list[Figure]] = {group: [] for group in groups}
        for group, figure in cases.meet_all(self.place, groups, self.effort, tell, names):
            figures[group].append(figure)
        for group, found in figures.items():
            self.keep(group, found)

    def own(self) -> None:
        """Our pipeline in our life cycles, and what more processes bring us."""
        self.keep('own', cases.own_life_cycles(self.place, self.effort))

    def parallel(self) -> None:
        """Several producers and consumers."""
        self.keep('parallel', parallel.run(self.place, self.effort, tell))
        self.keep('speed-up', parallel.own_speed_up(self.place, self.effort))

    def backlog(self) -> None:
        """The others with a backlog."""
        self.keep('backlog', backlog.peers(self.place, self.effort, tell))

    def depth(self) -> None:
        """Us with up to a million waiting."""
        facts: dict[str, Any] = {}
        self.keep('depth', backlog.depths(self.place, self.effort, tell, facts), facts)

    def after(self) -> None:
        """After a burst, and just started."""
        facts: dict[str, Any] = {}
        self.keep('after', aftermath.bursts(self.place, self.effort, tell, facts), facts)
        self.keep('started', aftermath.starts(self.place, self.effort, tell))

    def crowd(self) -> None:
        """Idle slices beside the one that works."""
        tell('idle slices')
        self.keep('crowd', crowd.run(self.place, self.effort))

    def large(self) -> None:
        """Memory for a large body."""
        tell('a large body')
        self.keep('large', [], large.run(self.place, self.effort.large_bytes))

    def kombu(self) -> None:
        """Our transport beside others, and as Celery's broker."""
        self.keep('kombu', transports.run(self.place, self.effort, tell))
        facts: dict[str, Any] = {}
        self.keep('celery', tasks.run(self.place, self.effort, tell, facts), facts)

    def syscalls(self) -> None:
        """System calls a message."""
        count = 100 if self.quick else 300
        self.keep('syscalls', [], list(syscalls.run(self.place, count, tell, self.before)))

    def wakeup(self) -> None:
        """From the rename to ``dispose``."""
        tell('wake-up')
        self.keep('wakeup', [], wakeup.run(self.place, 100 if self.quick else 500))

    def footprint(self) -> None:
        """Memory and time of a master and 16 runners."""
        tell('footprint')
        self.keep('footprint', [], footprint.run(self.place, self.effort.pairs))

    def start(self) -> None:
        """Time of ``bin/drop``."""
        tell('bin/drop')
        self.keep('start', footprint.drop(self.place, 20 if self.quick else 60))

    def profile(self) -> None:
        """Where the time goes."""
        seconds = 2 if self.quick else 4
        self.keep('profile', [], profiles.run(self.place, seconds, tell, self.before))

    def flush(self) -> None:
        """Ways to bring a batch to the disk."""
        tell('ways to flush')
        self.keep('flush', flush.run(self.place, self.effort))

    def routing(self) -> None:
        """Many bindings."""
        tell('routing')
        self.keep('routing', routing.run(self.place, self.effort))

    def desk(self) -> None:
        """Tabs open on a deep spool."""
        tell('the desk')
        home = self.place / 'desk'
        home.mkdir()
        self.keep('desk', [], desk.run(home, quick=self.quick))

    def compare(self) -> None:
        """An older checkout and this one."""
        if self.before:
            tell('before and after')
            self.keep('before', cases.before_after(self.place, self.before, self.effort))


MEETINGS = ('cycle', 'bursts', 'pingpong', 'pipeline', 'fan-out')
# What is measured on further file systems: the targets of the disk.
ELSEWHERE = ('cycle', 'bursts', 'pingpong', 'pipeline')
ELSEWHERE_PEERS = ('mailman', 'mailman-nosync', 'sqlite-full', 'floor', 'floor-full', 'floor-batch')
ALONE: dict[str, Callable[[Run], None]] = {
    'own': Run.own,
    'flush': Run.flush,
    'routing': Run.routing,
    'wakeup': Run.wakeup,
    'footprint': Run.footprint,
    'start': Run.start,
    'syscalls': Run.syscalls,
    'parallel': Run.parallel,
    'after': Run.after,
    'crowd': Run.crowd,
    'large': Run.large,
    'backlog': Run.backlog,
    'kombu': Run.kombu,
    'profile': Run.profile,
    'before': Run.compare,
    'depth': Run.depth,
    'desk': Run.desk,
}
GROUPS = (*MEETINGS, *ALONE)


def arguments() -> argparse.Namespace:
    """:return: what the command line asks for."""
    parser = argparse.ArgumentParser(prog='bin/bench', description=__doc__.partition('\n')[0])
    parser.add_argument(
        '--quick', action='store_true', help='a few minutes: fewer and shorter turns, less depth'
    )
    parser.add_argument(
        '--only',
        metavar='NAME',
        action='append',
        choices=GROUPS,
        help=f'one of: {", ".join(GROUPS)}; may be repeated',
    )
    parser.add_argument(
        '--peer',
        metavar='NAME',
        action='append',
        choices=PEERS,
        help=f'one of: {", ".join(PEERS)}; may be repeated',
    )
    parser.add_argument(
        '--directory',
        metavar='DIRECTORY',
        type=Path,
        action='append',
        help='where to work: on the file system to be measured (default: /var/tmp); given more than once, the '
        'others are those on which the targets of the disk are measured, too',
    )
    parser.add_argument(
        '--targets',
        action='store_true',
        help='of the cases that peers meet us in, only those that have a target',
    )
    parser.add_argument('--pairs', metavar='N', type=int, help='turns of each side that count')
    parser.add_argument('--before', metavar='DIRECTORY', default='', help='an older checkout to compare with')
    parser.add_argument('--results', metavar='FILE', type=Path, default=RESULTS, help='default: %(default)s')
    parser.add_argument('--page', metavar='FILE', type=Path, default=PAGE, help='default: %(default)s')
    parser.add_argument('--no-page', action='store_true', help='leave the page and the charts as they are')
    parser.add_argument('--page-only', action='store_true', help='measure nothing, write the page anew')
    return parser.parse_args()


def measure_elsewhere(directory: Path, effort: Effort, quick: bool, wanted: set[str]) -> dict[str, Any]:
    """:return: the results of a few groups on another file system."""
    place = Path(tempfile.mkdtemp(prefix='switchboard-bench.', dir=directory))
    tell(f'{directory}: {machine.file_system(place)}')
    try:
        run = Run(place, replace(effort, peers=ELSEWHERE_PEERS), quick, '', {})
        groups = wanted & set(ELSEWHERE)
        run.meetings(groups, {case.name for case in cases.CASES if case.is_elsewhere})
        return run.results
    finally:
        shutil.rmtree(place, ignore_errors=True)


def measure(options: argparse.Namespace) -> None:
    """Run what is asked for and keep the results; those of groups that are not run stay as they are."""
    first, *others = options.directory or [Path('/var/tmp')]
    wanted = set(options.only or GROUPS)
    partial = options.only is not None and options.results.exists()
    results = json.loads(options.results.read_text()) if partial else {}
    place = Path(tempfile.mkdtemp(prefix='switchboard-bench.', dir=first))
    begun_s = time.monotonic()
    try:
        results['machine'] = machine.describe(place)
        before = str(Path(options.before).resolve()) if options.before else ''
        effort = QUICK if options.quick else FULL
        if options.peer:
            effort = replace(effort, peers=tuple(options.peer))
        if options.pairs:
            effort = replace(effort, pairs=options.pairs)
        run = Run(place, effort, options.quick, before, results)
        if wanted & set(MEETINGS):
            names = {case.name for case in cases.CASES if case.is_elsewhere} if options.targets else None
            run.meetings(wanted & set(MEETINGS), names)
        for name, work in ALONE.items():
            if name in wanted:
                try:
                    work(run)
                except ContenderError as error:
                    tell(f'left out: {name}: {error}')
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if wanted & set(ELSEWHERE):
        elsewhere = results.setdefault('elsewhere', {})
        for directory in others:
            elsewhere[machine.file_system(directory)] = measure_elsewhere(
                directory, effort, options.quick, wanted
            )
    results['minutes'] = round((time.monotonic() - begun_s) / 60, 1)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    # One line a group: the file is read by programs, and its changes by people.
    lines = [f'{json.dumps(key)}: {json.dumps(value)}' for key, value in sorted(results.items())]
    options.results.write_text('{\n' + ',\n'.join(lines) + '\n}\n')
    tell(f'{options.results} written after {results["minutes"]} minutes')


def main() -> int:
    """:return: the exit status."""
    options = arguments()
    if not options.page_only:
        measure(options)
    if not options.no_page:
        from . import page

        page.write(json.loads(options.results.read_text()), options.page)
        tell(f'{options.page} written')
    return 0


if __name__ == '__main__':
    sys.exit(main())
