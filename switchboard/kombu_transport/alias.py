"""The name ``switchboard://`` for kombu, known without an import of the program's own.

kombu has no entry points for transports, but it loads those for serializers when it is first used, and a transport's name is an entry in a
dictionary.  So this module is the entry point of a serializer, and adds the name on the way.  It is imported by every
program that uses kombu where this package is installed, and imports next to nothing.

The serializer is real, if modest: JSON under a content type of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kombu.transport import TRANSPORT_ALIASES

NAME = 'switchboard'
TRANSPORT = 'switchboard.extra.kombu:Transport'
CONTENT_TYPE = 'application/x-switchboard-json'

Codec = tuple[Callable[[Any], str], Callable[[str | bytes], Any], str, str]


def register() -> None:
    """Make ``switchboard://`` known."""
    TRANSPORT_ALIASES.setdefault(NAME, TRANSPORT)


# What kombu registers under the entry point's name: encoder, decoder, content type, encoding.
SERIALIZER: Codec = (json.dumps, json.loads, CONTENT_TYPE, 'utf-8')

register()
