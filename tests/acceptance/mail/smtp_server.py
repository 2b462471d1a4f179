"""A mail server that answers as a test tells it to."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.helpers.waiting import PATIENCE_S

Mail = tuple[str, list[str], bytes]
DRIP_S = 0.05


@dataclass
class Server:
    """What it says, and what it has heard.

    ``answers`` are looked for by the whole command and then by its first word; the answer ``drop`` breaks the connection off.
    Behind a bar stands what comes after an answer: ``drop``, ``silence``, or ``garbage`` for ever; or that the answer itself has no end: further
    lines of it as fast as they are read (``endless``), or a byte now and then (``drip``).
    An answer that is a function is asked each time.
    """

    port: int = 0
    answers: dict[str, str | Callable[[], str]] = field(default_factory=dict)
    extensions: tuple[str, ...] = ('SIZE 10000000', '8BITMIME')
    mails: list[Mail] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None

    def serve(self, client: socket.socket) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self._converse(stack.enter_context(client), stack)
        except (OSError, EOFError):
            pass  # the client, or the answer `drop`, has ended it

    def _converse(  # noqa: C901 - a table of commands
        self, client: socket.socket, stack: contextlib.ExitStack
    ) -> None:
        sender: str = ''
        recipients: list[str] = []
        file = stack.enter_context(client.makefile('rb'))
        self._say(client, self._answer('GREETING', '220 ready'))
        while line := file.readline():
            word, *rest = line.decode().strip().split(' ', 1)
            word = word.upper()
            command = ' '.join([word, *rest])
            self.commands.append(command)
            if word in ('EHLO', 'HELO'):
                lines = ['server', *self.extensions]
                text = ''.join(f'250-{one}\r\n' for one in lines[:-1]) + f'250 {lines[-1]}'
                self._say(client, self._answer(command, text))
            elif word == 'STARTTLS':
                answer = self._answer(command, '220 go')
                self._say(client, answer)
                if not answer.startswith('2'):
                    continue
                assert self.tls is not None
                file.close()
                client = stack.enter_context(self.tls.wrap_socket(client, server_side=True))
                file = stack.enter_context(client.makefile('rb'))
            elif word == 'MAIL':
                sender, recipients = _address(command), []
                self._say(client, self._answer(command, '250 ok'))
            elif word == 'RCPT':
                answer = self._answer(command, '250 ok')
                if answer.startswith('2'):
                    recipients.append(_address(command))
                self._say(client, answer)
            elif word == 'DATA':
                answer = self._answer(command, '354 go on')
                self._say(client, answer)
                if not answer.startswith('354'):
                    continue
                content = b''
                while (line := file.readline()) not in (b'.\r\n', b''):
                    content += line
                answer = self._answer('END', '250 taken')
                if answer.startswith('2'):
                    self.mails.append((sender, recipients, content))
                self._say(client, answer)
            elif word == 'QUIT':
                self._say(client, self._answer(command, '221 bye'))
                return
            else:
                self._say(client, self._answer(command, '250 ok'))

    def _answer(self, command: str, default: str) -> str:
        answer = self.answers.get(command, self.answers.get(command.split(' ')[0], default))
        return answer if isinstance(answer, str) else answer()

    def _say(self, client: socket.socket, answer: str) -> None:
        answer, _, then = answer.partition('|')
        if answer == 'drop':
            raise EOFError
        if then == 'endless':
            while True:
                client.sendall(b'%s-%s\r\n' % (answer[:3].encode(), b'x' * 500) * 100)
        if then == 'drip':
            client.settimeout(DRIP_S)
            client.sendall(answer.encode())
            while True:
                with contextlib.suppress(TimeoutError):
                    if not client.recv(65536):
                        raise EOFError
                client.sendall(b'x')
        client.sendall(answer.encode() + b'\r\n')
        if then == 'drop':
            raise EOFError
        if then:
            while client.recv(65536):
                if then == 'garbage':
                    client.sendall(b'\xff\x00 what?\r\n')
            raise EOFError


def _address(command: str) -> str:
    found = re.search('<(.*?)>', command)
    assert found is not None, command
    return found[1]


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve until the end of the block; the port stays the same when it is served again."""
    with socket.create_server(('127.0.0.1', server.port)) as listener:
        server.port = listener.getsockname()[1]
        threads: list[threading.Thread] = []
        clients: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                server.connections += 1
                clients.append(client)
                threads.append(threading.Thread(target=server.serve, args=(client,)))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(PATIENCE_S)
            for client in clients:
                try:
                    client.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the client has closed it
            for thread in threads:
                thread.join(PATIENCE_S)
