"""The dashboard for Grafana: rows of panels, described in a table and made into Grafana's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

UID = 'switchboard-overview'
# How many columns a row has.
_COLUMNS, _HEIGHT = 24, 8
_SCOPE = 'job=~"$job", instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its queries by the legend of their series.  ``%`` stands for the job and the instance that were chosen."""

    title: str
    unit: str
    says: str
    queries: dict[str, str]
    links: dict[str, str] = field(default_factory=dict)


_QUEUE_LINK = {'Look at the queue in the desk': '${desk}/queues/${__field.labels.queue}'}
_BAD_LINK = {'Look at these in the desk': '${desk}/entries?q=queue:bad%20error:${__field.labels.error}'}


def _rate(name: str) -> str:
    return f'sum by (runner) (rate(switchboard_{name}_total{{%}}[$__rate_interval]))'


def _quantile(share: float, name: str) -> str:
    return f'histogram_quantile({share}, sum by (le, runner) (rate(switchboard_{name}_bucket{{%}}[$__rate_interval])))'


ROWS: dict[str, tuple[Panel, ...]] = {
    'Rate, failures, duration': (
        Panel('Done', 'ops', 'Messages finished a second.', {'{{runner}}': _rate('entries_done')}),
        Panel(
            'Failed and retried',
            'ops',
            'Messages sent to the bad queue, and put back to be tried again, a second.',
            {'{{runner}} failed': _rate('entries_failed'), '{{runner}} retried': _rate('entries_retried')},
        ),
        Panel(
            'Time at work',
            's',
            'How long messages are at work: half of them are faster than p50, 19 of 20 than p95.',
            {
                '{{runner}} p50': _quantile(0.5, 'entry_process_seconds'),
                '{{runner}} p95': _quantile(0.95, 'entry_process_seconds'),
            },
        ),
    ),
    'Queues': (
        Panel(
            'Oldest that could be taken',
            's',
            'How long the oldest entry of each queue waits; delayed and held ones do not count.',
            {'{{queue}}': 'switchboard_queue_oldest_claimable_age_seconds{%}'},
            _QUEUE_LINK,
        ),
        Panel(
            'Entries by state',
            'short',
            'The entries of each queue, by state.',
            {'{{queue}} {{state}}': 'switchboard_queue_entries{%, queue!="bad"} > 0'},
            _QUEUE_LINK,
        ),
        Panel(
            'Time waited',
            's',
            'How long messages could have been taken before they were.',
            {'{{runner}} p95': _quantile(0.95, 'entry_wait_seconds')},
        ),
    ),
    'What failed': (
        Panel(
            'Bad queue by error',
            'short',
            'Entries in the bad queue by the class of their last error.',
            {'{{error}}': 'switchboard_bad_entries{%} > 0'},
            _BAD_LINK,
        ),
        Panel(
            'Failures by error',
            'ops',
            'Messages sent to the bad queue a second, by the class of the error.',
            {
                '{{runner}} {{error}}': 'sum by (runner, error) (rate(switchboard_entries_failed_by_error_total{%}[$__rate_interval])) > 0'
            },
        ),
        Panel(
            'Recovered',
            'short',
            'Messages whose process died with them, in an hour.',
            {'{{runner}}': 'increase(switchboard_entries_recovered_total{%}[1h])'},
        ),
    ),
    'Runners and disk': (
        Panel(
            'Slices busy, at work, wanted',
            'short',
            'How many processes there are, should be, and have a message.',
            {
                '{{runner}} busy': 'switchboard_runner_busy_slices{%}',
                '{{runner}} at work': 'switchboard_runner_slices{%}',
                '{{runner}} wanted': 'switchboard_runner_slices_wanted{%}',
            },
        ),
        Panel(
            'Restarts',
            'short',
            'Processes that ended by themselves and were started again, in 15 minutes.',
            {'{{runner}}': 'increase(switchboard_runner_restarts_total{%}[15m])'},
        ),
        Panel(
            'Room on the disk',
            'percentunit',
            'Free space of the file system of the spool.',
            {'{{spool}}': 'switchboard_spool_free_bytes{%} / switchboard_spool_size_bytes{%}'},
        ),
    ),
}

ANNOTATIONS = {
    'Master started': 'changes(switchboard_master_start_timestamp_seconds{%}[$__rate_interval]) > 0',
    'Reloaded': 'changes(switchboard_config_last_reload_success_timestamp_seconds{%}[$__rate_interval]) > 0',
}
_SOURCE = {'type': 'prometheus', 'uid': '${datasource}'}


def _scoped(query: str) -> str:
    return query.replace('%', _SCOPE)


def dashboard() -> dict[str, Any]:
    """:return: Grafana's JSON."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        at = {'h': 1, 'w': _COLUMNS, 'x': 0, 'y': top}
        panels.append(
            {
                'type': 'row',
                'id': len(panels) + 1,
                'title': title,
                'collapsed': False,
                'panels': [],
                'gridPos': at,
            }
        )
        width = _COLUMNS // len(row)
        for place, panel in enumerate(row):
            at = {'h': _HEIGHT, 'w': width, 'x': place * width, 'y': top + 1}
            panels.append(_panel(panel, len(panels) + 1, at))
        top += 1 + _HEIGHT
    return {
        'uid': UID,
        'title': 'Switchboard',
        'description': 'Queues, runners and the disk of a spool. Written by `python -m switchboard.metrics.shipped`.',
        'tags': ['switchboard', 'queue'],
        'schemaVersion': 39,
        'version': 1,
        'editable': True,
        'graphTooltip': 1,
        'refresh': '30s',
        'timezone': 'browser',
        'time': {'from': 'now-3h', 'to': 'now'},
        'templating': {'list': list(_variables())},
        'annotations': {
            'list': [
                {
                    'name': name,
                    'datasource': _SOURCE,
                    'enable': True,
                    'iconColor': 'blue',
                    'expr': _scoped(query),
                    'titleFormat': name,
                }
                for name, query in ANNOTATIONS.items()
            ]
        },
        'panels': panels,
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {'name': 'datasource', 'label': 'Data source', 'type': 'datasource', 'query': 'prometheus'}
    for name, label, query in (
        ('job', 'Job', 'label_values(switchboard_build_info, job)'),
        ('instance', 'Instance', 'label_values(switchboard_build_info{job=~"$job"}, instance)'),
    ):
        yield {
            'name': name,
            'label': label,
            'type': 'query',
            'datasource': _SOURCE,
            'query': query,
            'includeAll': True,
            'multi': True,
            'allValue': '.+',
            'refresh': 2,
            'current': {'text': 'All', 'value': '$__all'},
        }
    yield {
        'name': 'desk',
        'label': 'Address of the desk',
        'type': 'textbox',
        'query': 'http://localhost:8080',
    }


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    links = [{'title': title, 'url': url, 'targetBlank': True} for title, url in panel.links.items()]
    return {
        'type': 'timeseries',
        'id': number,
        'title': panel.title,
        'description': panel.says,
        'datasource': _SOURCE,
        'gridPos': at,
        'fieldConfig': {'defaults': {'unit': panel.unit, 'min': 0, 'links': links}, 'overrides': []},
        'options': {
            'legend': {'displayMode': 'list', 'placement': 'bottom', 'showLegend': True},
            'tooltip': {'mode': 'multi', 'sort': 'desc'},
        },
        'targets': [
            {'datasource': _SOURCE, 'refId': chr(65 + place), 'expr': _scoped(query), 'legendFormat': legend}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }
