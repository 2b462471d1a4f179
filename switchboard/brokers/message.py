"""Messages to and from a broker, and the names of our headers in them; their content is described in ``encode``.

They stand apart because a bridge recognizes a message by its headers before it has loaded anything of a broker's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HEADER_PREFIX = 'x-switchboard-'
# What a message of an installation of ours has, and none of others.
KIND_HEADER = f'{HEADER_PREFIX}kind'
WHEN_HEADER = f'{HEADER_PREFIX}when'
METADATA_HEADER = f'{HEADER_PREFIX}metadata'
HISTORY_HEADER = f'{HEADER_PREFIX}history'
DUE_HEADER = f'{HEADER_PREFIX}due'
# What takes the place of headers that could not be read: why.
UNREADABLE_HEADER = f'{HEADER_PREFIX}unreadable'


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message for a broker.

    :ivar properties: by kombu's names: ``message_id content_type content_encoding priority expiration delivery_mode ...``.
    """

    body: bytes
    headers: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message that a broker has given out, and that is ours until we end it.

    :ivar deaths: how often a holder of it died, where the broker counts that.
    :ivar key: the key by which the broker counts deaths, where it does: 40 hex digits, the same each time it is given out.
    :ivar tag: the broker's name for this delivery; good for one connection.
    """

    queue: str
    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    exchange: str = ''
    routing_key: str = ''
    redelivered: bool = False
    deaths: int | None = None
    tag: Any = None
    connection_number: int = 0
    key: str = ''

    @property
    def message_id(self) -> str | None:
        """The producer's name for the message; the same each time it is given out; another value than a text or a number is none."""
        found = self.properties.get('message_id')
        return str(found) if found and isinstance(found, str | int | float) else None
