"""From a connection's URL and transport options to a spool and how it is used.

``switchboard:///var/spool/x?option=value``: three slashes, for the spool is on this machine.  kombu gives us the whole URL, also when it fails
over to one of a list (see ``alias``): of ``redis://a/0;switchboard:///x?create=yes`` the second arrives here as it stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from amqp.exceptions import InvalidPath

from switchboard.options import Durability

SCHEME = 'switchboard'
_LOCAL_HOSTS = ('', 'localhost')
_TRUE, _FALSE = ('1', 'yes', 'true', 'on'), ('0', 'no', 'false', 'off')


@dataclass(frozen=True, slots=True)
class Address:
    """A spool, and how a connection uses it.  What each field means to a user is told in ``docs/reference/kombu.md``."""

    directory: str = ''
    config: str = ''
    create: bool = False
    durability: Durability = 'full'
    delivery_limit: int = 20
    max_unacked: int = 1000
    eta: str = 'worker'
    rescan_s: float = 5.0
    recovery_s: float = 10.0


# By the names that a user writes: the field, and the values it may have.
_CHOICES = {'durability': ('full', 'lazy'), 'eta': ('worker', 'broker')}
_NAMES = {
    **{name: name for name in ('config', 'create', 'durability', 'delivery_limit', 'max_unacked', 'eta')},
    'rescan': 'rescan_s',
    'recovery': 'recovery_s',
}


def read_address(client: Any) -> Address:
    """Read what a `kombu.Connection` is told.

    An option of the URL goes before one of ``transport_options``.  kombu itself writes into the latter, so there an unknown one is no
    mistake; in a URL it is.

    :raises InvalidPath: there is no directory, or an option is not known or cannot be read.
    """
    path, query = _split(client)
    options: Mapping[str, Any] = client.transport_options or {}
    values = {_NAMES[key]: _read(key, value) for key, value in options.items() if key in _NAMES}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _NAMES:
            known = ', '.join(sorted(_NAMES))
            raise InvalidPath(f'{key!r} is no option of a {SCHEME}:// URL; there are {known}')
        values[_NAMES[key]] = _read(key, value)
    directory = path or str(options.get('directory', ''))
    if not directory and not values.get('config'):
        raise InvalidPath(f'the URL names no directory: write {SCHEME}:///var/spool/NAME')
    return Address(directory=directory, **values)


def _split(client: Any) -> tuple[str, str]:
    """:return: the path, and the options as text."""
    host = client.hostname or ''
    if '://' in host:
        url = urlsplit(host)
        _check_host(url.hostname or '')
        path, _, more = unquote(url.path).partition('?')
        path = path.strip('/')
        return (f'/{path}' if path else ''), url.query or more
    if host.startswith('/'):  # Connection('/var/spool/x', transport='switchboard')
        return host, ''
    _check_host(host)
    path, _, query = (client.virtual_host or '').partition('?')
    path = path.strip('/')
    return (f'/{path}' if path else ''), query


def _check_host(host: str) -> None:
    if host not in _LOCAL_HOSTS:
        raise InvalidPath(f'{host!r}: a spool is on this machine; write {SCHEME}:///path, with three slashes')


def _read(key: str, value: Any) -> Any:
    kind = {field.name: field.type for field in dataclasses.fields(Address)}[_NAMES[key]]
    try:
        if key in _CHOICES:
            if value not in _CHOICES[key]:
                raise ValueError(f'not one of {", ".join(_CHOICES[key])}')
            return value
        if kind == 'bool':
            return _truth(value)
        if kind == 'str':
            return str(value)
        number = int(value) if kind == 'int' else float(value)
        if number < 0:
            raise ValueError('below zero')
    except (ValueError, TypeError) as error:
        raise InvalidPath(f'{key} = {value!r}: {error}') from error
    return number


def _truth(value: Any) -> bool:
    text = str(value).lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError('neither yes nor no')
