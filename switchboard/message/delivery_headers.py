"""The lines that a mail server wrote on top of a mail when it delivered it into a file: from whom, and for whom.

A pipe or LMTP hands the envelope over beside the mail; a maildir has no beside, so servers put it into header fields
above all others.  Only what stands above the first ``Received`` field is looked at: below it, the sender may have written
anything.  (Above it too, if the server was not configured to add these fields.)

The fields are read as RFC 5322 writes addresses: with comments, display names and groups.  A byte that is no UTF-8 stays what it is, as half a
character: that address alone is refused on the way out, where another one would have got the mail if a sign had stood in its place.
"""

from __future__ import annotations

import re
from typing import Any

from switchboard.message.mail_envelope import normalize_sender, split_from_line

# Postfix and sendmail; Exim; qmail.  The first one that is there counts.
_RECIPIENT_FIELDS = (b'x-original-to', b'envelope-to', b'delivered-to')
# These fields come first; a head that is longer than this has none.
MAX_HEAD_BYTES = 16 * 1024

_NAME = re.compile(rb'[!-9;-~]+')


def read_delivery_headers(mail: bytes) -> dict[str, Any]:
    """:return: ``sender`` (a text, empty for a bounce) and ``recipients`` (a list), as far as they are there."""
    fields = _fields(mail[:MAX_HEAD_BYTES])
    found: dict[str, Any] = {}
    if (sender := fields.get(b'return-path')) is not None:
        found['sender'] = normalize_sender(next(iter(split_addresses(sender)), ''))
    recipients = next((fields[name] for name in _RECIPIENT_FIELDS if name in fields), '')
    if recipients and (addresses := split_addresses(recipients)):
        found['recipients'] = addresses
    return found


def _fields(head: bytes) -> dict[bytes, str]:
    """:return: the first field of each name that stands above the first ``Received``, by its name in lower case."""
    position = split_from_line(head)[1]
    fields: dict[bytes, list[bytes]] = {}
    value: list[bytes] = []
    while (end := head.find(b'\n', position)) >= 0:
        line = head[position:end].removesuffix(b'\r')
        position = end + 1
        if line[:1] in (b' ', b'\t'):
            value.append(line)
            continue
        name, colon, rest = line.partition(b':')
        name = name.rstrip(b' \t').lower()
        if not colon or b'\r' in line or name == b'received' or not _NAME.fullmatch(name):
            break
        value = [rest]
        fields.setdefault(name, value)
    return {
        name: b' '.join(lines).decode('utf-8', 'surrogateescape').strip() for name, lines in fields.items()
    }


def split_addresses(text: str) -> list[str]:
    """Read a list of addresses: without comments, display names, and names of groups.

    A text of another form (a quote, a comment or a bracket that never ends) is one address as it stands, which no server takes.
    """
    reader = _AddressReader()
    for char in text:
        reader.read(char)
    return reader.end(text)


class _AddressReader:
    def __init__(self) -> None:
        self._found: list[str] = []
        # Of the address at hand: the part in angle brackets, if there are any, and all the rest but comments.
        self._bare: list[str] | None = None
        self._plain: list[str] = []
        # The end of the part at hand, angle brackets or a literal; and how deep comments are nested.
        self._closing = ''
        self._comments = 0
        self._quoted = self._escaped = self._is_odd = False

    def read(self, char: str) -> None:
        if self._escaped or char == '\\':
            self._escaped = not self._escaped
        elif self._comments or (char == '(' and not self._quoted and self._closing != ']'):
            self._comments += {'(': 1, ')': -1}.get(char, 0)
            return
        elif char == '"':
            self._quoted = not self._quoted
        elif not self._quoted and self._structure(char):
            return
        if not self._comments:
            (self._plain if self._bare is None or self._closing != '>' else self._bare).append(char)

    def _structure(self, char: str) -> bool:
        """:return: True if it belongs to no address."""
        if self._closing:
            if char != self._closing:
                return False
            self._closing, was_angle = '', char == '>'
            return was_angle
        if char == '<':
            self._is_odd |= self._bare is not None
            self._closing, self._bare = '>', []
        elif char == '[':
            self._closing = ']'
            return False
        elif char in ',;':
            self._add()
        elif char == ':':  # the name of a group stood before
            self._begin()
        else:
            return False
        return True

    def _begin(self) -> None:
        self._plain, self._bare = [], None

    def _add(self) -> None:
        address = ''.join(self._plain if self._bare is None else self._bare).strip()
        if address:
            self._found.append(address)
        self._begin()

    def end(self, text: str) -> list[str]:
        if self._quoted or self._closing or self._comments or self._escaped or self._is_odd:
            return [text.strip()]
        self._add()
        return self._found
