"""Compressed bodies of strangers: read up to a limit, by whatever compression is installed."""

from __future__ import annotations

import bz2
import tracemalloc
import zlib

import pytest
from kombu import compression as compression_module
from kombu.compression import compress, encoders, get_decoder

from switchboard.brokers.message import Delivery
from switchboard.errors import CorruptEntryError
from switchboard.extra.kombu import content
from switchboard.message import content_types
from switchboard.message.content_types import decode_text, decompress
from tests.helpers.deliveries import read_delivery

ALL = (
    'application/x-gzip',
    'application/x-bz2',
    'application/x-lzma',
    'application/x-brotli',
    'application/zstd',
)

BOMB_BYTES = 64 * 1024 * 1024


def test_all_that_kombu_has_are_looked_at() -> None:
    assert set(encoders()) == set(ALL)
    assert {get_decoder(one) for one in ALL} <= content_types.bounded_decompressors().keys()


@pytest.mark.parametrize('compression', ALL)
class TestEachCompression:
    @pytest.mark.parametrize('size', [0, 1, 100, 1_000_000])
    def test_what_is_as_long_as_the_limit_is_read_and_what_is_longer_is_not(
        self, compression: str, size: int
    ) -> None:
        body = (b'abc' * size)[:size]
        packed, _ = compress(body, compression)
        assert decompress(packed, compression) == body
        assert decompress(packed, compression, size) == body
        if size:
            with pytest.raises(CorruptEntryError, match=f'more than {size - 1} when they are decompressed'):
                decompress(packed, compression, size - 1)

    @pytest.mark.slow
    def test_of_a_bomb_no_more_is_in_memory_than_the_limit(self, compression: str) -> None:
        bomb, _ = compress(bytes(BOMB_BYTES), compression)
        tracemalloc.start()
        try:
            with pytest.raises(CorruptEntryError, match='more than 100000 '):
                decompress(bomb, compression, 100_000)
            assert tracemalloc.get_traced_memory()[1] < BOMB_BYTES / 4
        finally:
            tracemalloc.stop()

    def test_what_ends_too_early_is_corrupt(self, compression: str) -> None:
        packed, _ = compress(bytes(range(256)) * 100, compression)
        with pytest.raises(CorruptEntryError, match='not what'):
            decompress(packed[:-5], compression)

    def test_what_is_something_else_is_corrupt(self, compression: str) -> None:
        with pytest.raises(CorruptEntryError, match='not what'):
            decompress(b'\xff\xffsomething else', compression)

    def test_kombus_messages_are_read_to_the_same_limit(self, compression: str) -> None:
        written = content.write('x' * 1000, serializer='json', compression=compression)
        assert content.read(written, max_bytes=1002) == 'x' * 1000
        with pytest.raises(CorruptEntryError, match='more than 1001 '):
            content.read(written, max_bytes=1001)

    def test_a_delivery_is_read_to_the_limit_of_its_queue(self, compression: str) -> None:
        packed, name = compress(b'x' * 1000, compression)
        delivery = Delivery('q', packed, {'compression': name}, {})
        assert read_delivery(delivery, max_bytes=1000)[0] == b'x' * 1000
        with pytest.raises(CorruptEntryError, match='more than 999 '):
            read_delivery(delivery, max_bytes=999)


def test_streams_behind_each_other_are_one_body_and_have_one_limit() -> None:
    packed = bz2.compress(b'a' * 10) + bz2.compress(b'b' * 10)
    assert decompress(packed, 'bzip2') == b'a' * 10 + b'b' * 10
    with pytest.raises(CorruptEntryError, match='more than 19 '):
        decompress(packed, 'bzip2', 19)


def test_without_a_limit_there_is_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_types, 'MAX_DECOMPRESSED_BYTES', 1000)
    with pytest.raises(CorruptEntryError, match='more than 1000 '):
        decompress(zlib.compress(bytes(1001)), 'zlib')


def test_a_compression_of_the_installation_is_measured_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compression_module._decoders, 'application/x-backwards', lambda body: body[::-1])
    assert decompress(b'abc', 'application/x-backwards', 3) == b'cba'
    with pytest.raises(CorruptEntryError, match='more than 2 '):
        decompress(b'abc', 'application/x-backwards', 2)


@pytest.mark.parametrize('name', ['morse', '', 7, ['zlib']])
def test_one_that_is_not_known_is_named(name: object) -> None:
    with pytest.raises(CorruptEntryError, match='is not installed'):
        decompress(b'x', name)  # a stranger writes what he likes


@pytest.mark.parametrize(
    'encoding', ['utf-8', 'latin-1', 'ISO-8859-15', 'windows-1252', 'utf-16', 'koi8_r', 'cp936']
)
def test_an_encoding_that_others_use_for_text_is_decoded(encoding: str) -> None:
    assert decode_text('text'.encode(encoding), encoding) == 'text'


@pytest.mark.parametrize(
    'encoding',
    ['punycode', 'idna', 'zip', 'hex', 'rot13', 'unicode_escape', 'no such', '', 'a\0b', 'x' * 10_000],
)
def test_any_other_codec_of_python_is_not_even_tried(encoding: str) -> None:
    with pytest.raises(CorruptEntryError, match='not one that is decoded'):
        decode_text(b'text', encoding)
    message = {
        'body': 'dGV4dA==',
        'content-type': 'text/plain',
        'content-encoding': encoding or '?',
        'properties': {'body_encoding': 'base64'},
    }
    with pytest.raises(CorruptEntryError):
        content.read(message)


def test_no_encoding_takes_more_than_linear_time() -> None:
    # A letter each, so that what is quadratic would need minutes.
    for encoding in content_types.ENCODINGS:
        assert len(decode_text(('x' * 2_000_000).encode(encoding), encoding)) == 2_000_000
