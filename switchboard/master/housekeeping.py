"""The master's janitor: now and then, a process that tidies the spool and ends.

Entries expire also where nobody takes them, and a dead process's claims are made ready also where no runner recovers them.  The
master itself must not do it: it never waits for a disk, and what it did not load it does not hold.  A process that lives for
a moment costs nothing in between.  In a spool of millions its rounds take long, and are then farther apart.

A janitor that hangs (on a lock that a stopped process holds, on a disk that does not answer) would be the last one.  So it has a
deadline, after which it is killed and another one is sent; each time with twice as long, in case there is just so much to do.  Where rounds take
long, it is ten times as long as the longest.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import setproctitle

from switchboard.config.config import Config
from switchboard.errors import SwitchboardError
from switchboard.events import log_event
from switchboard.master.child import fork_helper
from switchboard.status import log
from switchboard.status.repeats import RepeatFilter

logger = log.logger('master')

# How many times as long as a round takes the spool is left alone after it.
REST_SHARE = 50
MAX_ANSWER_BYTES = 65536
# Queues whose disk is full, that are named at most.
MAX_FULL_DISKS = 100
# How many times as long as the longest round so far another one may take, whatever the configuration says; and the longest that is ever allowed.
PATIENCE, LONGEST_S = 10, 86400.0


class Housekeeping:
    """Sends the janitor, one at a time.

    :param config: gives the configuration that is in force.
    :param interval_s: seconds between two rounds.
    :param deadline_s: how long a round may take before its janitor is killed.
    :param on_report: called with what the janitor has found.
    :param work: the new process's work: it writes into a pipe how long that took.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        interval_s: float,
        now_s: float,
        work: Callable[[Config, int], object] | None = None,
        *,
        deadline_s: float,
        on_report: Callable[[Mapping[str, Any]], object] = lambda _report: None,
    ) -> None:
        self._on_report = on_report
        self._config = config
        # The warnings of the last janitor, for the next one: see `repeats`.
        self._noted: dict[str, int] = {}
        self._work = work or partial(_tidy, self._noted)
        self._interval_s = interval_s
        self._due_s = now_s + interval_s
        # The janitor's end of it says how long his round took, and is closed by the kernel when he has ended.
        self._report_fd = -1
        self._pidfd = -1
        # The janitor's process, 0 for none yet; it may have ended.
        self.pid = 0
        self._began_s = now_s
        self._deadline_s = deadline_s

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        return self._due_s

    def tick(self, now_s: float) -> None:
        """Send the janitor, if it is time and the last one is back."""
        if now_s < self._due_s:
            return
        self._due_s = now_s + self._interval_s
        if self._report_fd >= 0:
            took_s = self._took_s()
            if took_s is None and now_s - self._began_s < self._deadline_s:
                return
            if took_s is None:
                self._kill(now_s)
                took_s = 0.0  # not as if it had worked: another one is sent at once
            self.close()
            self._deadline_s = min(LONGEST_S, max(self._deadline_s, PATIENCE * took_s))
            rested_s = self._began_s + took_s * (1 + REST_SHARE)
            if now_s < rested_s:
                self._due_s = rested_s
                return
        reading = writing = -1
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            pid = fork_helper(lambda: self._work(self._config(), writing), (writing,))
        except OSError as error:
            log_event(logger, logging.ERROR, None, 'janitor not started', error=error)
            for descriptor in {reading, writing} - {-1}:
                os.close(descriptor)
            return
        os.close(writing)
        self._report_fd, self.pid, self._began_s = reading, pid, now_s
        with contextlib.suppress(OSError):  # without one it cannot be killed: its number may be another's
            self._pidfd = os.pidfd_open(pid)

    def extend_deadlines(self, lost_s: float, _now_s: float) -> None:
        """Count the last `lost_s` seconds, in which the master itself was late, against no janitor."""
        self._began_s += lost_s

    def _kill(self, now_s: float) -> None:
        fields = {'pid': self.pid, 'after_s': now_s - self._began_s}
        self._deadline_s = min(LONGEST_S, 2 * self._deadline_s)
        if self._pidfd < 0:
            log_event(logger, logging.ERROR, None, 'janitor hangs', **fields)
            return
        # By the descriptor: the number may be another's, should the process have ended a moment ago.
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        log_event(logger, logging.ERROR, None, 'janitor killed', **fields)

    def close(self) -> None:
        """Send no more; one that is at work ends with the master."""
        for descriptor in (self._report_fd, self._pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self._report_fd = self._pidfd = -1

    def descriptors(self) -> list[int]:
        """:return: the descriptors that a forked child closes at once."""
        return [each for each in (self._report_fd, self._pidfd) if each >= 0]

    def _took_s(self) -> float | None:
        """:return: how long the last round took; None if it goes on; 0 if its janitor died."""
        try:
            took_s, _, report = os.read(self._report_fd, MAX_ANSWER_BYTES).partition(b' ')
        except BlockingIOError:
            return None
        if report:
            answer = json.loads(report)
            noted = answer.pop('noted', {})
            self._noted.clear()
            self._noted.update(noted)
            if not answer.pop('has_failed', False):
                self._on_report(answer)
        return float(took_s or b'0')


def _tidy(known: Mapping[str, int], config: Config, writing: int) -> None:
    took_s = 0.0
    report: dict[str, Any] = {'has_failed': True}
    repeats = RepeatFilter(known, int(time.monotonic()))
    try:
        setproctitle.setproctitle('switchboard: janitor')
        log.set_process_name('janitor')
        log.add_filter(repeats)
        from switchboard.operating.janitor import count_bad, full_disks, tidy
        from switchboard.spool.spool import Spool

        began_s = time.monotonic()
        spool = Spool.from_config(config)
        done = tidy(spool)
        report = (
            {'bad': count_bad(spool), 'full': dict(islice(full_disks(spool), MAX_FULL_DISKS))}
            if config.alert_command
            else {}
        )
        took_s = time.monotonic() - began_s
        log_event(logger, logging.DEBUG, None, 'tidied', done=done, took_s=round(took_s, 3))
    except (SwitchboardError, OSError) as error:
        log_event(logger, logging.ERROR, None, 'not tidied', error=error)
    except Exception:
        log_event(logger, logging.ERROR, None, 'not tidied', exc_info=True)
    finally:
        answer = json.dumps({**report, 'noted': repeats.noted}).encode()
        with contextlib.suppress(OSError):  # the master has gone, or given it up
            os.write(writing, b'%.3f %s' % (took_s, answer))
