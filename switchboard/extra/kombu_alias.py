"""The former name of `switchboard.kombu_transport.alias`."""

from __future__ import annotations

from switchboard.kombu_transport.alias import CONTENT_TYPE, NAME, SERIALIZER, TRANSPORT, register

__all__ = ['CONTENT_TYPE', 'NAME', 'SERIALIZER', 'TRANSPORT', 'register']
