"""A mail that is parsed when somebody looks at it, and written anew only when somebody may have changed it.

Parsing a mail costs 60 to 670 microseconds and flattening it 130 to 230: more than all the rest of a message's life in
the queue.  Most runners look at the metadata, or at nothing.  So a mail out of a queue holds its bytes; the first use of
a header parses the headers, that of the payload parses all of it, and as long as nothing that could change it was called, its bytes are
still the ones to store.

The two classes are the standard library's own, ``Message`` and ``EmailMessage``, with one difference: they start empty,
and ``__getattr__``, which Python asks for attributes that are missing, fills them.
"""

from __future__ import annotations

import email
import re
from collections.abc import Callable
from email._policybase import compat32
from email.message import EmailMessage, Message
from typing import Any, cast

from switchboard.message.flatten import flatten

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

# RFC 5322's longest line, without its end.
_MAX_LINE_BYTES = 998


def _headers_of(raw: bytes) -> bytes:
    found = None if raw[:1] in (b'\r', b'\n') else _BLANK_LINE.search(raw)
    return raw[: found.end()] if found else raw


class _Lazy:
    """What both classes share.  ``_raw`` holds the bytes; ``_touched`` is true once they may be old."""

    _raw: bytes
    _touched: bool

    def __getattr__(self, name: str) -> Any:
        # Called only for attributes that are not there.  Before parsing, those are all that the parser sets.
        if '_payload' in self.__dict__ or name.startswith('__') or '_raw' not in self.__dict__:
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {name!r}')
        parse = cast(Callable[[bytes], Message], type(self)._parse)  # type: ignore[attr-defined]
        if name in _OF_HEADERS and '_headers' not in self.__dict__:
            parsed = parse(_headers_of(self._raw)).__dict__
            self.__dict__.update({key: parsed[key] for key in _OF_HEADERS})
        else:
            # What was said of the headers since they were parsed stays as it is.
            self.__dict__.update(parse(self._raw).__dict__ | self.__dict__)
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PARSED:
            self.__dict__['_touched'] = True
            if '_payload' not in self.__dict__ and '_raw' in self.__dict__:
                self.__getattr__('_payload')
        self.__dict__[name] = value

    def __copy__(self) -> Any:
        # A shallow copy of a parsed mail shares its headers and parts, so what is done to one may change the other.
        if '_headers' in self.__dict__:
            self.__dict__['_touched'] = True
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def as_bytes(self, unixfrom: bool = False, policy: Any = None) -> bytes:
        if policy is None and not self._touched and self._raw.startswith(b'From ') == bool(unixfrom):
            return self._raw
        touched = self._touched
        flat = cast(bytes, super().as_bytes(unixfrom, policy))  # type: ignore[misc]
        self.__dict__['_touched'] = touched
        return flat

    def as_string(self, *args: Any, **keys: Any) -> str:
        # Writing goes through the methods that count as changes, and is none.
        touched = self._touched
        text = cast(str, super().as_string(*args, **keys))  # type: ignore[misc]
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


class LazyMessage(_Lazy, Message):
    """A ``Message`` (policy ``compat32``) that parses itself when it is looked at."""

    _parse = staticmethod(email.message_from_bytes)


class LazyEmailMessage(_Lazy, EmailMessage):
    """An ``EmailMessage`` (policy ``default``) that parses itself when it is looked at."""

    @staticmethod
    def _parse(raw: bytes) -> Message:
        import email.policy  # here, because a modern mail takes a third of a megabyte of modules

        return email.message_from_bytes(raw, policy=email.policy.default)


for _name in _CHANGING:
    if hasattr(Message, _name):
        setattr(LazyMessage, _name, _touching(_name, Message))
for _name in _CHANGING + _CHANGING_MODERN:
    if hasattr(EmailMessage, _name):
        setattr(LazyEmailMessage, _name, _touching(_name, EmailMessage))


def lazy_mail(raw: bytes, *, modern: bool = False) -> Message:
    """:return: a mail that holds `raw` and parses it when somebody looks; an ``EmailMessage`` if `modern`."""
    # Not through __init__, which would set the attributes whose absence means "not parsed yet".
    cls: type[LazyMessage | LazyEmailMessage] = LazyEmailMessage if modern else LazyMessage
    mail = cls.__new__(cls)
    mail.__dict__['_raw'] = raw
    mail.__dict__['_touched'] = False
    return mail


def mail_bytes(mail: Message) -> bytes:
    """Flatten a mail as it is, its ``From `` line included if it has one.

    Long headers are not folded anew, for that would break signatures, except where a line would be too long for any mail
    server.
    """
    if isinstance(mail, _Lazy) and not mail._touched:
        return mail._raw
    unixfrom = bool(mail.get_unixfrom())
    if mail.policy is compat32:
        return flatten(mail, unixfrom=unixfrom)
    if isinstance(mail, EmailMessage):
        import email.policy

        return mail.as_bytes(
            unixfrom, policy=email.policy.default.clone(refold_source='none', linesep=mail.policy.linesep)
        )
    flat = mail.as_bytes(unixfrom, mail.policy.clone(max_line_length=None))
    headers = flat.partition(mail.policy.linesep.encode('ascii') * 2)[0]
    if max(map(len, headers.splitlines()), default=0) > _MAX_LINE_BYTES:
        return mail.as_bytes(unixfrom)
    return flat
