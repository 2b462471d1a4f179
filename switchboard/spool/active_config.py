"""The configuration in force, for processes that the master does not know.

A program that publishes reads the configuration once.  When a changed one is put into force (the master starts, or a reload
has passed its checks), ``.run/inforce`` is written anew, with the checksum of the configuration in it.  A publisher asks with
one ``stat`` whether that has happened, and reads the configuration again if so.  A file that is merely being edited changes
nothing, and a broken one leaves the configuration before it in force.
"""

from __future__ import annotations

import logging
import os

from switchboard.clock import Clock
from switchboard.config.config import Config
from switchboard.errors import ConfigError
from switchboard.events import log_event
from switchboard.message.naming import NS_PER_S
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import ACTIVE_CONFIG, BAD, RUN
from switchboard.store.published_options import publish_options

log = logging.getLogger('switchboard.config')

MAX_DIGEST_BYTES = 256
# A publisher that sends without pause need not ask each time.
LOOK_EVERY_NS = NS_PER_S // 10


def activate(config: Config) -> None:
    """Tell publishers and doors that this configuration holds from now on.

    :raises OSError: it could not be written; they go on with what they have.
    """
    disk = Disk()
    publish_queue_options(config, disk)
    folder = Folder(os.path.join(config.spool, RUN), disk)
    folder.make()
    folder.replace(ACTIVE_CONFIG, config.digest.encode('ascii'), sync=False)


def publish_queue_options(config: Config, disk: Disk | None = None) -> bool:
    """Give `drop` its copy of what the queues' sections say.

    :return: False if it has it already.
    :raises OSError: it could not be written; the last copy stays.
    """
    options = {name: config.queue_options(name) for name in config.queue_names() if name != BAD}
    # A queue on a broker has no door: what a mail server delivers is to be safe on this machine first.
    local = {name: each for name, each in options.items() if each.url is None}
    return publish_options(str(config.spool), local, disk)


def is_active(config: Config, spool: str) -> bool:
    """:return: whether this is the configuration that was put into force for that spool, as it stands."""
    folder = Folder(os.path.join(config.spool, RUN), Disk())
    try:
        return os.path.abspath(spool) == os.path.abspath(config.spool) and _digest(folder) == config.digest
    except OSError:
        return False


def _digest(run: Folder) -> str:
    return (run.read(ACTIVE_CONFIG, MAX_DIGEST_BYTES) or b'').decode('ascii', 'replace')


class ActiveConfig:
    """The configuration that a publisher goes by: the one it has read, until another is put into force.

    :param run: the spool's directory ``.run``.
    """

    def __init__(self, config: Config, run: Folder, disk: Disk, clock: Clock) -> None:
        self.config = config
        self._run = run
        self._disk = disk
        self._clock = clock
        self._looked_at_ns = clock.monotonic_ns()
        self._stamp = self._read_stamp()

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            status = self._disk.stat(ACTIVE_CONFIG, dir_fd=self._run.fd, follow_symlinks=False)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def refresh(self) -> bool:
        """Look whether another configuration is in force, and read it.

        :return: True if ``config`` is another one now.
        """
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._looked_at_ns < LOOK_EVERY_NS:
            return False
        self._looked_at_ns = now_ns
        stamp = self._read_stamp()
        if stamp == self._stamp or stamp is None:
            return False
        self._stamp = stamp
        try:
            if _digest(self._run) == self.config.digest:
                return False
            config = Config.load(self.config.path)
        except (ConfigError, OSError) as error:
            log_event(log, logging.ERROR, None, 'configuration refused', error=error)
            return False
        if config.spool != self.config.spool:
            log_event(log, logging.ERROR, None, 'configuration refused', file=config.path)
            return False
        self.config = config
        log_event(log, logging.INFO, None, 'configuration read', file=config.path)
        return True
