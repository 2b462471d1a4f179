"""The master's broom: now and then, a process that tidies the spool and ends.

Entries expire also where nobody takes them, and a dead process's claims are made ready also where no runner recovers them.  The
master itself must not do it: it never waits for a disk, and what it did not load it does not hold.  A process that lives for
a moment costs nothing in between.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import setproctitle

from switchboard import lifeline, log
from switchboard.config import Config
from switchboard.errors import SwitchboardError

logger = log.logger('master')


class Housekeeping:
    """Sends the janitor, one at a time.

    :param config: gives the configuration that is in force.
    :param interval_s: seconds between two rounds.
    """

    def __init__(self, config: Callable[[], Config], interval_s: float, now_s: float) -> None:
        self._config = config
        self._interval_s = interval_s
        self._due_s = now_s + interval_s
        # Closed by the kernel when the janitor has ended.
        self._at_work = -1

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        return self._due_s

    def tick(self, now_s: float) -> None:
        """Send the janitor, if it is time and the last one is back."""
        if now_s < self._due_s:
            return
        self._due_s = now_s + self._interval_s
        if self._at_work >= 0:
            if not self._is_back():
                return
            os.close(self._at_work)
            self._at_work = -1
        master = os.getpid()
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            pid = os.fork()
        except OSError as error:
            logger.error('no janitor %s', log.pairs(error=error))
            os.close(reading)
            os.close(writing)
            return
        if pid == 0:
            _live(self._config(), master, writing)
        os.close(writing)
        self._at_work = reading

    def _is_back(self) -> bool:
        try:
            return os.read(self._at_work, 1) == b''
        except BlockingIOError:
            return False


def _live(config: Config, master: int, writing: int) -> None:
    code = os.EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        # All that the master holds, its lock first of all; only the pipe stays, which tells it that this process lives.
        os.closerange(3, writing)
        os.closerange(writing + 1, os.sysconf('SC_OPEN_MAX'))
        lifeline.die_with_parent(master)
        setproctitle.setproctitle('switchboard: janitor')
        log.speak_as('janitor')
        from switchboard.janitor import tidy
        from switchboard.spool import Spool

        done = tidy(Spool.from_config(config))
        logger.debug('tidied %s', done)
        code = os.EX_OK
    except (SwitchboardError, OSError) as error:
        logger.error('not tidied %s', log.pairs(error=error))
    except BaseException:
        logger.exception('not tidied')
    finally:
        os._exit(code)
