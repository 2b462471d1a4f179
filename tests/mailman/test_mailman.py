"""GNU Mailman itself: its own tests, its own daemons, and ours that import it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard import Spool
from tests.mailman.price import QUEUES, table
from tests.mailman.site import Site, storm
from tests.mailman.suite import (
    CACHE,
    ENDED,
    EXPECTED,
    HALVES,
    ROOT,
    VERSIONS,
    Comparison,
    MailmanTree,
    beside_ours,
    compare,
    read_outcomes,
)

pytestmark = [pytest.mark.server, pytest.mark.slow]

# So many differences have a reason that is written down; more would be another program.
EXPECTED_MAX = 4

SHARED_MEMORY = Path('/dev/shm')


@pytest.fixture(scope='module')
def tree() -> MailmanTree:
    """Mailman and all that its tests need; fetched where nothing may be skipped, else only if it is there already."""
    tree = MailmanTree(VERSIONS[0], CACHE)
    if not tree.is_prepared() and not os.environ.get('SWITCHBOARD_REQUIRE_SERVERS'):
        pytest.skip('Mailman is not prepared here: python -m tests.mailman.suite fetches it')
    tree.prepare()
    return tree


@pytest.mark.timeout(900)
@pytest.mark.parametrize('half', HALVES)
@pytest.mark.in_turns('half', tuple(HALVES))
def test_mailmans_tests_of_queues_and_runners_pass_as_they_do_without_us(
    tree: MailmanTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    # Most of the time of its tests goes to the flushes of its database.
    if SHARED_MEMORY.is_dir():
        monkeypatch.setenv('TMPDIR', str(SHARED_MEMORY))
    comparison = compare(tree, HALVES[half], tmp_path)
    assert len(comparison.ours) > 70
    assert len(comparison.others()) < 20
    assert comparison.unexpected() == {}


def test_the_list_of_differences_is_short_and_each_has_a_reason() -> None:
    assert len(EXPECTED) <= EXPECTED_MAX
    assert all(len(reason) > 20 for reason in EXPECTED.values())


def test_what_nose_tells_is_read_test_by_test_and_one_bad_subtest_is_enough(tmp_path: Path) -> None:
    file = tmp_path / 'outcomes'
    lines = [
        ['test_a (mailman.x.TestX.test_a)', 'passed'],
        [f'{tmp_path}/src/mailman/docs/x.rst', 'failed, not as expected'],
        ['test_b (mailman.x.TestX.test_b)', 'subtest, not as expected'],
        ['test_b (mailman.x.TestX.test_b)', 'passed'],
        [ENDED, ''],
    ]
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert read_outcomes(file, tmp_path) == {
        'test_a (mailman.x.TestX.test_a)': 'passed',
        'mailman/docs/x.rst': 'failed, not as expected',
        'test_b (mailman.x.TestX.test_b)': 'subtest, not as expected',
    }
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines[:-1]))
    with pytest.raises(RuntimeError, match='a run of 3 tests was broken off'):
        read_outcomes(file, tmp_path)


def test_what_passes_with_us_is_compared_with_nothing_and_all_else_with_mailman_alone() -> None:
    comparison = Comparison({'a': 'passed', 'b': 'skipped', 'c': 'failed, not as expected', 'd': 'skipped'})
    assert comparison.others() == ['b', 'c', 'd']
    comparison.plain |= {'b': 'skipped', 'c': 'failed, not as expected', 'd': 'passed'}
    assert comparison.unexpected() == {'d': ('passed', 'skipped')}
    del comparison.plain['c']
    assert comparison.unexpected() == {
        'c': ('missing', 'failed, not as expected'),
        'd': ('passed', 'skipped'),
    }


def _neighbours(directory: Path) -> set[tuple[str, ...]]:
    """:return: each three lines that stand together in a file and say something."""
    found = set()
    for file in directory.rglob('*.py'):
        lines = [' '.join(line.split()) for line in file.read_text('utf-8', 'replace').splitlines()]
        told = [line for line in lines if re.search(r'\w', line) and not re.match(r'(from|import)\b', line)]
        found |= set(zip(told, told[1:], told[2:], strict=False))
    return found


def test_no_three_lines_of_ours_stand_together_in_mailman(tree: MailmanTree) -> None:
    """Mailman has another licence."""
    assert _neighbours(ROOT / 'switchboard' / 'mailman') & _neighbours(tree.source / 'src') == set()


def test_our_own_tests_pass_beside_mailman(tree: MailmanTree) -> None:
    done = subprocess.run(
        tree.pytest('tests/mailman/inside'),
        env=beside_ours(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_price_is_shown_as_medians_with_their_range() -> None:
    turns = {queues: [{'posts a second': float(each)} for each in (3, 1, 2)] for queues in QUEUES}
    counted = {queues: {'flushes': 4.0} for queues in QUEUES}
    assert table(turns, counted).splitlines()[2:] == [
        '| posts a second | 2.0 (1.0 to 3.0) | 2.0 (1.0 to 3.0) |',
        '| flushes | 4.0 | 4.0 |',
    ]


@pytest.fixture
def site(tree: MailmanTree, tmp_path: Path) -> Iterator[Site]:
    site = Site(tree, tmp_path, with_plugin=True)
    yield site
    site.close()


@pytest.mark.timeout(900)
def test_a_site_whose_processes_are_killed_loses_no_post(site: Site) -> None:
    outcome = storm(site, posts=40, kills=6, seed=3)
    assert (outcome['posts'], outcome['lost']) == (40, 0), outcome
    # One that was killed with its runner as often as is allowed; nothing lies there without saying so.
    bad = Spool(site.queues)['bad']
    for filebase in bad.get_files('.psv'):
        records = bad.peek(filebase, '.psv').records
        assert any(record.get('event') == 'preserved' and record.get('reason') for record in records), records
