"""The metadata and message attributes that Mailman's runners leave beside a mail's bytes, and how they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from email.charset import Charset
from email.header import Header, decode_header, make_header
from email.message import Message
from typing import Any

# The keys under which attributes of the object are stored, and which of its fields are header objects.
ATTRIBUTES, HEADERS = 'attributes', 'header_objects'
CHARSET = '_charset'

# What the bytes of a mail give back, and what a mail that parses itself keeps for itself.
_OF_BYTES = frozenset(vars(Message())) | {'_raw', '_touched', '_source'}


def storable(msg: Message, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the metadata, with the object's own attributes among them.

    Mailman keeps an original subject as an `email.header.Header`, which is stored as text; all else that its runners leave, datetime and
    set included, is stored as it is.  Fields of the mail that are such objects come back as such.  Attributes are for example ``original_size`` and the ``recipients`` of a notification; where other
    programs keep an mbox line, Mailman keeps the envelope's sender.
    """
    stored = {key: str(value) if isinstance(value, Header) else value for key, value in metadata.items()}
    attributes = {key: value for key, value in vars(msg).items() if key not in _OF_BYTES}
    sender = msg.get_unixfrom()
    if sender and not sender.startswith('From '):
        attributes['_unixfrom'] = sender
    if (charset := msg.get_charset()) is not None:
        attributes[CHARSET] = str(charset)
    if attributes:
        stored[ATTRIBUTES] = attributes
    # The types of the library know of text only.
    fields: list[tuple[str, Any]] = list(msg.raw_items())
    objects = [name for name, value in fields if isinstance(value, Header)]
    if objects:
        stored[HEADERS] = objects
    return stored


def restore_attributes(msg: Message, metadata: dict[str, Any]) -> None:
    """Give a message its attributes back that were stored beside its bytes, and take them out of the metadata."""
    attributes = metadata.pop(ATTRIBUTES, None)
    if isinstance(attributes, dict):
        for name, value in attributes.items():
            setattr(msg, name, Charset(value) if name == CHARSET else value)
    names = metadata.pop(HEADERS, None)
    if isinstance(names, list):
        for name in names:
            if isinstance(name, str) and isinstance(value := msg.get(name), str):
                text = value.replace('\r', '').replace('\n', '')
                # The types of the library know of text only.
                field: Any = make_header(decode_header(text), header_name=name)
                msg.replace_header(name, field)
