"""``bin/bench``: measure, keep the results as JSON, and make the page and the charts of them.

See ``bin/bench --help``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks import cases, profiles
from tests.benchmarks.cases import FULL, PEERS, QUICK, Effort
from tests.benchmarks.measures import (
    aftermath,
    backlog,
    crowd,
    desk,
    flush,
    footprint,
    large,
    parallel,
    routing,
    syscalls,
    tasks,
    transports,
    wakeup,
)
from tests.benchmarks.pairs import ROOT, ContenderError, Figure
from tests.benchmarks.results import machine
from tests.benchmarks.servers import ServerError

PAGE = ROOT / 'docs' / 'reference' / 'benchmarks.md'
RESULTS = ROOT / 'docs' / 'reference' / 'benchmarks' / 'results.json'


def tell(text: str) -> None:
    """Say on standard error what is being done."""
    print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


@dataclass(frozen=True)
class _Measured:
    """The moment when a group's measurement was begun, and how busy the machine was then.

    :param load: the mean number of processes that ran or waited for a processor or the disk, over the minute before.
    """

    when: str
    load: float
    _begun_s: float

    @classmethod
    def begin(cls) -> _Measured:
        """:return: now."""
        when = datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')
        return cls(when, round(os.getloadavg()[0], 1), time.monotonic())

    @property
    def minutes(self) -> float:
        """How long it has lasted."""
        return (time.monotonic() - self._begun_s) / 60


def _key(figure: dict[str, Any]) -> tuple[str, str, str]:
    return figure['case'], figure['a'], figure['b']


@dataclass
class Run:
    """One run of the benchmark: where it works, how hard, and what it has found.

    :param is_part: some peers only are measured.
    :param since: the end of the group before.
    """

    place: Path
    effort: Effort
    quick: bool
    before: str
    results: dict[str, Any]
    is_part: bool = False
    since: _Measured = field(default_factory=_Measured.begin)

    def keep(self, group: str, figures: Iterator[Figure] | list[Figure], facts: Any = None) -> None:
        """Add a group to the results.

        :param facts: what is no figure; read after the last figure was made.
        """
        made = list(figures)
        self._add(group, made, facts, self.since, self.since.minutes)
        self.since = _Measured.begin()

    def meetings(self, groups: set[str], names: set[str] | None = None) -> None:
        """All cases with all peers.

        :param names: those of the cases; None means all.
        """
        last_s = time.monotonic()
        figures: dict[str, list[Figure]] = {group: [] for group in groups}
        minutes = dict.fromkeys(groups, 0.0)
        for group, figure in cases.meet_all(self.place, groups, self.effort, tell, names):
            figures[group].append(figure)
            now_s = time.monotonic()
            minutes[group] += (now_s - last_s) / 60
            last_s = now_s
        for group, found in figures.items():
            self._add(group, found, None, self.since, minutes[group], is_whole=names is None)
        self.since = _Measured.begin()

    def _add(
        self,
        group: str,
        figures: list[Figure],
        facts: Any,
        measured: _Measured,
        minutes: float,
        *,
        is_whole: bool = True,
    ) -> None:
        when = {'when': measured.when, 'load': measured.load, 'quick': self.quick}
        made = [{**each.as_dict(), **when} for each in figures]
        # With some peers or cases only, the figures of the others stay, with their own dates.
        if self.is_part or not is_whole:
            new = {_key(each) for each in made}
            kept = self.results.get(group, {}).get('figures', ())
            made = [each for each in kept if _key(each) not in new] + made
            if isinstance(facts, dict):
                facts = (self.results.get(group, {}).get('facts') or {}) | facts
        self.results[group] = {'figures': made, 'facts': facts, **when, 'minutes': round(minutes, 1)}
        tell(f'{group}: {minutes:.1f} minutes')

    def own(self) -> None:
        """Our pipeline in our life cycles, and what more processes bring us."""
        self.keep('own', cases.own_life_cycles(self.place, self.effort))

    def parallel(self) -> None:
        """Several producers and consumers."""
        self.keep('parallel', parallel.run(self.place, self.effort, tell))
        self.keep('speed-up', parallel.own_speed_up(self.place, self.effort, tell))

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


def measure(options: argparse.Namespace) -> list[str]:
    """Run what is asked for and keep the results, after each group; those of groups that are not run stay as they are.

    :return: the groups in which something was wrong with the benchmark itself.
    """
    failed: list[str] = []
    first, *others = options.directory or [Path('/var/tmp')]
    wanted = set(options.only or GROUPS)
    place = Path(tempfile.mkdtemp(prefix='switchboard-bench.', dir=first))
    begun_s = time.monotonic()
    results = _earlier(options.results, machine.describe(place), is_part=options.only is not None)
    try:
        before = str(Path(options.before).resolve()) if options.before else ''
        effort = QUICK if options.quick else FULL
        if options.peer:
            effort = replace(effort, peers=tuple(options.peer))
        if options.pairs:
            effort = replace(effort, pairs=options.pairs)
        run = Run(place, effort, options.quick, before, results, bool(options.peer))
        if wanted & set(MEETINGS):
            names = {case.name for case in cases.CASES if case.is_elsewhere} if options.targets else None
            run.meetings(wanted & set(MEETINGS), names)
            _write(results, options.results, begun_s)
        for name, work in ALONE.items():
            if name in wanted:
                try:
                    work(run)
                except (ContenderError, ServerError) as error:
                    tell(f'left out: {name}: {error}')
                except Exception:  # half an hour of others' figures is not thrown away for it
                    traceback.print_exc()
                    tell(f'failed: {name}')
                    failed.append(name)
                _write(results, options.results, begun_s)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if wanted & set(ELSEWHERE):
        elsewhere = results.setdefault('elsewhere', {})
        for directory in others:
            elsewhere[machine.file_system(directory)] = measure_elsewhere(
                directory, effort, options.quick, wanted
            )
    _write(results, options.results, begun_s)
    tell(f'{options.results} written after {results["minutes"]} minutes')
    return failed


def _earlier(path: Path, found: dict[str, Any], *, is_part: bool) -> dict[str, Any]:
    """Begin with the results of earlier runs: a group that is not measured this time stays, with its own date.

    :param found: the machine; what another one has shown is of no use beside what is measured now.
    """
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    same = ('processor', 'kernel', 'file system')
    before = results.get('machine', {})
    if not is_part and any(before.get(key) != found[key] for key in same):
        results = {}
    return results | {'machine': found}


def _write(results: dict[str, Any], path: Path, begun_s: float) -> None:
    results['minutes'] = round((time.monotonic() - begun_s) / 60, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One line a group: the file is read by programs, and its changes by people.
    lines = [f'{json.dumps(key)}: {json.dumps(value)}' for key, value in sorted(results.items())]
    path.write_text('{\n' + ',\n'.join(lines) + '\n}\n')


def main() -> int:
    """:return: the exit status."""
    options = arguments()
    failed = [] if options.page_only else measure(options)
    if not options.no_page:
        from tests.benchmarks.results import page

        page.write(json.loads(options.results.read_text()), options.page)
        tell(f'{options.page} written')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
