"""What a test leaves to the ones after it is seen, and said in its own words."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from switchboard.status import log
from tests.helpers.logs import own_log
from tests.helpers.processes import in_child
from tests.plugins.process_state import changes, process_state


def fewer_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda: os.environ.update(LEFT='x'), "the environment: {b'LEFT': None} is {b'LEFT': b'x'} now"),
        (lambda: os.chdir('/'), 'the directory: '),
        (lambda: os.umask(0o123), 'the umask: '),
        (fewer_files, "the limits: {'RLIMIT_NOFILE': "),
        (lambda: signal.signal(signal.SIGUSR1, lambda *_: None), 'the signal handlers: {<Signals.SIGUSR1'),
        (lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]), 'the blocked signals: '),
        (gc.disable, 'the collector: '),
        (lambda: sys.path.append('/nowhere'), 'the module path: '),
        (lambda: logging.disable(logging.WARNING), "the logs: {'disabled': 0} is {'disabled': 30} now"),
        (lambda: log.configure(None), "the logs: {'switchboard': None} is {'switchboard': ([<LogFile"),
    ],
)
def test_what_has_changed_is_told(change: Callable[[], object], told: str) -> None:
    def act() -> list[str]:
        before = process_state()
        change()
        return changes(before, process_state())

    [seen] = in_child(act)
    assert seen.startswith(told)


def test_the_logs_can_be_given_back(tmp_path: Path) -> None:
    before = process_state()
    with own_log():
        log.configure(tmp_path / 'log', level='DEBUG')
        assert changes(before, process_state()) != []
    assert changes(before, process_state()) == []
