"""Compressed bodies made long again, up to a limit.

A few kilobytes of a stranger's may be gigabytes when they are decompressed, and kombu's registry knows each compression by a function that
does it at one go.  So what a codec offers for doing it in parts is used here, and it is stopped where the limit is: never more than that is in
memory.  A compression that an installation has added to the registry itself can only be measured afterwards.

Rejected: to believe the length that some formats write at their beginning, because it is the stranger who wrote it.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any

from kombu.compression import get_decoder

from switchboard.errors import CorruptEntryError

# Where a queue sets no `max_body`: what RabbitMQ takes of one message, unless it is told otherwise.
MAX_INFLATED_BYTES = 128 * 1024 * 1024
# What LZMA may take for its dictionary, whose size the stranger chooses; its strongest preset asks for 65 MiB.
MAX_DICTIONARY_BYTES = 128 * 1024 * 1024


def inflate(body: bytes, compression: str, max_bytes: int | None = None) -> bytes:
    """Decompress a body.

    :param compression: by its content type, or by a name of kombu's.
    :param max_bytes: how long it may be when it is decompressed; None for `MAX_INFLATED_BYTES`.
    :raises CorruptEntryError: it is longer than that, or is not what it says, or the compression is not installed.
    """
    limit = MAX_INFLATED_BYTES if max_bytes is None else max_bytes
    try:
        decoder: Callable[[bytes], bytes] = get_decoder(compression)
    except (KeyError, TypeError) as error:
        raise CorruptEntryError(f'compression {str(compression)[:60]!r} is not installed') from error
    read = _READERS.get(decoder) or (lambda body, _max_bytes: decoder(body))
    try:
        inflated = read(body, limit + 1)
    except Exception as error:  # each library has errors of its own
        raise CorruptEntryError(f'not what {str(compression)[:60]!r} makes: {error!r}') from error
    if len(inflated) > limit:
        raise CorruptEntryError(
            f'{len(body)} bytes of {str(compression)[:60]!r} are more than {limit} when they are decompressed'
        )
    return inflated


def _from_zlib(body: bytes, max_bytes: int) -> bytes:
    reader = zlib.decompressobj()
    return _whole(reader.decompress(body, max_bytes), reader.eof, max_bytes)


def _from_streams(new_reader: Callable[[], Any]) -> Callable[[bytes, int], bytes]:
    """:return: what reads streams that stand behind each other, as those who made them may have written them."""

    def read(body: bytes, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        left = max_bytes
        while left > 0 and (body or not parts):
            reader = new_reader()
            parts.append(reader.decompress(body, left))
            left -= len(parts[-1])
            _whole(parts[-1], reader.eof or left <= 0, max_bytes)
            body = reader.unused_data
        return b''.join(parts)

    return read


def _from_brotli(new_reader: Callable[[], Any]) -> Callable[[bytes, int], bytes]:
    def read(body: bytes, max_bytes: int) -> bytes:
        reader = new_reader()
        parts = [reader.process(body, output_buffer_limit=max_bytes)]
        left = max_bytes - len(parts[0])
        while left > 0 and not reader.is_finished() and not reader.can_accept_more_data():
            parts.append(reader.process(b'', output_buffer_limit=left))
            left -= len(parts[-1])
        return _whole(b''.join(parts), reader.is_finished(), max_bytes)

    return read


def _too_old(_body: bytes, _max_bytes: int) -> bytes:
    raise ValueError('it needs brotli 1.2, because older ones do not stop at a limit')


def _whole(inflated: bytes, is_at_end: bool, max_bytes: int) -> bytes:
    if not is_at_end and len(inflated) < max_bytes:
        raise EOFError('its end is missing')
    return inflated


def _readers() -> dict[Any, Callable[[bytes, int], bytes]]:
    """:return: by the function that kombu knows: what does the same up to a length."""
    found: dict[Any, Callable[[bytes, int], bytes]] = {
        zlib.decompress: _from_zlib,
        bz2.decompress: _from_streams(bz2.BZ2Decompressor),
        lzma.decompress: _from_streams(lambda: lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES)),
    }
    zstd = _library('compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd')
    if zstd is not None:
        found[zstd.decompress] = _from_streams(zstd.ZstdDecompressor)
    for name in ('brotli', 'brotlicffi'):
        brotli = _library(name)
        if brotli is not None:
            can_stop = hasattr(brotli.Decompressor, 'can_accept_more_data')
            found[brotli.decompress] = _from_brotli(brotli.Decompressor) if can_stop else _too_old
    return found


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_READERS = _readers()
