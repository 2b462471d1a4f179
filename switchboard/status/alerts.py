"""Alerts: a command of the operator's, run when something goes wrong, and when it is over.

Where there is no monitoring system: ``alert_command = command`` in ``[switchboard]``.  An alert is about a condition, not an occurrence: it begins, and
most of the time it ends.  So nothing piles up while the command is slow or the limit is reached; a condition that has come and gone meanwhile is not
reported at all.

The command is run by a process of its own, one at a time, with a time limit: it may fail, hang, or not exist, and the master's loop does not wait for
it.  It runs at most `PER_MINUTE` times a minute, and of one subject at most once in `QUIET_S`, however often that comes and goes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from switchboard.clock import TimeLimit
from switchboard.events import log_event
from switchboard.status import log

logger = log.logger('master')

# A hundred runners that fail at once are ten calls now, and the others when somebody has looked, perhaps.
PER_MINUTE, MINUTE_S = 10, 60.0
# A runner that goes FATAL, is restarted and goes FATAL again is one alert in this time.
QUIET_S = 60.0
# How long the command may take.
LIMIT_S = 30.0
# After that, the process that runs it has this long to end it.
GRACE_S = 10.0
# Of what the command says, the end is kept.
MAX_SAID_BYTES = 4096
# It is written to a pipe before anybody reads.
MAX_REASON_CHARACTERS = 1000


@dataclass(slots=True)
class AlertCondition:
    """The state of one subject, and the last one reported."""

    reason: str = ''
    number: int | None = None
    reported: bool = False
    reported_number: int = 0
    quiet_until_s: float = 0.0

    @property
    def is_news(self) -> bool:
        """True if it is to be reported, now or when the quiet is over."""
        if self.reported != bool(self.reason):
            return True
        return self.reported and (self.number or 0) > self.reported_number


def alert_facts(
    name: str, subject: str, condition: AlertCondition, place: Mapping[str, str]
) -> dict[str, object]:
    """:return: the JSON that the command gets.

    :param name: ``runner-fatal``, ``bad-grew``, ``disk-reserve`` or ``reload-failed``.
    :param subject: the runner and slice, or the queue; empty for the master itself.
    """
    facts: dict[str, object] = {
        'alert': name,
        'event': name,  # its name before
        'state': 'problem' if condition.reason else 'resolved',
        'subject': subject,
        'reason': condition.reason[:MAX_REASON_CHARACTERS],
        'number': condition.number,
        'host': socket.gethostname(),
        'time': log.rfc3339(time.time()),
        **place,
    }
    return {key: value for key, value in facts.items() if value is not None}


class Alerts:
    """Notes conditions, and runs the command for new ones.

    :param command: gives the command that is in force; an empty one is never run.
    :param place: the parts of every notice: spool and configuration.
    :param start: makes a process that does something, and returns its process id.
    :param die_with_parent: called in a new process with its parent, with which it is to end.
    """

    def __init__(
        self,
        command: Callable[[], Sequence[str]],
        place: Mapping[str, Path],
        start: Callable[[Callable[[], object]], int],
        die_with_parent: Callable[[int], object] = lambda _parent: None,
    ) -> None:
        self._command = command
        self._place = {key: str(path) for key, path in place.items()}
        self._start = start
        self._die_with_parent = die_with_parent
        self._conditions: dict[tuple[str, str], AlertCondition] = {}
        self._times: deque[float] = deque()
        # The process that runs the command, or ran it last; 0 for none yet.
        self.pid = 0
        self._pidfd = -1
        self._ends_s = 0.0

    def descriptors(self) -> list[int]:
        """:return: the descriptors that a forked child closes at once."""
        return [self._pidfd] if self._pidfd >= 0 else []

    def note(self, name: str, subjects: Mapping[str, str | tuple[str, int]]) -> None:
        """Note the conditions that hold now.

        :param subjects: the reasons, by subject: and a number, which is reported again when it grows.  A subject that is not in it is well.
        """
        for (kind, subject), condition in self._conditions.items():
            if kind == name and subject not in subjects:
                condition.reason, condition.number = '', None
        for subject, said in subjects.items():
            condition = self._conditions.setdefault((name, subject), AlertCondition())
            condition.reason, condition.number = said if isinstance(said, tuple) else (said, None)
            condition.reported_number = min(condition.reported_number, condition.number or 0)

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        if self._pidfd >= 0:
            return self._ends_s
        news = [each.quiet_until_s for each in self._conditions.values() if each.is_news]
        if not news or not self._command():
            return math.inf
        return max(min(news), self._times[0] + MINUTE_S if len(self._times) >= PER_MINUTE else 0.0)

    def tick(self, now_s: float) -> None:
        """Run the command for new conditions, if it is time and the last one has ended."""
        if self._is_at_work(now_s):
            return
        while self._times and now_s - self._times[0] >= MINUTE_S:
            self._times.popleft()
        for (name, subject), condition in list(self._conditions.items()):
            if not condition.is_news:
                if not condition.reported and now_s >= condition.quiet_until_s:
                    del self._conditions[name, subject]
                continue
            if now_s < condition.quiet_until_s or len(self._times) >= PER_MINUTE:
                continue
            if command := tuple(self._command()):
                self._report(command, name, subject, condition, now_s)
                return

    def _report(
        self, command: tuple[str, ...], name: str, subject: str, condition: AlertCondition, now_s: float
    ) -> None:
        facts = alert_facts(name, subject, condition, self._place)
        self._times.append(now_s)
        condition.reported, condition.reported_number = bool(condition.reason), condition.number or 0
        condition.quiet_until_s = now_s + QUIET_S
        try:
            self.pid = self._start(
                lambda: run_alert_command(command, facts, die_with_parent=self._die_with_parent)
            )
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            log_event(logger, logging.ERROR, None, 'not alerted', alert=name, subject=subject, error=error)
            return
        self._ends_s = now_s + LIMIT_S + GRACE_S

    def extend_deadlines(self, lost_s: float, _now_s: float) -> None:
        """Count the last `lost_s` seconds, in which the master itself was late, against no command."""
        self._ends_s += lost_s

    def _is_at_work(self, now_s: float) -> bool:
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(0):
            if now_s < self._ends_s:
                return True
            with contextlib.suppress(OSError):  # it has ended meanwhile
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.close()
        return False

    def close(self) -> None:
        """Tell nothing more; a command that is at work ends with the master."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def run_alert_command(
    command: Sequence[str],
    facts: Mapping[str, object],
    limit_s: float = LIMIT_S,
    die_with_parent: Callable[[int], object] = lambda _parent: None,
) -> bool:
    """Run the command, with the facts in its environment and as JSON on its standard input, and end it in time.

    :return: whether it ended well; if not, the log says why.
    """
    about = {'alert': facts['alert'], 'state': facts['state'], 'subject': facts['subject'] or None}
    variables = {f'SWITCHBOARD_{key.upper()}': str(value).replace('\0', '') for key, value in facts.items()}
    own = os.getpid()
    reading, writing = os.pipe()
    os.write(writing, json.dumps(facts).encode() + b'\n')
    os.close(writing)
    try:
        process = subprocess.Popen(
            command,
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(own),  # this process has one thread
        )
    except OSError as error:
        log_event(logger, logging.ERROR, None, 'not alerted', **about, error=error)
        return False
    finally:
        os.close(reading)
    said, is_late = _listen(process, TimeLimit(limit_s))
    if is_late:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    if is_late or status:
        how = f'took longer than {limit_s:g} s' if is_late else f'ended with status {status}'
        log_event(logger, logging.ERROR, None, 'not alerted', **about, error=how, said=said or None)
        return False
    log_event(logger, logging.INFO, None, 'alerted', **about)
    return True


def _listen(process: subprocess.Popen[bytes], limit: TimeLimit) -> tuple[str, bool]:
    """:return: the end of what it said, and whether its time is over."""
    assert process.stdout is not None
    said, is_open = b'', True
    with process.stdout as stream:
        while process.poll() is None or is_open:
            if limit.remaining_s() <= 0:
                return _text(said), process.poll() is None
            if not is_open:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(limit.wait_s())
                continue
            # Something that it has left in the background may keep the stream open: its own end is what counts.
            readable, _, _ = select.select([stream], [], [], min(limit.wait_s(), 0.1))
            if readable:
                chunk = os.read(stream.fileno(), 65536)
                said, is_open = (said + chunk)[-MAX_SAID_BYTES:], bool(chunk)
            elif process.poll() is not None:
                break
    return _text(said), False


def _text(said: bytes) -> str:
    return said.decode('utf-8', 'backslashreplace').strip()
