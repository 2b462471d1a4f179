"""kombu's and Celery's own tests pass over our transport."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('celery')

import celery
import kombu

from tests.kombu.comparison import column, written
from tests.kombu.sources import source_of
from tests.kombu.suites import Outcome, Suite, mixins, simple_and_pidbox
from tests.kombu.suites import celery as celery_suite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# They fail with Redis as broker and as backend too where two processors are shared.  The first revokes by a worker's mailbox and publishes to its
# queue in the same instant, and no broker promises an order between two queues; a variant of it has twenty seconds for what takes longer.  The
# others look for a log record ten milliseconds after it should have come.
TOO_FAST = ('revoked_by_headers', 'trace_log')
# These pass, and take two minutes more, which a continuous integration has.
LONG = ('test_retry', 'test_expired', 'revoke_keeps_state', 'test_revoked', 'pool_acquire')
# Until 5.6, this one publishes to an auto-delete queue whose only consumer has left: kombu's transport in memory keeps it.  RabbitMQ does not, nor do
# we.  From 5.7 on the queue is its owner's.
NEVER_DELETED = 'Mailbox.test_reply__collect'
# They mostly sleep, so one half of them is run beside the other.
HALF = ' or '.join(('test_timeout', 'eta', 'ignore_result', 'stamp', 'limit', 'pydantic'))


@pytest.fixture(scope='module')
def suites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Suite]]:
    pytest.importorskip('pydantic')
    pytest.importorskip('pytest_rerunfailures')
    work: Path = tmp_path_factory.mktemp('suites')
    kombu_source, celery_source = source_of('kombu'), source_of('celery')
    all_of_them = os.environ.get('CI') or os.environ.get('SWITCHBOARD_ALL_OF_CELERY')
    left_out = TOO_FAST if all_of_them else (*TOO_FAST, *LONG)
    chosen = ' and '.join(f'not {name}' for name in left_out)
    started = {
        'tasks': celery_suite(celery_source, work, 'test_tasks', f'({HALF}) and {chosen}', part='-half'),
        'other tasks': celery_suite(celery_source, work, 'test_tasks', f'not ({HALF}) and {chosen}'),
        'inspect': celery_suite(celery_source, work, 'test_inspect'),
        'mixins': mixins(kombu_source, work),
        'units': simple_and_pidbox(kombu_source, work),
    }
    yield started
    for suite in started.values():
        suite.stop()


def failures(outcomes: list[Outcome]) -> dict[str, str]:
    return {f'{one.group}.{one.name}': one.details for one in outcomes if one.result == 'failed'}


def test_kombus_integration_tests(suites):
    ours = suites['mixins'].outcomes()
    assert failures(ours) == {}
    assert {one.result for one in ours} == {'passed'}
    assert len(ours) >= 40
    if kombu.VERSION[:2] < (5, 7):
        return  # the table is of today's, which has more tests
    ours_written, theirs_written = written()
    assert column(ours) == ours_written
    # How many pass there is not the same each time; which they are, and that they are fewer, is.
    numbers = {
        group: [int(number) for number in cell.split(' of ')] for group, cell in theirs_written.items()
    }
    assert {group: of for group, (_, of) in numbers.items()} == {
        group: int(cell.split(' of ')[1]) for group, cell in ours_written.items()
    }
    passed, of = numbers['all']
    assert passed < of == len(ours)


def test_kombus_simple_queues_and_mailboxes(suites):
    outcomes = suites['units'].outcomes()
    expected = set() if kombu.VERSION[:2] >= (5, 7) else {NEVER_DELETED}
    assert failures(outcomes).keys() == expected
    assert len(outcomes) > 50


def test_celerys_inspection_of_a_worker(suites):
    outcomes = suites['inspect'].outcomes()
    assert failures(outcomes) == {}
    assert len(outcomes) >= 10


def test_celerys_tasks(suites):
    outcomes = suites['tasks'].outcomes() + suites['other tasks'].outcomes()
    assert failures(outcomes) == {}
    # Celery before 5.7 has fewer of them.
    assert sum(one.result == 'passed' for one in outcomes) > (30 if celery.VERSION[:2] >= (5, 7) else 15)
