"""The lines that a mail server wrote on top of a mail when it delivered it into a file: from whom, and for whom.

A pipe or LMTP hands the envelope over beside the mail; a maildir has no beside, so servers put it into header fields
above all others.  Only what stands above the first ``Received`` field is looked at: below it, the sender may have written
anything.  (Above it too, if the server was not configured to add these fields.)
"""

from __future__ import annotations

import re
from typing import Any

from switchboard.message.mail_envelope import bare, split_from_line

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
        found['sender'] = bare(sender)
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
    return {name: b' '.join(lines).decode('utf-8', 'replace').strip() for name, lines in fields.items()}


def split_addresses(text: str) -> list[str]:
    """Divide a list of addresses at its commas, but for those within quotes and angle brackets; the brackets are taken off."""
    addresses = []
    start, quoted, in_brackets, escaped = 0, False, False, False
    for at, char in enumerate(text + ','):
        if escaped:
            escaped = False
        elif char == '\\':
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in '<>':
            in_brackets = char == '<'
        if char == ',' and not escaped and (at == len(text) or not (quoted or in_brackets)):
            addresses.append(bare(text[start:at].strip()))
            start = at + 1
    return [address for address in addresses if address]
