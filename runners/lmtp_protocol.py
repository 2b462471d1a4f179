"""An LMTP server: the connections of mail servers, on top of aiosmtpd, and the publishing of what they hand in.

Added to the library are a reply for each recipient, also where the library would give one; trouble of ours is always
temporary; lines as long as scripts write them; an end between two mails when the server stops.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AnyStr, cast

try:
    from aiosmtpd.lmtp import LMTP
    from aiosmtpd.smtp import Envelope
except ImportError as error:
    from switchboard.runner.api import install_advice

    raise ImportError(install_advice('the LMTP door', 'aiosmtpd', 'lmtp')) from error

from switchboard.errors import (
    MessageTooLargeError,
    NoRouteError,
    QueueDrainingError,
    QueueFullError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.runner.api import (
    Publication,
    PublishOutcome,
    Template,
    log_event,
    mail_from_bytes,
    refusal_log_level,
)

log = logging.getLogger('switchboard.runner')

# Longer than any line that is meant as one.  Mail servers cut lines at 998 bytes, scripts do not.
MAX_LINE_BYTES = 1 << 20


class MemoryLimit:
    """The bytes that arriving mails may have together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0

    def is_full(self) -> bool:
        """Is there nothing left for another mail?"""
        return self.used_bytes >= self._limit_bytes


class MemoryLimitError(Exception):
    """A mail has grown beyond the rest that is left for all."""


class CountedReader:
    """A connection's reader that counts the lines of one mail against the memory for all."""

    def __init__(self, reader: Any, memory: MemoryLimit) -> None:
        self._reader = reader
        self._memory = memory
        self._taken_bytes = 0
        # The rest of a refused mail is read with it, and thrown away.
        self.read = reader.read

    async def readuntil(self, separator: bytes) -> bytes:
        """:raises MemoryLimitError: too much is in memory already."""
        line: bytes = await self._reader.readuntil(separator)
        # The library has a list of lines, and puts them together; then line ends are changed.
        cost = COPIES * len(line) + LINE_BYTES
        self._taken_bytes += cost
        self._memory.used_bytes += cost
        if self._memory.is_full():
            raise MemoryLimitError
        return line

    def give_back(self) -> None:
        """The mail is stored, or is not going to be."""
        self._memory.used_bytes -= self._taken_bytes
        self._taken_bytes = 0


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


NOT_TEXT = '553 5.6.7 the address is not UTF-8'
NO_ADDRESS = '553 5.1.3 this is no address'
FULL = '452 4.3.1 no memory for more mails, try again later'
OURS = '451 4.3.0 not stored, try again later'


# How often a mail is in memory while it arrives, and what a line costs besides its bytes.
COPIES, LINE_BYTES = 3, 64


# No address has them, and no server on the way out takes them.
_CONTROL = re.compile('[\x00-\x1f\x7f]')


def _is_text(address: str) -> bool:
    """Was an address UTF-8?  The library keeps other bytes as halves of characters."""
    return not any('\ud800' <= one <= '\udfff' for one in address)


def reply_for(outcome: PublishOutcome) -> str:
    """:return: the reply for a recipient whose mail had this outcome."""
    if not isinstance(outcome, SwitchboardError):
        stored = ', '.join(f'{queue}/{filebase}' for queue, filebase in outcome.items())
        return f'250 2.1.5 stored as {stored}'
    if isinstance(outcome, MessageTooLargeError):
        return '552 5.3.4 larger than the queue takes'
    if isinstance(outcome, QueueFullError):
        return '452 4.3.1 no room, try again later'
    if isinstance(outcome, QueueDrainingError):
        return '451 4.3.2 nothing is let in for now'
    return OURS


class RoutedEnvelope(Envelope):
    """An envelope that knows where its recipients' copies go."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: list[tuple[str, ...]] = []

    @property
    def sender(self) -> str:
        """Empty for a bounce, which aiosmtpd writes as ``<>``."""
        return '' if self.mail_from in (None, '<>') else str(self.mail_from)


class LmtpConnection(LMTP):
    """One client."""

    line_length_limit = MAX_LINE_BYTES

    def __init__(self, server: LmtpServer, **keys: Any) -> None:
        self._server = server
        # While DATA runs: for how many recipients a reply is owed.
        self._owed = 0
        self._is_taking = False
        super().__init__(self, enable_SMTPUTF8=True, ident='switchboard LMTP', **keys)

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        self._server.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(error)
        self._server.forget(self)

    def _create_envelope(self) -> RoutedEnvelope:
        return RoutedEnvelope()

    async def _handle_client(self) -> None:
        if len(self._server.connections) > self._server.values['max_connections']:
            await self.push('421 4.3.2 too many connections, try again later')
            self._writer.close()
            return
        try:
            await super()._handle_client()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it is gone: a mail without a reply is not stored, or stored twice when it comes again

    async def handle_EHLO(  # noqa: N802  # aiosmtpd's names
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        """The extensions that RFC 2033 asks for."""
        session.host_name = hostname
        return [*responses[:-1], '250-PIPELINING', '250-ENHANCEDSTATUSCODES', responses[-1]]

    async def check_helo_needed(self, helo: str = 'LHLO') -> bool:
        """Ask for the greeting under the name that it has here."""
        return bool(await super().check_helo_needed(helo))

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Any, envelope: RoutedEnvelope, address: str, options: list[str]
    ) -> str:
        """Accept a sender that can be written."""
        if not _is_text(address):
            return NOT_TEXT
        if address and _CONTROL.search(address):
            return NO_ADDRESS
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return '250 2.1.0 ok'

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Any, envelope: RoutedEnvelope, address: str, options: list[str]
    ) -> str:
        """Accept an address that somebody routes."""
        if not _is_text(address):
            return NOT_TEXT
        if address in ('', '<>') or _CONTROL.search(address):
            return NO_ADDRESS
        try:
            route = self._server.addresses.queues(address, envelope.sender)
        except (NoRouteError, UnknownQueueError) as error:
            log_event(log, logging.INFO, None, 'refused', recipient=address, error=error)
            return '550 5.1.1 no such address here'
        except SwitchboardError as error:
            log_event(log, logging.ERROR, None, 'not routed', recipient=address, error=error)
            return OURS
        if len(envelope.routes) >= self._server.values['max_recipients']:
            return '452 4.5.3 too many recipients'
        envelope.rcpt_tos.append(address)
        envelope.routes.append(route)
        return '250 2.1.5 ok'

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        """Take a mail, and give as many replies as there are recipients, whatever the reply is."""
        assert isinstance(self.envelope, RoutedEnvelope)
        memory = self._server.memory
        if memory.is_full() and self.envelope.rcpt_tos:
            await self.push(FULL)
            return
        self._owed = len(self.envelope.rcpt_tos)
        self._is_taking = True
        reader = self._reader
        counted = CountedReader(reader, memory)
        self._reader = counted  # type: ignore[assignment]  # of which DATA uses these two calls
        try:
            await super().smtp_DATA(arg)
        except MemoryLimitError:
            # What follows of this mail would be read as commands.
            self._owed = 0
            await self.push('421 4.3.1 no memory for this mail now, try again later')
            self._writer.close()
            return
        finally:
            self._reader = reader
            counted.give_back()
            self._owed = 0
            self._is_taking = False
        await self.close_if_stopping()

    async def push(self, status: AnyStr) -> None:
        """A reply of the library's own to a whole mail is one to each recipient."""
        if self._owed and isinstance(status, str) and status[:3] in ('500', '552'):
            await super().push('\r\n'.join([status] * self._owed))
        else:
            await super().push(status)

    async def handle_DATA(self, server: Any, session: Any, envelope: RoutedEnvelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Store a mail, once for each set of queues."""
        recipients = [str(address) for address in envelope.rcpt_tos]
        # As a pipe or a file would have given it.
        assert isinstance(envelope.content, bytes)
        mail = mail_from_bytes(envelope.content.replace(b'\r\n', b'\n'))
        by_route: dict[tuple[str, ...], list[str]] = {}
        for address, route in zip(recipients, envelope.routes, strict=True):
            by_route.setdefault(route, []).append(address)
        publications = [
            Publication(
                mail, self._server.addresses.metadata(envelope.sender, some, envelope.smtp_utf8), route
            )
            for route, some in by_route.items()
        ]
        outcomes = dict(zip(by_route, await self._server.publisher.put(publications), strict=True))
        self._owed = 0
        for route, outcome in outcomes.items():
            self._server.report(outcome, by_route[route])
        return '\r\n'.join(reply_for(outcomes[route]) for route in envelope.routes)

    async def smtp_RSET(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        """See `close_if_stopping`."""
        await super().smtp_RSET(arg)
        await self.close_if_stopping()

    async def handle_exception(self, error: Exception) -> str:
        """Answer for each recipient that the fault is this server's and temporary: no mail may bounce for it."""
        log_event(log, logging.ERROR, None, 'session failed', exc_info=error)
        return '\r\n'.join([OURS] * max(1, self._owed))

    def is_idle(self) -> bool:
        """Is the session between two mails?"""
        return not self._is_taking and (self.envelope is None or self.envelope.mail_from is None)

    async def close_if_stopping(self) -> None:
        """End the connection between two mails, if the server is stopping."""
        if self._server.is_stopping and self.is_idle() and self.transport is not None:
            await self.push('421 4.3.2 shutting down')
            self._writer.close()


class LmtpServer:
    """The connections of one process, and what they share.

    :param slot: the place on the scoreboard that counts the stored mails.
    :param values: of the runner's section.
    """

    def __init__(self, spool: Any, slot: Any, values: Mapping[str, Any]) -> None:
        self.values = values
        self.addresses = Addresses(
            spool, values['exchange'], values['routing_key'], values['recipient_delimiter']
        )
        self.publisher = BatchPublisher(spool)
        self.memory = MemoryLimit(values['max_buffer_memory'])
        self.connections: set[LmtpConnection] = set()
        self.is_stopping = False
        self._slot = slot
        self._hostname = values['hostname'] or socket.gethostname()
        self._all_gone = asyncio.Event()

    def connect(self) -> LmtpConnection:
        """:return: the protocol of a new connection."""
        return LmtpConnection(
            self,
            hostname=self._hostname,
            data_size_limit=self.values['max_size'],
            timeout=self.values['timeout'],
            loop=asyncio.get_running_loop(),
        )

    def forget(self, connection: LmtpConnection) -> None:
        """Note that a client is gone."""
        self.connections.discard(connection)
        if self.is_stopping and not self.connections:
            self._all_gone.set()

    def report(self, outcome: PublishOutcome, recipients: Sequence[str]) -> None:
        """Log the fate of a mail, and count it on the scoreboard."""
        if isinstance(outcome, SwitchboardError):
            level = refusal_log_level(outcome)
            if level > logging.INFO:
                self._slot.error(str(outcome))
            log_event(log, level, None, 'not stored', recipients=','.join(recipients), error=outcome)
            return
        for queue, filebase in outcome.items():
            self._slot.begin(filebase)
            self._slot.end('done')
            log_event(log, logging.INFO, filebase, 'stored', queue=queue, recipients=','.join(recipients))

    async def close(self, timeout_s: float) -> None:
        """Begin no more mails, and give those that are just arriving some time to end."""
        self.is_stopping = True
        for connection in list(self.connections):
            await connection.close_if_stopping()
        if self.connections:
            try:
                await asyncio.wait_for(self._all_gone.wait(), timeout_s)
            except TimeoutError:
                log_event(
                    log, logging.WARNING, None, 'sessions interrupted', connections=len(self.connections)
                )
        for connection in list(self.connections):
            if connection.transport is not None:
                cast(asyncio.Transport, connection.transport).abort()
        self.publisher.close()
