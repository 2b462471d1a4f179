"""What holds for every test."""

from __future__ import annotations

import datetime
import gc
import itertools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from switchboard import Spool, Switchboard
from switchboard.options import QueueOptions
from switchboard.store import limits
from switchboard.store.claims import OWN_CLAIMS
from switchboard.store.publishing import DRAFT_OWNERS
from switchboard.testing import FakeClock
from tests.plugins.busy import Busy
from tests.plugins.process_state import changes, process_state
from tests.plugins.second_try import SecondTry
from tests.plugins.skips import Skips
from tests.plugins.turns import DAY, FSYNC_SCOPES, has_its_day, is_in_memory

if TYPE_CHECKING:
    from tests.servers.brokers.broker import Broker

# A machine that is slow or busy is no mistake, and what is found must be found again: the same examples each time.
# To look for new ones: `pytest --hypothesis-profile searching`.
settings.register_profile(
    'steady',
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile('searching', settings.get_profile('steady'), derandomize=False)
# The first of those that `steady` tries: by `bin/test --quick`.
settings.register_profile('quick', settings.get_profile('steady'), max_examples=10)
settings.load_profile('steady')

# What Python itself does not hear, and what nobody can choose not to hear.
LEFT_ALONE = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGKILL, signal.SIGSTOP}

# A directory is closed with its object, and some objects stand in circles: when so many more are open, what is free is collected
# (a tenth of a second), and what is open then is leaked.
LOOK_ABOVE = 100
# More than a handful of caches leave for good.
LEAKED_MAX = 12
# Tests that leave more, and why.
MAY_LEAK: dict[str, str] = {
    'tests/properties/test_model.py': 'processes die in it at any call',
    'tests/faults/': 'a simulated death or power cut closes nothing, as a real one needs not',
    'tests/servers/': 'connections of a session that stays, to servers that are started once',
    'tests/kombu/': 'connections of a session that stays, and their pools',
    'tests/unit/kombu_transport/': 'connections of a session that stays, and their pools',
}

# What a test is given may be millions of characters; its name goes through pipes and logs, several times in each process.
NAME_MAX_CHARS = 200

# Tests of one group run one after another, in one process: a server has one place, and what mostly waits goes first.
GROUPS = {
    'tests/power/': 'power',
    'tests/browser/': 'browser',
    'tests/mailman/': 'mailman',
    'tests/kombu/test_conformance.py': 'other-peoples-suites',
    'tests/kombu/': 'celery',
    'tests/servers/mail/test_postfix.py': 'postfix',
    'tests/servers/mail/test_exim.py': 'exim',
    'tests/servers/redis/': 'redis',
    'tests/servers/rabbitmq/': 'brokers',
    'tests/servers/brokers/': 'brokers',
    'tests/servers/bridge/': 'brokers',
}
# All of these start programs, or try every call: together they take longer than all others.
SLOW = (
    'tests/acceptance/',
    'tests/browser/',
    'tests/faults/test_every_call.py',
    'tests/faults/test_full_disk.py::test_a_master_needs_a_few_pages',
    'tests/unit/kombu_transport/test_connections.py::test_a_hundred_connections',
    'tests/unit/kombu_transport/test_connections.py::test_queues_that_are_published_to',
    'tests/mailman/',
    'tests/power/',
    'tests/properties/test_patterns.py::test_one_that_is_worse',
    'tests/servers/',
    'tests/unit/metrics/test_listener.py',
    'tests/unit/spool/test_open_queues.py::test_the_janitor_works_where',
    'tests/unit/spool/test_open_queues.py::test_the_number_of_queues',
)
# Those that take most of the rest: all but `bin/test --quick` runs them.
LONG = (
    'tests/faults/test_expiry.py',
    'tests/faults/test_full_disk.py',
    'tests/plugins/test_second_try.py',
    'tests/plugins/test_skips.py',
    'tests/properties/test_everything_read.py::test_no_error',
    'tests/properties/test_hostile_input.py',
    'tests/properties/test_limits.py',
    'tests/test_documentation.py',
    'tests/unit/cli/test_start.py',
    'tests/unit/handoff/test_deduplication.py',
    'tests/unit/handoff/test_publish_many.py',
    'tests/unit/handoff/test_stage.py::test_many',
    'tests/unit/message/test_serializers.py::test_what_cannot_be_read_is_damage',
    'tests/unit/runner/test_loop.py::TestTroubleOfOneMessage::test_however_many',
    'tests/unit/runners/test_command.py',
    'tests/unit/spool/test_threads.py',
    'tests/unit/status/test_log_writer.py',
    'tests/unit/test_benchmarks.py',
    'tests/unit/web/test_acts.py',
    'tests/unit/web/test_pages.py',
)
# Nothing below these is for `-m 'not slow'`, so it need not be read then.
SLOW_DIRECTORIES = tuple(each for each in SLOW if each.endswith('/'))
# Where these have their files takes turns: what they ask depends on the file system at most in what is known of its flushes, and in memory they
# take two thirds of the time.
ON_DISK_OR_IN_MEMORY = (
    'tests/acceptance/',
    'tests/contracts/',
    'tests/faults/',
    'tests/kombu/',
    'tests/properties/',
    'tests/regressions/',
    'tests/unit/',
)
# A file system in memory.
MEMORY = '/dev/shm'
# Each test of these stands alone, and there are many: they fill what the others leave, those that take longest first.
ALONE = (
    'tests/test_documentation.py',
    'tests/faults/test_power_loss.py',
    'tests/faults/test_kill.py',
    'tests/faults/test_death_and_power.py',
    'tests/faults/test_every_call.py',
    'tests/acceptance/cli/test_cli_streams.py',
)
# The longest chains of tests that cannot be divided: `bin/test` ends with how long each has taken.  Those that mostly wait, and those that
# compute, take turns: side by side with their like, the former would leave the processors idle, and the latter would wait for each other.
FIRST = (
    'brokers',
    'browser',
    'mailman',
    'power',
    'other-peoples-suites',
    'celery',
    'tests/servers/machine/test_systemd.py',
    'tests/acceptance/released/test_accelerator.py',
    'tests/acceptance/released/test_wheel.py',
    'tests/servers/machine/test_engine.py',
    'tests/unit/test_benchmarks.py',
    'redis',
    'postfix',
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--every-order',
        action='store_true',
        help='run the matrices of faults in every flush order, not in one a day',
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.getoption('every_order'):
        return 'faults: in every flush order'
    return f'faults: each in one flush order of {len(FSYNC_SCOPES)}, for {DAY}={os.environ[DAY]}; in all with --every-order'


def pytest_configure(config: pytest.Config) -> None:
    """Choose the day of the flush orders, for all processes alike, and have the programs that tests start hear all signals.

    What is started by ``nohup``, or by a script in the background, is deaf to some, and its children are, too.  A handler that
    does nothing leaves this process as deaf as it was, and is not inherited by a program.
    """
    os.environ.setdefault(DAY, str(datetime.datetime.now(datetime.UTC).toordinal()))
    if 'PYTEST_XDIST_WORKER' not in os.environ:
        config.pluginmanager.register(Busy())
        config.pluginmanager.register(SecondTry())
    config.pluginmanager.register(Skips())
    # A full queue is counted anew for each message, however slow the machine is at the moment.
    limits.CHEAP_COUNT_NS = sys.maxsize
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in signal.valid_signals() - LEFT_ALONE:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a text that is too long for a name by its length."""
    return f'{argname} of {len(val)}' if isinstance(val, str | bytes) and len(val) > NAME_MAX_CHARS else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over what would be deselected as a whole: each process would read it first."""
    if 'not slow' not in config.option.markexpr.split(' and ') or not collection_path.is_dir():
        return None
    place = f'{os.path.relpath(collection_path, config.rootpath)}/'
    return True if place.startswith(SLOW_DIRECTORIES) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say which tests are slow, and which run in one process (``--dist loadgroup``); those that wait long come first."""
    if not config.getoption('every_order'):
        others = [item for item in items if not has_its_day(item)]
        config.hook.pytest_deselected(items=others)
        left_out = set(others)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if item.nodeid.startswith(LONG):
            item.add_marker(pytest.mark.long)
    groups = {item: _group(item.nodeid) for item in items}
    for item, group in groups.items():
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    if os.environ.get('PYTEST_XDIST_WORKER'):
        items.sort(key=lambda item: _place(item.nodeid, groups[item]))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look at nothing that is collected: ten thousand tests and all modules stay, and each look takes as long as reading some of them.

    What is there by then is left to itself: no later collection need look at it again.  Python 3.14 would then keep what the frames of tests
    hold, open files too, and Hypothesis would not find its own source of numbers.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        if sys.version_info < (3, 14):
            gc.collect()
            gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """See that xdist knows the groups: where it does not, tests that share a server or a cache run side by side."""
    if node.config.option.dist == 'loadgroup' and any(
        _group(each) and '@' not in each.rpartition(']')[2] for each in ids
    ):
        pytest.exit('pytest-xdist ignores the groups of tests: it is too old for this pytest', returncode=4)


def _group(test: str) -> str:
    file = test.partition('::')[0]
    if file in ALONE:
        return ''
    return next((group for beginning, group in GROUPS.items() if file.startswith(beginning)), file)


def _place(test: str, group: str) -> int:
    """:return: where a test stands in the line: the longest chains, all others, and then what fills what these leave."""
    if group in FIRST:
        return FIRST.index(group)
    return len(FIRST) + (0 if group else 1 + ALONE.index(test.partition('::')[0]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write down what was skipped, and why, where ``bin/test`` asks for it."""
    path = os.environ.get('SWITCHBOARD_SKIPPED')
    if path and 'PYTEST_XDIST_WORKER' not in os.environ:  # the process that started it counts all of them
        reasons = Counter(
            report.longrepr[2].removeprefix('Skipped: ')
            for report in terminalreporter.stats.get('skipped', [])
        )
        with open(path, 'a') as file:
            file.writelines(f'{reason} ({number} tests)\n' for reason, number in reasons.items())


def _open() -> int:
    return len(os.listdir('/proc/self/fd'))


class _Descriptors:
    """Finds the tests that leave files open."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._left, self._failed = _open(), 0
        self._since: list[str] = []

    def look(self, nodeid: str) -> None:
        """Look before a test, for until then pytest holds what the one before was made of; if many more are open than the last time.

        :raises pytest.fail.Exception: more of them are leaked than caches explain.
        """
        if _open() - self._left <= LOOK_ABOVE:
            self._since.append(nodeid)
            return
        gc.collect()
        since, self._since = self._since, [nodeid]
        before, self._left = self._left, _open()
        leaked = self._left - before
        failed, self._failed = self._session.testsfailed - self._failed, self._session.testsfailed
        # The report of a failure holds what its test was made of.
        if (
            leaked > LEAKED_MAX
            and not failed
            and not any(each.startswith(place) for each in since for place in MAY_LEAK)
        ):
            pytest.fail(f'{leaked} descriptors were left open by these: {", ".join(since[-20:])}')


@pytest.fixture(scope='session')
def _descriptors(request: pytest.FixtureRequest) -> _Descriptors:
    return _Descriptors(request.session)


@pytest.fixture(autouse=True)
def _claims_end_with_their_test(request: pytest.FixtureRequest, _descriptors: _Descriptors) -> Iterator[None]:
    """A claim lasts as long as its process, and all tests are one process: let go of what a test did not finish."""
    _descriptors.look(request.node.nodeid)
    before, holders = set(OWN_CLAIMS), set(DRAFT_OWNERS)
    yield
    for key in OWN_CLAIMS.keys() - before:
        try:
            os.close(OWN_CLAIMS.pop(key).fd)
        except OSError:
            pass  # a disk that fails has closed it already
    DRAFT_OWNERS.intersection_update(holders)
    # An error that was made for several tests holds all that stood on the stack when it was raised.
    callspec = getattr(request.node, 'callspec', None)
    for value in callspec.params.values() if callspec else ():
        if isinstance(value, BaseException):
            value.__traceback__ = value.__context__ = None


@pytest.fixture(autouse=True)
def _process_is_left_as_it_was() -> Iterator[None]:
    """A test that changes what all tests of its process share is named, and not another one that fails by it on some other day."""
    before = process_state()
    yield
    if changed := changes(before, process_state()):
        pytest.fail('left to the tests after this one: ' + '; '.join(changed))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What chance is made of: the same for a test each time, and another for each test."""
    return zlib.crc32(request.node.nodeid.partition('@')[0].encode())


@pytest.fixture(autouse=True)
def _chance_can_be_found_again(seed: int) -> None:
    random.seed(seed)


@pytest.fixture(scope='session')
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture(scope='session')
def _memory() -> Iterator[Path | None]:
    """A directory on a file system in memory, if there is one."""
    if not os.access(MEMORY, os.W_OK):
        yield None
        return
    with tempfile.TemporaryDirectory(
        prefix='switchboard-', dir=MEMORY, ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


def _is_for_memory(item: pytest.Item, config: pytest.Config) -> bool:
    """Has a test its day in memory?  With ``--every-order`` all are on the disk."""
    file = item.nodeid.partition('::')[0]
    return (
        file.startswith(ON_DISK_OR_IN_MEMORY)
        and not config.getoption('every_order')
        and item.get_closest_marker('figures') is None
        and is_in_memory(file)
    )


@pytest.fixture
def tmp_path(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    _numbers: Iterator[int],
    _memory: Path | None,
) -> Iterator[Path]:
    """A directory for one test, below that of the session, as by pytest; in half of all files of tests on a day it is in memory.

    It is numbered by counting, and its name is no longer than pytest's.  To number each by those that are there, as pytest does, is to look at
    thousands of names thousands of times, a twentieth of all that the tests in a process take.
    """
    name = re.sub(r'\W', '_', request.node.name)[:26] + f'-{next(_numbers)}'
    if _memory is None or not _is_for_memory(request.node, request.config):
        yield tmp_path_factory.mktemp(name, numbered=False)
        return
    path = _memory / name
    path.mkdir(mode=0o700)
    yield path
    shutil.rmtree(path, ignore_errors=True)  # memory is dear


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test turns; a `spool` of the same test goes by it."""
    return FakeClock()


@pytest.fixture
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Spool:
    """A spool on the disk, in ``tmp_path / 'spool'``; by the test's `clock`, if it has one."""
    keys = {'clock': request.getfixturevalue('clock')} if 'clock' in request.fixturenames else {}
    return Spool(tmp_path / 'spool', durability='lazy', **keys)


@pytest.fixture
def make_spool(tmp_path: Path) -> Callable[..., Spool]:
    """Makes a spool of the text of a configuration, in ``tmp_path / 'spool'``, and of an exchange file, if there is one."""

    def make(text: str = '', exchanges: str = '', **keys: Any) -> Spool:
        if '[switchboard]' not in text:
            text = f'[switchboard]\nspool = spool\ndurability = lazy\n{text}'
        (tmp_path / 'switchboard.cfg').write_text(text)
        (tmp_path / 'exchange.cfg').write_text(exchanges)
        return Spool.from_config(tmp_path / 'switchboard.cfg', **keys)

    return make


@pytest.fixture
def config(spool: Spool) -> Path:
    """The file of a test's `spool` that is made of a configuration."""
    assert spool.config is not None
    return spool.config.path


@pytest.fixture
def queue(tmp_path: Path) -> Switchboard:
    """A queue on the disk that belongs to no spool."""
    return Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'))


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that any user may reach; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory(prefix='open-') as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is let go of is closed by that, and not when the collector comes by."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# What is needed to start a server is imported by the tests that need one.
@pytest.fixture(scope='session')
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for all tests, for it takes its time to start; a test that stops it starts it again."""
    from tests.servers.brokers.broker import rabbitmq, started

    yield from started(rabbitmq(tmp_path_factory.mktemp('rabbitmq')))


@pytest.fixture(scope='session')
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for all tests; a test that stops it starts it again."""
    from tests.servers.brokers.broker import redis, started

    yield from started(redis(tmp_path_factory.mktemp('redis')))
