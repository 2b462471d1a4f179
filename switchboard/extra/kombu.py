"""The pinned name of the kombu transport: ``switchboard.extra.kombu:Transport``.  The code is in `switchboard.kombu_transport`."""

from __future__ import annotations

from switchboard.kombu_transport import alias, content
from switchboard.kombu_transport.channel import Channel
from switchboard.kombu_transport.transport import Transport

alias.register()

__all__ = ['Channel', 'Transport', 'content']
