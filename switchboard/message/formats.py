"""Kinds that need a library: MessagePack and YAML.  The library is imported when a queue asks for the kind.

Both hold more types than JSON (bytes, dates, tuples as lists); a value must read back equal all the same, so each
message is read back before it is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from zope.interface import implementer

from switchboard.errors import CorruptEntryError, UnserializableError
from switchboard.interfaces import ISerializer


@implementer(ISerializer)
class LibrarySerializer:
    """Values in the form of a library.

    :param dump: writes a value as bytes, and raises what the value makes the library raise.
    :param load: reads it.
    """

    def __init__(self, kind: str, dump: Callable[[Any], bytes], load: Callable[[bytes], Any]) -> None:
        self.kind = kind
        self._dump = dump
        self._load = load

    def dumps(self, msg: Any) -> bytes:
        try:
            body = self._dump(msg)
            again = self._load(body)
        except Exception as error:
            raise UnserializableError(f'{self.kind}: {error}') from error
        if again != msg:
            raise UnserializableError(
                f'{self.kind}: the message would not read back equal (a tuple, NaN, or a key of an odd type?)'
            )
        return body

    def loads(self, body: bytes) -> Any:
        try:
            return self._load(body)
        except Exception as error:  # the libraries' errors have no common root
            raise CorruptEntryError(f'{self.kind}: {error!r}') from error


def msgpack_serializer() -> LibrarySerializer:
    """:return: the serializer for values as MessagePack."""
    msgpack = import_module('msgpack')
    return LibrarySerializer('msgpack', msgpack.packb, partial(msgpack.unpackb, strict_map_key=False))


def yaml_serializer() -> LibrarySerializer:
    """:return: the serializer for values as YAML, by the safe loader and dumper: no tag makes an object."""
    yaml = import_module('yaml')
    return LibrarySerializer(
        'yaml', lambda msg: bytes(yaml.safe_dump(msg, allow_unicode=True), 'utf-8'), yaml.safe_load
    )
