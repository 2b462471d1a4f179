"""The master's broom: now and then, a process that tidies the spool and ends.

Entries expire also where nobody takes them, and a dead process's claims are made ready also where no runner recovers them.  The
master itself must not do it: it never waits for a disk, and what it did not load it does not hold.  A process that lives for
a moment costs nothing in between.  In a spool of millions its rounds take long, and are then farther apart.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

import setproctitle

from switchboard.config.config import Config
from switchboard.errors import SwitchboardError
from switchboard.master.child import die_with_parent
from switchboard.status import log

logger = log.logger('master')

# How many times as long as a round takes the spool is left alone after it.
REST_SHARE = 50
MAX_ANSWER_BYTES = 32


class Housekeeping:
    """Sends the janitor, one at a time.

    :param config: gives the configuration that is in force.
    :param interval_s: seconds between two rounds.
    :param live: what the new process does; it never returns.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        interval_s: float,
        now_s: float,
        live: Callable[[Config, int, int], NoReturn] | None = None,
    ) -> None:
        self._config = config
        self._live = live or _live
        self._interval_s = interval_s
        self._due_s = now_s + interval_s
        # The janitor's end of it says how long his round took, and is closed by the kernel when he has ended.
        self._at_work = -1
        self._began_s = now_s

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        return self._due_s

    def tick(self, now_s: float) -> None:
        """Send the janitor, if it is time and the last one is back."""
        if now_s < self._due_s:
            return
        self._due_s = now_s + self._interval_s
        if self._at_work >= 0:
            took_s = self._took_s()
            if took_s is None:
                return
            os.close(self._at_work)
            self._at_work = -1
            rested_s = self._began_s + took_s * (1 + REST_SHARE)
            if now_s < rested_s:
                self._due_s = rested_s
                return
        master = os.getpid()
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            logger.error('no janitor %s', log.pairs(error=error))
            return
        try:
            pid = os.fork()
        except OSError as error:
            logger.error('no janitor %s', log.pairs(error=error))
            os.close(reading)
            os.close(writing)
            return
        if pid == 0:
            self._live(self._config(), master, writing)
        os.close(writing)
        self._at_work = reading
        self._began_s = now_s

    def _took_s(self) -> float | None:
        """:return: how long the last round took; None if it goes on; 0 if its janitor died."""
        try:
            return float(os.read(self._at_work, MAX_ANSWER_BYTES) or b'0')
        except BlockingIOError:
            return None


def _live(config: Config, master: int, writing: int) -> NoReturn:
    code = os.EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        # All that the master holds, its lock first of all; only the pipe stays, which tells it that this process lives.
        os.closerange(3, writing)
        os.closerange(writing + 1, os.sysconf('SC_OPEN_MAX'))
        die_with_parent(master)
        setproctitle.setproctitle('switchboard: janitor')
        log.speak_as('janitor')
        from switchboard.operating.janitor import tidy
        from switchboard.spool.spool import Spool

        began_s = time.monotonic()
        done = tidy(Spool.from_config(config))
        took_s = time.monotonic() - began_s
        logger.debug('tidied %s', log.pairs(done=done, took_s=round(took_s, 3)))
        os.write(writing, b'%.3f' % took_s)
        code = os.EX_OK
    except (SwitchboardError, OSError) as error:
        logger.error('not tidied %s', log.pairs(error=error))
    except BaseException:
        logger.exception('not tidied')
    finally:
        os._exit(code)
