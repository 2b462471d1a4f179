"""Text with places to be filled in from a message: routing keys, as a configuration writes them.

``{name}`` is a value of the metadata, ``{header:List-Id}`` a header of the mail, ``{local:name}`` and ``{domain:name}`` the two halves of the
address that the metadata hold, or of the first one if it is a list.  What stands behind a bar is taken where there is no such value.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Collection, Mapping
from email.message import Message
from typing import Any

from switchboard.errors import PermanentFailure

_MAX_SHOWN = 60

# Each is given the metadata, the message, and what stands behind the colon.
Reader = Callable[[Mapping[str, Any], Any, str], str]


def _value(msgdata: Mapping[str, Any], name: str) -> str:
    value = msgdata.get(name)
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else ''


def _header(_msgdata: Mapping[str, Any], msg: Any, name: str) -> str:
    return ' '.join(str(msg[name] or '').split()) if isinstance(msg, Message) else ''


def _local(msgdata: Mapping[str, Any], _msg: Any, name: str) -> str:
    return _value(msgdata, name).rpartition('@')[0]


def _domain(msgdata: Mapping[str, Any], _msg: Any, name: str) -> str:
    return _value(msgdata, name).rpartition('@')[2].lower() if '@' in _value(msgdata, name) else ''


_READERS: dict[str, Reader] = {'header': _header, 'local': _local, 'domain': _domain}


class Template:
    """A routing key with places to be filled in.

    :param names: the only values that there are; they may be empty.
    :raises ValueError: it is not of the form.
    """

    def __init__(self, text: str, names: Collection[str] = ()) -> None:
        self.text = text
        self._may_be_empty = bool(names)
        # Literal text, and what follows it: a name, an argument and what counts if there is nothing.
        self._parts: list[tuple[str, str, str, str | None]] = []
        try:
            fields = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f'{text[:_MAX_SHOWN]!r}: {error}') from error
        for literal, field, argument, conversion in fields:
            whole = f'{field}:{argument}' if argument else field or ''
            place, bar, default = whole.partition('|')
            name, _, argument = place.partition(':')
            if field is not None and (not name or conversion or (argument and name not in _READERS)):
                raise ValueError(f'{{{whole}}} in {text[:_MAX_SHOWN]!r}: write {{name}} or {{header:Name}}')
            if field is not None and names and (argument or name not in names):
                known = ', '.join(f'{{{one}}}' for one in names)
                raise ValueError(f'{{{whole}}} in {text[:_MAX_SHOWN]!r} is none of {known}')
            self._parts.append((literal, name, argument, default if bar else None))

    @property
    def is_fixed(self) -> bool:
        """Is the text the same for all messages?"""
        return not any(name for _, name, _, _ in self._parts)

    def fill(self, msg: Any, msgdata: Mapping[str, Any]) -> str:
        """:raises PermanentFailure: a value is not there, and the template does not say what counts then."""
        filled = ''
        for literal, name, argument, default in self._parts:
            filled += literal
            if not name:
                continue
            value = _READERS[name](msgdata, msg, argument) if argument else _value(msgdata, name)
            if not value and default is None and not self._may_be_empty:
                what = f'{name}:{argument}' if argument else name
                raise PermanentFailure(f'the routing key {self.text} needs {what}, and there is none')
            filled += value or default or ''
        return filled
