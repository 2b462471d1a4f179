"""The names below the spool: each stands once in the code, and is told in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import switchboard
from switchboard.options import QueueOptions
from switchboard.store import layout

ROOT = Path(switchboard.__file__).parent
NAMES = {name: value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
# Words that are also words: only as a path or a whole text they are a name.
PATHS = {value for value in NAMES.values() if value.startswith('.') and len(value) >= 4}


def test_the_bad_queue_has_one_name() -> None:
    assert QueueOptions().dead_letter == layout.BAD


def named(page: str) -> set[str]:
    """:return: the names in backquotes in the section about directories; of a path, each part."""
    section = page.partition('\n## Directories\n')[2].partition('\n## ')[0]
    return {part for path in re.findall(r'`([^` ]+)`', section) for part in path.split('/')}


@pytest.mark.parametrize('name', sorted(NAMES.keys() - {'WAKE'}))
def test_each_is_told_in_the_reference(name: str) -> None:
    found = named(Path(ROOT.parent, 'docs/reference/format.md').read_text())
    value = NAMES[name]
    if name.endswith('_PREFIX'):
        assert any(each.startswith(value) for each in found)
    else:
        assert found & {value, f'*{value}'}


def test_a_word_of_the_text_is_no_name() -> None:
    page = '\n## Directories\n\n| `paused/QUEUE` | the order of the clock |\n\n## Names\n`master`'
    assert named(page) == {'paused', 'QUEUE'}


@pytest.mark.parametrize('value', sorted(PATHS))
def test_no_other_module_writes_it_out(value: str) -> None:
    literal = re.compile(rf"""['"/]{re.escape(value)}(?=['"/{{@])""")
    users = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob('*.py')
        if path.name != 'layout.py'
        and any(
            literal.search(line.partition('#')[0])
            for line in path.read_text().splitlines()
            if '``' not in line
        )
    ]
    assert users == []
