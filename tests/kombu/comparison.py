"""The table in ``docs/reference/kombu.md``: kombu's own tests over our transport and over kombu's ``filesystem://``.

``python -m tests.kombu.comparison`` runs both and writes it anew; `test_conformance` checks that it is true.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.kombu.sources import source_of
from tests.kombu.suites import ROOT, Outcome, mixins

PAGE = ROOT / 'docs' / 'reference' / 'kombu.md'
BEGIN, END = '<!-- comparison: begin -->\n', '<!-- comparison: end -->\n'


def table(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> str:
    """:return: the table, a line for each group of tests."""
    theirs_by_group = column(theirs)
    lines = ['| tests of kombu | `switchboard://` | `filesystem://` |', '|---|---|---|']
    lines += [f'| {group} | {cell} | {theirs_by_group[group]} |' for group, cell in column(ours).items()]
    return '\n'.join(lines) + '\n'


def _passed(outcomes: Sequence[Outcome], group: str | None = None) -> str:
    chosen = [one for one in outcomes if group in (None, one.group)]
    return f'{sum(one.result == "passed" for one in chosen)} of {len(chosen)}'


def column(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """:return: what the table has to say of one transport: by group, how many passed of how many."""
    groups = dict.fromkeys(one.group for one in outcomes)
    return {**{group: _passed(outcomes, group) for group in groups}, 'all': _passed(outcomes)}


def written() -> tuple[dict[str, str], dict[str, str]]:
    """:return: the two columns of the table that is in the page."""
    lines = PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]
    return {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}


def main() -> None:
    """Write the table anew."""
    with tempfile.TemporaryDirectory() as work:
        source = source_of('kombu')
        both = [mixins(source, Path(work), transport) for transport in ('switchboard', 'filesystem')]
        ours, theirs = (suite.outcomes() for suite in both)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(ours, theirs) + END + rest.partition(END)[2])


if __name__ == '__main__':
    main()
