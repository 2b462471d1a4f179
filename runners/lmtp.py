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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, cast

from switchboard import AsyncRunner
from switchboard.errors import ConfigError, SwitchboardError
from switchboard.runner.api import (
    Publication,
    PublishOutcome,
    RunnerOptions,
    Setting,
    Template,
    duration_s,
    file_mode,
    integer,
    listen_at_unix_socket,
    log_event,
    refusal_log_level,
    size_bytes,
    word_list,
)
from switchboard.runners.lmtp_protocol import LmtpConnection, Memory

log = logging.getLogger('switchboard.runner')

# Of the time that a stop may take, the share of the mails that are just arriving.
STOP_SHARE = 0.8


class Addresses:
    """From a recipient's address to queues."""

    def __init__(self, spool: Any, exchange: str, template: Template, delimiter: str) -> None:
        self._spool = spool
        self._exchange = exchange
        self._template = template
        self._delimiter = delimiter

    def key(self, address: str) -> str:
        """:return: the routing key of an address."""
        local, _, domain = address.lower().rpartition('@') if '@' in address else (address.lower(), '', '')
        user, _, detail = local.partition(self._delimiter) if self._delimiter else (local, '', '')
        parts = {'address': address.lower(), 'local': local, 'domain': domain, 'user': user, 'detail': detail}
        return self._template.fill(None, parts).strip('.')

    def queues(self, address: str, sender: str) -> tuple[str, ...]:
        """:raises SwitchboardError: nobody routes it, or the configuration is at fault."""
        metadata = {'sender': sender, 'recipients': [address]}
        queues = self._spool.exchanges.route(self._exchange, self.key(address), metadata)
        for queue in queues:
            self._spool.queue_options(queue)
        return tuple(queues)

    def metadata(self, sender: str, recipients: Sequence[str], smtputf8: bool) -> dict[str, Any]:
        """:return: the metadata of the copy for some recipients."""
        metadata: dict[str, Any] = {'door': 'lmtp', 'sender': sender, 'recipients': list(recipients)}
        keys = {self.key(address) for address in recipients}
        if self._exchange:
            metadata['exchange'] = self._exchange
            if len(keys) == 1:
                metadata['routing_key'] = keys.pop()
        return metadata | ({'smtputf8': True} if smtputf8 else {})


class BatchPublisher:
    """Stores what many connections hand in, with one flush for all that wait."""

    def __init__(self, spool: Any) -> None:
        self._spool = spool
        # One thread, because a spool is not made for two.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='lmtp-store')
        self.waiting: list[tuple[Sequence[Publication], asyncio.Future[list[PublishOutcome]]]] = []
        self._work: asyncio.Task[None] | None = None

    async def put(self, publications: Sequence[Publication]) -> list[PublishOutcome]:
        """Return when they are on the disk, or are not going to be."""
        future: asyncio.Future[list[PublishOutcome]] = asyncio.get_running_loop().create_future()
        self.waiting.append((publications, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            # Whose connection is gone has not been promised anything.
            jobs = [job for job in self.waiting if not job[1].cancelled()]
            self.waiting.clear()
            publications = [publication for wanted, _ in jobs for publication in wanted]
            try:
                outcomes = await loop.run_in_executor(self._thread, self._spool.publish_many, publications)
            except Exception as error:
                log_event(log, logging.ERROR, None, 'not stored', number=len(publications), exc_info=True)
                outcomes = [SwitchboardError(str(error))] * len(publications)
            for wanted, future in jobs:
                mine, outcomes = outcomes[: len(wanted)], outcomes[len(wanted) :]
                if not future.done():
                    future.set_result(mine)

    def close(self) -> None:
        """Return when nothing is being stored any more."""
        self._thread.shutdown()


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

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        values = self.setting_values
        addresses = Addresses(
            self.spool, values['exchange'], values['routing_key'], values['recipient_delimiter']
        )
        self.queues, self.metadata = addresses.queues, addresses.metadata
        self.connections: set[LmtpConnection] = set()
        self.stopping = False
        self.memory = Memory(values['max_buffer_memory'])
        self._servers: list[asyncio.Server] = []
        self._paths: dict[str, int] = {}
        self._hostname = values['hostname'] or socket.gethostname()

    async def setup(self) -> None:
        """See `AsyncRunner`."""
        # The library logs each command, addresses and all.
        logging.getLogger('mail.log').setLevel(logging.WARNING)
        self.store = BatchPublisher(self.spool)
        self.put = self.store.put
        self._all_gone = asyncio.Event()
        for place in self.setting_values['listen']:
            self._servers.append(await self._listen(place))
            log_event(log, logging.INFO, None, 'listening', runner=self.name, place=place)

    async def _listen(self, place: str) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if '/' in place:
            return await loop.create_unix_server(self._connect, sock=self._unix_socket(place))
        host, _, port = place.rpartition(':')
        if not host or not re.fullmatch('[0-9]{1,5}', port) or int(port) > 65535:
            raise self._wrong(f'{place!r} is neither host:port nor a path')
        return await loop.create_server(
            self._connect, host.strip('[]'), int(port), reuse_port=self.options.instances > 1
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

    def _connect(self) -> LmtpConnection:
        values = self.setting_values
        return LmtpConnection(
            self,
            hostname=self._hostname,
            data_size_limit=values['max_size'],
            timeout=values['timeout'],
            loop=asyncio.get_running_loop(),
        )

    # What a connection asks for.

    def forget(self, connection: LmtpConnection) -> None:
        """See `LmtpServer`."""
        self.connections.discard(connection)
        if self.stopping and not self.connections:
            self._all_gone.set()

    def note(self, outcome: PublishOutcome, recipients: Sequence[str]) -> None:
        """See `LmtpServer`."""
        if isinstance(outcome, SwitchboardError):
            level = refusal_log_level(outcome)
            if level > logging.INFO:
                self.slot.error(str(outcome))
            log_event(log, level, None, 'not stored', recipients=','.join(recipients), error=outcome)
            return
        for queue, filebase in outcome.items():
            self.slot.begin(filebase)
            self.slot.end('done')
            log_event(log, logging.INFO, filebase, 'stored', queue=queue, recipients=','.join(recipients))

    async def cleanup(self) -> None:
        """Let mails that are just arriving end, and nothing new begin."""
        self.stopping = True
        for server in self._servers:
            server.close()
        for path, inode in self._paths.items():
            if os.path.exists(path) and os.stat(path).st_ino == inode:  # not yet our successor's
                os.unlink(path)
        for connection in list(self.connections):
            await connection.leave_if_asked()
        if self.connections:
            try:
                await asyncio.wait_for(self._all_gone.wait(), self.options.stop_timeout_s * STOP_SHARE)
            except TimeoutError:
                log_event(
                    log, logging.WARNING, None, 'sessions interrupted', connections=len(self.connections)
                )
        for connection in list(self.connections):
            if connection.transport is not None:
                cast(asyncio.Transport, connection.transport).abort()
        self.store.close()
