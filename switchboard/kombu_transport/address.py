"""From a connection's URL and transport options to a spool and how it is used.

``switchboard:///var/spool/x?option=value``: three slashes, for the spool is on this machine.  kombu gives us the whole URL, also when it fails
over to one of a list (see ``alias``): of ``redis://a/0;switchboard:///x?create=yes`` the second arrives here as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from amqp.exceptions import InvalidPath

from switchboard.config.units import choice, integer
from switchboard.config.url_options import UrlOption, read_url_options, seconds, yes_or_no
from switchboard.errors import ConfigError
from switchboard.options import CHOICES

if TYPE_CHECKING:
    from switchboard.queue_defaults import Durability

SCHEME = 'switchboard'
_LOCAL_HOSTS = ('', 'localhost')


class Address(NamedTuple):
    """A spool, and how a connection uses it.  ``docs/reference/kombu.md`` says what each field means to a user."""

    directory: str = ''
    config: str = ''
    create: bool = False
    durability: Durability = 'full'
    delivery_limit: int = 20
    max_unacked: int = 1000
    eta: str = 'worker'
    poll_interval_s: float = 5.0
    recovery_interval_s: float = 10.0


OPTIONS = {
    'config': UrlOption('config', str),
    'create': UrlOption('create', yes_or_no),
    'durability': UrlOption('durability', choice(*CHOICES['durability'])),
    'delivery_limit': UrlOption('delivery_limit', integer(0)),
    'max_unacked': UrlOption('max_unacked', integer(0)),
    'eta': UrlOption('eta', choice('worker', 'broker')),
    'poll_interval': UrlOption('poll_interval_s', seconds()),
    'rescan': UrlOption('poll_interval_s', seconds(), is_old=True),
    'recovery_interval': UrlOption('recovery_interval_s', seconds()),
    'recovery': UrlOption('recovery_interval_s', seconds(), is_old=True),
}


def read_address(client: Any) -> Address:
    """Read the URL and the options of a `kombu.Connection`.

    An option of the URL goes before one of ``transport_options``.  kombu itself writes into the latter, so there an unknown one is no
    mistake; in a URL it is.

    :raises InvalidPath: there is no directory, or an option is not known or cannot be read.
    """
    path, query = _split(client)
    options: Mapping[str, Any] = client.transport_options or {}
    try:
        values = read_url_options([(key, value) for key, value in options.items() if key in OPTIONS], OPTIONS)
        values |= read_url_options(parse_qsl(query, keep_blank_values=True), OPTIONS)
    except ConfigError as error:
        raise InvalidPath(f'{SCHEME}:// URL: {error}') from error
    directory = path or str(options.get('directory', ''))
    if not directory and not values.get('config'):
        raise InvalidPath(f'the URL names no directory: write {SCHEME}:///var/spool/NAME')
    return Address(directory=directory, **values)


def _split(client: Any) -> tuple[str, str]:
    """:return: the path, and the options as text."""
    host, path, query = client.hostname or '', client.virtual_host or '', ''
    if '://' in host:
        try:
            url = urlsplit(host)
            url.port  # noqa: B018 - it is read, and may be no number
        except ValueError as error:
            raise InvalidPath(f'no URL: {error}; write {SCHEME}:///path') from error
        host, path, query = url.hostname or '', unquote(url.path), url.query
    elif host.startswith('/'):  # Connection('/var/spool/x', transport='switchboard')
        return host, ''
    if host not in _LOCAL_HOSTS:
        raise InvalidPath(f'{host!r}: a spool is on this machine; write {SCHEME}:///path, with three slashes')
    path, _, more = path.partition('?')
    path = path.strip('/')
    return (f'/{path}' if path else ''), query or more
