"""An entry's file, as bytes: one header line, the metadata, the body.

::

    switchboard/1 mail 57 1024 <digest> <checksum>\\n<57 bytes of JSON><1024 bytes of body><journal>

The header is text, so that ``head -1`` tells what a file is.  It repeats the digest of the entry's name and ends in the
CRC-32 of metadata, body and header fields, in this order.  A file that was torn by a power cut, that holds what an
earlier message left in a recycled file, or that stands under another's name, fails one of the two tests.

This module imports nothing that is slow to load: the mail servers' door packs entries with it.  The journal behind
the body has its own module.
"""

from __future__ import annotations

from zlib import crc32

from switchboard.door_errors import CorruptEntryError
from switchboard.message.naming import slice_digits, slice_digits_without_key

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Chunks(Protocol):
        """Bytes that come a part at a time; the length is that of all of them."""

        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[bytes]: ...


MAGIC = b'switchboard/1'

# The longest header: magic, a kind of 32 characters, two lengths of 12 digits, digest, checksum, spaces and newline.
MAX_HEADER_BYTES = 128
MAX_KIND_CHARACTERS = 32
# Metadata are for addresses and counts.  A file that claims more is not worth the memory.
MAX_METADATA_BYTES = 16 * 1024 * 1024
# A message up to this size is written with one call; putting a larger one together would take its memory twice.
JOINED_BYTES = 64 * 1024
# Types of bodies whose bytes are all there at once; others come a part at a time.
BYTES_TYPES = (bytes, memoryview)

_KIND = frozenset('abcdefghijklmnopqrstuvwxyz0123456789.+-_')
_HEX = frozenset(b'0123456789abcdef')
_FIELDS = 6
_CHECKSUM_BYTES = len(' 01234567\n')


class Header:
    """The header line, checked for its form; lengths are in bytes."""

    # No NamedTuple: loading `typing` would take the mail servers' door longer than all of its work.
    __slots__ = (
        'body_length',
        'body_start',
        'checksum',
        'digest',
        'end',
        'kind',
        'length',
        'metadata_length',
    )

    def __init__(
        self, kind: str, metadata_length: int, body_length: int, digest: str, checksum: int, length: int
    ) -> None:
        self.kind = kind
        self.metadata_length = metadata_length
        self.body_length = body_length
        self.digest = digest
        self.checksum = checksum
        self.length = length
        # Where the body starts in the file; where it ends, and the journal starts.
        self.body_start = length + metadata_length
        self.end = self.body_start + body_length


def content_checksum(metadata: bytes, body: bytes) -> int:
    """:return: the CRC-32 of an entry's content."""
    return crc32(body, crc32(metadata))


def pack_header(kind: str, metadata_length: int, body_length: int, digest: str, checksum: int) -> bytes:
    """:return: the header line of an entry whose content has the checksum `checksum`.

    :raises ValueError: the kind is not one that a header can hold.
    """
    if kind not in _checked:
        if not 0 < len(kind) <= MAX_KIND_CHARACTERS or not _KIND.issuperset(kind):
            raise ValueError(f'{kind!r} cannot be a kind: use lower-case letters, digits and . _ + -')
        _checked.add(kind)
    fields = f'switchboard/1 {kind} {metadata_length} {body_length} {digest}'.encode('ascii')
    return fields + b' %08x\n' % crc32(fields, checksum)


def make_digest_and_header(
    kind: str,
    metadata: bytes,
    body: bytes | memoryview | Chunks,
    digest_tail: str,
    key: object = None,
    slice_prefix: str | None = None,
) -> tuple[str, bytes]:
    """Make the digest and the header of a new entry.

    :param digest_tail: the digits of the digest behind those of the slice.
    :param key: the order key, if there is one: it chooses the slice.
    :param slice_prefix: the digits that choose the slice of a message without an order key, if not its content is to.
    """
    checksum = crc32(metadata)
    if isinstance(body, BYTES_TYPES):
        checksum = crc32(body, checksum)
    else:
        for part in body:
            checksum = crc32(part, checksum)
    prefix = (
        (slice_prefix or slice_digits_without_key(checksum, digest_tail))
        if key is None
        else slice_digits(key)
    )
    digest = prefix + digest_tail
    return digest, pack_header(kind, len(metadata), len(body), digest, checksum)


# The kinds that were found to be ones.
_checked: set[str] = set()


def unpack(content: bytes, digest: str) -> tuple[str, bytes, bytes, int] | None:
    """Take a whole file apart, if there is nothing wrong with it: several times as fast as reading and checking its header.

    :param digest: the digest of the file's name.
    :return: the kind, the metadata, the body, and where it ends; None if :func:`parse_header` and :func:`check_content` are to name the damage.
    """
    found = (_match or _matcher())(content)
    if found is None:
        return None
    kind, metadata_length, body_length, named, checksum = found.groups()
    length = int(metadata_length)
    start = found.end()
    body_start = start + length
    end = body_start + int(body_length)
    if named != digest.encode('ascii') or length > MAX_METADATA_BYTES or end > len(content):
        return None
    metadata, body = content[start:body_start], content[body_start:end]
    if crc32(content[: start - _CHECKSUM_BYTES], crc32(body, crc32(metadata))) != int(checksum, 16):
        return None
    return kind.decode('ascii'), metadata, body, end


def _matcher() -> Callable[[bytes], re.Match[bytes] | None]:
    global _match
    import re  # here, because the mail servers' door writes headers and never reads them

    _match = re.compile(
        rb'switchboard/1 ([a-z0-9.+_-]{1,32}) ([0-9]{1,12}) ([0-9]{1,12}) ([0-9a-f]{40}) ([0-9a-f]{8})\n'
    ).match
    return _match


_match: Callable[[bytes], re.Match[bytes] | None] | None = None


def parse_header(start: bytes) -> Header:
    """Read the header from the first bytes of a file.

    :raises CorruptEntryError: they are not a header.
    """
    end = start.find(b'\n', 0, MAX_HEADER_BYTES)
    fields = start[:end].split(b' ') if end > 0 else []
    if len(fields) != _FIELDS or fields[0] != MAGIC:
        raise CorruptEntryError('no header: not an entry of this format')
    _, kind, metadata_length, body_length, digest, checksum = fields
    try:
        header = Header(
            kind.decode('ascii'),
            _length(metadata_length),
            _length(body_length),
            digest.decode('ascii'),
            _checksum(checksum),
            end + 1,
        )
    except ValueError as error:
        raise CorruptEntryError(f'damaged header: {error}') from error
    if header.metadata_length > MAX_METADATA_BYTES:
        raise CorruptEntryError(f'metadata of {header.metadata_length} bytes: more than {MAX_METADATA_BYTES}')
    if not _KIND.issuperset(header.kind):
        raise CorruptEntryError('damaged header: no such kind can be')
    return header


def _length(field: bytes) -> int:
    if not field.isdigit() or len(field) > 12:
        raise ValueError(f'length {field[:20]!r}')
    return int(field)


def _checksum(field: bytes) -> int:
    if len(field) != len('01234567') or not _HEX.issuperset(field):
        raise ValueError(f'checksum {field[:20]!r}')
    return int(field, 16)


def check_content(header: Header, content: bytes, digest: str) -> None:
    """Make sure that the file is whole and is the one its name says.

    :param content: the file from its first byte to the end of the body at least.
    :param digest: the digest of the file's name.
    :raises CorruptEntryError: it is not; `offset` is where the trouble was seen.
    """
    if header.digest != digest:
        raise CorruptEntryError(f'stale or swapped: the header names {header.digest[:64]}', offset=0)
    length, end = header.length, header.end
    if len(content) < end:
        raise CorruptEntryError(f'cut short: {len(content)} of {end} bytes', offset=len(content))
    view = memoryview(content)
    check_checksum(header, view[:length], crc32(view[length:end]))


def check_checksum(header: Header, line: bytes | memoryview, checksum: int) -> None:
    """Make sure that header and content belong together.

    :param line: the header as it stands in the file.
    :param checksum: the content's, see :func:`content_checksum`.
    :raises CorruptEntryError: they do not.
    """
    if crc32(line[: header.length - _CHECKSUM_BYTES], checksum) != header.checksum:
        raise CorruptEntryError('torn: the checksum does not match', offset=header.length)
