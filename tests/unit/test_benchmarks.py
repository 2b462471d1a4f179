"""The benchmark itself: that its harness runs, counts and tells.  No figure is asserted; no peer is needed."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import cases
from tests.benchmarks.__main__ import Run
from tests.benchmarks.contenders.contender import ENTRANTS, Contender
from tests.benchmarks.measures import (
    aftermath,
    crowd,
    desk,
    large,
    parallel,
    routing,
    syscalls,
    tasks,
    transports,
)
from tests.benchmarks.messages import message
from tests.benchmarks.pairs import ContenderError, Round, figure, workers
from tests.benchmarks.results import machine, page, tables, targets
from tests.benchmarks.workloads import WORKLOADS, LostError, Tally, timed
from tests.helpers.accelerator import build_or_skip

ROOT = Path(__file__).resolve().parents[2]

STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 62.50    0.000500           5       100           renameat
 37.50    0.000300           3        90        10 openat
------ ----------- ----------- --------- --------- ----------------
100.00    0.000800                   190        10 total
"""


def test_we_and_the_floor_take_turns(tmp_path: Path) -> None:
    build_or_skip(tmp_path)
    [case] = [each for each in cases.CASES if each.name == cases.ONE]
    met = list(cases.meet(tmp_path, 'floor', [case], cases.TINY))
    assert [(group, found.a) for group, found in met] == [
        ('pingpong', 'ours'),
        ('pingpong', 'ours-accelerated'),
    ]
    for _, found in met:
        assert (found.b, found.pairs) == ('floor', 1)
        assert found.low == found.ratio == found.high > 0
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == []


@pytest.mark.parametrize('workload', sorted(WORKLOADS))
@pytest.mark.parametrize('name', ['ours', 'ours-batch', 'ours-kombu', 'sqlite', 'sqlite-full'])
def test_a_workload_gives_back_what_it_was_given(name: str, workload: str, tmp_path: Path) -> None:
    if name == 'ours-kombu':
        pytest.importorskip('kombu')
    with closing(ENTRANTS[name].make(tmp_path)) as contender:
        seconds, messages, cpu_s = timed(contender, workload, 'mail-read', 3, 0)
        assert seconds > 0
        assert cpu_s > 0
        assert messages == 3
        waiting = [path for path in tmp_path.glob('spool/[!.]*/*') if path.suffix in ('.pck', '.bak')]
        assert len(waiting) == (3 if workload == 'prefill' and not name.startswith('sqlite') else 0)


@pytest.mark.slow
@pytest.mark.every_second_day(0)
def test_the_desk_is_measured_with_tabs_and_without(tmp_path: Path) -> None:
    pytest.importorskip('uvicorn')
    facts = desk.measure(tmp_path, 300, 30, 1, 0.3)
    assert set(facts['first_byte_s']) == set(desk.PAGES)
    assert all(rate > 0 for rates in facts['messages_a_second'].values() for rate in rates)
    text = tables.desk({'desk': {'facts': facts}})
    assert '300 waiting, 30 bad' in text
    assert len(text.splitlines()) == 6


@pytest.mark.slow
@pytest.mark.every_second_day(1)
def test_transports_take_turns(tmp_path: Path) -> None:
    pytest.importorskip('kombu')
    effort = replace(cases.TINY, peers=('kombu-fs',))
    found = list(transports.run(tmp_path, effort, lambda _text: None))
    assert [each.case for each in found] == [transports.BURST, transports.SINGLE, transports.WAITING]
    assert {(each.a, each.b) for each in found} == {('ours-kombu', 'kombu-fs')}


@pytest.mark.slow
@pytest.mark.every_second_day(0)
def test_celerys_workers_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('celery')
    # Not kombu's own directory: a reader there may meet a half-written file, and then a task is lost.
    peer = 'ours-kombu-full'
    monkeypatch.setattr(tasks, 'PEERS', (peer,))
    monkeypatch.setattr(tasks, 'side', lambda _peer: 'ours-kombu')
    facts: dict[str, Any] = {}
    told: list[str] = []
    effort = replace(cases.TINY, peers=(peer,))
    found = next(tasks.run(tmp_path, effort, told.append, facts), None)
    assert found is not None, told
    assert (found.a, found.b) == ('ours-kombu', peer)
    assert facts[peer]['ours-kombu']['p50_us'] > 0
    results = {'celery': {'figures': [found.as_dict()], 'facts': facts}}
    assert f'| {ENTRANTS[peer].title} |' in tables.celery(results)


def test_a_contender_that_loses_messages_is_noticed(tmp_path: Path) -> None:
    class Hole(Contender):
        def put(self, queue: str, msg: Any) -> None:
            pass

        def take(self, queue: str) -> None:
            return None

    with pytest.raises(LostError, match='0 of 2'):
        timed(Hole(tmp_path), 'fill', 'bytes', 2, 0)


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    with (
        workers(tmp_path, ('ours', {})) as (worker,),
        pytest.raises(ContenderError, match="KeyError: 'no-such'"),
    ):
        worker.turn('no-such', 'bytes', 1, 0)


def test_consumers_of_several_processes_share_a_tally(tmp_path: Path) -> None:
    (tmp_path / 'tally').write_bytes(bytes(16))
    one, other = Tally(tmp_path / 'tally', 2), Tally(tmp_path / 'tally', 2)
    one.add(0)
    other.add(1)
    other.add(1)
    assert one.total() == other.total() == 3


def test_a_figure_is_the_median_of_the_ratios_of_pairs() -> None:
    rounds = [Round((1e-6, 2e-6), 10), Round((1e-6, 9e-6), 10), Round((2e-6, 6e-6), 10)]
    found = figure('case', 'a', 'b', rounds)
    assert (found.ratio, found.low, found.high) == pytest.approx((3, 2, 9))
    assert (found.a_us, found.b_us, found.messages) == pytest.approx((1, 6, 30))


def test_each_kind_of_message_is_the_same_each_time() -> None:
    for kind in ('bytes', 'large', 'json'):
        assert message(kind) == message(kind)
    assert message('mail').as_bytes() == message('mail').as_bytes()


def test_system_calls_are_read_from_what_strace_writes() -> None:
    assert syscalls.counts_of(STRACE) == {'renameat': 100, 'openat': 90}


def test_a_target_is_judged_by_the_results_alone() -> None:
    assert {each['met'] for each in targets.verdicts({})} == {None}
    made = figure('one mail', 'python3 -c pass', 'bin/drop', [Round((1.0, 1.4), 2)])
    results = {
        'start': {'figures': [made.as_dict()]},
        'wakeup': {'facts': {'runner': {'p50_us': 600.0}}},
    }
    verdicts = {each['name']: each for each in targets.verdicts(results)}
    assert verdicts['bin/drop / python3 -c pass']['met'] is True
    assert verdicts['wake-up, median']['met'] is False
    assert verdicts['wake-up, median']['value'] == pytest.approx(0.6)


def test_the_page_shows_what_was_measured_and_nothing_else() -> None:
    made = figure('one into ten', 'ours', 'dirq', [Round((1e-6, 2.5e-6), 2), Round((1e-6, 3.5e-6), 2)])
    machine = {'when': 'today', 'packages': {'dirq': '1.8'}, 'programs': {}}
    when = {'when': '2026-01-02 03:04 UTC', 'load': 0.4}
    results = {
        'machine': machine,
        'minutes': 1,
        'fan-out': {'figures': [made.as_dict()], **when, 'quick': True},
    }
    text = '\n'.join(page.sections(results, set()))
    assert '| dirq | **3.0** (2.5-3.5) |' in text
    assert '## Other shapes of work' in text
    assert '## Wake-up' not in text
    assert 'not measured' in text
    assert '| fan-out | unknown | 2026-01-02 03:04 UTC | 0.4 | short (`--quick`) |' in text


def test_the_page_shows_the_targets_of_each_file_system() -> None:
    def found(ratio: float) -> dict[str, Any]:
        made = figure(cases.ONE, 'ours-full', 'mailman', [Round((1.0, ratio), 2)])
        return {'pingpong': {'figures': [made.as_dict()], 'when': '2026-01-02 03:04 UTC'}}

    machine = {'when': 'today', 'file system': 'ext4, no journal (rw)', 'packages': {}, 'programs': {}}
    results = {'machine': machine, **found(1.6), 'elsewhere': {'xfs': found(1.25)}}
    text = '\n'.join(page.sections(results, set()))
    assert 'this run, ext4, no journal' in text
    [line] = [each for each in text.splitlines() if 'one at a time, full: Mailman' in each]
    cells = [each.strip() for each in line.split('|')]
    assert cells[2:5] == ['>= 1.5', '1.60', 'met']
    assert cells[-2] == '1.25'
    assert '| pingpong | ext4, no journal | 2026-01-02 03:04 UTC |  |  |' in text
    assert '| pingpong | xfs | 2026-01-02 03:04 UTC |  |  |' in text


def test_figures_that_were_measured_apart_have_their_own_date(tmp_path: Path) -> None:
    results: dict[str, Any] = {}
    for peers, peer in (((), 'dirq'), ((), 'sqlite'), (('sqlite',), 'sqlite')):
        run = Run(tmp_path, replace(cases.TINY, peers=peers), False, '', results, is_part=bool(peers))
        if peers:
            run.since = replace(run.since, when='2026-01-02 03:04 UTC', load=7.0)
            run.keep('fan-out', [figure('one into ten', 'ours', peer, [Round((1.0, 2.0), 2)])])
        else:
            both = [figure('one into ten', 'ours', each, [Round((1.0, 3.0), 2)]) for each in ('dirq', peer)]
            run.keep('fan-out', both, {})
    assert [each['ratio'] for each in results['fan-out']['figures']] == [3.0, 2.0]
    machine = {'when': 'today', 'packages': {}, 'programs': {}}
    text = '\n'.join(page.sections({'machine': machine, **results}, set()))
    [line] = [each for each in text.splitlines() if each.startswith('| fan-out |')]
    assert '2026-01-02' in line
    [line] = [each for each in text.splitlines() if each.startswith('| fan-out (')]
    assert line.startswith('| fan-out (dirq) | unknown |')
    assert '2026-01-02' not in line


def test_a_missed_target_says_what_each_side_took() -> None:
    made = figure(cases.ONE, 'ours-full', 'mailman', [Round((0.0005, 0.0006), 2, (1e-4, 2e-4))])
    floor = figure(cases.ONE, 'ours-full', 'floor-full', [Round((0.0005, 0.0004), 2)])
    machine = {'when': 'today', 'packages': {}, 'programs': {}}
    results = {'machine': machine, 'pingpong': {'figures': [made.as_dict(), floor.as_dict()]}}
    text = '\n'.join(page.sections(results, set()))
    expected = (
        'switchboard, full 500 µs, Mailman Switchboard 600 µs, the floor 400 µs; in processor time 2.00'
    )
    assert f'one at a time, full: Mailman with fsync / ours ({expected})' in text


def test_each_target_says_what_stands_between() -> None:
    assert [each.name for each in targets.TARGETS if not each.between] == []


def test_processor_time_and_the_quickest_turns_are_kept_beside_the_time() -> None:
    rounds = [
        Round((1.0, 8.0), 2, (1.0, 2.0)),
        Round((4.0, 6.0), 2, (1.0, 4.0)),
        Round((2.0, 3.0), 2, (1.0, 3.0)),
    ]
    extra = figure('case', 'a', 'b', rounds).extra
    assert extra == {'quickest': 3.0, 'cpu': {'ratio': 3.0, 'low': 2.0, 'high': 4.0}}
    assert 'cpu' not in figure('case', 'a', 'b', [Round((1.0, 2.0), 2, (1.0, None))]).extra


def test_the_file_system_is_named() -> None:
    assert machine.file_system(Path('/proc')) == 'proc'


@pytest.mark.slow
@pytest.mark.every_second_day(0)
def test_bursts_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, 'SECOND_UP_TO', 20)
    monkeypatch.setattr(aftermath, 'IDLE', 1)  # each is a process, and all of them do nothing
    facts: dict[str, Any] = {}
    found = list(aftermath.bursts(tmp_path, cases.TINY, lambda _text: None, facts))
    case = 'after 20 came and went'
    assert [each.case for each in found[:2]] == [case, case + aftermath.IDLE_TOO]
    assert len(found) == 4
    assert all(each.extra['cpu']['ratio'] > 0 for each in found)
    assert set(facts) == {'20'}
    assert set(facts['20']) == {'first', 'second', 'small'}
    table = tables.after({'after': {'figures': [each.as_dict() for each in found], 'facts': facts}})
    assert f'| one at a time, {case} |' in table
    assert 'the second burst of 20,' in table


@pytest.mark.slow
@pytest.mark.every_second_day(1)
def test_idle_slices_stand_beside_the_one_that_works(tmp_path: Path) -> None:
    [found] = crowd.run(tmp_path, cases.TINY)
    assert found.extra['cpu']['ratio'] > 0
    assert crowd.CASE in tables.crowd({'crowd': {'figures': [found.as_dict()]}})


@pytest.mark.slow
@pytest.mark.every_second_day(1)
def test_several_processes_tell_their_shares(tmp_path: Path) -> None:
    found = list(parallel.own_speed_up(tmp_path, cases.TINY, lambda _text: None))
    both = ['2 to 1', f'2 to 2{parallel.APART}']
    assert [(each.case, each.a) for each in found] == [
        *((case, side) for side in ('ours', 'ours-full') for case in both),
        *((both[0], side) for side in ('floor', 'floor-full')),
    ]
    assert [each.extra['uneven'] for each in found] == [1] * 6
    assert all(each.extra['cpu']['ratio'] > 0 for each in found)
    assert both[1] in tables.speed_up({'speed-up': {'figures': [each.as_dict() for each in found]}})


def test_a_large_body_is_measured_by_processes_of_its_own(tmp_path: Path) -> None:
    facts = large.run(tmp_path, 1000)
    assert set(facts) == {'mb', 'import', 'show', 'show text', *large.STEPS}
    assert min(facts.values()) >= 0.001


def test_the_benchmark_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import tests.benchmarks.__main__, tests.servers.brokers.broker"
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=60)


def test_numbers_have_two_digits_that_count() -> None:
    assert [tables.number(value) for value in (0.456, 1.5, 2.44, 62.39, 1234.5)] == [
        '0.46',
        '1.50',
        '2.4',
        '62.4',
        '1,234',
    ]


def test_pytest_collects_nothing_of_the_benchmark() -> None:
    assert list((ROOT / 'tests' / 'benchmarks').rglob('test_*')) == []


def test_every_entrant_that_is_a_class_is_there() -> None:
    for entrant in ENTRANTS.values():
        module, _, class_name = entrant.home.partition(':')
        benchmarks = ROOT / 'tests' / 'benchmarks'
        source = benchmarks / 'floor.c' if entrant.is_native else benchmarks / 'contenders' / f'{module}.py'
        assert source.exists()
        assert f'class {class_name}' in source.read_text() or entrant.is_native


def test_the_trie_and_the_scan_find_the_same_queues(tmp_path: Path) -> None:
    found = list(routing.run(tmp_path, cases.TINY))
    assert [(each.case, each.b) for each in found] == [
        (f'{count} bindings', side) for count in (10, 100) for side in ('scan', 'trie with 10')
    ]
    assert all(each.ratio > 0 for each in found)
