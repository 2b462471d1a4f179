"""The rules and the dashboard as promtool reads them, each alert with what rouses it and what does not, and a real Prometheus that scrapes."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from switchboard import Spool
from switchboard.metrics.exporter import exporter_of
from switchboard.metrics.families import FAMILIES, PREFIX
from switchboard.metrics.listener import Listener
from switchboard.metrics.shipped import DASHBOARD, RULES, read_shipped, rules, write_shipped
from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE_S, eventually
from tests.servers.place import ROOT, missing

# By alert: when it is looked at, series that rouse it, and series that do not. `x+yxn` begins at x and grows by y, n times.
Q, R = 'queue="in"', 'runner="in"'
EXAMPLES: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    'SwitchboardDown': ('5m', {'master_up': '0x20'}, {'master_up': '1x20'}),
    'OldestClaimableTooOld': (
        '30m',
        {
            f'queue_oldest_claimable_timestamp_seconds{{{Q}}}': '0x60',
            'exporter_census_timestamp_seconds': '0+60x60',
        },
        {
            f'queue_oldest_claimable_timestamp_seconds{{{Q}}}': '0x60',
            f'queue_paused{{{Q}}}': '1x60',
            # Ten seconds old when it was counted; that was long ago, and nobody knows what has become of it.
            'queue_oldest_claimable_timestamp_seconds{queue="out"}': '1000x60',
            'exporter_census_timestamp_seconds': '1010x60',
        },
    ),
    'QueueWithoutRunner': (
        '10m',
        {
            f'queue_entries{{{Q}, state="waiting"}}': '5x20',
            f'runner_queue_info{{{R}, {Q}}}': '1x20',
            f'runner_slices{{{R}}}': '0x20',
        },
        {
            f'queue_entries{{{Q}, state="waiting"}}': '5x20',
            f'runner_queue_info{{{R}, {Q}}}': '1x20',
            f'runner_slices{{{R}}}': '1x20',
        },
    ),
    'QueueGrowing': (
        '90m',
        {
            f'queue_entries{{{Q}, state="waiting"}}': '0+10x100',
            f'queue_oldest_claimable_age_seconds{{{Q}}}': '0+30x100',
        },
        {
            f'queue_entries{{{Q}, state="waiting"}}': '0+10x100',
            f'queue_oldest_claimable_age_seconds{{{Q}}}': '3x100',
        },
    ),
    'FailureRatioHigh': (
        '30m',
        {f'entries_done_total{{{R}}}': '0+10x40', f'entries_failed_total{{{R}}}': '0+2x40'},
        {f'entries_done_total{{{R}}}': '0+1x40', f'entries_failed_total{{{R}}}': '0+0.5x40'},
    ),
    'BadQueueGrew': (
        '30m',
        {'queue_entries{queue="bad", state="preserved"}': '0+5x40'},
        {'queue_entries{queue="bad", state="preserved"}': '50-1x40'},
    ),
    'RunnerCrashLoop': (
        '30m',
        {f'runner_restarts_total{{{R}}}': '0+1x40'},
        {f'runner_restarts_total{{{R}}}': '3x40'},
    ),
    'SlicesMissing': (
        '15m',
        {f'runner_slices{{{R}}}': '1x20', f'runner_slices_wanted{{{R}}}': '2x20'},
        {f'runner_slices{{{R}}}': '2x20', f'runner_slices_wanted{{{R}}}': '2x20'},
    ),
    'EntryStuck': (
        '15m',
        {f'runner_deadline_overrun_slices{{{R}}}': '1x20'},
        {f'runner_claim_since_timestamp_seconds{{{R}}}': '0x20'},
    ),
    'HeartbeatOld': (
        '30m',
        {f'runner_heartbeat_timestamp_seconds{{{R}}}': '0x60'},
        {f'runner_heartbeat_timestamp_seconds{{{R}}}': '0x60', f'runner_busy_slices{{{R}}}': '1x60'},
    ),
    'SpoolFillsIn24h': (
        '5h',
        {'spool_free_inodes{spool="x"}': '100000-100x400'},
        {
            'spool_free_inodes{spool="x"}': '0x400',
            'spool_free_bytes{spool="x"}': '1e12x400',
            # Of a new installation, which fills its spares: for an hour and a half.
            'spool_free_inodes{spool="new"}': '_x210 100000-100x190',
            'spool_free_bytes{spool="new"}': '_x210 1e9-1e6x190',
        },
    ),
    'ReloadFailed': (
        '10m',
        {'config_last_reload_successful': '0x20'},
        {'config_last_reload_successful': '1x20'},
    ),
    'PausedTooLong': ('90m', {f'queue_paused{{{Q}}}': '1x100'}, {f'queue_paused{{{Q}}}': '1x50 0x50'}),
    'CensusStale': (
        '60m',
        {'exporter_census_timestamp_seconds': '0x100'},
        {'exporter_census_timestamp_seconds': '0+60x100', f'queue_census_truncated{{{Q}}}': '0x100'},
    ),
    'EntriesRecovered': (
        '30m',
        {f'entries_recovered_total{{{R}}}': '0x20 1x20'},
        {f'entries_recovered_total{{{R}}}': '7x40'},
    ),
}


@pytest.fixture
def promtool(tmp_path: Path) -> Callable[..., str]:
    """:return: a function that runs it, and gives what it says."""
    if shutil.which('promtool') is None:
        missing('promtool (apt-get install prometheus)')

    def run(*words: str) -> str:
        ran = subprocess.run(
            ['promtool', *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return run


ALERTS: list[dict[str, Any]] = yaml.safe_load(rules())['groups'][0]['rules']
DASHBOARD_FIELDS: dict[str, Any] = json.loads(read_shipped(DASHBOARD))


def runbook() -> str:
    """:return: what each alert means and its advice, as the page has them."""
    lines: list[str] = []
    for alert in ALERTS:
        held = '' if alert['for'] == '0m' else f', when it has been so for {alert["for"]}'
        title = f'### {alert["alert"]}'
        lines += [] if title in lines else [title, '']
        says = alert['annotations']
        severity = alert['labels']['severity'].capitalize()
        lines += [f'*{severity}*{held}. {says["description"]} {says["runbook"]}', '']
    return '\n'.join(lines)


def test_the_command_writes_what_is_shipped(tmp_path: Path) -> None:
    write_shipped(tmp_path)
    for place in (RULES, DASHBOARD):
        assert (tmp_path / place).read_bytes() == (ROOT / 'etc' / place).read_bytes()


def test_each_alert_carries_its_part_of_the_runbook_and_may_link_to_it(tmp_path: Path) -> None:
    page = (ROOT / 'docs/howto/monitor.md').read_text()
    assert page.endswith(runbook()), 'write the part of the page below <!-- alerts --> anew'
    write_shipped(tmp_path, 'https://wiki.example/monitor')
    linked = yaml.safe_load((tmp_path / RULES).read_text())['groups'][0]['rules']
    for alert, with_link in zip(ALERTS, linked, strict=True):
        link = {'runbook_url': f'https://wiki.example/monitor#{alert["alert"].lower()}'}
        assert with_link == alert | {'annotations': alert['annotations'] | link}
    assert 'runbook_url' not in rules(), 'no address holds for every installation'


def test_promtool_takes_all_rules(promtool: Callable[..., str]) -> None:
    assert f'{len(ALERTS)} rules found' in promtool('check', 'rules', str(ROOT / 'etc' / RULES))


def test_each_alert_is_roused_by_what_it_is_for_and_by_nothing_else(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    assert EXAMPLES.keys() == {alert['alert'] for alert in ALERTS}
    (tmp_path / 'rules.yml').write_text(rules())
    tests: list[dict[str, Any]] = []
    for name, (at, roused, quiet) in EXAMPLES.items():
        for series, is_roused in ((roused, True), (quiet, False)):
            shown = [{'series': _series(each), 'values': values} for each, values in series.items()]
            expr = f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) > bool 0 or vector(0)'
            samples = [{'labels': '{}', 'value': int(is_roused)}]
            test = {'expr': expr, 'eval_time': at, 'exp_samples': samples}
            tests.append({'name': name, 'interval': '1m', 'input_series': shown, 'promql_expr_test': [test]})
    (tmp_path / 'tests.yml').write_text(
        json.dumps({'rule_files': ['rules.yml'], 'evaluation_interval': '1m', 'tests': tests})
    )
    assert 'SUCCESS' in promtool('test', 'rules', 'tests.yml')


def expressions() -> list[str]:
    """:return: every query of the dashboard."""
    targets = [target for panel in DASHBOARD_FIELDS['panels'] for target in panel.get('targets', ())]
    return [one['expr'] for one in [*targets, *DASHBOARD_FIELDS['annotations']['list']]]


def _series(name: str) -> str:
    name, _, labels = name.partition('{')
    return f'{PREFIX}{name}{{job="switchboard", instance="box", {labels.rstrip("}")}}}'


def test_prometheus_can_read_every_query_of_the_dashboard(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    queries = [query.replace('$__rate_interval', '5m') for query in expressions()]
    panels = [panel for panel in DASHBOARD_FIELDS['panels'] if panel['type'] != 'row']
    assert len(queries) >= len(DASHBOARD_FIELDS['annotations']['list']) + len(panels)
    assert all('job=~"$job", instance=~"$instance"' in query for query in expressions())
    known = [{'record': f'q:{number}', 'expr': query} for number, query in enumerate(queries)]
    (tmp_path / 'rules.yml').write_text(json.dumps({'groups': [{'name': 'q', 'rules': known}]}))
    promtool('check', 'rules', 'rules.yml')


def test_every_metric_of_alerts_and_dashboard_is_one_of_ours() -> None:
    import re

    ours = set()
    for family in FAMILIES.values():
        endings = {'counter': ('_total',), 'gauge': ('',), 'histogram': ('_bucket', '_sum', '_count')}
        ours |= {PREFIX + family.name + ending for ending in endings[family.type]}
    for query in [*expressions(), *(alert['expr'] for alert in ALERTS)]:
        assert set(re.findall(rf'\b{PREFIX}\w+', query)) <= ours


def test_each_panel_has_a_title_a_unit_and_a_word_of_what_it_shows() -> None:
    for panel in DASHBOARD_FIELDS['panels']:
        if panel['type'] != 'row':
            assert panel['title']
            assert panel['description'].endswith('.')
            assert panel['fieldConfig']['defaults']['unit']
            assert panel['datasource'] == {'type': 'prometheus', 'uid': '${datasource}'}


def test_a_real_prometheus_scrapes_it(tmp_path: Path) -> None:
    if shutil.which('prometheus') is None:
        missing('prometheus (apt-get install prometheus)')
    spool = Spool(tmp_path / 'spool')
    spool['in'].enqueue('x')
    exporter = exporter_of(spool)
    exporter.count()
    listener = Listener(exporter.render, '127.0.0.1:0')
    listener.start()
    port = free_port()
    (tmp_path / 'rules.yml').write_text(rules())
    (tmp_path / 'prometheus.yml').write_text(
        json.dumps(
            {
                'global': {'scrape_interval': '1s', 'evaluation_interval': '1s'},
                'rule_files': ['rules.yml'],
                'scrape_configs': [
                    {
                        'job_name': 'switchboard',
                        'static_configs': [{'targets': [f'127.0.0.1:{listener.port}']}],
                    }
                ],
            }
        )
    )
    server = subprocess.Popen(
        [
            'prometheus',
            '--config.file=prometheus.yml',
            '--storage.tsdb.path=data',
            f'--web.listen-address=127.0.0.1:{port}',
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def value_of(query: str) -> float | None:
        url = f'http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({"query": query})}'
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found = json.load(answer)['data']['result']
        except OSError:
            return None
        return float(found[0]['value'][1]) if found else None

    try:
        eventually(
            lambda: value_of('switchboard_queue_entries{queue="in", state="waiting"}') == 1, 'the entry'
        )
        # A scrape has a second, which it may not keep on a busy machine: then there are no values until the next one.
        eventually(lambda: value_of('up{job="switchboard"}') == 1, 'up')
        eventually(lambda: value_of('switchboard_master_up') == 0, 'the master')
        eventually(lambda: value_of('ALERTS{alertname="SwitchboardDown"}') == 1, 'the alert')
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
        listener.close()
