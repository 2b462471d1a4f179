"""Kinds that need a library: MessagePack and YAML.  The library is imported when a queue asks for the kind.

Both hold more types than JSON (bytes, dates, tuples as lists); a value must read back equal all the same, so each
message is read back before it is accepted.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from zope.interface import implementer

from switchboard.errors import CorruptEntryError, UnserializableError
from switchboard.interfaces import ISerializer


def _same(kind: str, msg: Any, again: Any) -> None:
    if again != msg:
        raise UnserializableError(
            f'{kind}: the message would not read back equal (a tuple, NaN, or a key of an odd type?)'
        )


@implementer(ISerializer)
class MsgpackSerializer:
    """Values as MessagePack."""

    kind = 'msgpack'

    def __init__(self) -> None:
        self._msgpack = import_module('msgpack')

    def dumps(self, msg: Any) -> bytes:
        try:
            body: bytes = self._msgpack.packb(msg)
            _same(self.kind, msg, self._msgpack.unpackb(body, strict_map_key=False))
        except UnserializableError:
            raise
        except Exception as error:  # the library raises what the value makes it raise
            raise UnserializableError(f'msgpack: {error}') from error
        return body

    def loads(self, body: bytes) -> Any:
        try:
            return self._msgpack.unpackb(body, strict_map_key=False)
        except Exception as error:  # its errors have no common root
            raise CorruptEntryError(f'msgpack: {error!r}') from error


@implementer(ISerializer)
class YamlSerializer:
    """Values as YAML, by the safe loader and dumper: no tag makes an object."""

    kind = 'yaml'

    def __init__(self) -> None:
        self._yaml = import_module('yaml')

    def dumps(self, msg: Any) -> bytes:
        try:
            body: bytes = self._yaml.safe_dump(msg, allow_unicode=True).encode('utf-8')
            _same(self.kind, msg, self._yaml.safe_load(body))
        except UnserializableError:
            raise
        except Exception as error:  # a representer raises what the value makes it raise
            raise UnserializableError(f'yaml: {error}') from error
        return body

    def loads(self, body: bytes) -> Any:
        try:
            return self._yaml.safe_load(body)
        except Exception as error:  # the loader's own errors, and RecursionError for deep nesting
            raise CorruptEntryError(f'yaml: {error}') from error
