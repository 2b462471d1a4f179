"""The page about queue options is whole, and says what the configuration reference says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from switchboard.config.keys import QUEUE_KEYS

REFERENCE = Path(__file__).parents[3] / 'docs' / 'reference'


def rows(page: str) -> dict[str, tuple[str, str]]:
    """:return: type and default of each option, from the tables of a page."""
    found = {}
    text = (REFERENCE / page).read_text()
    if page == 'configuration.md':
        text = text[text.index('## `[queue.NAME]`') :]
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r'(?<!\\)\|', line)]
        if len(cells) > 5 and (match := re.fullmatch(r'(?:option )?`(\w+)`', cells[1])):
            found[match[1]] = (cells[2], cells[3])
    return found


@pytest.mark.parametrize('key', QUEUE_KEYS)
def test_each_option_stands_on_both_pages_with_the_same_type_and_default(key: str) -> None:
    ours, theirs = rows('queue-options.md'), rows('configuration.md')
    assert key in ours
    if key not in ('durability', 'directory_sync'):  # there they are those of the installation
        assert ours[key] == theirs[key]
