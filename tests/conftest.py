"""What holds for every test."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from hypothesis import HealthCheck, settings

from switchboard.claims import HELD
from switchboard.publishing import HOLDERS
from tests.servers.brokers import Broker, NotInstalledError, rabbitmq, redis
from tests.servers.place import missing

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

# As many as earlier tests may have left open: on many machines a process may open 1024, and `select` knows no more.
DESCRIPTORS_MAX = 200


def pytest_configure() -> None:
    """Have the programs that tests start hear all signals.

    What is started by ``nohup``, or by a script in the background, is deaf to some, and its children are, too.  A handler that
    does nothing leaves this process as deaf as it was, and is not inherited by a program.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in signal.valid_signals() - LEFT_ALONE:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)


@pytest.fixture(autouse=True)
def _claims_end_with_their_test() -> Iterator[None]:
    """A claim lasts as long as its process, and all tests are one process: let go of what a test did not finish."""
    before, holders = set(HELD), set(HOLDERS)
    yield
    for key in HELD.keys() - before:
        try:
            os.close(HELD.pop(key).fd)
        except OSError:
            pass  # a disk that fails has closed it already
    HOLDERS.intersection_update(holders)
    if len(os.listdir('/proc/self/fd')) > DESCRIPTORS_MAX:
        gc.collect()  # a directory is closed with its object, and some objects stand in circles


def _started(server: AbstractContextManager[Broker]) -> Iterator[Broker]:
    try:
        with server as broker:
            yield broker
    except NotInstalledError as error:
        missing(str(error))


@pytest.fixture(scope='session')
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for all tests, for it takes its time to start; a test that stops it starts it again."""
    yield from _started(rabbitmq(tmp_path_factory.mktemp('rabbitmq')))


@pytest.fixture(scope='session')
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for all tests; a test that stops it starts it again."""
    yield from _started(redis(tmp_path_factory.mktemp('redis')))
