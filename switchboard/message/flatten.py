"""A mail as the bytes it was parsed from, many times as fast as the standard library writes it.

The library's generator makes a buffer and a copy of itself for each part, folds each header field anew, and takes each line by
itself.  Most mails need nothing of this: plain header fields, text, and parts with a boundary between them.  They are written
here.  Whatever is of another kind (attached messages, reports, signed parts, header objects, lines that no mail can hold) is left to
the library, which knows how to; both write the same bytes.
"""

from __future__ import annotations

import re
from email._policybase import Compat32
from email.message import Message
from typing import Any

# What RFC 5322 allows in a line, less the colon and the blank.
MAX_LINE_CHARACTERS = 996

_LINE_END = re.compile(r'\r\n|\r|\n')
# Those whose payload the library writes as lines of text, whatever it is; and those that have parts and nothing else to them.
_TEXT = re.compile(
    r'(?:text|application|image|audio|video|font)/[\w.+-]+\s*(?:;|$)', re.ASCII | re.IGNORECASE
)
_PARTS = re.compile(r'multipart/(?!signed)[\w.+-]+\s*;', re.ASCII | re.IGNORECASE)
_BOUNDARY = re.compile(r'multipart/[\w.+-]+;\s*boundary="([\w\'()+,./:=?-]+)"', re.ASCII | re.IGNORECASE)


class AsItStands(Compat32):
    """Writes header fields as they stand.

    The library's own folds each field anew, which takes five times as long as all the rest, and breaks lines elsewhere
    than the sender did: a signature over the header (DKIM) need not survive that.
    """

    def fold_binary(self, name: str, value: Any) -> bytes:
        """See `email.policy.Policy`.  Fields that no line of a mail can hold, and `Header` objects, are left to the library."""
        if type(value) is str and value.isascii() and _is_well_folded(name, value):
            return f'{name}: {value}{self.linesep}'.encode('ascii')
        return super().fold_binary(name, value)


AS_IT_STANDS = AsItStands()


def flatten(mail: Message, *, unixfrom: bool = False) -> bytes:
    """Write a mail of the library's older policy as it stands.

    :param unixfrom: with its ``From `` line.
    """
    pieces: list[str] = []
    if not unixfrom and _write(mail, pieces):
        try:
            return ''.join(pieces).encode('ascii', 'surrogateescape')
        except UnicodeEncodeError:
            pass  # the library says what is wrong with it
    return mail.as_bytes(unixfrom, policy=AS_IT_STANDS)


def _write(mail: Message, pieces: list[str]) -> bool:
    """Append the text of a mail, or of a part of one.

    :return: False if it is not plain enough.
    """
    if type(mail).raw_items is not Message.raw_items or hasattr(type(mail), '_write_headers'):
        return False  # a class of somebody's, with headers of its own
    kind = ''
    for name, value in mail._headers:  # type: ignore[attr-defined]
        if type(value) is not str or not value.isascii():
            return False
        # What is printable has no line end in it.
        if not (
            value.isprintable() and len(name) + len(value) <= MAX_LINE_CHARACTERS
        ) and not _is_well_folded(name, value):
            return False
        if not kind and name.lower() == 'content-type':
            kind = value or '?'
        pieces.append(f'{name}: {value}\n')
    pieces.append('\n')
    payload = mail._payload  # type: ignore[attr-defined]
    if type(payload) is str:
        if not _TEXT.match(kind or mail.get_default_type()):
            return False
        pieces.append(_lines(payload))
        return True
    return type(payload) is list and bool(_PARTS.match(kind)) and _write_parts(mail, kind, payload, pieces)


def _write_parts(mail: Message, kind: str, parts: list[Message], pieces: list[str]) -> bool:
    found = _BOUNDARY.fullmatch(kind)
    boundary = found[1] if found else mail.get_boundary()
    if not boundary or not parts:
        return False
    if not all(isinstance(part, Message) for part in parts):
        return False
    if mail.preamble is not None:
        pieces.append(_lines(mail.preamble) + '\n')
    mark = f'--{boundary}\n'
    for part in parts:
        pieces.append(mark)
        if not _write(part, pieces):
            return False
        mark = f'\n--{boundary}\n'
    pieces.append(f'\n--{boundary}--\n')
    if mail.epilogue is not None:
        pieces.append(_lines(mail.epilogue))
    return True


def _lines(text: str) -> str:
    return _LINE_END.sub('\n', text) if '\r' in text else text


def _is_well_folded(name: str, value: str) -> bool:
    """Is no line too long, and none the start of another field, which somebody has smuggled in?"""
    first, *others = value.splitlines() or ['']
    if len(name) + len(first) > MAX_LINE_CHARACTERS:
        return False
    return all(line[:1] in (' ', '\t') and len(line) <= MAX_LINE_CHARACTERS for line in others)
