"""Ports for servers that tests start.

A port that the kernel chooses (port 0) is one of those that it gives to outgoing connections as well: between the asking and
the server's start it may have gone to one, and a client that finds nobody there may be connected to itself.
"""

from __future__ import annotations

import contextlib
import random
import socket

# Below those that Linux takes for connections.
PORTS = 20_000, 32_000


def free_port() -> int:
    """:return: a port that nobody listens on."""
    numbers = random.SystemRandom()  # some tests seed the other one
    while True:
        port = numbers.randrange(*PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):  # in use: another one
            probe.bind(('127.0.0.1', port))
            return port
