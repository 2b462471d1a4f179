"""What a mail server wrote on top of a mail when it delivered it into a file: from whom, and for whom.

A pipe or LMTP hands the envelope over beside the mail; a maildir has no beside, so servers put it into header fields
above all others.  Only what stands above the first ``Received`` field is looked at: below it, the sender may have written
what he liked.  (Above it too, if the server was not told to add these fields.)
"""

from __future__ import annotations

import re
from typing import Any

# Postfix and sendmail; Exim; qmail.  The first one that is there counts.
_RECIPIENT_FIELDS = (b'x-original-to', b'envelope-to', b'delivered-to')
# These fields come first; a head that is longer than this has none.
MAX_HEAD_BYTES = 16 * 1024

_FIELD = re.compile(rb'([!-9;-~]+)[ \t]*:[ \t]*((?:[^\r\n]|\r?\n[ \t])*)\r?\n')
_MBOX_LINE = re.compile(rb'From [^\n]*\n')


def postmark(mail: bytes) -> dict[str, Any]:
    """:return: ``sender`` (a text, empty for a bounce) and ``recipients`` (a list), as far as they are told."""
    head = mail[:MAX_HEAD_BYTES]
    first_line = _MBOX_LINE.match(head)
    position = first_line.end() if first_line else 0
    fields: dict[bytes, str] = {}
    while (field := _FIELD.match(head, position)) is not None:
        name = field[1].lower()
        if name == b'received':
            break
        fields.setdefault(name, field[2].decode('utf-8', 'replace').strip())
        position = field.end()
    found: dict[str, Any] = {}
    if (sender := fields.get(b'return-path')) is not None:
        found['sender'] = sender.removeprefix('<').removesuffix('>')
    recipients = next((fields[name] for name in _RECIPIENT_FIELDS if name in fields), '')
    if recipients:
        found['recipients'] = [one.strip() for one in recipients.split(',') if one.strip()]
    return found
