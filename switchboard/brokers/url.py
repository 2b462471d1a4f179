"""Broker URLs: where a broker is, and how a queue on it is used: ``amqp://user:secret@host/vhost?option=value``.

The options here are ours and are taken out; the rest goes to kombu, which has some of its own.
Several addresses of one cluster are separated by a semicolon, as kombu writes them; the options of the first count.

The options of TLS (which certificates to believe, and which one to show) have kombu's names for Redis, and mean the same for RabbitMQ, where kombu itself
hands them on under names that py-amqp does not know.  Without an option, the broker's certificate must be signed by an authority that this machine trusts,
and name the host of the URL.  That is stricter than the libraries are by default: kombu takes any certificate for ``rediss://``, and py-amqp one of any host.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from switchboard.config.units import choice, integer, is_loopback
from switchboard.config.url_options import UrlOption, absolute_path, read_url_options, seconds, yes_or_no
from switchboard.errors import ConfigError
from switchboard.regular_file import open_regular_file

RABBITMQ, REDIS = 'rabbitmq', 'redis'
KINDS = {'amqp': RABBITMQ, 'amqps': RABBITMQ, 'pyamqp': RABBITMQ, 'redis': REDIS, 'rediss': REDIS}
MAX_SLICES = 256
TLS_SCHEMES = ('amqps', 'rediss')
# How the names of all options of TLS begin.
TLS_PREFIX = 'ssl'


class Tls(NamedTuple):
    """The encryption of a connection.

    :ivar ca_certs: a file of certificates: of the authorities that may sign the broker's.
    :ivar certfile: our own certificate, for brokers that ask for one.
    :ivar keyfile: its key, if that is not in the same file.
    :ivar must_verify: is a certificate that nobody known has signed refused?
    :ivar check_hostname: is one of another host refused?
    """

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    must_verify: bool = True
    check_hostname: bool = True

    def check_files(self) -> None:
        """Read the files.

        :raises ConfigError: one of them is not there, or not what it should be.  The libraries would not say which.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca_certs is not None:
            with _reading('ssl_ca_certs', self.ca_certs):
                open_regular_file(self.ca_certs).close()
                context.load_verify_locations(self.ca_certs)
        if self.certfile is not None:
            for option, path in (('ssl_certfile', self.certfile), ('ssl_keyfile', self.keyfile)):
                if path is not None:
                    with _reading(option, path):
                        open_regular_file(path).close()
            with _reading('ssl_certfile', self.certfile):
                # A key that is encrypted is an error: nobody is there to be asked for the password.
                context.load_cert_chain(self.certfile, self.keyfile, password='')

    def explain(self, reason: str) -> str:
        """:return: why there is no connection, for people.  A broker that misses a certificate may hang up without a word."""
        if self.certfile or not any(word in reason for word in ('EOF', 'reset', 'closed')):
            return reason
        return f'{reason}; it may want a certificate: ssl_certfile'

    def for_redis(self) -> dict[str, Any]:
        """:return: the arguments that kombu hands on to redis-py."""
        arguments = {f'ssl_{name}': value for name, value in self._arguments.items()}
        return arguments | {'ssl_check_hostname': self._checks_hostname}

    def for_rabbitmq(self, host: str) -> dict[str, Any]:
        """:return: the arguments that kombu hands on to py-amqp, which checks the name that it is given."""
        return self._arguments | ({'server_hostname': host} if self._checks_hostname else {})

    @property
    def _arguments(self) -> dict[str, Any]:
        mode = ssl.CERT_REQUIRED if self.must_verify else ssl.CERT_NONE
        files = {'ca_certs': self.ca_certs, 'certfile': self.certfile, 'keyfile': self.keyfile}
        return {**files, 'cert_reqs': mode}

    @property
    def _checks_hostname(self) -> bool:
        return self.must_verify and self.check_hostname


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """A broker's address, and our options.

    :ivar address: for kombu.
    :ivar shown: for people: without the password.
    :ivar heartbeat_s: RabbitMQ takes a connection for dead that is silent for twice this long.
    :ivar lease_s: on Redis, how long a message stays with a holder that renews no lease.
    :ivar queue: the broker's name of the queue, if it is another than ours.
    :ivar slices: over how many of the broker's queues the messages are spread, by order key.
    :ivar queue_type: RabbitMQ's: ``classic`` or ``quorum``.
    :ivar declare: make the queue if it is not there, and insist on its arguments.
    :ivar sends_tracebacks: tracebacks go along in the histories of messages.
    :ivar allows_clear_text: a password may go over a network as it is.
    :ivar tls: how the connection is encrypted; None if it is not.
    """

    kind: str
    address: str = field(repr=False)
    shown: str
    heartbeat_s: float = 30.0
    lease_s: float = 60.0
    queue: str = ''
    slices: int = 1
    queue_type: str = 'classic'
    declare: bool = True
    sends_tracebacks: bool = True
    allows_clear_text: bool = False
    tls: Tls | None = None

    def check_exchange_type(self, exchange: str, type: str) -> None:
        """:raises ConfigError: kombu has no exchanges of that type on Redis which keep what they are given."""
        if self.kind != REDIS or type in ('direct', 'topic'):
            return
        what = 'a fanout of kombu stores nothing' if type == 'fanout' else f'kombu has no {type} exchange'
        raise ConfigError(f'{exchange}: on Redis, {what}; take a topic and "#"')

    def password_warning(self, section: str, *, has_password: bool = False) -> ConfigError | None:
        """Warn of a password that would go over a network in clear text.

        :param has_password: there is one that does not stand in the URL.
        :return: the warning; None if no password does, or the URL says that it may.
        """
        if self.tls is not None or self.allows_clear_text:
            return None
        for address in self.address.split(';'):
            parts = urlsplit(address)
            host = parts.hostname or 'localhost'
            if (has_password or parts.password) and not is_loopback(host):
                secure = 'amqps://' if self.kind == RABBITMQ else 'rediss://'
                reason = (
                    f'the password for {host} goes over the network in clear text: write {secure}, or say `clear_text=yes` in the URL '
                    'if it may'
                )
                return ConfigError(reason, section=section, key='url')
        return None


def _name(text: str) -> str:
    if not text or len(text.encode()) > 200 or text.startswith('amq.'):
        raise ValueError('must be 1 to 200 bytes, not starting with amq.')
    return text


_OPTIONS: dict[str, UrlOption] = {
    'heartbeat': UrlOption('heartbeat_s', seconds(1.0)),
    'lease': UrlOption('lease_s', seconds(1.0)),
    'queue': UrlOption('queue', _name),
    'slices': UrlOption('slices', integer(1, MAX_SLICES)),
    'type': UrlOption('queue_type', choice('classic', 'quorum')),
    'declare': UrlOption('declare', yes_or_no),
    'tracebacks': UrlOption('sends_tracebacks', yes_or_no),
    'clear_text': UrlOption('allows_clear_text', yes_or_no),
}
# Those that mean something on one kind of broker only.
_ONLY = {'heartbeat': RABBITMQ, 'type': RABBITMQ, 'declare': RABBITMQ, 'lease': REDIS}


def _verify(text: str) -> bool:
    # A client that says "optional" is shown a certificate all the same, and then it counts.
    word = text.lower().removeprefix('cert_')
    if word not in ('required', 'optional', 'none'):
        raise ValueError('must be required or none')
    return word != 'none'


_TLS_OPTIONS: dict[str, UrlOption] = {
    'ssl_ca_certs': UrlOption('ca_certs', absolute_path),
    'ssl_certfile': UrlOption('certfile', absolute_path),
    'ssl_keyfile': UrlOption('keyfile', absolute_path),
    'ssl_cert_reqs': UrlOption('must_verify', _verify),
    'ssl_check_hostname': UrlOption('check_hostname', yes_or_no),
}


def _read_tls(scheme: str, options: Mapping[str, str]) -> Tls | None:
    """Read a URL's options of TLS.

    :return: None for a connection that is not encrypted.
    :raises ConfigError: one is not known, or cannot be read, or the connection is not encrypted.
    """
    found = read_url_options(options.items(), _TLS_OPTIONS)
    if options and scheme not in TLS_SCHEMES:
        raise ConfigError(f'{next(iter(options))!r} is for TLS: write amqps:// or rediss://', key='url')
    if 'keyfile' in found and 'certfile' not in found:
        raise ConfigError("'ssl_keyfile' is the key of an 'ssl_certfile', and there is none", key='url')
    return Tls(**found) if scheme in TLS_SCHEMES else None


@contextmanager
def _reading(option: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of which ssl.SSLError is one
        raise ConfigError(f'{option} = {path}: {error.strerror or error}', key='url') from error


def is_broker_url(text: str) -> bool:
    """:return: whether it names a broker of a kind that is known here."""
    return text.partition('://')[0].lower() in KINDS and '://' in text


def read_broker_url(text: str) -> BrokerUrl:
    """Take a URL apart.

    :raises ConfigError: it is of no known kind, or an option is not known or cannot be read.
    """
    first, *others = text.split(';')
    scheme = first.partition('://')[0].lower()
    if not is_broker_url(first):
        # A text without a scheme may be a password from its beginning to its end.
        what = f'{scheme[:40]!r}' if '://' in first else 'this'
        reason = f'{what} is no broker that is known here: write amqp://, amqps://, redis:// or rediss://'
        raise ConfigError(reason, key='url')
    kind = KINDS[scheme]
    options = parse_qsl(first.partition('?')[2], keep_blank_values=True)
    tls = _read_tls(scheme, {name: value for name, value in options if name.startswith(TLS_PREFIX)})
    if any('://' in other and other.partition('://')[0].lower() != scheme for other in others):
        raise ConfigError(f'all addresses of a cluster are {scheme}://, as the first', key='url')
    addresses = [first, *(other if '://' in other else f'{scheme}://{other}' for other in others)]
    place, *_ = map(_place, addresses)
    url = BrokerUrl(kind, '', f'{scheme}://{place}', tls=tls)
    ours = [(name, value) for name, value in options if name in _OPTIONS]
    for name, _ in ours:
        if _ONLY.get(name, kind) != kind:
            raise ConfigError(f'{name!r} is an option for {_ONLY[name]}, and this is {kind}', key='url')
    url = replace(url, **read_url_options(ours, _OPTIONS))
    return replace(url, address=';'.join(map(_without_ours, addresses)))


def _place(address: str) -> str:
    """:return: the host, the port and the path of an address, which may be shown.

    :raises ConfigError: the address is no URL.
    """
    try:
        address.encode()  # half a pair of surrogates cannot be sent
        parts = urlsplit(address)
        return f'{parts.hostname or "localhost"}{f":{parts.port}" if parts.port else ""}{parts.path}'
    except ValueError:
        # The wrong part may be the password, so it is not shown.
        reason = 'not a URL: write / # ? @ : in a password as %2F %23 %3F %40 %3A'
        raise ConfigError(reason, key='url') from None


def _without_ours(address: str) -> str:
    """Take our options out of an address of a cluster; those of the first count."""
    bare, _, query = address.partition('?')
    rest = [
        (name, value)
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name not in _OPTIONS and not name.startswith(TLS_PREFIX)
    ]
    return f'{bare}?{urlencode(rest)}' if rest else bare
