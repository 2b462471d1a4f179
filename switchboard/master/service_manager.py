"""Notices to systemd about the master: ready, reloading, stopping, alive, and one line of status.

The protocol of ``sd_notify``: one datagram of ``KEY=value`` lines to the socket that ``NOTIFY_SOCKET`` names.  It is forty lines that
the manual promises not to change, so no library is needed.  Without the variable, every call does nothing; a datagram that cannot be
sent is no reason for anything.

The variables are read once and removed: a program that a runner starts must not speak for the master, nor be watched in its place.  The
watchdog is fed from the loop and from nowhere else, so it says that the loop turns.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import time
from collections.abc import MutableMapping

# A change of the status within this time of the last one is sent later.
STATUS_EVERY_S = 5.0
# While it starts or stops, it asks for this much more time, this often.
EXTEND_S, EXTEND_EVERY_S = 30.0, 10.0
VARIABLES = ('NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES')


class ServiceManager:
    """The way to the service manager, if there is one.

    :param environ: the environment, from which its variables are taken away.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        found = {name: environ.pop(name, '') for name in VARIABLES}
        path = found['NOTIFY_SOCKET']
        # `@` stands for a name that is in no directory; other kinds of addresses are for virtual machines.
        self._address = '\0' + path[1:] if path.startswith('@') else path if path.startswith('/') else ''
        is_ours = found['WATCHDOG_PID'] in ('', str(os.getpid()))
        limit_us = found['WATCHDOG_USEC']
        is_fed = self._address and is_ours and re.fullmatch('[0-9]{1,18}', limit_us)
        self._feed_every_s = int(limit_us) / 2e6 if is_fed else 0.0
        self._fed_s = self._sent_s = self._extended_s = -1e9
        self._sent = ''
        self._is_busy = bool(self._address)

    def ready(self, status: str) -> None:
        """All is well, after the start or after a reload, however that went."""
        self._is_busy = False
        self._send('READY=1', f'STATUS={status}')

    def reloading(self) -> None:
        """A reload has begun; `ready` follows."""
        self._send('RELOADING=1', f'MONOTONIC_USEC={time.monotonic_ns() // 1000}')

    def stopping(self) -> None:
        """The end has begun."""
        self._is_busy = bool(self._address)
        self._send('STOPPING=1')

    def tick(self, now_s: float, status: str = '') -> None:
        """Send the notices that are due: the loop turns, more time is needed, the line of status."""
        if self._feed_every_s and now_s - self._fed_s >= self._feed_every_s:
            self._fed_s = now_s
            self._send('WATCHDOG=1')
        if self._is_busy and now_s - self._extended_s >= EXTEND_EVERY_S:
            self._extended_s = now_s
            self._send(f'EXTEND_TIMEOUT_USEC={EXTEND_S * 1e6:.0f}')
        if status and status != self._sent and now_s - self._sent_s >= STATUS_EVERY_S:
            self._sent, self._sent_s = status, now_s
            self._send(f'STATUS={status}')

    def due_s(self) -> float:
        """:return: when `tick` wants to be called next, on the monotonic clock."""
        feed_s = self._fed_s + self._feed_every_s if self._feed_every_s else math.inf
        return min(feed_s, self._extended_s + EXTEND_EVERY_S if self._is_busy else math.inf)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        text = '\n'.join(line.replace('\n', ' ') for line in lines)
        # Nobody listens there, or not fast enough.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.setblocking(False)
            way.sendto(text.encode('utf-8', 'replace'), self._address)
