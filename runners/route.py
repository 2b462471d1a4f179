"""Sends messages on through an exchange: the key is in the metadata, or is made from them.

::

    [runner.route]
    class = route
    queue = in
    exchange = mail
    routing_key = {list}.{action|post}

In the key, ``{name}`` is a value of the metadata, ``{header:List-Id}`` a header of the mail, ``{local:name}`` and
``{domain:name}`` the two halves of the address that the metadata hold, or of the first one if it is a list.  What stands
behind a bar is taken where there is no such value; without it, a message that has none goes to bad.  Without a
``routing_key``, the one that the producer gave counts.

A message that goes to one queue is moved by one rename, and one that goes to several is copied, as one step.  It is not read
for that, nor changed.  What no binding wants, and no ``alternate`` takes, goes to bad.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from email.message import Message
from typing import Any

from switchboard import Runner
from switchboard.errors import ConfigError, PermanentFailure, RouteError, UnknownQueueError
from switchboard.runner.settings import Setting

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

    :raises ValueError: it is not of the form.
    """

    def __init__(self, text: str) -> None:
        self.text = text
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
            self._parts.append((literal, name, argument, default if bar else None))

    @property
    def is_fixed(self) -> bool:
        """Is it the same key for all messages?"""
        return not any(name for _, name, _, _ in self._parts)

    def fill(self, msg: Any, msgdata: Mapping[str, Any]) -> str:
        """:raises PermanentFailure: a value is not there, and the template does not say what counts then."""
        key = ''
        for literal, name, argument, default in self._parts:
            key += literal
            if not name:
                continue
            value = _READERS[name](msgdata, msg, argument) if argument else _value(msgdata, name)
            if not value and default is None:
                what = f'{name}:{argument}' if argument else name
                raise PermanentFailure(f'the routing key {self.text} needs {what}, and there is none')
            key += value or default or ''
        return key


class Route(Runner):
    """Sends each message on through an exchange."""

    settings = {  # noqa: RUF012  a mapping that nobody changes, as the base class says
        'exchange': Setting(),
        'routing_key': Setting(Template, Template('{routing_key|}')),
    }

    def setup(self) -> None:
        """See `Runner`.

        :raises ConfigError: there is no such exchange.
        """
        exchange = self.setting['exchange'] = self.setting['exchange'] or ''
        if exchange not in self.spool.exchanges:
            known = ', '.join(self.spool.exchanges.exchanges) or 'none'
            raise ConfigError(
                f'there is no exchange {exchange!r}; there are: {known}',
                section=f'runner.{self.name}',
                key='exchange',
            )

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """See `IRunner`.

        :raises PermanentFailure: there is no way to go.
        """
        key = self.setting['routing_key'].fill(msg, msgdata)
        try:
            queues = self.spool.exchanges.route(self.setting['exchange'], key, msgdata)
            if self.board is not None and self.board.name in queues:
                raise PermanentFailure(f'key {key[:_MAX_SHOWN]!r} leads back to the queue {self.board.name}')
            self.forward(*queues)
        except (RouteError, UnknownQueueError) as error:
            raise PermanentFailure(str(error)) from error
