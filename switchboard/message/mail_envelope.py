"""The envelope of a message that a mail server drops, as metadata.

Each mail server hands it over in its own way.  An argument wins over the environment, and that over the ``From ``
line; the first of each row that is there counts:

=====================  ===========================================================================================
metadata               where from
=====================  ===========================================================================================
``sender``             ``--sender``; ``SENDER`` (Postfix aliases, Exim, qmail); the address in the ``From `` line
``recipients``         ``--recipient`` and further arguments; ``RECIPIENT`` (Postfix aliases, Exim, qmail);
                       ``LOCAL_PART@DOMAIN`` (Exim); ``LOCAL@HOST`` (qmail)
``original_recipient``  ``ORIGINAL_RECIPIENT`` (Postfix aliases): the address before aliases and rewriting
``extension``          ``EXTENSION`` (Postfix aliases), ``EXT`` (qmail): what follows the ``+`` or ``-`` of the address
``from_line``          the ``From `` line itself, which is taken off the message
``client_address`` ...  ``CLIENT_ADDRESS CLIENT_HELO CLIENT_HOSTNAME CLIENT_PROTOCOL SASL_METHOD SASL_SENDER SASL_USERNAME``
                       (Postfix aliases)
=====================  ===========================================================================================

All of this was written by strangers.  Bytes that are no UTF-8 become ``\\xNN``, and everything is escaped as JSON; nothing is
ever given to a shell.  An empty sender is the null sender of a bounce, and is kept apart from none at all.
"""

from __future__ import annotations

import os

# What the doors take of one mail where its queue sets no `max_body`.  Postfix lets pass 10 MB by default, and Exim 50 MB.
MAX_DROPPED_BYTES = 50 * 1024 * 1024

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COPIED = (
    'original_recipient',
    'client_address',
    'client_helo',
    'client_hostname',
    'client_protocol',
    'sasl_method',
    'sasl_sender',
    'sasl_username',
)
# In lines of mailboxes, and by Postfix's pipe in `${sender}` and `Return-Path` too, where its `null_sender` is not set.
_NOBODY = 'MAILER-DAEMON'
_FROM = b'From '
# A longer one is no such line, but a message that begins with the word.
MAX_FROM_LINE_BYTES = 2048
# Day, month, time and year; without seconds, with a zone before or behind the year; or as RFC 5322 has it.
_DATE = rb"""
    [ \t](?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)
    (?:
        [ ](?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ ]{1,2}[0-9]{1,2}
        [ ][0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?
        (?:[ ](?:[A-Z]{1,5}(?:[ ]DST)?|[+-][0-9]{4}))?
        [ ](?:[0-9]{4}|[0-9]{2})
    |
        ,[ ]{1,2}[0-9]{1,2}[ ](?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ ][0-9]{4}
        [ ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?
    )
    (?:[ ](?:[A-Z]{1,5}(?:[ ]DST)?|[+-][0-9]{4}))?
    (?:[ ]remote[ ]from[ ][^ ]{1,255})?
    [ \t]{0,9}$
"""
# Blanks stand only in quotes that end before the domain.
_SENDER = rb'(?:[^\s"]|"(?:[^"\\]|\\.)*")+'


def read_envelope(
    environment: Mapping[bytes, bytes],
    from_line: bytes = b'',
    sender: str | None = None,
    recipients: Sequence[str] = (),
    fields: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Put together what the arguments, the environment and the ``From `` line say of a message.

    :param environment: as ``os.environb`` has it.
    :param from_line: without its line end.
    :param sender: as it was given by argument; None if it was not.
    :param recipients: as they were given by argument.
    :param fields: further metadata, given by argument; they win over all others.
    """

    def variable(*names: str) -> str | None:
        found = [name.encode() for name in names if name.encode() in environment]
        return decode_or_escape(environment[found[0]]) if found else None

    metadata: dict[str, object] = {}
    if sender is None:
        sender = variable('SENDER')
    if from_line:
        metadata['from_line'] = decode_or_escape(from_line)
        if sender is None and (found := parse_from_line(from_line)) is not None:
            sender = decode_or_escape(found)
    if sender is not None:
        metadata['sender'] = normalize_sender(sender)
    if not recipients and (one := variable('RECIPIENT') or _joined(environment)):
        recipients = [one]
    if recipients:
        metadata['recipients'] = [strip_angle_brackets(one) for one in recipients]
    for name in _COPIED:
        if value := variable(name.upper()):
            metadata[name] = value
    if extension := variable('EXTENSION', 'EXT'):
        metadata['extension'] = extension
    metadata.update(fields or {})
    return metadata


def _joined(environment: Mapping[bytes, bytes]) -> str:
    for local, domain in ((b'LOCAL_PART', b'DOMAIN'), (b'LOCAL', b'HOST')):
        if environment.get(local) and environment.get(domain):
            return decode_or_escape(environment[local] + b'@' + environment[domain])
    return ''


def strip_angle_brackets(address: str) -> str:
    """Take the angle brackets off an address."""
    return address[1:-1] if address[:1] == '<' and address[-1:] == '>' else address


def normalize_sender(address: str) -> str:
    """Take the angle brackets off a sender, and the name that Postfix puts in the place of the empty one."""
    address = strip_angle_brackets(address)
    return '' if address.upper() == _NOBODY else address


def decode_or_escape(raw: bytes) -> str:
    """Make text of bytes that somebody else wrote: bytes that are no UTF-8 become ``\\xNN``."""
    return raw.decode('utf-8', 'backslashreplace')


def decode_argument(text: str) -> str:
    """Make text of an argument of this process: the interpreter hides bytes that are no UTF-8 in it."""
    return decode_or_escape(os.fsencode(text))


def parse_from_line(line: bytes) -> bytes | None:
    """Read the ``From `` line of a mailbox: ``From `` sender date, the date as of ``asctime`` or as in a mail.

    :return: the sender, which may be empty and may hold blanks in quotes; None if the line is of another form, as a text or a field is
        that begins with the word.
    """
    if not line.startswith(_FROM):
        return None
    import re  # here, because few mails begin so, and the module takes longer to load than all that `drop` needs

    found = re.search(_DATE, line, re.VERBOSE)
    sender = line[len(_FROM) : found.start()].strip() if found else b''
    if not re.fullmatch(_SENDER, sender) or (b' ' in sender and b'"@' not in sender):
        return None
    return b'' if sender.upper() == _NOBODY.encode() else sender


def split_from_line(start: bytes) -> tuple[bytes, int]:
    """Find the ``From `` line that some mail servers put before a message.

    :param start: the message, or its first bytes.
    :return: the line without its end, and where the message begins.
    """
    if not start.startswith(_FROM):
        return b'', 0
    end = start.find(b'\n', 0, MAX_FROM_LINE_BYTES)
    if end < 0:
        return b'', 0
    line = bytes(start[:end]).rstrip(b'\r')
    return (b'', 0) if parse_from_line(line) is None else (line, end + 1)


def quote_json(text: str) -> str:
    """Write a text as JSON in ASCII, as ``json`` does."""
    if text.isascii() and text.isprintable() and '"' not in text and '\\' not in text:
        return f'"{text}"'  # nearly all of them, and what follows takes a fortieth of `drop`'s time to load
    try:
        # All of `json` takes longer to load than `drop`'s work.
        from _json import encode_basestring_ascii
    except ImportError:  # another Python than CPython
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii(text)


def dump_ascii_json(value: object) -> str:
    """Write strings, numbers, lists and dictionaries as JSON in ASCII, as ``json`` does."""
    if isinstance(value, str):
        return quote_json(value)
    if isinstance(value, list):
        return f'[{",".join(map(dump_ascii_json, value))}]'
    if isinstance(value, dict):
        return (
            '{' + ','.join(f'{quote_json(key)}:{dump_ascii_json(item)}' for key, item in value.items()) + '}'
        )
    return repr(value)
