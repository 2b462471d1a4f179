"""What Prometheus is given: every family as the table says, from the scoreboard and the last count, and nothing of a message."""

from __future__ import annotations

import os
import time
from collections import UserDict
from collections.abc import ItemsView
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from switchboard import Spool
from switchboard.errors import PermanentFailure
from switchboard.message.naming import NS_PER_S
from switchboard.metrics.collector import most_frequent, render
from switchboard.metrics.counting import Count, count_all
from switchboard.metrics.exporter import Exporter
from switchboard.metrics.families import FAMILIES, PREFIX
from switchboard.operating.queue_counts import QueueCounts
from switchboard.operating.spool_view import SpoolView
from switchboard.options import RunnerOptions
from switchboard.runner.runner import Runner
from switchboard.status.alive import master_directory
from switchboard.status.measurements import MAX_ERRORS, OTHER
from switchboard.status.record import MasterRecord, ProcessState
from switchboard.status.scoreboard import Scoreboard, Slot, SupervisorRecord
from switchboard.store.layout import SCOREBOARD
from tests.helpers.commands import succeed, switchboard

Numbers = dict[tuple[str, ...], float]


def numbers(text: bytes) -> Numbers:
    """:return: samples by name without prefix, and the values of their labels, in the order of the labels' names."""
    return {
        (
            sample.name.removeprefix(PREFIX),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def scrape(directory: Path, count: Count | None = None) -> Numbers:
    return numbers(render(directory, count or count_all(SpoolView(directory)))[0])


@pytest.fixture
def scoreboard(tmp_path: Path) -> Scoreboard:
    place = master_directory(tmp_path)
    place.mkdir(parents=True)
    scoreboard = Scoreboard.create(place / SCOREBOARD, 8)
    scoreboard.write_master_record(MasterRecord(1, ProcessState.RUNNING, 5 * NS_PER_S, 7 * NS_PER_S))
    return scoreboard


def test_an_empty_directory_has_numbers_too(tmp_path: Path) -> None:
    found = scrape(tmp_path)
    assert found['master_up',] == 0
    assert found['queue_oldest_claimable_age_seconds', 'bad'] == 0


def test_entries_are_counted_by_state_and_parked_ones_are_not_old(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('delayed', delay=3600)
    found = scrape(tmp_path)
    assert (found['queue_entries', 'in', 'waiting'], found['queue_entries', 'in', 'delayed']) == (0, 1)
    assert ('queue_oldest_claimable_timestamp_seconds', 'in') not in found
    assert found['queue_next_due_timestamp_seconds', 'in'] > time.time() + 3000
    spool['in'].enqueue('waiting')
    found = scrape(tmp_path)
    assert found['queue_entries', 'in', 'waiting'] == 1
    assert time.time() - 60 < found['queue_oldest_claimable_timestamp_seconds', 'in'] <= time.time()
    assert found['queue_bytes', 'in'] > 0


def test_what_an_operator_says_to_a_queue_is_read_at_each_scrape(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('x')
    count = count_all(SpoolView(tmp_path))
    spool.flags.set('paused', 'in')
    assert scrape(tmp_path, count)['queue_paused', 'in'] == 1
    assert scrape(tmp_path, count)['queue_draining', 'in'] == 0


def test_no_scrape_looks_into_a_queue(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('x')
    count = count_all(SpoolView(tmp_path))
    spool['in'].enqueue('y')
    assert scrape(tmp_path, count)['queue_entries', 'in', 'waiting'] == 1
    assert scrape(tmp_path, Count())['exporter_census_timestamp_seconds',] == 0


def test_a_count_that_had_no_time_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(3):
        spool['in'].enqueue(number)
    found = scrape(tmp_path, count_all(SpoolView(tmp_path), 0.0))
    assert found['queue_census_truncated', 'in'] == 1
    assert found['queue_entries', 'in', 'waiting'] == 0


def test_counters_of_slices_are_added_up_and_none_is_named(tmp_path: Path, scoreboard: Scoreboard) -> None:
    for part in range(2):
        scoreboard.write_supervisor_record(
            part, SupervisorRecord('in', part, 2, os.getpid(), restarts=part, started_ns=1)
        )
        slot = Slot(scoreboard, part)
        slot.heartbeat()
        slot.measured(NS_PER_S // 100, 2 * NS_PER_S)
        slot.end('done')
        slot.measured(NS_PER_S, None)
        slot.end('failed', 'ValueError')
    found = scrape(tmp_path)
    assert found['entries_done_total', 'in'] == found['entries_failed_total', 'in'] == 2
    assert found['entries_retried_total', 'in'] == found['entries_recovered_total', 'in'] == 0
    assert found['entries_failed_by_error_total', 'ValueError', 'in'] == 2
    assert found['entries_failed_by_error_total', OTHER, 'in'] == 0
    assert found['runner_restarts_total', 'in'] == 1
    assert found['entry_process_seconds_count', 'in'] == 4
    assert found['entry_process_seconds_sum', 'in'] == pytest.approx(2.02)
    assert found['entry_process_seconds_bucket', '0.01', 'in'] == 2
    assert found['entry_wait_seconds_bucket', '2.5', 'in'] == 2
    assert found['master_start_timestamp_seconds',] == 5
    assert found['config_last_reload_success_timestamp_seconds',] == 7
    # Its lock is not held: whatever the scoreboard says, nobody works.
    assert found['runner_slices', 'in'] == found['runner_slices_wanted', 'in'] == found['master_up',] == 0


def test_a_failed_reload_is_seen(tmp_path: Path, scoreboard: Scoreboard) -> None:
    scoreboard.write_master_record(
        MasterRecord(1, ProcessState.RUNNING, 5 * NS_PER_S, 7 * NS_PER_S, 6 * NS_PER_S, 'a mistake')
    )
    found = scrape(tmp_path)
    assert found['config_last_reload_successful',] == 0
    assert ('config_last_reload_success_timestamp_seconds',) not in found


def test_a_scoreboard_of_another_version_is_an_error_of_the_exporter_and_no_end(
    tmp_path: Path, scoreboard: Scoreboard
) -> None:
    scoreboard.path.write_bytes(b'SWBOARD\n' + (1).to_bytes(4, 'little') + bytes(9000))
    found = scrape(tmp_path)
    assert found['exporter_errors_total',] == 1
    assert ('master_start_timestamp_seconds',) not in found


def test_the_count_of_an_exporters_failures_does_not_fall_when_all_is_well_again(
    tmp_path: Path, scoreboard: Scoreboard
) -> None:
    good = scoreboard.path.read_bytes()
    exporter = Exporter(lambda: SpoolView(tmp_path))
    failures = []
    for content in (good, b'nonsense', b'nonsense', good):
        scoreboard.path.write_bytes(content)
        failures.append(numbers(exporter.render()[0])['exporter_errors_total',])
    assert failures == [0, 1, 2, 2]


def test_a_failure_of_a_scrape_is_kept_though_the_queues_are_counted_meanwhile(
    tmp_path: Path, scoreboard: Scoreboard
) -> None:
    class CountedMeanwhile(UserDict[str, QueueCounts]):
        def items(self) -> ItemsView[str, QueueCounts]:
            exporter.count()
            return super().items()

    scoreboard.path.write_bytes(b'nonsense')
    (tmp_path / 'bad').mkdir()
    exporter = Exporter(lambda: SpoolView(tmp_path))
    exporter.last = Count(queues=CountedMeanwhile())
    failures = [numbers(exporter.render()[0])['exporter_errors_total',] for _ in range(2)]
    assert (exporter.last.at_ns > 0, failures) == (True, [1, 2])


def test_the_bad_queue_is_told_by_error_and_hostile_names_are_no_labels(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    hostile = type('a"} 1\nevil{x="', (PermanentFailure,), {})

    class Fails(Runner):
        def dispose(self, msg: object, msgdata: object) -> None:
            raise (hostile if msg == 'hostile' else PermanentFailure)('secret words')

    for msg in ('hostile', 'x', 'y'):
        spool['in'].enqueue(msg)
    Fails(spool, RunnerOptions('in', 'x:Fails', queue='in')).run(until_empty=True)
    text, _ = render(tmp_path, count_all(SpoolView(tmp_path)))
    assert numbers(text)['bad_entries', 'PermanentFailure'] == 2
    assert numbers(text)['bad_entries', OTHER] == 1
    assert b'evil' not in text
    assert b'secret' not in text


def test_of_many_errors_the_most_frequent_are_told() -> None:
    found = most_frequent({f'E{number}': number for number in range(100)} | {'no name': 5, OTHER: 2})
    assert len(found) == MAX_ERRORS + 1
    assert min(number for name, number in found.items() if name != OTHER) == 80
    assert found[OTHER] == sum(range(80)) + 7


def test_what_is_told_is_what_the_table_says(tmp_path: Path, scoreboard: Scoreboard) -> None:
    scoreboard.write_supervisor_record(0, SupervisorRecord('in', 0, 1, os.getpid()))
    told = {}
    for family in text_string_to_metric_families(
        render(tmp_path, count_all(SpoolView(tmp_path)))[0].decode()
    ):
        if family.name.endswith('_created'):
            continue
        labels = {name for sample in family.samples for name in sample.labels} - {'le'}
        told[family.name.removeprefix(PREFIX).removesuffix('_total')] = (family.type, labels)
    for name, (kind, labels) in told.items():
        assert (kind, labels) == (FAMILIES[name].type, set(FAMILIES[name].labels)), name
    assert not {name for name, family in FAMILIES.items() if family.type != 'gauge'} - told.keys()


def test_counters_say_since_when_they_count_to_who_reads_that(tmp_path: Path, scoreboard: Scoreboard) -> None:
    scoreboard.write_supervisor_record(0, SupervisorRecord('in', 0, 1, os.getpid()))
    text, kind = render(tmp_path, Count(), accept='application/openmetrics-text; version=1.0.0')
    assert kind.startswith('application/openmetrics-text')
    assert b'switchboard_entries_done_created{runner="in"} 5.0' in text
    assert text.endswith(b'# EOF\n')


def test_a_count_in_the_background_is_there_after_it(tmp_path: Path) -> None:
    Spool(tmp_path)['in'].enqueue('x')
    exporter = Exporter(lambda: SpoolView(tmp_path))
    assert exporter.last == Count()
    exporter.start()
    assert exporter.counted.wait(60)
    exporter.close()
    assert exporter.last.queues['in'].waiting == 1


def test_a_count_that_fails_is_an_error_of_the_exporter_and_is_tried_again(tmp_path: Path) -> None:
    exporter = Exporter(lambda: SpoolView(tmp_path / 'nowhere'))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            exporter.count()
    assert numbers(exporter.render()[0])['exporter_errors_total',] == 2


def test_the_reference_page_has_the_table() -> None:
    page = (Path(__file__).parents[3] / 'docs/reference/metrics.md').read_text()
    for family in FAMILIES.values():
        name = PREFIX + family.name + ('_total' if family.type == 'counter' else '')
        labels = ', '.join(family.labels)
        assert f'| `{name}` | {family.type} | {labels} | {family.help} |' in page


def test_the_verb_writes_to_its_output_or_replaces_a_file(tmp_path: Path) -> None:
    spool = tmp_path / 'spool'
    Spool(spool)['in'].enqueue('x')
    assert numbers(succeed('-s', str(spool), 'metrics').raw)['queue_entries', 'in', 'waiting'] == 1
    place = tmp_path / 'switchboard.prom'
    place.write_text('old')
    with place.open() as old:
        assert succeed('-s', str(spool), 'metrics', '--textfile', str(place)).out == ''
        assert old.read() == 'old'
    assert numbers(place.read_bytes())['queue_entries', 'in', 'waiting'] == 1
    assert place.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir() if 'prom' in path.name] == ['switchboard.prom']
    failed = switchboard('-s', str(spool), 'metrics', '--textfile', str(tmp_path / 'nowhere/x.prom'))
    assert failed.status != 0
    assert switchboard('-s', str(spool), 'metrics', '--textfile', str(place), '--listen').status == 2
    assert switchboard('-s', str(spool), 'metrics', '--listen', '0.0.0.0:0').status != 0


@pytest.mark.parametrize(
    'accept',
    [
        'text/plain;version=abc',
        'application/openmetrics-text; version=1.0.0-rc1',
        'application/openmetrics-text;version=;escaping=\xff',
        ',;;q=x,*/*;q=99e999',
    ],
)
def test_whatever_a_client_accepts_it_gets_the_numbers(tmp_path: Path, accept: str) -> None:
    text, kind = render(tmp_path, Count(), accept=accept)
    assert b'switchboard_build_info' in text
    assert kind.startswith(('text/plain', 'application/openmetrics-text'))
