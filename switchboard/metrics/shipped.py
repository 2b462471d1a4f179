"""The files shipped in ``etc/``, and the runbook: written from the descriptions in `alerts` and `dashboard`.

::

    python -m switchboard.metrics.shipped [--runbook URL] [DIRECTORY]

writes ``prometheus/switchboard.rules.yml`` and ``grafana/switchboard.json`` below the directory, ``etc`` if none is named.

An alert carries its runbook with it, because no address of a page holds for every installation; links to a page can be had besides.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from switchboard.metrics.alerts import ALERTS, Alert
from switchboard.metrics.dashboard import dashboard

RULES, DASHBOARD = 'prometheus/switchboard.rules.yml', 'grafana/switchboard.json'


def rules(runbook: str = '') -> str:
    """Write the rules as YAML; texts are quoted as in JSON, which YAML reads.

    :param runbook: the address of the page, for links to it.
    """
    return '\n'.join(_rules(runbook)) + '\n'


def _rules(runbook: str) -> Iterator[str]:
    yield '# Alerts of Switchboard for Prometheus.  Written by `python -m switchboard.metrics.shipped`; change the description there.'
    yield 'groups:'
    yield '  - name: switchboard'
    yield '    rules:'
    for alert in ALERTS:
        yield f'      - alert: {alert.name}'
        yield f'        expr: {json.dumps(alert.expression)}'
        yield f'        for: {alert.holds}'
        yield '        labels:'
        yield f'          severity: {alert.severity}'
        yield '        annotations:'
        yield f'          summary: {json.dumps(alert.summary)}'
        yield f'          description: {json.dumps(alert.meaning)}'
        yield f'          runbook: {json.dumps(alert.advice)}'
        if runbook:
            yield f'          runbook_url: {json.dumps(f"{runbook}#{alert.name.lower()}")}'


def runbook() -> str:
    """:return: the meaning of each alert and its advice, in Markdown."""
    chapters: dict[str, list[Alert]] = {}
    for alert in ALERTS:
        chapters.setdefault(alert.name, []).append(alert)
    return '\n'.join(line for name, alerts in chapters.items() for line in _chapter(name, alerts))


def _chapter(name: str, alerts: list[Alert]) -> Iterator[str]:
    yield f'### {name}'
    yield ''
    for alert in alerts:
        held = '' if alert.holds == '0m' else f', when it has been so for {alert.holds}'
        yield f'*{alert.severity.capitalize()}*{held}. {alert.meaning} {alert.advice}'
        yield ''


def write(directory: Path, url: str = '') -> None:
    """Write the files that are shipped."""
    for place, text in ((RULES, rules(url)), (DASHBOARD, json.dumps(dashboard(), indent=2) + '\n')):
        path = directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(prog='python -m switchboard.metrics.shipped')
    parser.add_argument(
        '--runbook', default='', metavar='URL', help='where the runbook is, for links of the alerts to it'
    )
    parser.add_argument('directory', nargs='?', type=Path, default=Path('etc'))
    chosen = parser.parse_args()
    write(chosen.directory, chosen.runbook)
