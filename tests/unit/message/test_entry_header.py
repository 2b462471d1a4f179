"""The header line: what it says, and that nothing gets past it."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.errors import CorruptEntryError
from switchboard.message.entry import parse_header, read_entry
from switchboard.message.entry_header import MAX_HEADER_BYTES, content_checksum, pack_header

DIGEST = 'f8ee685d0123456789abcdef0000000000000001'
FILEBASE = f'1732242000.0+{DIGEST}'
METADATA, BODY = b'{"list":"test"}', b'Subject: hello\n\nworld\n'

kinds = st.text('abcdefghijklmnopqrstuvwxyz0123456789.+-_', min_size=1, max_size=32)


def pack(metadata: bytes = METADATA, body: bytes = BODY, digest: str = DIGEST, kind: str = 'mail') -> bytes:
    checksum = content_checksum(metadata, body)
    return pack_header(kind, len(metadata), len(body), digest, checksum) + metadata + body


def test_the_vector_of_the_format_page_holds() -> None:
    header = f'switchboard/1 mail 15 22 {DIGEST} 0d6d52a1\n'.encode()
    assert pack() == header + METADATA + BODY
    assert content_checksum(METADATA, BODY) == crc32(METADATA + BODY) == 0xF8EE685D
    assert pack(b'{}', b'', 'a3a6bf430123456789abcdef0000000000000002', 'bytes') == (
        b'switchboard/1 bytes 2 0 a3a6bf430123456789abcdef0000000000000002 c93c6067\n{}'
    )


@given(
    kinds,
    st.binary(max_size=60),
    st.binary(max_size=60),
    st.text('0123456789abcdef', min_size=40, max_size=40),
)
def test_a_header_reads_back_as_it_was_written(kind: str, metadata: bytes, body: bytes, digest: str) -> None:
    content = pack(metadata, body, digest, kind)
    header = parse_header(content)
    assert (header.kind, header.digest) == (kind, digest)
    assert content[header.length : header.body_start] == metadata
    assert content[header.body_start : header.end] == body
    for file in (content, content + b'\n#journal'):
        entry = read_entry(f'1732242000.0+{digest}', file)
        assert (entry.damage, entry.kind, entry.metadata, entry.body) == (None, kind, metadata, body)


@given(st.data())
def test_a_single_changed_byte_anywhere_is_found(data: st.DataObject) -> None:
    content = bytearray(pack())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    assert read_entry(FILEBASE, bytes(content)).damage is not None


@given(st.integers(0, len(pack()) - 1))
def test_a_file_that_is_cut_short_anywhere_is_found(length: int) -> None:
    content = pack()[:length]
    damage = read_entry(FILEBASE, content).damage
    assert damage is not None
    assert damage.offset in (0, length)


def test_a_whole_file_under_the_name_of_another_is_found() -> None:
    damage = read_entry(FILEBASE[:-1] + '2', pack()).damage
    assert 'swapped' in str(damage)


@pytest.mark.parametrize(
    'line',
    [
        b'',
        b'\n',
        b'switchboard/1 mail 15 22',
        b'switchboard/2 mail 15 22 %b 0d6d52a1\n',
        b'Switchboard/1 mail 15 22 %b 0d6d52a1\n',
        b'switchboard/1  mail 15 22 %b 0d6d52a1\n',
        b'switchboard/1 mail -1 22 %b 0d6d52a1\n',
        b'switchboard/1 mail 1_5 22 %b 0d6d52a1\n',
        b'switchboard/1 mail 15 \xb2 %b 0d6d52a1\n',
        b'switchboard/1 mail 15 9999999999999 %b 0d6d52a1\n',
        b'switchboard/1 mail 99999999 22 %b 0d6d52a1\n',
        b'switchboard/1 ma/il 15 22 %b 0d6d52a1\n',
        b'switchboard/1 m\xe4il 15 22 %b 0d6d52a1\n',
        b'switchboard/1 mail 15 22 %b 0d6d52xx\n',
        b'switchboard/1 mail 15 22 %b 0D6d52a1\n',
        b'switchboard/1 mail 15 22 %b d6d52a1\n',
        b'switchboard/1 mail 15 22 %b 0d6d52a1 more\n',
        b'switchboard/1 mail 15 22 %b 0d6d52a1' + b' ' * 200 + b'\n',
        b'switchboard/1 mail 15 22 %b 0d6d52a1',
    ],
)
def test_what_is_no_header_is_an_error(line: bytes) -> None:
    with pytest.raises(CorruptEntryError):
        parse_header(line.replace(b'%b', DIGEST.encode()) + METADATA + BODY)


@pytest.mark.parametrize('kind', ['', 'Mail', 'ma il', 'x' * 33, 'h\u00e4'])
def test_a_kind_that_a_header_cannot_hold_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match='cannot be a kind'):
        pack_header(kind, 0, 0, DIGEST, 0)


def test_the_longest_header_fits_the_limit() -> None:
    longest = pack_header('x' * 32, 10**8 - 1, 10**12 - 1, DIGEST, 0)
    assert len(longest) <= MAX_HEADER_BYTES
    with pytest.raises(CorruptEntryError, match='metadata of 99999999 bytes'):
        parse_header(longest)
