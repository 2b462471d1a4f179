"""Frames of RabbitMQ, which no message of a stranger's makes raise.

What a stranger has put beside a body (its properties, its routing key) py-amqp reads while it takes bytes from the socket, and raises there what its parts
raise: for a date beyond the year 9999, for texts that are no UTF-8, for tables in tables in tables.  So such a message would be given out for ever, and stop
every reader of its queue.  `tolerant_frame_handler` gives it to its reader without them, and with the reason.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from struct import pack
from typing import Any

from amqp import spec
from amqp.basic_message import Message
from amqp.method_framing import frame_handler
from amqp.serialization import dumps, loads

from switchboard.brokers.message import UNREADABLE_HEADER
from switchboard.queue.watch import wait_readable

# How long the rest of a frame may take of which the beginning is here.
FRAME_TIMEOUT_S = 1.0

# Frames by their type, as AMQP numbers them.
METHOD_FRAME, HEADER_FRAME = 1, 2
# Before the properties in a header: the class, nothing, and the length of the body.
_HEADER_BYTES = 12
_HEADERS_FOLLOW = pack('>H', 1 << 13)
# The methods that bring a message, with the format of their arguments; the last two texts are the exchange and the routing key.
_BRINGING = {
    pack('>HH', *spec.Basic.Deliver): 'sLbss',
    pack('>HH', *spec.Basic.GetOk): 'Lbssl',
    pack('>HH', *spec.Basic.Return): 'Bsss',
}


def tolerant_frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[Any], Any]:
    """Make what py-amqp reads frames by, which no message of a stranger's makes raise."""
    handle = frame_handler(connection, callback)

    def on_frame(frame: tuple[int, int, bytes]) -> Any:
        kind, channel, content = frame
        if kind == METHOD_FRAME and (form := _BRINGING.get(bytes(content[:4]))) is not None:
            return handle((kind, channel, _with_readable_texts(content, form)))
        try:
            return handle(frame)
        except Exception:
            if kind != HEADER_FRAME or (why := _why_unreadable(content)) is None:
                raise
            headers = dumps('F', [{UNREADABLE_HEADER: why}])
            return handle((kind, channel, content[:_HEADER_BYTES] + _HEADERS_FOLLOW + headers))

    return on_frame


def _why_unreadable(content: bytes) -> str | None:
    try:
        Message().inbound_header(content)
    except Exception as error:  # what a stranger has sent may raise anything
        text = f'{type(error).__name__}: {error}'.encode('ascii', 'backslashreplace').decode()
        return f'its properties cannot be read: {text[:200]}'
    return None


def _with_readable_texts(content: bytes, form: str) -> bytes:
    """:return: the arguments of a method, each byte of a text that is no UTF-8 as a question mark, if there are such texts."""
    try:
        loads(form, content, 4)
        return content
    except UnicodeDecodeError:
        pass
    readable, at = bytearray(content), 4
    for each in form:
        if each == 's':
            length = readable[at]
            text = bytes(readable[at + 1 : at + 1 + length])
            readable[at + 1 : at + 1 + length] = bytes(byte if byte < 128 else ord('?') for byte in text)
            at += 1 + length
        else:
            at += {'L': 8, 'l': 4, 'B': 2, 'b': 1}[each]
    return bytes(readable)


def is_readable(connection: Any) -> bool:
    """Has something come that was not read?"""
    sock = connection.sock
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    return bool(wait_readable([sock.fileno()], 0))


def read_frame(connection: Any) -> None:
    """Take one frame in.  Not by ``drain_events``, which after a mere heartbeat waits for more."""
    try:
        connection.blocking_read(timeout=FRAME_TIMEOUT_S)
    except TimeoutError:
        pass  # half a frame: py-amqp keeps it, and the rest comes


def read_frames(connection: Any) -> None:
    """Take in all that has come."""
    while is_readable(connection):
        read_frame(connection)
