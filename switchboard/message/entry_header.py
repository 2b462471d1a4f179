"""The first line of an entry's file: the header that stands before the metadata and the body.

::

    switchboard/1 mail 57 1024 <digest> <checksum>\\n<57 bytes of JSON><1024 bytes of body><journal>

The header is text, so that ``head -1`` tells what a file is.  It repeats the digest of the entry's name and ends in the
CRC-32 of metadata, body and header fields, in this order.  A file that was torn by a power cut, that holds what an
earlier message left in a recycled file, or that stands under another's name, fails one of the two tests.

This module imports nothing that is slow to load: `drop` packs entries with it, and reads none; `entry` does.
"""

from __future__ import annotations

from zlib import crc32

from switchboard.message.naming import slice_digits, slice_digits_without_key

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Iterator
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
