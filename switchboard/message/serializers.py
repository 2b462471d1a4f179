"""Kinds of messages: how each becomes bytes, and back.

A message's kind is found by adapting it to `ISerializer`, so that a program can add a type of its own without touching
this file::

    serializers = Serializers()
    serializers.register(Invoice, InvoiceSerializer())

Reading goes by the kind that the header names.  The four that are always there run nothing that a file says.  Others are made only for queues
whose configuration names them: the two that unpickle (see ``pickles.py``), and MessagePack and YAML, whose libraries are imported then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from email.message import EmailMessage, Message
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from zope.interface import implementedBy, implementer, providedBy
from zope.interface.adapter import AdapterRegistry

from switchboard.errors import ConfigError, CorruptEntryError, UnserializableError
from switchboard.interfaces import ISerializer
from switchboard.message.mail import load_message_class as class_named
from switchboard.message.mail import mail_bytes, mail_from_bytes
from switchboard.message.typed_json import dump_json, load_json, type_advice, type_name

# A text with more characters is not made bytes of as a whole, and so many are at a time.
LARGE_CHARACTERS = 16 * 1024 * 1024
CHARACTERS_AT_ONCE = 1024 * 1024


class Serializer(Protocol):
    """`ISerializer`, for the type checker."""

    kind: str

    def dumps(self, msg: Any) -> bytes: ...

    def loads(self, body: bytes) -> Any: ...


@implementer(ISerializer)
class BytesSerializer:
    """Bytes, as they are."""

    kind = 'bytes'

    def dumps(self, msg: bytes | bytearray | memoryview) -> bytes:
        return bytes(msg)

    def loads(self, body: bytes) -> bytes:
        return body


@implementer(ISerializer)
class TextSerializer:
    """Text, as UTF-8; lone surrogates, which e.g. file names can hold, survive."""

    kind = 'text'

    def dumps(self, msg: str) -> bytes:
        return msg.encode('utf-8', 'surrogatepass')

    def loads(self, body: bytes) -> str:
        try:
            return body.decode('utf-8', 'surrogatepass')
        except UnicodeDecodeError as error:
            raise CorruptEntryError(f'text: {error}') from error


class LargeText:
    """The bytes of a large text, a part at a time: all of them at once would take the memory of the text once more."""

    __slots__ = ('_length', '_text')

    def __init__(self, text: str) -> None:
        self._text = text
        self._length = sum(map(len, self))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        text = self._text
        for start in range(0, len(text), CHARACTERS_AT_ONCE):
            yield text[start : start + CHARACTERS_AT_ONCE].encode('utf-8', 'surrogatepass')


@implementer(ISerializer)
class JsonSerializer:
    """Anything that JSON with types holds."""

    kind = 'json'

    def dumps(self, msg: Any) -> bytes:
        return dump_json(msg)

    def loads(self, body: bytes) -> Any:
        return load_json(body, 'body')


@implementer(ISerializer)
class MailSerializer:
    """A mail as its RFC 5322 bytes.

    ``mail`` reads as a ``Message`` and ``mail+default`` as an ``EmailMessage``: the bytes are of the same form.

    :param message_class: the class that both read as instead.
    """

    def __init__(self, *, modern: bool = False, message_class: type[Message] | None = None) -> None:
        self.modern = modern
        self.message_class = message_class
        self.kind = 'mail+default' if modern else 'mail'

    def dumps(self, msg: Message) -> bytes:
        try:
            return mail_bytes(msg)
        except Exception as error:  # the generator raises whatever the odd header or payload makes it raise
            raise UnserializableError(f'mail: it cannot be flattened: {error!r}') from error

    def loads(self, body: bytes) -> Message:
        return mail_from_bytes(body, modern=self.modern, cls=self.message_class)


@implementer(ISerializer)
class LibrarySerializer:
    """Values in the form of a library.

    Such forms hold more types than JSON (bytes, dates, tuples as lists); a value must read back equal all the same, so each message is read
    back before it is accepted.

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


def library_serializer(kind: str) -> LibrarySerializer:
    """:return: the serializer for values as MessagePack, or as YAML by its safe loader and dumper: no tag makes an object.

    :raises ImportError: the library is not installed.
    """
    if kind == 'msgpack':
        msgpack = import_module('msgpack')
        return LibrarySerializer(kind, msgpack.packb, partial(msgpack.unpackb, strict_map_key=False))
    yaml = import_module('yaml')
    return LibrarySerializer(
        kind, partial(yaml.safe_dump, allow_unicode=True, encoding='utf-8'), yaml.safe_load
    )


class Serialized:
    """A message that goes to several queues, with its bytes: they are made once.

    A queue that would write it as another kind makes its own.
    """

    __slots__ = ('body', 'kind', 'msg')

    def __init__(self, msg: Any, kind: str, body: bytes) -> None:
        self.msg = msg
        self.kind = kind
        self.body = body


class EncodedBody:
    """A message that is bytes of a known kind already, and is to be stored as they are."""

    __slots__ = ('body', 'kind')

    def __init__(self, kind: str, body: bytes) -> None:
        self.kind = kind
        self.body = body


def kind_family(kind: str) -> str:
    """:return: the kind without its variant: what ``accept`` names."""
    return kind.partition('+')[0]


class Serializers:
    """The kinds that one queue knows.

    :param accept: the kinds it accepts; ``pickle`` and ``mailman`` must be named to be read at all.
    :param pickle_classes: ``module:Class`` names that an unpickler may make.
    :param prefer: the kind in which values of JSON's types are written: json, msgpack or yaml.
    :param message_class: the class of mails that are read, or its path.
    :raises ConfigError: a kind is not known or needs a library, or the class is none of mails.
    """

    def __init__(
        self,
        accept: Sequence[str] = ('mail', 'bytes', 'text', 'json'),
        pickle_classes: Sequence[str] = (),
        prefer: str = 'json',
        message_class: str | type | None = None,
    ) -> None:
        # Made when a message's type is not among those that were registered, but may be derived from one: a registry is
        # large, and most processes never need it.
        self._registry: Any = None
        self._registered: dict[type, Serializer] = {}
        self._by_type: dict[type, Serializer] = {}
        self._by_kind: dict[str, Serializer] = {}
        self.accept = frozenset(accept)
        json, text, data = JsonSerializer(), TextSerializer(), BytesSerializer()
        cls = class_named(message_class)
        mail, modern = MailSerializer(message_class=cls), MailSerializer(modern=True, message_class=cls)
        self.add(json)
        for byte_type in (bytes, bytearray, memoryview):
            self.register(byte_type, data)
        self.register(str, text)
        self.register(Message, mail)
        self.register(EmailMessage, modern)
        for kind in sorted(self.accept - self._by_kind.keys()):
            self.add(_optional(kind, pickle_classes))
        if prefer not in self._by_kind:
            raise ConfigError(
                f'values are to be written as {prefer!r}, which `accept` does not name', key='serializer'
            )
        self._values = self._by_kind[prefer]
        for json_type in (dict, list, int, float, bool, type(None)):
            self.register(json_type, self._values)

    def add(self, serializer: Serializer) -> None:
        """Make a kind known, for reading."""
        self._by_kind[serializer.kind] = serializer

    def register(self, message_type: type, serializer: Serializer) -> None:
        """Make `serializer` the one for messages of a type and of those derived from it."""
        self.add(serializer)
        self._registered[message_type] = serializer
        self._registry = None
        self._by_type = dict(self._registered)

    def _adapt(self, msg: Any) -> Serializer | None:
        """Find the serializer of the nearest type that `msg` is derived from, or whose interface it provides."""
        registry = self._registry
        if registry is None:
            registry = AdapterRegistry()
            for message_type, serializer in self._registered.items():
                provided: Any = implementedBy(message_type)  # type: ignore[no-untyped-call]  # no stubs for it
                registry.register([provided], ISerializer, '', serializer)
            self._registry = registry  # whole, for other threads may look into it at once
        provided = providedBy(msg)
        found: Serializer | None = registry.lookup((provided,), ISerializer)
        return found

    def for_message(self, msg: Any) -> Serializer:
        """:raises UnserializableError: nothing holds messages of this type."""
        serializer = self._by_type.get(type(msg))
        if serializer is None:
            serializer = self._adapt(msg)
            if serializer is None and 'pickle' in self.accept:
                serializer = self._by_kind['pickle']
            elif serializer is None and type_name(msg) is not None:
                serializer = self._values
            if serializer is None:
                raise UnserializableError(
                    f'a message of type {type(msg).__name__} cannot be stored: give a mail, bytes, text or what JSON '
                    f'holds, or register a serializer for it; {type_advice(msg)}'
                )
            self._by_type[type(msg)] = serializer
        return serializer

    def serialize(self, msg: Any) -> Serialized:
        """:raises UnserializableError: nothing holds the message."""
        bare = msg.msg if isinstance(msg, Serialized) else msg
        serializer = self.for_message(bare)
        if isinstance(msg, Serialized) and serializer.kind == msg.kind:
            return msg
        return Serialized(bare, serializer.kind, serializer.dumps(bare))

    def accepts(self, kind: str) -> bool:
        """Is the kind, or the family that it is a variant of, one that the queue takes?"""
        return kind in self.accept or kind_family(kind) in self.accept

    def for_kind(self, kind: str) -> Serializer | None:
        """:return: the serializer of that kind; None if it is not accepted, or not known."""
        return self._by_kind.get(kind) if self.accepts(kind) else None


def _optional(kind: str, pickle_classes: Sequence[str]) -> Serializer:
    """Make a serializer that needs a library, or a decision, of the user's."""
    if kind in ('pickle', 'mailman'):
        from switchboard.message.pickles import MailmanSerializer, PickleSerializer

        return PickleSerializer(pickle_classes) if kind == 'pickle' else MailmanSerializer(pickle_classes)
    if kind in ('msgpack', 'yaml'):
        try:
            return library_serializer(kind)
        except ImportError as error:
            from switchboard.installing import install_advice

            raise ConfigError(install_advice(f'kind {kind!r}', kind, kind), key='accept') from error
    raise ConfigError(
        f'no such kind: {kind!r}; there are mail, bytes, text, json, msgpack, yaml, pickle and mailman',
        key='accept',
    )
