"""A process that goes on in the background, and says to the one that started it when it is ready.

It goes the classic way: fork, lead a new session, fork again so that no terminal can be acquired, go to ``/``, close the standard
streams.  The pipe is not classic: the process that was started by hand stays until the daemon says that it is ready, or why
it is not, so ``switchboard start`` has an exit status that can be believed.  A pid file that somebody polls was rejected: it
says neither.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

# How often the waiting caller is shown the progress.
SHOW_EVERY_S = 0.1


class StartReport(NamedTuple):
    """The daemon's report: ``ready`` is None if there was none in time.

    :param pid: the daemon.
    :param report: its fields.
    :param error: why it could not start.
    """

    pid: int
    ready: bool | None
    report: Mapping[str, Any]
    error: str = ''


class Report:
    """The daemon's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def fileno(self) -> int:
        """:return: the descriptor that this process's own children have to close; -1 after the report."""
        return -1 if self._descriptor is None else self._descriptor

    def ready(self, **report: object) -> None:
        """Say that all is well.  Only the first report counts."""
        self._send({'ready': True, 'report': report})

    def failed(self, error: str, **report: object) -> None:
        """Say why it cannot be."""
        self._send({'ready': False, 'report': report, 'error': error})

    def _send(self, said: Mapping[str, object]) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        # Nobody may be waiting any more.
        with contextlib.suppress(BrokenPipeError):
            os.write(descriptor, json.dumps({'pid': os.getpid(), **said}).encode() + b'\n')
        os.close(descriptor)


def daemonize(
    main: Callable[[Report], int], *, timeout_s: float, while_waiting: Callable[[], object] | None = None
) -> StartReport:
    """Run `main` in the background and wait for its report.

    `main` opens its log before it does anything else, for standard output and error lead nowhere.  An exception that leaves it is
    reported, if nothing was before.

    :param timeout_s: how long to wait; the daemon goes on all the same.
    :param while_waiting: called ten times a second, to show that something happens.
    :return: in the process that called, and only there.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first == 0:
        os.close(reading)
        _leave(main, Report(writing))
    os.close(writing)
    try:
        os.waitpid(first, 0)
        return _listen(reading, time.monotonic() + timeout_s, while_waiting)
    finally:
        os.close(reading)


def _leave(main: Callable[[Report], int], report: Report) -> NoReturn:
    code = os.EX_SOFTWARE
    try:
        os.setsid()
        if os.fork() > 0:
            os._exit(os.EX_OK)
        os.chdir('/')
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        if null > 2:
            os.close(null)
        code = main(report)
        report.failed(f'ended at once with status {code}', code=code)
    except BaseException as error:
        report.failed(str(error) or type(error).__name__, type=type(error).__name__)
    finally:
        os._exit(code)


def _listen(reading: int, give_up_s: float, while_waiting: Callable[[], object] | None) -> StartReport:
    received = b''
    while not received.endswith(b'\n'):
        left_s = max(0.0, give_up_s - time.monotonic())
        ready, _, _ = select.select([reading], [], [], min(left_s, SHOW_EVERY_S) if while_waiting else left_s)
        if not ready and while_waiting and left_s:
            while_waiting()
            continue
        if not ready:
            return StartReport(0, None, {}, 'the program has not said in time that it is ready')
        chunk = os.read(reading, 65536)
        if not chunk:
            return StartReport(0, False, {}, 'the program ended without a word; look into its log')
        received += chunk
    said = json.loads(received)
    return StartReport(said['pid'], said['ready'], said['report'], said.get('error', ''))
