"""What Mailman's runners leave beside a mail's bytes, and how it is stored: metadata, and attributes of the message object."""

from __future__ import annotations

from collections.abc import Mapping
from email.header import Header
from email.message import Message
from typing import Any

# The key under which attributes of the object are stored.
ATTRIBUTES = 'attributes'

# What the bytes of a mail give back, and what a mail that parses itself keeps for itself.
_OF_BYTES = frozenset(vars(Message())) | {'_raw', '_touched', '_source'}


def storable(msg: Message, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the metadata, with the object's own attributes among them.

    Mailman keeps an original subject as an `email.header.Header`, which is stored as text; all else that its runners leave, datetime and
    set included, is stored as it is.  Attributes are for example ``original_size`` and the ``recipients`` of a notification; where other
    programs keep an mbox line, Mailman keeps the envelope's sender.
    """
    stored = {key: str(value) if isinstance(value, Header) else value for key, value in metadata.items()}
    attributes = {key: value for key, value in vars(msg).items() if key not in _OF_BYTES}
    sender = msg.get_unixfrom()
    if sender and not sender.startswith('From '):
        attributes['_unixfrom'] = sender
    if attributes:
        stored[ATTRIBUTES] = attributes
    return stored


def restore(msg: Message, metadata: dict[str, Any]) -> None:
    """Give a message back the attributes that were stored with it, and take them out of the metadata."""
    attributes = metadata.pop(ATTRIBUTES, None)
    if isinstance(attributes, dict):
        for name, value in attributes.items():
            setattr(msg, name, value)
