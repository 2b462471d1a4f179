"""The page with the proof is of these operations, and no older ones; its tables are made by ``python -m tests.faults.harness.report``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.harness.loops import LOOPS
from tests.faults.harness.report import PAGE, replace
from tests.faults.operations import OPERATIONS
from tests.faults.operations.whole_runners import RUNS


@pytest.mark.parametrize(
    ('section', 'operations'),
    [('faults', OPERATIONS), ('kills', [*OPERATIONS, *RUNS]), ('power', OPERATIONS), ('loops', LOOPS)],
)
def test_each_table_of_the_page_has_a_row_for_each_operation(section: str, operations: list[Any]) -> None:
    table = PAGE.read_text().partition(f'<!-- {section}: generated -->')[2].partition('<!-- end -->')[0]
    rows = [line.split('|')[1].strip() for line in table.strip().splitlines()[2:]]
    assert rows == [operation.name for operation in operations]


def test_the_page_shows_no_hole() -> None:
    page = PAGE.read_text()
    assert 'No hole was found.' in page
    assert '**hole**' not in page


def test_a_table_is_put_between_its_comments_and_nowhere_else() -> None:
    page = 'a\n<!-- x: generated -->\nold\n<!-- end -->\nb\n<!-- y: generated -->\n<!-- end -->\n'
    assert replace(page, 'x', 'new') == page.replace('old', '\nnew\n')
