"""Takes mails in by LMTP (RFC 2033), the way a mail server likes best to hand them over: a reply for each recipient.

::

    [runner.lmtp]
    class = lmtp
    queue =
    listen = /run/switchboard/lmtp.sock, 127.0.0.1:8024
    exchange = mail
    routing_key = {user}.{domain}

A recipient's address becomes a routing key, and the exchange says to which queues the mail goes.  An address that nobody
routes gets 550, at RCPT.  Recipients that share their queues share one copy, whose metadata name them.  250 is said
when the mail is on the disk; trouble of ours (a full disk, a queue that is drained) is 451 or 452, so that the
server keeps the mail and tries again.

While one flush is under way, the mails of all other connections gather and share the next one: no waiting time is
added, and the busier it is, the less a mail costs.

Rejected: a reply as soon as the mail is read (it may still be lost), and a window in which mails are waited for (a lone mail would
wait for nobody).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Mapping
from typing import Any, ClassVar

from switchboard import AsyncRunner
from switchboard.errors import ConfigError
from switchboard.runner.api import (
    RunnerOptions,
    Setting,
    Template,
    duration_s,
    file_mode,
    integer,
    listen_at_unix_socket,
    log_event,
    size_bytes,
    word_list,
)
from switchboard.runners.lmtp_protocol import LmtpServer

log = logging.getLogger('switchboard.runner')

# Of the time that a stop may take, the share of the mails that are just arriving.
STOP_SHARE = 0.8


def _template(text: str) -> Template:
    return Template(text, ('address', 'local', 'domain', 'user', 'detail'))


class Lmtp(AsyncRunner):
    """The LMTP server: a runner without a queue."""

    settings: ClassVar[Mapping[str, Setting]] = {
        **AsyncRunner.settings,
        'listen': Setting(word_list, required=True),
        'exchange': Setting(str, default=''),
        'routing_key': Setting(_template, default=_template('{user}.{domain}')),
        'recipient_delimiter': Setting(str, default='+'),
        'max_size': Setting(size_bytes, default=25 << 20),
        'max_recipients': Setting(integer(1), default=1000),
        'max_connections': Setting(integer(1), default=100),
        'max_buffer_memory': Setting(size_bytes, default=256 << 20, old_name='mail_memory'),
        'timeout': Setting(duration_s, default=300.0),
        'socket_mode': Setting(file_mode, default=0o660),
        'hostname': Setting(str, default=''),
    }

    @classmethod
    def check(
        cls, values: Mapping[str, Any], options: RunnerOptions, runners: Mapping[str, RunnerOptions]
    ) -> None:
        """See `Runner`."""
        if not values['exchange'] and 'routing_key' not in options.settings:
            raise ConfigError(
                'give an exchange, or a routing_key that is the name of a queue', key='exchange'
            )

    async def setup(self) -> None:
        """See `AsyncRunner`."""
        # The library logs each command, addresses and all.
        logging.getLogger('mail.log').setLevel(logging.WARNING)
        self.server = LmtpServer(self.spool, self.slot, self.setting_values)
        self._servers: list[asyncio.Server] = []
        self._paths: dict[str, int] = {}
        for place in self.setting_values['listen']:
            self._servers.append(await self._listen(place))
            log_event(log, logging.INFO, None, 'listening', runner=self.name, place=place)

    async def _listen(self, place: str) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if '/' in place:
            return await loop.create_unix_server(self.server.connect, sock=self._unix_socket(place))
        host, _, port = place.rpartition(':')
        if not host or not re.fullmatch('[0-9]{1,5}', port) or int(port) > 65535:
            raise self._wrong(f'{place!r} is neither host:port nor a path')
        return await loop.create_server(
            self.server.connect, host.strip('[]'), int(port), reuse_port=self.options.instances > 1
        )

    def _unix_socket(self, path: str) -> socket.socket:
        if self.options.instances > 1:
            raise self._wrong('only one instance can listen on a path')
        try:
            # The one before may still listen.
            listener = listen_at_unix_socket(path, self.setting_values['socket_mode'], takes_over=True)
        except OSError as error:
            raise self._wrong(f'{path}: {error.strerror or error}') from error
        self._paths[path] = os.stat(path).st_ino
        return listener

    def _wrong(self, reason: str) -> ConfigError:
        return ConfigError(reason, key='listen')

    async def cleanup(self) -> None:
        """Let mails that are just arriving end, and nothing new begin."""
        for server in self._servers:
            server.close()
        for path, inode in self._paths.items():
            if os.path.exists(path) and os.stat(path).st_ino == inode:  # not yet our successor's
                os.unlink(path)
        await self.server.close(self.options.stop_timeout_s * STOP_SHARE)
