"""A proxy between a client and a real server, which loses the connection, or holds an answer back, at a moment that a test has chosen."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 65536
ANSWER_TIMEOUT_S = 60.0


class Middleman:
    """Hands on what goes between clients and a server.

    :param port: the server's.
    """

    def __init__(self, port: int) -> None:
        self._server = ('127.0.0.1', port)
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._to_lose: list[bytes] = []
        self._to_hold: list[bytes] = []
        self.has_lost = threading.Event()
        self.holds = threading.Event()
        self.let_go = threading.Event()
        self._is_away = False
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    def lose_answer_to(self, word: bytes) -> None:
        """Hand on the next request that holds a word; when the server has answered, close the connection instead of handing that on."""
        self.has_lost.clear()
        self._to_lose.append(word)

    def hold_answer_to(self, word: bytes) -> None:
        """Hand the answer to such a request on, and all behind it, when `let_go` is set."""
        self.holds.clear()
        self.let_go.clear()
        self._to_hold.append(word)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take no connections."""
        self._is_away = True
        try:
            yield
        finally:
            self._is_away = False

    def close(self) -> None:
        """Close all connections."""
        self.let_go.set()
        with suppress(OSError):  # nobody has connected yet
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with suppress(OSError):  # closed by the other side
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(ANSWER_TIMEOUT_S)

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_away:
                client.close()
                continue
            thread = threading.Thread(target=self._hand_on, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _hand_on(self, client: socket.socket) -> None:
        # The server is away, or either side has gone.
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            with self._lock:
                self._open |= {client, server}
            try:
                self._between(client, server)
            finally:
                with self._lock:
                    self._open -= {client, server}

    def _between(self, client: socket.socket, server: socket.socket) -> None:
        is_lost = is_held = False
        while True:
            for ready in select.select([client, server], [], [])[0]:
                if not (chunk := ready.recv(CHUNK_BYTES)):
                    return
                if ready is client:
                    is_lost = is_lost or _strike(self._to_lose, chunk)
                    is_held = is_held or _strike(self._to_hold, chunk)
                    server.sendall(chunk)
                    continue
                if is_lost:
                    self.has_lost.set()
                    return
                if is_held:
                    self.holds.set()
                    self.let_go.wait(ANSWER_TIMEOUT_S)
                    is_held = False
                    # Together with what has come meanwhile, so that it is read at one go.
                    if select.select([server], [], [], 0)[0]:
                        chunk += server.recv(CHUNK_BYTES)
                client.sendall(chunk)


def _strike(words: list[bytes], chunk: bytes) -> bool:
    for word in words:
        if word in chunk:
            words.remove(word)
            return True
    return False
