"""What belongs to the whole process, and so to the next test as well: looked at before and after each test, so that one that changes it is
named, and not another one that fails by it one day.
"""

from __future__ import annotations

import _signal  # `signal` makes a member of an enumeration of each number, in half of the time of a look
import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

_LIMITS = {name: getattr(resource, name) for name in dir(resource) if name.startswith('RLIMIT_')}
# But for the one by which pytest-timeout ends a test.
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGALRM})
# pytest says by it which test is running, and in which phase.
_RUNNING = b'PYTEST_CURRENT_TEST'


def process_state() -> dict[str, Any]:
    """:return: all of it that can be had for a few microseconds."""
    environment = dict(os.environb)
    environment.pop(_RUNNING, None)
    umask = os.umask(0o022)
    os.umask(umask)
    return {
        'the environment': environment,
        'the directory': os.getcwd(),
        'the umask': f'{umask:03o}',
        'the limits': {name: resource.getrlimit(number) for name, number in _LIMITS.items()},
        'the signal handlers': {signum: _signal.getsignal(signum) for signum in _SIGNALS},
        'the blocked signals': signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        'the collector': (gc.isenabled(), gc.get_threshold()),
        'the hooks': (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.getswitchinterval()),
        'the module path': list(sys.path),
        'the logs': _logs(),
    }


def _logs() -> dict[str, Any]:
    names = [name for name in logging.root.manager.loggerDict if name.partition('.')[0] == 'switchboard']
    found: dict[str, Any] = {'disabled': logging.root.manager.disable, 'root level': logging.root.level}
    for name in names:
        logger = logging.getLogger(name)
        handlers = [each for each in logger.handlers if not isinstance(each, logging.NullHandler)]
        if handlers or logger.level or logger.disabled or not logger.propagate:
            found[name] = handlers, logger.level, logger.disabled, logger.propagate
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """:return: each that has changed, with what it was and what it is; of a table only the lines that differ."""
    told = []
    for name, was in before.items():
        now = after[name]
        if was == now:
            continue
        if isinstance(was, dict):
            keys = sorted((key for key in {*was, *now} if was.get(key) != now.get(key)), key=str)
            was, now = ({key: each.get(key) for key in keys} for each in (was, now))
        told.append(f'{name}: {was!r} is {now!r} now')
    return told
