"""What holds for every test."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from switchboard import Spool
from switchboard.store.claims import OWN_CLAIMS
from switchboard.store.publishing import HOLDERS
from switchboard.testing import FakeClock

if TYPE_CHECKING:
    from tests.servers.brokers import Broker

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
settings.load_profile('steady')

# What Python itself does not hear, and what nobody can choose not to hear.
LEFT_ALONE = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGKILL, signal.SIGSTOP}

# As many as tests may leave open before it is looked what is free: on many machines a process may open 1024, and `select`
# knows no more.  To look takes a tenth of a second.
LEFT_OPEN_MAX = 150


def pytest_configure() -> None:
    """Have the programs that tests start hear all signals.

    What is started by ``nohup``, or by a script in the background, is deaf to some, and its children are, too.  A handler that
    does nothing leaves this process as deaf as it was, and is not inherited by a program.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in signal.valid_signals() - LEFT_ALONE:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)


class _Descriptors:
    """A directory is closed with its object, and some objects stand in circles."""

    def __init__(self) -> None:
        self._allowed = LEFT_OPEN_MAX

    def let_go(self) -> None:
        """Collect what stands in circles, whenever many more are open than were left the last time."""
        if len(os.listdir('/proc/self/fd')) > self._allowed:
            gc.collect()
            self._allowed = LEFT_OPEN_MAX + len(os.listdir('/proc/self/fd'))


@pytest.fixture(scope='session')
def _descriptors() -> _Descriptors:
    return _Descriptors()


@pytest.fixture(autouse=True)
def _claims_end_with_their_test(_descriptors: _Descriptors) -> Iterator[None]:
    """A claim lasts as long as its process, and all tests are one process: let go of what a test did not finish."""
    before, holders = set(OWN_CLAIMS), set(HOLDERS)
    yield
    for key in OWN_CLAIMS.keys() - before:
        try:
            os.close(OWN_CLAIMS.pop(key).fd)
        except OSError:
            pass  # a disk that fails has closed it already
    HOLDERS.intersection_update(holders)
    _descriptors.let_go()


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


# What is needed to start a server is imported by the tests that need one.
@pytest.fixture(scope='session')
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for all tests, for it takes its time to start; a test that stops it starts it again."""
    from tests.servers.brokers import rabbitmq, started

    yield from started(rabbitmq(tmp_path_factory.mktemp('rabbitmq')))


@pytest.fixture(scope='session')
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for all tests; a test that stops it starts it again."""
    from tests.servers.brokers import redis, started

    yield from started(redis(tmp_path_factory.mktemp('redis')))
