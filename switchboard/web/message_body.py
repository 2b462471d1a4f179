"""An entry's body, as text to look at: nothing is unpickled, unpacked or run, and of a long one the beginning is read."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from typing import Any
from zlib import crc32

from switchboard.errors import CorruptEntryError
from switchboard.message.entry import Entry, Header, parse_header
from switchboard.message.entry_header import MAX_HEADER_BYTES
from switchboard.message.typed_json import parse_json
from switchboard.operating.entry_fields import describe_body
from switchboard.operating.finding import FoundEntry
from switchboard.operating.summary import EntrySummary
from switchboard.operating.text import size
from switchboard.store.disk import OPEN_FLAGS
from switchboard.store.reading import peek

SHOWN_BYTES = 64 << 10
CHUNK_BYTES = 256 << 10
HEX_BYTES = 2 << 10
# A longer one is neither changed here, nor compared with what it was.
MAX_WHOLE_BYTES = 64 << 10
# A longer one is not read through for each look at it: a page is to be there within a second.
MAX_CHECKED_BYTES = 32 << 20
MAX_PARTS = 20
# Of a body, to say in a list what it is.
TITLE_BYTES, MAX_TITLE = 16 << 10, 120
HIDDEN = '(not shown)'


class Body:
    """The bytes of one entry's body, open to be read; `close` it.

    Nobody waits for a reader: the entry may be finished at any time, and its file be written again.  Its header tells.

    :raises FileNotFoundError: the entry is gone.
    :raises OSError: it cannot be read.
    """

    def __init__(self, found: FoundEntry) -> None:
        folder = found.folder
        self._disk = folder.disk
        self._fd = self._disk.open(found.filebase + found.suffix, os.O_RDONLY | OPEN_FLAGS, dir_fd=folder.fd)
        self._start, self._line = 0, b''
        self._header: Header | None = None
        whole = self._disk.fstat(self._fd).st_size
        self.length = whole
        try:
            first = self._disk.read_all(self._fd, min(whole, MAX_HEADER_BYTES))
            header = parse_header(first)
        except CorruptEntryError:
            return  # all that there is
        self._header, self._line = header, first[: header.length]
        self._start = min(header.body_start, whole)
        self.length = min(header.body_length, whole - self._start)

    def read(self, limit: int, offset: int = 0) -> bytes:
        """:return: so many bytes, or what there is.

        :raises FileNotFoundError: they may be those of another message by now.
        """
        content = self._disk.read_all(
            self._fd, max(0, min(limit, self.length - offset)), self._start + offset
        )
        # A file is written from its header on.
        if self._disk.read_all(self._fd, len(self._line)) != self._line:
            raise FileNotFoundError(errno.ENOENT, 'it was done or removed meanwhile')
        return content

    def chunks(self) -> Iterator[bytes]:
        """Read all of it, a part at a time, and close it."""
        try:
            for offset in range(0, self.length, CHUNK_BYTES):
                yield self.read(CHUNK_BYTES, offset)
        finally:
            self.close()

    def check(self) -> None:
        """Read all of it, and keep nothing.

        :raises CorruptEntryError: other bytes were stored.
        :raises FileNotFoundError: it may be another message by now.
        """
        header, checksum = self._header, 0
        if header is None:
            return  # that is damage enough
        for offset in range(header.length, header.end, CHUNK_BYTES):
            part = self._disk.read_all(self._fd, min(CHUNK_BYTES, header.end - offset), offset)
            checksum = crc32(part, checksum)
        self.read(0)
        header.check_content(self._line, checksum)

    def close(self) -> None:
        """Let the file go."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)


def whole_entry(found: FoundEntry, summary: EntrySummary) -> Entry | None:
    """:return: the entry with all of its body, checked; None if that is long, or cannot be read."""
    if summary.body_bytes > MAX_WHOLE_BYTES:
        return None
    try:
        return peek(found.folder, found.filebase, summary.suffix)
    except OSError:
        return None


def damage_of(summary: EntrySummary, entire: Entry | None) -> str:
    """:return: the reason why an entry cannot be believed, by its header and, if it was read, its body; empty if there is none."""
    return entire.damage.reason if entire is not None and entire.damage is not None else summary.damage


def check_long(found: FoundEntry, summary: EntrySummary) -> tuple[str, bool]:
    """Look through an entry that is not read as a `whole_entry`.

    :return: its damage; and whether it was looked for in its body, which may be too long for that.
    """
    if summary.damage or summary.body_bytes > MAX_CHECKED_BYTES:
        return summary.damage, bool(summary.damage)
    try:
        with closing(Body(found)) as body:
            body.check()
    except CorruptEntryError as error:
        return error.reason, True
    except OSError:
        return '', False
    return '', True


def title_of(found: FoundEntry, kind: str) -> str | None:
    """:return: a few words that tell a person which message it is: a mail's subject, a task's name, the beginning of a text."""
    try:
        with closing(Body(found)) as body:
            content = body.read(TITLE_BYTES)
    except OSError:
        return None
    described = describe_body(kind, content)
    if title := described.get('subject') or described.get('task'):
        return title[:MAX_TITLE]
    if kind in ('text', 'json', 'yaml') and content:
        return ' '.join(_text(content[:MAX_TITLE]).split())
    return None


def describe(found: FoundEntry, kind: str) -> dict[str, Any]:
    """:return: ``parts``, each with a title and a text; ``bytes``; ``shown``; and a ``note``, where there is something to say."""
    try:
        body = Body(found)
    except OSError as error:
        return {'bytes': None, 'shown': 0, 'note': f'cannot be read: {error.strerror}', 'parts': []}
    try:
        content = body.read(SHOWN_BYTES)
    except OSError as error:
        return {'bytes': body.length, 'shown': 0, 'note': f'cannot be read: {error.strerror}', 'parts': []}
    finally:
        body.close()
    parts, note = _parts(kind, content, is_whole=body.length == len(content))
    if body.length > len(content):
        note = f'the first {size(len(content))} of {size(body.length)}' + (f'; {note}' if note else '')
    return {'bytes': body.length, 'shown': len(content), 'note': note, 'parts': parts}


def _parts(kind: str, content: bytes, *, is_whole: bool) -> tuple[list[dict[str, str]], str]:
    base, plus, packing = kind.partition('+')
    if not content:
        return [], 'empty'
    if plus:
        return [_part('bytes', _hex(content))], f'packed by {packing}; not unpacked here'
    if base == 'pickle':
        return [], f'pickle, {len(content)} bytes, not read'
    if base == 'mail':
        return _mail(content), ''
    if base == 'json' and is_whole:
        try:
            return [
                _part('JSON', json.dumps(parse_json(content, 'body')[0], indent=2, ensure_ascii=False))
            ], ''
        except (CorruptEntryError, ValueError, RecursionError):
            return [_part('source', _text(content))], 'no JSON'
    if base in ('json', 'text', 'yaml'):
        return [_part('text' if base == 'text' else 'source', _text(content))], ''
    return [_part('bytes', _hex(content))], '' if len(
        content
    ) <= HEX_BYTES else f'the first {HEX_BYTES} bytes'


def _part(title: str, text: str) -> dict[str, str]:
    return {'title': title, 'text': text}


def _text(content: bytes) -> str:
    return content.decode('utf-8', 'backslashreplace').replace('\r\n', '\n')


def _hex(content: bytes) -> str:
    lines = []
    for at in range(0, min(len(content), HEX_BYTES), 16):
        row = content[at : at + 16]
        shown = ''.join(chr(byte) if 32 <= byte < 127 else '.' for byte in row)
        lines.append(f'{at:08x}  {row.hex(" "):<47}  {shown}')
    return '\n'.join(lines)


def _mail(content: bytes) -> list[dict[str, str]]:
    """:return: header and body as they are written, and each text part decoded; HTML stays source."""
    head, _, _ = content.replace(b'\r\n', b'\n').partition(b'\n\n')
    parts = [_part('header', _text(head))]
    try:
        from email import message_from_bytes

        mail = message_from_bytes(content)
        for number, part in enumerate(mail.walk()):
            if number >= MAX_PARTS:
                parts.append(_part('more parts', f'only the first {MAX_PARTS} are shown'))
                break
            if part.is_multipart():
                continue
            payload = part.get_payload(decode=True)
            payload = payload if isinstance(payload, bytes) else b''
            title = part.get_content_type()
            if part.get_content_maintype() == 'text':
                parts.append(_part(title, _text(payload)))
            else:
                parts.append(_part(title, f'{len(payload)} bytes, not shown'))
    except Exception:  # the mail library raises what it likes
        return [_part('source', _text(content))]
    return parts


def redacted(value: Any, patterns: tuple[str, ...], depth: int = 0) -> Any:
    """:return: the value without what stands under a key that is not to be shown."""
    if depth > 20:
        return '...'
    if isinstance(value, dict):
        return {
            key: HIDDEN if is_hidden(str(key), patterns) else redacted(one, patterns, depth + 1)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(one, patterns, depth + 1) for one in value]
    return value


def is_hidden(key: str, patterns: tuple[str, ...]) -> bool:
    """:return: whether a key's value is not to be shown."""
    return any(fnmatchcase(key.lower(), pattern.lower()) for pattern in patterns)
