"""A mail that is parsed when somebody looks at it, and written anew only when somebody may have changed it.

Parsing a mail costs 60 to 670 microseconds and flattening it 130 to 230: more than all the rest of a message's life in
the queue.  Most runners look at the metadata, or at nothing.  So a mail out of a queue holds its bytes; the first use of
a header parses the headers, that of the payload parses all of it, and as long as nothing that could change it was called, its bytes are
still the ones to store.

The two classes are the standard library's own, ``Message`` and ``EmailMessage``, with one difference: they start empty,
and ``__getattr__``, which Python asks for attributes that are missing, fills them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.message import EmailMessage, Message
from importlib import import_module
from operator import attrgetter
from typing import Any, cast

from switchboard.errors import ConfigError
from switchboard.message.flatten import SOURCE, flatten, parse_mail

# Methods that change a mail, or hand out parts of it that their receiver can change.
_CHANGING = (
    '__setitem__ __delitem__ add_header replace_header set_raw set_payload set_charset set_param del_param set_type '
    'set_boundary set_unixfrom set_default_type attach get_payload walk'
).split()
_CHANGING_MODERN = (
    'set_content add_related add_alternative add_attachment make_related make_alternative make_mixed clear '
    'clear_content get_body iter_attachments iter_parts get_content'
).split()


# What the parser sets, and others may set anew.
_PARSED = frozenset(
    '_headers _unixfrom _payload _charset _default_type preamble epilogue defects policy'.split()
)

# Those of them that the headers alone decide.
_OF_HEADERS = frozenset('_headers _unixfrom _charset _default_type policy'.split())
# The end of a line and an empty line: the parser knows three ends.
_BLANK_LINE = re.compile(rb'(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)')


def _headers_of(raw: bytes) -> bytes:
    found = None if raw[:1] in (b'\r', b'\n') else _BLANK_LINE.search(raw)
    return raw[: found.end()] if found else raw


class _Lazy:
    """The part that both classes share.  ``_raw`` holds the bytes; ``_touched`` is true once they may be old."""

    _parsed_class: type[Message[Any, Any]] = Message
    _raw: bytes
    _touched: bool

    def __getattr__(self, name: str) -> Any:
        # Called only for attributes that are not there.  Before parsing, those are all that the parser sets.
        if '_payload' in self.__dict__ or name.startswith('__') or '_raw' not in self.__dict__:
            own = getattr(super(), '__getattr__', None)  # of a class of somebody's
            if own is not None:
                return own(name)
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {name!r}')
        if name in _OF_HEADERS and '_headers' not in self.__dict__:
            parsed = self._parse(_headers_of(self._raw)).__dict__
            self.__dict__.update({key: parsed[key] for key in _OF_HEADERS})
            self.__dict__[SOURCE] = parsed[SOURCE].of_whole(self._raw)
        else:
            # Headers changed since they were parsed stay as they are.
            parsed = self._parse(self._raw).__dict__
            self.__dict__.update(parsed | self.__dict__ | {SOURCE: parsed[SOURCE]})
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PARSED:
            self.__dict__['_touched'] = True
            if '_payload' not in self.__dict__ and '_raw' in self.__dict__:
                self.__getattr__('_payload')
        self.__dict__[name] = value

    def __copy__(self) -> Any:
        # A shallow copy of a parsed mail shares its headers and parts, so a change of one may change the other.
        if '_headers' in self.__dict__:
            self.__dict__['_touched'] = True
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def _parse(self, raw: bytes) -> Message:
        cls = self._parsed_class
        if not issubclass(cls, EmailMessage):
            return parse_mail(raw, cls)
        import email.policy  # here, because a modern mail takes a third of a megabyte of modules

        return parse_mail(raw, cls, email.policy.default)


class _LazyText(_Lazy):
    """The writer of mails of the library's own classes."""

    def as_bytes(self, unixfrom: bool = False, policy: Any = None) -> bytes:
        if policy is None and not self._touched and self._raw.startswith(b'From ') == bool(unixfrom):
            return self._raw
        if policy is None:
            return flatten(cast(Message, self), unixfrom=unixfrom)
        touched = self._touched
        flat = cast(bytes, super().as_bytes(unixfrom, policy))  # type: ignore[misc]  # the class is made of another one at run time
        self.__dict__['_touched'] = touched
        return flat

    def as_string(self, *args: Any, **keys: Any) -> str:
        # Writing goes through the methods that count as changes, and is none.
        touched = self._touched
        text = cast(str, super().as_string(*args, **keys))  # type: ignore[misc]  # the class is made of another one at run time
        self.__dict__['_touched'] = touched
        return text

    def __str__(self) -> str:
        return self.as_string()


def _touching(method_name: str, base: type) -> Callable[..., Any]:
    method = getattr(base, method_name)

    def touch(self: _Lazy, *args: Any, **keys: Any) -> Any:
        self.__dict__['_touched'] = True
        return method(self, *args, **keys)

    touch.__name__ = method_name
    touch.__doc__ = method.__doc__
    return touch


class LazyMessage(_LazyText, Message):
    """A ``Message`` (policy ``compat32``) that parses itself when it is looked at."""


class LazyEmailMessage(_LazyText, EmailMessage):
    """An ``EmailMessage`` (policy ``default``) that parses itself when it is looked at."""

    _parsed_class = EmailMessage


for _name in _CHANGING:
    setattr(LazyMessage, _name, _touching(_name, Message))
for _name in _CHANGING + _CHANGING_MODERN:
    setattr(LazyEmailMessage, _name, _touching(_name, EmailMessage))


def load_message_class(path: str | type | None) -> type[Message] | None:
    """:return: the class that a configuration or a program names for mails; None for the library's own.

    :raises ConfigError: the path leads to no class of mails.
    """
    found: Any = path
    if isinstance(path, str):
        module, _, name = path.partition(':')
        try:
            found = attrgetter(name)(import_module(module))
        except Exception as error:  # a module of the user's
            raise ConfigError(f'{path!r} cannot be imported: {error!r}', key='message_class') from error
    if found is not None and not (isinstance(found, type) and issubclass(found, Message)):
        raise ConfigError(
            f'{path!r} is no subclass of email.message.Message: write it as package.module:Class',
            key='message_class',
        )
    return None if found in (Message, EmailMessage) else found


_lazy_classes: dict[type[Message], type[_Lazy]] = {}


def _lazy_class(cls: type[Message]) -> type[_Lazy]:
    """:return: the class of mails that are `cls` and parse themselves."""
    if cls not in _lazy_classes:
        _lazy_classes[cls] = _make_lazy_class(cls)
    return _lazy_classes[cls]


def _make_lazy_class(cls: type[Message]) -> type[_Lazy]:
    def look(self: _Lazy, name: str) -> Any:
        # The class's own methods may change whatever they find: once it was parsed, its bytes are made anew.
        self.__dict__['_touched'] = True
        return _Lazy.__getattr__(self, name)

    members = {
        '__getattr__': look,
        '__module__': cls.__module__,
        '__qualname__': cls.__qualname__,
        '__doc__': cls.__doc__,
        '__reduce_ex__': lambda self, _protocol: (_remake, (cls, self.__dict__)),
        '_parsed_class': cls,
    }
    return type(cls.__name__, (_Lazy, cls), members)


def _remake(cls: type[Message], state: dict[str, Any]) -> Any:
    made = _lazy_class(cls)
    mail = made.__new__(made)
    mail.__dict__.update(state)
    return mail


def mail_from_bytes(raw: bytes, *, modern: bool = False, cls: type[Message] | None = None) -> Message:
    """:return: a mail that holds `raw` and parses it when somebody looks; an ``EmailMessage`` if `modern`.

    :param cls: the class that it is to be an instance of instead.
    """
    # Not through __init__, which would set the attributes whose absence means "not parsed yet".
    made: Any = (LazyEmailMessage if modern else LazyMessage) if cls is None else _lazy_class(cls)
    mail: Message = made.__new__(made)
    mail.__dict__['_raw'] = raw
    mail.__dict__['_touched'] = False
    return mail


def mail_bytes(mail: Message) -> bytes:
    """Write a mail as it is, its ``From `` line included if it has one.

    The bytes are made of its fields by :func:`flatten`, and not by methods of its class.
    """
    if isinstance(mail, _Lazy) and not mail._touched:
        return mail._raw
    # Some programs keep an address there, which is no line of a mail.
    line = mail._unixfrom or ''  # type: ignore[attr-defined]  # not in the stubs
    return flatten(mail, unixfrom=line.startswith('From '))
