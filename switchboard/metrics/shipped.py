"""The rules and the dashboard of ``etc/``, written into a directory; the alerts with links to their runbook, if its address is given.

::

    python -m switchboard.metrics.shipped [--runbook URL] [DIRECTORY]

writes ``prometheus/switchboard.rules.yml`` and ``grafana/switchboard.json`` below the directory, ``etc`` if none is named.

An alert carries its runbook with it, because no address of a page holds for every installation; links to a page can be had besides.
"""

from __future__ import annotations

import argparse
import re
from importlib.resources import files
from pathlib import Path

RULES, DASHBOARD = 'prometheus/switchboard.rules.yml', 'grafana/switchboard.json'


def read_shipped(place: str) -> str:
    """:return: the text of `RULES` or of `DASHBOARD`."""
    return (files('switchboard') / 'samples' / place).read_text('utf-8')


def rules(runbook: str = '') -> str:
    """:return: the rules.

    :param runbook: the address of the page, for a link from each alert to its part of it.
    """

    def linked(alert: re.Match[str]) -> str:
        return f'{alert[0]}          runbook_url: "{runbook}#{alert[1].lower()}"\n'

    # One alert: its name, and all lines up to the advice, which is the last of them.
    alert = re.compile(r'^ +- alert: (\w+)\n(?: .*\n)*? +runbook: .*\n', re.MULTILINE)
    return alert.sub(linked, read_shipped(RULES)) if runbook else read_shipped(RULES)


def write_shipped(directory: Path, runbook: str = '') -> None:
    """Write both files."""
    for place, text in ((RULES, rules(runbook)), (DASHBOARD, read_shipped(DASHBOARD))):
        path = directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, 'utf-8')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(prog='python -m switchboard.metrics.shipped')
    parser.add_argument(
        '--runbook', default='', metavar='URL', help='where the runbook is, for links of the alerts to it'
    )
    parser.add_argument('directory', nargs='?', type=Path, default=Path('etc'))
    chosen = parser.parse_args()
    write_shipped(chosen.directory, chosen.runbook)
