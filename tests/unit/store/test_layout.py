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


@pytest.mark.parametrize('name', sorted(NAMES))
def test_each_is_told_in_the_reference(name: str) -> None:
    page = Path(ROOT.parent, 'docs/reference/format.md').read_text()
    assert NAMES[name] in page or name == 'WAKE'


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
