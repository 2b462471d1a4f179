"""Other programs' names for a body: content types, text encodings and compressions of kombu, Celery and other programs of the AMQP world.

Only the encodings that are named here are decoded.  Python knows some hundred codecs, and the content encoding is a stranger's word: ``punycode``
takes a time that grows with the square of the length, and others (``zip``, ``hex``) are no text at all.

Compressed bodies are decompressed up to a limit.  A few kilobytes of a stranger's may be gigabytes when they are decompressed, and kombu's
registry knows each compression by a function that does it at one go.  So what a codec offers for doing it in parts is used here, and it is
stopped at the limit: never more than that is in memory.  A compression that an installation has added to the registry itself can only be
measured afterwards.

Rejected: to believe the length that some formats write at their beginning, because it is the stranger who wrote it.
"""

from __future__ import annotations

import bz2
import codecs
import importlib
import lzma
import sys
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from switchboard.errors import CorruptEntryError

# By kind: the content type and the content encoding.
CONTENT_TYPES = {
    'mail': ('message/rfc822', 'binary'),
    'mail+default': ('message/rfc822', 'binary'),
    'bytes': ('application/data', 'binary'),
    'text': ('text/plain', 'utf-8'),
    'json': ('application/json', 'utf-8'),
    'msgpack': ('application/x-msgpack', 'binary'),
    'yaml': ('application/x-yaml', 'utf-8'),
    'pickle': ('application/x-python-serialize', 'binary'),
}

# A tuple, for a union is made anew each time that it is asked about.
_HEADERS = (dict, type(None))
# By the names that `codecs.lookup` gives.  Each takes a time that grows with the length, and no more than four bytes a character.
ENCODINGS = frozenset(
    (
        *'utf-8 utf-8-sig ascii utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be'.split(),
        *(f'iso8859-{part}' for part in range(1, 17) if part != 12),
        *(f'cp{page}' for page in (437, 850, 852, 858, 866, 874, 932, 949, 950, *range(1250, 1259))),
        *'koi8-r koi8-u mac-roman gbk gb2312 gb18030 big5 shift_jis euc_jp euc_kr'.split(),
    )
)


def check_encoding(encoding: str) -> str:
    """Make sure that an encoding is one of those that are decoded.

    :return: the name by which Python knows it.
    :raises CorruptEntryError: it is not.
    """
    try:
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        name = ''
    if name not in ENCODINGS:
        raise CorruptEntryError(f'content encoding {encoding[:60]!r} is not one that is decoded')
    return name


def decode_text(body: bytes, encoding: str) -> str:
    """Decode a body.

    :raises CorruptEntryError: it is not in that encoding, or that is not one of `ENCODINGS`.
    """
    name = check_encoding(encoding)
    try:
        return body.decode(name)
    except UnicodeDecodeError as error:
        raise CorruptEntryError(f'the body is not {name}: {error.reason}') from error


# Where a queue sets no `max_body`: RabbitMQ's default limit for one message.
MAX_DECOMPRESSED_BYTES = 128 * 1024 * 1024
# What LZMA may take for its dictionary, whose size the stranger chooses; its strongest preset asks for 65 MiB.
MAX_DICTIONARY_BYTES = 128 * 1024 * 1024


def decompress(body: bytes, compression: str, max_bytes: int | None = None) -> bytes:
    """Decompress a body.

    :param compression: by its content type, or by a name of kombu's.
    :param max_bytes: how long it may be when it is decompressed; None for `MAX_DECOMPRESSED_BYTES`.
    :raises CorruptEntryError: it is longer than that, or is not what it says, or the compression is not installed.
    """
    limit = MAX_DECOMPRESSED_BYTES if max_bytes is None else max_bytes
    # Here, because a look at a content type needs no kombu.
    from kombu.compression import get_decoder

    try:
        decoder: Callable[[bytes], bytes] = get_decoder(compression)
    except (KeyError, TypeError) as error:
        raise CorruptEntryError(f'compression {str(compression)[:60]!r} is not installed') from error
    read = bounded_decompressors().get(decoder) or (lambda body, _max_bytes: decoder(body))
    try:
        decompressed = read(body, limit + 1)
    except Exception as error:  # each library has errors of its own
        raise CorruptEntryError(f'not what {str(compression)[:60]!r} makes: {error!r}') from error
    if len(decompressed) > limit:
        raise CorruptEntryError(
            f'{len(body)} bytes of {str(compression)[:60]!r} are more than {limit} when they are decompressed'
        )
    return decompressed


def _from_zlib(body: bytes, max_bytes: int) -> bytes:
    reader = zlib.decompressobj()
    return _whole(reader.decompress(body, max_bytes), reader.eof, max_bytes)


def _from_streams(new_reader: Callable[[], Any]) -> Callable[[bytes, int], bytes]:
    """:return: a reader of streams that stand behind each other, as their makers may have written them."""

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


def _from_zstandard(zstandard: Any, decoder: Callable[[bytes], bytes]) -> Callable[[bytes, int], bytes]:
    def read(body: bytes, max_bytes: int) -> bytes:
        # This library decompresses the whole or a stream; only the first says whether the end is missing, and only the second stops.
        with zstandard.ZstdDecompressor(max_window_size=MAX_DICTIONARY_BYTES).stream_reader(body) as stream:
            begin: bytes = stream.read(max_bytes)
        return begin if len(begin) == max_bytes else decoder(body)

    return read


def _too_old(_body: bytes, _max_bytes: int) -> bytes:
    raise ValueError('it needs brotli 1.2, because older ones do not stop at a limit')


def _whole(decompressed: bytes, is_at_end: bool, max_bytes: int) -> bytes:
    if not is_at_end and len(decompressed) < max_bytes:
        raise EOFError('its end is missing')
    return decompressed


def is_kombu_message(msg: Any) -> bool:
    """Has a message the form that kombu's virtual transports store?  One that only looks like it is a value of another program's."""
    return (
        isinstance(msg, dict)
        and isinstance(msg.get('body'), str)
        and isinstance(msg.get('properties'), dict)
        and isinstance(msg.get('headers'), _HEADERS)
    )


@cache
def bounded_decompressors() -> dict[Any, Callable[[bytes, int], bytes]]:
    """:return: for each function by which kombu decompresses, one that does the same up to a length."""
    found: dict[Any, Callable[[bytes, int], bytes]] = {
        zlib.decompress: _from_zlib,
        bz2.decompress: _from_streams(bz2.BZ2Decompressor),
        lzma.decompress: _from_streams(lambda: lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES)),
    }
    zstd = _library('compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd')
    if zstd is not None:
        found[zstd.decompress] = _from_streams(zstd.ZstdDecompressor)
    from kombu import compression

    if hasattr(compression, 'zstd_decompress'):  # of kombu before 5.7
        decoder = compression.zstd_decompress
        found[decoder] = _from_zstandard(importlib.import_module('zstandard'), decoder)
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
