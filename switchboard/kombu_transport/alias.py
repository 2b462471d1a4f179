"""The name ``switchboard://`` for kombu, known without an import of the program's own.

kombu has no entry points for transports, but it loads those for serializers when it is first used, and a transport's name is an entry in a
dictionary.  So this module is the entry point of a serializer, and adds the name on the way.  It is imported by every
program that uses kombu where this package is installed, and imports next to nothing.

It also has kombu leave our URLs whole.  When a connection fails over to the next one of a list of URLs, whatever transport the first is of, kombu
splits that URL itself and takes the options for arguments of its own, which it does not know (TypeError).  A transport whose URL is not the first
is not asked, so this is done where kombu looks: `kombu.utils.url.parse_url`, for ``switchboard://`` alone.

The serializer is real, if modest: JSON under a content type of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import kombu.utils.url
from kombu.transport import TRANSPORT_ALIASES

NAME = 'switchboard'
TRANSPORT = 'switchboard.extra.kombu:Transport'
CONTENT_TYPE = 'application/x-switchboard-json'

Codec = tuple[Callable[[Any], str], Callable[[str | bytes], Any], str, str]


def register() -> None:
    """Make ``switchboard://`` known."""
    TRANSPORT_ALIASES.setdefault(NAME, TRANSPORT)
    for module in (kombu.utils.url, sys.modules.get('kombu.connection')):
        parse_url = getattr(module, 'parse_url', None)
        if parse_url is not None and not hasattr(parse_url, 'leaves_whole'):
            module.parse_url = _leaving_ours_whole(parse_url)  # type: ignore[union-attr]  # a module of kombu


def _leaving_ours_whole(parse_url: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    @wraps(parse_url)
    def parse(url: str) -> dict[str, Any]:
        if not url.startswith(f'{NAME}://'):
            return parse_url(url)
        # The port means nothing to a spool; where one is written, the connection says so, and where this is no URL, too.
        try:
            port = urlsplit(url).port
        except ValueError:
            port = None
        return {'transport': NAME, 'hostname': url, 'port': port}

    parse.leaves_whole = NAME  # type: ignore[attr-defined]  # a function keeps what it is asked for
    return parse


# What kombu registers under the entry point's name: encoder, decoder, content type, encoding.
SERIALIZER: Codec = (json.dumps, json.loads, CONTENT_TYPE, 'utf-8')

register()
