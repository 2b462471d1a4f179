"""A mail that is parsed when somebody looks at it, and written anew only when somebody may have changed it.

Parsing a mail costs 60 to 670 microseconds and flattening it 130 to 230: more than all the rest of a message's life in
the queue.  Most runners look at the metadata, or at nothing.  So a mail out of a queue holds its bytes; the first use of
a header or of the payload parses it, and as long as nothing that could change it was called, its bytes are
still the ones to store.

The two classes are the standard library's own, ``Message`` and ``EmailMessage``, with one difference: they start empty,
and ``__getattr__``, which Python asks for attributes that are missing, fills them.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable
from email._policybase import Compat32, compat32
from email.message import EmailMessage, Message
from typing import Any, cast

# What RFC 5322 allows in a line, less the colon and the blank.
MAX_LINE_CHARACTERS = 996

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

# RFC 5322's longest line, without its end.
_MAX_LINE_BYTES = 998


class _Lazy:
    """What both classes share.  ``_raw`` holds the bytes; ``_touched`` is true once they may be old."""

    _raw: bytes
    _touched: bool

    def __getattr__(self, name: str) -> Any:
        # Called only for attributes that are not there.  Before parsing, those are all that the parser sets.
        if '_headers' in self.__dict__ or name.startswith('__') or '_raw' not in self.__dict__:
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {name!r}')
        parse = cast(Callable[[bytes], Message], type(self)._parse)  # type: ignore[attr-defined]
        self.__dict__.update(parse(self._raw).__dict__)
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PARSED:
            self.__dict__['_touched'] = True
            if '_headers' not in self.__dict__ and '_raw' in self.__dict__:
                self.__getattr__('_headers')
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


class _AsItStands(Compat32):
    """Writes header fields as they stand.

    The library's own folds each field anew, which takes five times as long as all the rest, and breaks lines elsewhere
    than the sender did: a signature over the header (DKIM) need not survive that.
    """

    def fold_binary(self, name: str, value: Any) -> bytes:
        """See `email.policy.Policy`.  Fields that no line of a mail can hold, and `Header` objects, are left to the library."""
        if type(value) is str and value.isascii() and _is_well_folded(name, value):
            return f'{name}: {value}{self.linesep}'.encode('ascii')
        return super().fold_binary(name, value)


def _is_well_folded(name: str, value: str) -> bool:
    """Is no line too long, and none the start of another field, which somebody has smuggled in?"""
    first, *others = value.splitlines() or ['']
    if len(name) + len(first) > MAX_LINE_CHARACTERS:
        return False
    return all(line[:1] in (' ', '\t') and len(line) <= MAX_LINE_CHARACTERS for line in others)


_AS_IT_STANDS = _AsItStands()


def mail_bytes(mail: Message) -> bytes:
    """Flatten a mail as it is, its ``From `` line included if it has one.

    Long headers are not folded anew, for that would break signatures, except where a line would be too long for any mail
    server.
    """
    if isinstance(mail, _Lazy) and not mail._touched:
        return mail._raw
    unixfrom = bool(mail.get_unixfrom())
    if mail.policy is compat32:
        return mail.as_bytes(unixfrom, policy=_AS_IT_STANDS)
    if isinstance(mail, EmailMessage):
        return mail.as_bytes(
            unixfrom, policy=email.policy.default.clone(refold_source='none', linesep=mail.policy.linesep)
        )
    flat = mail.as_bytes(unixfrom, mail.policy.clone(max_line_length=None))
    headers = flat.partition(mail.policy.linesep.encode('ascii') * 2)[0]
    if max(map(len, headers.splitlines()), default=0) > _MAX_LINE_BYTES:
        return mail.as_bytes(unixfrom)
    return flat
